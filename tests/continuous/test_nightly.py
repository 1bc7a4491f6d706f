"""`scripts/nightly`: real campaigns over planted faults, and a tracker in a folder."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from qfuzz.findings.corpus import read_case
from qfuzz.ir.expectation import Expectation
from qfuzz.ops import CODEC
from scripts import FAKES, QFUZZ, ROOT, environment, loaded, run

FAULT = "planted?fault=truncation"
PLANTED = ["-b", FAULT, "--ops", "linear", "--ops", "add", "--max-nodes", "1", "--jobs", "1"]
SHORT = ["--max-examples", "40"]


class Tracker:
    """Issues in a folder."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        self.folder = folder

    @property
    def issues(self) -> list[dict[str, str]]:
        return [json.loads(f.read_text()) for f in sorted(self.folder.glob("*.json"))]

    @property
    def calls(self) -> list[list[str]]:
        log = self.folder / "calls.log"
        return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []

    def close_all(self) -> None:
        for file in self.folder.glob("*.json"):
            file.write_text(json.dumps(json.loads(file.read_text()) | {"state": "closed"}))

    def environment(self, **more: str) -> dict[str, str]:
        path = os.pathsep.join([str(FAKES), os.path.dirname(sys.executable), os.environ["PATH"]])
        return environment(PATH=path, FAKE_GH=str(self.folder), **more)


@pytest.fixture
def tracker(tmp_path: Path) -> Tracker:
    return Tracker(tmp_path / "tracker")


def night(folder: Path, tracker: Tracker, *args: str, code: int, options: list[str] | None = None, **more: str) -> str:
    """What a night prints, once its exit code is right."""
    command = ["--qfuzz", QFUZZ, *args, "--", *([*PLANTED, *SHORT] if options is None else options)]
    done = run("nightly", *command, cwd=folder, env=tracker.environment(**more))
    assert done.returncode == code, (done.returncode, done.stdout[-3000:], done.stderr[-3000:])
    return done.stdout


