"""What NIGHTLY.md documents, as far as it can be run here: the workflow, and every command on the page."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from qfuzz.cli import cli
from scripts import FAKES, QFUZZ, ROOT, environment, loaded

PAGE = (ROOT / "qfuzz" / "NIGHTLY.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def workflow() -> dict[Any, Any]:
    (text,) = re.findall(r"```yaml\n(.*?)```", PAGE, flags=re.DOTALL)
    read: dict[Any, Any] = yaml.safe_load(text)
    return read


def test_the_page_is_short() -> None:
    lines = PAGE.splitlines()
    assert len(lines) <= 80
    assert max(map(len, lines)) <= 136


def test_the_workflow_is_one(workflow: dict[Any, Any]) -> None:
    assert workflow[True]["schedule"][0]["cron"].count(" ") == 4  # YAML 1.1 reads `on` as true
    job = workflow["jobs"]["nightly"]
    steps = job["steps"]
    assert all(("uses" in step) != ("run" in step) for step in steps)
    used = {step["uses"].split("@")[0]: step for step in steps if "uses" in step}
    saved, restored = used["actions/cache/save"], used["actions/cache/restore"]
    assert saved["if"] == used["actions/upload-artifact"]["if"] == "always()", "what was found survives a red night"
    assert saved["with"]["key"] == restored["with"]["key"]
    assert saved["with"]["key"].startswith(restored["with"]["restore-keys"])
    out = loaded("nightly").parsed([]).out
    assert {Path(u["with"]["path"]) for n, u in used.items() if "cache" in n or "artifact" in n} == {out}
    assert workflow["permissions"]["issues"] == "write"
    limits = [job["timeout-minutes"], *(s["timeout-minutes"] for s in steps if "timeout-minutes" in s)]
    assert limits == [150, 130], "the night ends before its step, the step before its job"


def test_its_commands_run(workflow: dict[Any, Any], tmp_path: Path) -> None:
    """All but pip's, in the order of the workflow, by the shell; the night is shorter, over a kernel that is right."""
    (tmp_path / "scripts").symlink_to(ROOT / "scripts")
    (tmp_path / "corpus").symlink_to(ROOT / "corpus")
    (tmp_path / "tracker").mkdir()
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "qfuzz").write_text(f'#!/bin/sh\nexec {QFUZZ} "$@"\n')
    (programs / "qfuzz").chmod(0o755)
    path = os.pathsep.join([str(programs), str(FAKES), os.path.dirname(sys.executable), os.environ["PATH"]])
    env = environment(PATH=path, FAKE_GH=str(tmp_path / "tracker"), RUN="https://ci.invalid/runs/1")
    commands = [step["run"] for step in workflow["jobs"]["nightly"]["steps"] if "run" in step]
    assert [shlex.split(c)[0] for c in commands] == ["pip", "gh", "./scripts/nightly"]
    for command in commands[1:]:
        if "nightly" in command:
            assert "--time 2h " in command
            command = command.replace("--time 2h ", "--time 3s ") + " -b 'planted?fault=none' --jobs 1"
        done = subprocess.run(
            ["bash", "-e", "-c", command],
            cwd=tmp_path,
            env=env,
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
        assert done.returncode == 0, (command, done.stdout, done.stderr)
    assert "--corpus corpus" in done.stdout
    assert (tmp_path / "qfuzz-nightly" / "run.json").is_file()


def commands_of(page: str) -> list[list[str]]:
    """Commands in the page's indented blocks, by the words that a shell makes of them."""
    text = re.sub(r"\\\n\s+", "", page)
    lines = re.findall(r"^    (?:\$ )?(\./scripts/.*)$", text, flags=re.MULTILINE)
    return [shlex.split(line) for line in lines]


def test_every_command_of_the_page_parses() -> None:
    found = commands_of(PAGE)
    assert [c[0] for c in found] == ["./scripts/nightly", "./scripts/bisect-versions"]
    runner = CliRunner()
    for program, *arguments in found:
        options = loaded(Path(program).name).parsed(arguments)
        kind, rest = ("run", options.run_options) if "nightly" in program else ("compare", options.compare_options)
        assert rest
        # What follows `--` is known to qfuzz, and would be used up to --help.
        parsed = runner.invoke(cli, [kind, *rest, "--help"])
        assert parsed.exit_code == 0, parsed.output
        for option in (word for word in rest if word.startswith("-")):
            assert re.search(rf"(^|[\s,]){re.escape(option)}\b", parsed.output), option


def test_options_named_in_the_text_exist() -> None:
    """Every option in back quotes, of one of the scripts or of `qfuzz run`."""
    said = (
        "".join(
            subprocess.run(
                [sys.executable, str(ROOT / "scripts" / s), "--help"], capture_output=True, text=True, check=True
            ).stdout
            for s in ("nightly", "bisect-versions")
        )
        + CliRunner().invoke(cli, ["run", "--help"]).output
    )
    named = set(re.findall(r"`(--[a-z-]+)", PAGE))
    assert {"--out", "--fresh", "--case", "--python"} <= named
    assert {option for option in named if not re.search(rf"{option}\b", said)} == set()
