"""What a campaign tells while it runs: events for machines, a Prometheus file, lines for people, SIGTERM."""

import json
import os
import pty
import re
import select
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from test_cli import START, environment

from qfuzz.campaign.state import read_snapshot
from qfuzz.cli import cli
from qfuzz.cli.rim import run_cli

FAULT = "planted?fault=truncation"
RUN = ["run", "-b", FAULT, "-b", "reference", "--ops", "linear", "--max-nodes", "1", "--seed", "5", "--jobs", "1"]


def events(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_every_line_is_an_event(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    args = [*RUN, "--max-examples", "250", "--out", str(tmp_path), "--json-lines"]
    assert run_cli(cli, args) == 1
    captured = capsys.readouterr()
    assert captured.err == ""
    told = events(captured.out)
    assert all({"event", "seconds"} <= e.keys() for e in told)
    assert [e["seconds"] for e in told] == sorted(e["seconds"] for e in told)
    assert told[0]["event"] == "start"
    assert told[0]["specs"] == [FAULT, "reference"]
    assert {e["event"] for e in told} == {"start", "progress", "accused", "finding", "end"}
    document = told[-1]["document"]
    assert document == json.loads((tmp_path / "run.json").read_text())
    assert [e["signature"] for e in told if e["event"] == "finding"] == [f["signature"] for f in document["findings"]]
    accused = [e for e in told if e["event"] == "accused"]
    assert {e["backend"] for e in accused} == {FAULT}
    assert sum(e["new"] for e in accused) == len({(e["op"], e["verdict"], e["cause"], e["kind"]) for e in accused})
    examples = [e["examples"] for e in told if e["event"] == "progress"]
    assert examples == sorted(examples)


def test_the_prometheus_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    metrics = tmp_path / "deep" / "qfuzz.prom"
    args = [*RUN, "--max-examples", "60", "--out", str(tmp_path / "out"), "--metrics", str(metrics), "--json"]
    assert run_cli(cli, args) == 1
    document = json.loads(capsys.readouterr().out)
    families = {f.name: f for f in text_string_to_metric_families(metrics.read_text())}
    values = {name: {tuple(s.labels.values()): s.value for s in f.samples} for name, f in families.items()}
    assert values["qfuzz_examples"][()] == document["examples"] == 60
    assert values["qfuzz_elements"][()] == document["elements"]
    assert values["qfuzz_findings"] == {("false",): len(document["findings"]), ("true",): 0}
    for backend in document["backends"]:
        for verdict, n in backend["verdicts"].items():
            assert values["qfuzz_verdicts"][backend["name"], verdict] == n
    assert {stage for (stage,) in values["qfuzz_stage_seconds"]} <= document["stage_seconds"].keys()
    assert abs(values["qfuzz_updated_timestamp_seconds"][()] - time.time()) < 600
    assert [p.name for p in metrics.parent.iterdir()] == ["qfuzz.prom"]


def test_a_place_where_no_metrics_can_be_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    args = [*RUN, "--max-examples", "5", "--out", str(tmp_path / "out"), "--metrics", str(tmp_path / "file" / "m.prom")]
    assert run_cli(cli, args) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_a_terminal_sees_a_live_view(tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    command = [*START, *RUN, "--time", "6s", "--out", "out"]
    terminal = environment() | {"TERM": "xterm", "COLUMNS": "140", "LINES": "40"}
    terminal.pop("NO_COLOR")
    process = subprocess.Popen(command, cwd=tmp_path, env=terminal, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    shown = b""
    while select.select([ours], [], [], 30)[0]:
        try:
            data = os.read(ours, 2**16)
        except OSError:
            break
        if not data:
            break
        shown += data
    os.close(ours)
    assert process.wait(timeout=30) == 1
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.decode("utf-8", "replace"))
    for part in ("starting workers", "time: generate", "features", "worker death", "FINDING: linear", "viol."):
        assert part in text, part


def test_sigterm_ends_it_in_order(tmp_path: Path) -> None:
    command = [*START, *RUN, "--time", "forever", "--json-lines", "--out", "out"]
    process = subprocess.Popen(command, cwd=tmp_path, env=environment(), stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for line in process.stdout:
        if json.loads(line)["event"] == "accused":
            process.send_signal(signal.SIGTERM)
            break
    rest = events(process.stdout.read())
    assert process.wait(timeout=60) == 130
    document = rest[-1]["document"]
    assert document["stopped"] == "interrupted"
    assert document["findings"]
    assert all((tmp_path / f["path"] / "case.json").is_file() for f in document["findings"])
    snapshot = read_snapshot(tmp_path / "out")
    assert snapshot.stopped == "interrupted"
    assert snapshot.tally.examples == document["examples"]
