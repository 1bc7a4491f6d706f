"""A user's Python file that builds no auditable model: one clear line, whatever it does."""

from pathlib import Path

import pytest

pytest.importorskip("torch", reason="torch is not installed: its models cannot be audited")

from qfuzz.audit.layer import Layer, judge
from qfuzz.audit.torch_layers import layers_of_builder, layers_of_module
from qfuzz.ir.errors import InvalidCase

GOOD = """
import torch
from helper_of_the_file import SCALE

class Quantize(torch.nn.Module):
    def forward(self, x):
        print("running")
        return torch.quantize_per_tensor(x, SCALE, 3, torch.quint8)

print("loading")

def build():
    print("building")
    return Quantize(), torch.randn(2, 3)
"""

BAD = {
    "def build(:\n": "SyntaxError",
    "import no_such_module_anywhere\n": "ModuleNotFoundError: No module named 'no_such_module_anywhere'",
    "raise RuntimeError('at the top\\nof two lines')\n": "RuntimeError: at the top",
    "import sys; sys.exit(3)\n": "SystemExit: 3",
    "x = 1\n": "no function 'build'",
    "build = 3\n": "no function 'build'",
    "def build():\n    raise ValueError('no weights here')\n": "ValueError: no weights here",
    "def build():\n    import sys; sys.exit('gone')\n": "SystemExit: gone",
    "def build():\n    assert False\n": "AssertionError",
    "def build(required):\n    pass\n": "TypeError: build() missing 1 required positional argument",
    "def build():\n    pass\n": "returned None",
    "import torch\ndef build():\n    return torch.nn.ReLU()\n": "returned a ReLU",
    "def build():\n    return 1, 2\n": "returned (int, int)",
    "import torch\ndef build():\n    return torch.nn.ReLU(), torch.ones(1), 3\n": "returned (ReLU, Tensor, int)",
    "import torch\ndef build():\n    return torch.nn.ReLU(), 'inputs'\n": "example inputs are a str",
    "import torch\ndef build():\n    return torch.nn.ReLU(), ()\n": "example inputs are ()",
    "import torch\ndef build():\n    return torch.nn.Linear(3, 2), torch.ones(1, 4)\n": "does not run on these inputs",
    "import torch\ndef build():\n    return torch.nn.ReLU(), (torch.ones(1),) * 2\n": "does not run on these inputs",
}


@pytest.mark.parametrize("source", BAD, ids=range(len(BAD)))
def test_a_file_that_builds_no_model_is_one_clear_line(source: str, tmp_path: Path) -> None:
    path = tmp_path / "model.py"
    path.write_text(source)
    with pytest.raises(InvalidCase) as error:
        list(layers_of_builder(path, "build"))
    assert BAD[source] in str(error.value) and "\n" not in str(error.value)


def test_a_file_that_is_missing_or_no_python_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(InvalidCase, match="no such file"):
        list(layers_of_builder(tmp_path / "nowhere.py", "build"))
    (tmp_path / "model.txt").write_text(GOOD)
    with pytest.raises(InvalidCase, match=r"its name ends in \.py"):
        list(layers_of_builder(tmp_path / "model.txt", "build"))
    (tmp_path / "model.py").write_bytes(b"\x00\xff\xfe")
    with pytest.raises(InvalidCase, match=r"model\.py"):
        list(layers_of_builder(tmp_path / "model.py", "build"))


def test_a_file_imports_its_neighbours_and_prints_to_stderr(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "helper_of_the_file.py").write_text("SCALE = 0.5\n")
    (tmp_path / "model.py").write_text(GOOD)
    (layer,) = layers_of_builder(tmp_path / "model.py", "build")
    assert isinstance(layer, Layer) and judge(layer).violation == 0
    printed = capsys.readouterr()
    assert printed.out == "" and printed.err == "loading\nbuilding\nrunning\n"


def test_what_is_no_module_is_refused() -> None:
    with pytest.raises(InvalidCase, match="dict; audit takes a"):
        list(layers_of_module({}, ()))
