"""The corpus format: what is written is read back bit for bit, the same case is the same file, and it is published."""

import json
from importlib.resources import files
from typing import Any

import jsonschema
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small_cases import all_cases, linear_case

import qfuzz
from qfuzz.ir.codec import SCHEMA_VERSION, schema_bytes
from qfuzz.ir.errors import InvalidCase
from qfuzz.ir.expectation import Condition, Expectation
from qfuzz.ir.network import Case, Constant, Input, Network, Node
from qfuzz.ir.qtype import FLOAT32_MIN_NORMAL, QType
from qfuzz.ir.tensor import Tensor, TensorType
from qfuzz.ops import CODEC, OPERATOR_NAMES
from qfuzz.ops.quantization import Quantize
from qfuzz.ops.selection import Where

SAME = settings(
    max_examples=60,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
SCHEMA = jsonschema.Draft202012Validator(CODEC.schema())


@SAME
@given(qfuzz.cases())
def test_round_trip_and_stable_bytes(case: Case) -> None:
    data = CODEC.encode(case)
    read = CODEC.decode(data).case
    assert read == case
    assert hash(read) == hash(case)
    assert CODEC.encode(read) == data
    assert data.endswith(b"}\n")
    SCHEMA.validate(json.loads(data))


def test_equal_cases_made_apart_have_equal_bytes() -> None:
    assert CODEC.encode(linear_case()) == CODEC.encode(linear_case())


@SAME
@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1, max_size=6))
def test_floats_are_exact(values: list[float]) -> None:
    """Signed zeros and subnormal numbers, too."""
    q = QType.per_tensor("int8", FLOAT32_MIN_NORMAL, -128)
    kind = TensorType((len(values),), "float32")
    case = Case(
        Network((Input("x", kind),), (), (Node("y", Quantize(), ("x",), q),), ("y",)),
        (Tensor(np.array(values, dtype=np.float32)),),
    )
    read = CODEC.decode(CODEC.encode(case)).case
    assert read.inputs[0].array.tobytes() == case.inputs[0].array.tobytes()
    assert read == case


@pytest.mark.parametrize("is_constant", [False, True])
def test_conditions_are_written_as_0_and_1(is_constant: bool) -> None:
    q = QType.per_tensor("int8", 1.0, 0)
    chosen, data = TensorType((3,), "bool"), Tensor(np.array([True, False, True]))
    x, condition = Input("x", TensorType((3,), q)), Input("c", chosen)
    network = Network(
        (x,) if is_constant else (x, condition),
        (Constant("c", chosen, data),) if is_constant else (),
        (Node("y", Where(), ("x", "x", "c"), q),),
        ("y",),
    )
    zeros = Tensor(np.zeros(3, dtype=np.int8))
    case = Case(network, (zeros,) if is_constant else (zeros, data))
    written = CODEC.encode(case)
    assert CODEC.decode(written).case == case
    SCHEMA.validate(json.loads(written))
    assert written.count(b"[1, 0, 1]") == 1
    for other in (b"[1, 0, 2]", b"[1, 0, 0.5]", b"[1, 0, true]"):
        with pytest.raises(InvalidCase):
            CODEC.decode(written.replace(b"[1, 0, 1]", other))


@pytest.mark.parametrize("name", sorted(all_cases()))
def test_expectations_are_kept(name: str) -> None:
    expect = (
        Expectation("torch-*", "holds", note="must hold"),
        Expectation("onnxruntime?format=qdq", "violation", Condition(cpu_lacks=("avx512_vnni",)), "a/b/c/d", "link"),
    )
    data = CODEC.encode(all_cases()[name], expect)
    assert CODEC.decode(data).expect == expect
    SCHEMA.validate(json.loads(data))
    assert CODEC.decode(CODEC.encode(all_cases()[name])).expect == ()


def test_the_published_schema_is_current() -> None:
    """To renew it: write `qfuzz.ir.codec.schema_bytes(CODEC)` to qfuzz/ir/case.schema.json."""
    published = files("qfuzz.ir").joinpath("case.schema.json").read_bytes()
    assert published == schema_bytes(CODEC)
    jsonschema.Draft202012Validator.check_schema(json.loads(published))
    text = published.decode()
    for name in OPERATOR_NAMES:
        assert f'"{name}"' in text


def _with(change: Any) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(CODEC.encode(linear_case()))
    change(document)
    return document


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d.pop("network"),
        lambda d: d.update(extra=1),
        lambda d: d["network"]["nodes"][0]["op"].update(op="fold"),
        lambda d: d["network"]["nodes"][0]["op"].update(relu="yes"),
        lambda d: d["inputs"][0].update(dtype="float64"),
        lambda d: d["network"]["inputs"][0]["type"].update(shape="2, 3"),
    ],
)
def test_the_schema_and_the_codec_refuse_the_same(change: Any) -> None:
    document = _with(change)
    assert not SCHEMA.is_valid(document)
    with pytest.raises(InvalidCase):
        CODEC.decode(json.dumps(document).encode())


def test_the_schema_version_is_what_files_say() -> None:
    assert json.loads(CODEC.encode(linear_case()))["schema"] == SCHEMA_VERSION == 1
    assert _with(lambda d: None)["format"] == "qfuzz-case"


def test_loading_executes_nothing() -> None:
    """A pickle is no case, whatever it would do."""
    with pytest.raises(InvalidCase, match="not a qfuzz case"):
        CODEC.decode(b"cos\nsystem\n(S'touch pwned'\ntR.")
