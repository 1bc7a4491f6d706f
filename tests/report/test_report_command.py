"""``qfuzz report DIR``: from a real campaign to a page; what it refuses; what it never puts into a page."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from small_cases import linear_case

from qfuzz.campaign.record import Record
from qfuzz.cli import COMMANDS, cli
from qfuzz.cli.rim import run_cli
from qfuzz.ops import CODEC

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def campaign(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real campaign on a kernel that truncates, which is found."""
    folder = tmp_path_factory.mktemp("campaign") / "out"
    arguments = ["run", "-b", "misbehaving:Truncates", "--ops", "linear", "--max-examples", "30", "--seed", "1"]
    assert run_cli(cli, [*arguments, "--out", str(folder), "-q"]) == 1
    return folder


def test_a_campaign_becomes_a_page(campaign: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "deep" / "page.html"
    assert run_cli(cli, ["report", str(campaign), "--out", str(out), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"schema": 1, "report": str(out)}
    page = out.read_text("utf-8")
    assert page.startswith("<!DOCTYPE html>")
    assert "misbehaving:Truncates" in page
    assert 'download="repro.py"' in page
    first = out.read_bytes()
    assert run_cli(cli, ["report", str(campaign), "--out", str(out), "-q"]) == 0
    assert capsys.readouterr().out == ""
    assert out.read_bytes() == first
    assert run_cli(cli, ["report", str(campaign)]) == 0
    assert capsys.readouterr().out.strip() == str(campaign / "report.html")
    assert (campaign / "report.html").read_bytes() == first


def test_bad_input_writes_nothing(campaign: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (
        [str(tmp_path / "nowhere")],
        [str(tmp_path)],
        [str(campaign), "--out", str(tmp_path)],
        [str(campaign), "--out", str(campaign / "run.json" / "page.html")],
    ):
        assert run_cli(cli, ["report", *arguments]) == 2
        said = capsys.readouterr()
        assert said.out == ""
        assert len(said.err.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("package", ["matplotlib", "jinja2"])
def test_what_is_not_installed_is_said_in_one_line(campaign: Path, tmp_path: Path, package: str) -> None:
    out = tmp_path / "page.html"
    script = (
        f"import sys; sys.modules[{package!r}] = None; from qfuzz.cli import main; "
        f"sys.argv = ['qfuzz', 'report', {str(campaign)!r}, '--out', {str(out)!r}]; main()"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 3
    assert done.stderr == f"qfuzz: error: the report needs {package}; pip install 'qfuzz[report]'\n"
    assert not out.exists()


def test_help_loads_no_plotting() -> None:
    assert "report" in COMMANDS
    script = (
        "import sys; from qfuzz.cli import cli; from qfuzz.cli.rim import run_cli; run_cli(cli, ['--help']); "
        "run_cli(cli, ['report', '--help']); assert not {'matplotlib', 'jinja2'} & set(sys.modules)"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", script], env=environment, check=True, capture_output=True)


def folders_of(folder: Path, *findings: dict[str, Any]) -> dict[str, dict[str, bytes]]:
    from qfuzz.cli.report_command import finding_folders

    document = {"findings": list(findings)}
    return finding_folders(
        Record(document=document, described={}, by_op={}, steps={}, coverage={}, timeline=()), folder
    )


def test_a_finding_brings_its_files(tmp_path: Path) -> None:
    (tmp_path / "bug" / "test_data_set_0").mkdir(parents=True)
    (tmp_path / "bug" / "repro.py").write_bytes(b"x")
    (tmp_path / "bug" / "test_data_set_0" / "input_0.pb").write_bytes(b"y")
    known = tmp_path / "known.json"
    known.write_bytes(CODEC.encode(linear_case()))
    found = folders_of(tmp_path, {"path": "elsewhere/bug"}, {"path": str(known), "known": True}, {"path": "gone"})
    assert found == {
        "elsewhere/bug": {"repro.py": b"x", "test_data_set_0/input_0.pb": b"y"},
        str(known): {"known.json": known.read_bytes()},
    }


def test_a_record_cannot_ask_for_other_files(tmp_path: Path) -> None:
    """A page that is sent to others holds what the campaign wrote, and cases; not what its record names."""
    campaign = tmp_path / "campaign"
    (campaign / "bug").mkdir(parents=True)
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "key.json").write_text('{"key": 1}')
    (secret / "key").write_text("1")
    (campaign / "bug" / "key").symlink_to(secret / "key")
    (campaign / "bug" / "inner").symlink_to(secret, target_is_directory=True)
    (campaign / "linked").symlink_to(secret, target_is_directory=True)
    asked = [
        {"path": str(secret)},
        {"path": "../secret"},
        {"path": "bug"},
        {"path": "linked"},
        {"path": ".."},
        {"path": "."},
        {"path": str(secret / "key.json"), "known": True},
        {"path": str(secret / "key"), "known": True},
        {"path": str(secret), "known": True},
        {"path": "a\0b"},
        {"path": "a\0b.json", "known": True},
        {"path": 7},
        {},
    ]
    assert folders_of(campaign, *asked) == {}