def findings_of(out: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((out / "run.json").read_text())["findings"]
    return found


def seed_of(out: Path) -> int:
    seed: int = json.loads((out / "run.json").read_text())["seed"]
    return seed


def test_every_night_has_other_cases(tmp_path: Path, tracker: Tracker) -> None:
    seeds, out = set(), tmp_path / "qfuzz-nightly"
    for _ in range(2):
        said = night(
            tmp_path, tracker, code=0, options=["-b", "planted?fault=none", "--jobs", "1", "--max-examples", "1"]
        )
        assert f"seed {seed_of(out)}\n" in said
        seeds.add(seed_of(out))
    assert len(seeds) == 2


def test_a_first_night_opens_issues_and_a_second_none(tmp_path: Path, tracker: Tracker) -> None:
    said = night(tmp_path, tracker, "--seed", "5", code=0)
    out = tmp_path / "qfuzz-nightly"
    found = findings_of(out)
    assert len(found) >= 2
    assert seed_of(out) == 5
    assert "seed 5\n" in said
    issues = tracker.issues
    assert len(issues) == len(found)
    for finding in found:
        mark = f"qfuzz signature: `{finding['signature']}`"
        (issue,) = [i for i in issues if mark in i["body"]]
        folder = tmp_path / finding["path"]
        body = issue["body"].replace("\r\n", "\n")
        report = (folder / "report.md").read_text()
        assert issue["title"] == report.splitlines()[0].removeprefix("# ")
        assert issue["label"] == "qfuzz"
        assert body.startswith(report)
        for name in ("repro.py", "case.json"):
            assert (folder / name).read_text() in body
        assert f"folder `{folder.name}`" in body

    first = {f["signature"] for f in found}
    again = night(tmp_path, tracker, "--seed", "7", code=0)
    second = {f["signature"] for f in findings_of(out)}
    assert first & second, "a fault in most of 40 cases: choose another seed should they have nothing in common"
    assert again.count("has an open issue") == len(first & second)
    assert len(tracker.issues) == len(first | second), "one for each"

    tracker.close_all()
    night(tmp_path, tracker, "--red-on-findings", "--seed", "5", code=1)
    open_again = [i for i in tracker.issues if i["state"] == "open"]
    assert len(open_again) == len(first), "closed, and back again"


def test_known_issues_open_none(tmp_path: Path, tracker: Tracker) -> None:
    night(tmp_path, tracker, "--seed", "5", code=0)
    n_issues = len(tracker.issues)
    assert n_issues
    tracker.close_all()
    corpus = tmp_path / "known"
    corpus.mkdir()
    for i, finding in enumerate(findings_of(tmp_path / "qfuzz-nightly")):
        case = read_case(tmp_path / finding["path"]).case
        expect = Expectation(
            FAULT, finding["verdict"], signature=finding["signature"], link="not reported", note="planted"
        )
        (corpus / f"{i}.json").write_bytes(CODEC.encode(case, [expect]))
    before = len(tracker.calls)
    said = night(tmp_path, tracker, "--seed", "5", code=0, options=[*PLANTED, *SHORT, "--corpus", str(corpus)])
    assert "finding (known)" in said
    assert len(tracker.calls) == before, "nothing new, nothing asked of the tracker"


def test_nothing_found_asks_the_tracker_nothing(tmp_path: Path, tracker: Tracker) -> None:
    night(tmp_path, tracker, code=0, options=["-b", "planted?fault=none", "--jobs", "1", *SHORT])
    assert tracker.calls == []


@pytest.mark.parametrize("how", ["interrupted", "killed"])
def test_a_night_cut_short_is_gone_on_with(tmp_path: Path, tracker: Tracker, how: str) -> None:
    """As a job's time limit does it; what was found before is reported, too, though by the night after."""
    command = [sys.executable, str(ROOT / "scripts/nightly"), "--qfuzz", QFUZZ, "--seed", "5"]
    options = [*PLANTED, "--max-examples", "500"]
    pid_file = tmp_path / "pid"
    wrapped = shlex.join(["sh", "-c", f'echo $$ >{pid_file}; exec "$@"', "sh", *shlex.split(QFUZZ)])
    command[command.index(QFUZZ)] = wrapped
    with subprocess.Popen(
        [*command, "--", *options], cwd=tmp_path, env=tracker.environment(), stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        for line in child.stdout:
            if line.startswith("nightly: seed 5, after 0 examples"):
                break
        time.sleep(0.5)
        if how == "interrupted":
            child.send_signal(signal.SIGTERM)
        else:
            os.kill(int(pid_file.read_text()), signal.SIGKILL)
        said = child.stdout.read()
        code = child.wait(60)
    if how == "interrupted":
        assert code == 130, said
    else:
        assert code == 3, said
        assert "died of SIGKILL" in said

    if "are not reduced yet" in said:
        assert tracker.issues == [], "an issue for each would be a second one for the same bug a night later"

    resumed = night(tmp_path, tracker, code=0, options=options)
    assert "--resume" in resumed
    document = json.loads((tmp_path / "qfuzz-nightly/run.json").read_text())
    assert (document["examples"], document["seed"], document["stopped"]) == (500, 5, "")
    texts = " ".join(i["body"] for i in tracker.issues)
    assert len(document["findings"]) == len(tracker.issues) >= 2
    assert all(f"`{f['signature']}`" in texts for f in document["findings"])

    fresh = night(tmp_path, tracker, code=0, options=[*PLANTED, *SHORT])
    assert "nothing to go on with; a new campaign begins" in fresh


def test_a_killed_night_leaves_no_campaign_running(tmp_path: Path, tracker: Tracker) -> None:
    """A job's limit may kill the script alone; what it started must not write to a folder that is being saved."""
    command = [sys.executable, str(ROOT / "scripts/nightly"), "--qfuzz", QFUZZ, "--time", "60s", "--", *PLANTED]
    with subprocess.Popen(command, cwd=tmp_path, env=tracker.environment(), stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        for line in child.stdout:
            if " after 0 examples" in line:
                break
        started = psutil.Process(child.pid).children(recursive=True)
        assert started
        child.kill()
    _, alive = psutil.wait_procs(started, timeout=20)
    assert alive == []


def test_what_a_resumed_campaign_takes() -> None:
    taken = loaded("nightly").taken_when_resumed
    assert taken(["-b", "x", "--jobs", "2", "--ops", "add", "--scheduler=tcp://a:1"]) == [
        *("--jobs", "2"),
        "--scheduler=tcp://a:1",
    ]


@pytest.mark.parametrize("command", ["list", "create"])
def test_a_tracker_that_fails_is_said(tmp_path: Path, tracker: Tracker, command: str) -> None:
    said = night(tmp_path, tracker, "--seed", "5", code=3, FAKE_GH_FAILS=command)
    assert f"gh issue {command} … exited 1: HTTP 401: Bad credentials" in said
    assert "new findings are in qfuzz-nightly" in said
    assert tracker.issues == []
    night(tmp_path, tracker, "--seed", "5", code=0)
    assert tracker.issues


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--opener", "no-such-client {title} {body}"], "no-such-client is not installed"),
        (["--lister", "no-such-client"], "no-such-client is not installed"),
        (["--lister", "echo no"], "echo printed no JSON"),
    ],
)
def test_a_tracker_that_is_not_there_is_said(tmp_path: Path, tracker: Tracker, args: list[str], said: str) -> None:
    done = hostile_night(tmp_path, tracker, *args)
    assert done.returncode == 3
    assert said in done.stdout
    assert tracker.issues == []


def test_no_more_than_max_issues(tmp_path: Path, tracker: Tracker) -> None:
    said = night(tmp_path, tracker, "--seed", "5", "--max-issues", "1", code=1)
    assert len(tracker.issues) == 1
    assert "more than --max-issues 1, no issue for: " in said


def test_what_qfuzz_refuses_is_passed_on(tmp_path: Path, tracker: Tracker) -> None:
    night(tmp_path, tracker, code=2, options=["--ops", "no_such_operator"])
    night(tmp_path, tracker, code=3, options=["-b", "no_such_module:Backend"])
    assert tracker.calls == []
    assert list(tmp_path.iterdir()) == [tracker.folder]


@pytest.mark.parametrize(
    ("args", "named"),
    [
        (["--", "--out", "x"], "--out"),
        (["--", "--seed=3"], "--seed"),
        (["--opener", "gh issue create"], "{title}"),
        (["--max-issues", "-1"], "--max-issues"),
        (["--tme", "3"], "--tme"),
    ],
)
def test_bad_usage(tmp_path: Path, args: list[str], named: str) -> None:
    done = run("nightly", *args, cwd=tmp_path)
    assert done.returncode == 2
    assert named in done.stderr
    assert list(tmp_path.iterdir()) == []


HOSTILE = "add/violation/$(touch pwned); `touch pwned` \"'\\{body}{title}\nqfuzz signature: `other`/-"


def hostile_night(folder: Path, tracker: Tracker, *args: str) -> subprocess.CompletedProcess[str]:
    """A night of a program that says, as qfuzz would, that it found what HOSTILE names."""
    finding = folder / "out" / "add-violation"
    finding.mkdir(parents=True, exist_ok=True)
    report = f"# --web {HOSTILE}\n\n@everyone {{body_file}}\n\nqfuzz signature: `{HOSTILE}`. `repro.py` exits 1.\n"
    (finding / "report.md").write_text(report)
    (finding / "repro.py").write_text("print('```\\n</details>')\n```\n")
    found = {"signature": HOSTILE, "known": False, "path": "../../elsewhere/add-violation"}
    document = {"findings": [found], "examples": 1, "stopped": ""}
    start = {"event": "start", "seed": 1, "specs": ["x"], "resumed_after": 0}
    lines = [start, {"event": "finding", **found}, {"event": "end", "document": document}]
    program = folder / "says.py"
    program.write_text(
        "\n".join(["import sys", *(f"print({json.dumps(json.dumps(x))})" for x in lines), "sys.exit(1)"])
    )
    command = ["--qfuzz", shlex.join([sys.executable, str(program)]), "--out", "out", *args]
    return run("nightly", *command, cwd=folder, env=tracker.environment())


def test_hostile_signatures_and_reports_stay_text(tmp_path: Path, tracker: Tracker) -> None:
    done = hostile_night(tmp_path, tracker)
    assert done.returncode == 0, (done.stdout, done.stderr)
    (issue,) = tracker.issues
    assert issue["title"].startswith("--web add/violation/$(touch pwned); `touch pwned`")
    assert "\n" not in issue["title"]
    assert f"qfuzz signature: `{HOSTILE}`." in issue["body"].replace("\r\n", "\n")
    assert "````python\nprint('```" in issue["body"].replace("\r\n", "\n"), "a fence longer than any in the file"
    assert {p.name for p in tmp_path.iterdir()} == {"out", "says.py", "tracker"}
    assert all(line.startswith("nightly: ") for line in done.stdout.splitlines()), "no forged lines in the log"
    assert hostile_night(tmp_path, tracker).returncode == 0
    assert len(tracker.issues) == 1, "found again, though the tracker changed line ends"


def test_an_opener_may_take_the_body_itself(tmp_path: Path, tracker: Tracker) -> None:
    got = tmp_path / "got.json"
    script = f"import json, sys; json.dump(sys.argv[1:], open({str(got)!r}, 'w'))"
    opener = shlex.join([sys.executable, "-c", script, "new", "--title={title}", "{body}", "{signature}"])
    assert hostile_night(tmp_path, tracker, "--opener", opener).returncode == 0
    new, title, text, signature = json.loads(got.read_text())
    assert (new, signature) == ("new", HOSTILE)
    assert title.startswith("--title=--web add")
    assert "@everyone {body_file}" in text, "values are not looked into"


@pytest.mark.parametrize(
    ("report", "repro", "inlined"),
    [(100, 100, True), (60_000, 4_000, True), (60_000, 6_000, False), (70_000, 10, False), (65_400, 10, False)],
)
def test_bodies_keep_to_the_limit(report: int, repro: int, inlined: bool) -> None:
    nightly = loaded("nightly")
    finding = nightly.Finding("add/violation/-/-", Path("out/add-violation"))
    text = "# é\n" + "é" * (report // 2) + f"\n{nightly.mark(finding.signature)}.\n"
    body = nightly.body(text, {"repro.py": "x" * repro, "case.json": "y" * 100_000}, finding, "https://ci.invalid/1")
    assert len(body.encode()) <= 65_536
    assert nightly.mark(finding.signature) in body
    assert "folder `add-violation` in the artifacts of https://ci.invalid/1" in body
    assert ("x" * repro in body) is inlined
    assert "y" * 100_000 not in body
