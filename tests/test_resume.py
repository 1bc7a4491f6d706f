"""State on disk: consistent whoever is killed and when, bounded, of one version; resuming does what was not done."""

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest
from campaigns import Heard, a_plan, counts, fuzz
from test_cli import START, environment
from test_survival import assert_gone, processes_of_this_session

from qfuzz.campaign.crew import LocalCrew, Lost, Report, Task
from qfuzz.campaign.protocol import Conclude
from qfuzz.campaign.record import Moment
from qfuzz.campaign.report import read_record
from qfuzz.campaign.run import Campaign
from qfuzz.campaign.state import FILE, MOMENTS_KEPT, PREVIOUS, SCHEMA, State, read_snapshot, symptom_key
from qfuzz.campaign.tally import Tally
from qfuzz.cli import cli
from qfuzz.cli.rim import run_cli
from qfuzz.findings.files import TEMPORARY
from qfuzz.ir.errors import InvalidCase

SPECS = ("planted?fault=truncation", "reference")


def files(folder: Path) -> dict[str, bytes]:
    return {
        str(p.relative_to(folder)): p.read_bytes()
        for p in sorted(folder.rglob("*"))
        if p.is_file() and p.name not in (FILE, "run.json")
    }


def found(campaign: Campaign) -> dict[str, tuple[object, ...]]:
    return {t: (f.first_example, f.backends, f.case, f.reduction) for t, f in campaign.findings.items()}


def test_interrupted_and_resumed_is_as_if_never_interrupted(tmp_path: Path) -> None:
    plan = a_plan(*SPECS, n=500, ops=("linear", "add"), max_nodes=2)
    whole = fuzz(plan, folder=tmp_path / "whole")
    told: list[int] = []

    def enough() -> bool:
        return len(told) > 8

    def note(campaign: Campaign) -> None:
        told.append(campaign.tally.examples)

    for _ in range(20):
        told.clear()
        folder = tmp_path / "parts"
        part = fuzz(plan, folder=folder, heard=Heard(note), interrupted=enough, resume=folder.exists())
        assert part.stopped in ("", "interrupted")
        if part.stopped == "":
            break
    else:
        raise AssertionError("it never ended")
    resumed = counts(part)
    expected = counts(whole)
    # A shard that is gone on with is generated again, which counts as draws.
    del resumed["draws"], expected["draws"]
    assert resumed == expected
    assert found(part) == found(whole)
    assert files(tmp_path / "parts") == files(tmp_path / "whole")


def start(folder: Path, *args: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [*START, "run", *args, "--json-lines"],
        cwd=folder,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def workers_of(pid: int) -> list[int]:
    made = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(child) for child in made]


def test_kill_9_at_any_instant_loses_at_most_shards_under_way(tmp_path: Path) -> None:
    args = ["-b", SPECS[0], "-b", SPECS[1], "--seed", "5", "--ops", "linear", "--ops", "add", "--max-nodes", "2"]
    args += ["--max-examples", "1400", "--jobs", "2"]
    whole = start(tmp_path, *args, "--out", "whole")
    out, err = whole.communicate(timeout=200)
    assert whole.returncode == 1, err
    expected = json.loads(out.splitlines()[-1])["document"]
    resume: list[str] = [*args, "--out", "killed"]
    for wait in (3, 6, 9):  # progress events before it is killed
        process = start(tmp_path, *resume)
        assert process.stdout is not None
        seen = 0
        for line in process.stdout:
            seen += json.loads(line)["event"] in ("progress", "accused", "finding")
            if seen >= wait:
                break
        workers = workers_of(process.pid)
        process.kill()
        process.communicate()
        for worker in workers:
            assert_gone(worker)
        if (tmp_path / "killed" / FILE).exists():
            before = read_snapshot(tmp_path / "killed")
            assert before.stopped == "running"
            resume = ["--resume", "killed", "--jobs", "2"]
    (tmp_path / "killed" / f"{TEMPORARY}half").write_bytes(b"as if killed while writing")
    process = start(tmp_path, *resume)
    out, err = process.communicate(timeout=200)
    assert process.returncode == 1, err
    document = json.loads(out.splitlines()[-1])["document"]
    assert document["examples"] == expected["examples"] == 1400
    assert document["elements"] == expected["elements"]
    for a, b in zip(document["backends"], expected["backends"], strict=True):
        assert a["verdicts"] == b["verdicts"]
    assert [f["signature"] for f in document["findings"]] == [f["signature"] for f in expected["findings"]]
    assert files(tmp_path / "killed") == files(tmp_path / "whole")


def test_an_ended_campaign_is_gone_on_with_only_when_given_more(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "out")
    assert run_cli(cli, ["run", "-b", "reference", "--max-examples", "30", "--seed", "1", "--out", out, "-q"]) == 0
    capsys.readouterr()
    assert run_cli(cli, ["run", "--resume", out]) == 2
    assert "has ended" in capsys.readouterr().err
    assert run_cli(cli, ["run", "--resume", out, "--max-examples", "50", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["examples"] == 50
    assert run_cli(cli, ["run", "--resume", out, "--seed", "3"]) == 2
    assert "--seed" in capsys.readouterr().err


def test_what_cannot_be_resumed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def refused(*words: str) -> None:
        capsys.readouterr()
        for command in (["run", "--resume", str(tmp_path)], ["report", str(tmp_path)]):
            before = sorted(p.name for p in tmp_path.iterdir())
            assert run_cli(cli, command) == 2
            said = capsys.readouterr()
            assert said.out == ""
            assert len(said.err.splitlines()) == 1
            assert all(word in said.err for word in words), said.err
            assert sorted(p.name for p in tmp_path.iterdir()) == before

    refused("holds no campaign")
    (tmp_path / FILE).write_bytes(b"this is no database" * 100)
    refused(FILE, "is no campaign")
    (tmp_path / FILE).unlink()
    State.create(tmp_path, a_plan("reference", n=10)).close()
    for change in ("update facts set value = x'93' where name = 'plan'", "delete from facts where name = 'plan'"):
        with sqlite3.connect(tmp_path / FILE) as db:
            db.execute(change)
        refused(FILE, "cannot be read")
    (tmp_path / FILE).unlink()
    with sqlite3.connect(tmp_path / FILE) as db:
        db.execute(f"pragma user_version = {SCHEMA + 1}")
    db.close()
    refused(f"schema version {SCHEMA + 1} is newer than {SCHEMA}", "upgrade")


def test_one_folder_has_one_campaign_at_a_time(tmp_path: Path) -> None:
    plan = a_plan("reference", n=10)
    with State.create(tmp_path, plan):
        for again in (State.open, lambda folder: State.create(folder, plan)):
            with pytest.raises(InvalidCase, match="another campaign is running"):
                again(tmp_path)
    State.open(tmp_path).close()


def test_an_unfinished_campaign_is_set_aside_a_finished_one_replaced(tmp_path: Path) -> None:
    first, second = a_plan("reference", n=10, seed=1), a_plan("reference", n=10, seed=2)
    State.create(tmp_path, first).close()
    fuzz(second, folder=tmp_path)
    with sqlite3.connect(tmp_path / PREVIOUS) as db:
        assert db.execute("select count(*) from facts").fetchone() == (2,)
    db.close()
    assert read_snapshot(tmp_path).plan.seed == 2
    (tmp_path / PREVIOUS).unlink()
    fuzz(first, folder=tmp_path)
    assert not (tmp_path / PREVIOUS).exists()
    assert read_snapshot(tmp_path).plan == first


def test_the_timeline_is_bounded_and_in_order(tmp_path: Path) -> None:
    from qfuzz.campaign.plan import Ledger

    with State.create(tmp_path, a_plan("reference")) as state:
        for i in range(2 * MOMENTS_KEPT + 50):
            state.commit(Ledger(), Tally(), (), (), float(i), Moment(float(i), i, i, 0, 0, 0), {}, 0)
        timeline = state.snapshot().timeline
    assert MOMENTS_KEPT <= len(timeline) < 2 * MOMENTS_KEPT
    assert [m.seconds for m in timeline] == sorted(m.seconds for m in timeline)
    assert timeline[-1].examples == 2 * MOMENTS_KEPT + 49


def test_the_record_is_what_was_counted(tmp_path: Path) -> None:
    campaign = fuzz(a_plan(*SPECS, n=60, ops=("linear",), max_nodes=1), folder=tmp_path)
    record = read_record(tmp_path)
    tally = campaign.tally.backends[SPECS[0]]
    assert record.by_op[SPECS[0]]["linear"]["violation"] == tally.verdicts["violation"] > 0
    assert record.steps[SPECS[0]][0] == tally.verdicts["exact"]
    off = sum(n for step, n in record.steps[SPECS[0]].items() if step)
    assert off == tally.verdicts["violation"] + tally.verdicts["admissible"]
    assert record.coverage["linear"] == 60
    assert record.timeline[-1].examples == 60
    assert record.document["examples"] == 60


def limited(megabytes_of_disk: int, folder: Path) -> bool:
    """A small file system at `folder`; False where none may be mounted here."""
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={megabytes_of_disk}m", "tmpfs", str(folder)],
        capture_output=True,
        check=False,
    )
    return done.returncode == 0


def test_no_space_left_is_one_line_and_loses_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    if os.geteuid() != 0 or not limited(1, disk):
        pytest.skip("a small file system cannot be mounted here")
    try:
        ballast = disk / "ballast"
        out = str(disk / "out")
        run = ["run", "-b", SPECS[0], "--seed", "5", "--max-examples", "600", "--jobs", "1", "--out", out]
        run += ["--ops", "linear", "--ops", "add", "--max-nodes", "2"]
        ballast.write_bytes(bytes(shutil.disk_usage(disk).free - 100 * 2**10))
        assert run_cli(cli, [*run, "-q"]) == 3
        said = capsys.readouterr().err
        assert len(said.splitlines()) == 1, said
        assert "No space left" in said or "full" in said
        ballast.unlink()
        # What it had is there, and it goes on.
        kept = read_snapshot(disk / "out")
        assert run_cli(cli, ["run", "--resume", out, "--json"]) == 1
        document = json.loads(capsys.readouterr().out)
        assert document["examples"] == 600 >= kept.tally.examples
    finally:
        subprocess.run(["umount", str(disk)], check=False)


def test_a_supervisor_that_is_killed_leaves_no_process(tmp_path: Path) -> None:
    process = start(
        tmp_path, "-b", "misbehaving:Hangs", "--ops", "add", "--max-nodes", "1", "--time", "100s", "--jobs", "2"
    )
    for _ in range(200):
        workers = workers_of(process.pid)
        if len(workers) == 2 and all(len(processes_of_this_session(w)) == 3 for w in workers):
            break
        time.sleep(0.1)
    else:
        raise AssertionError("its workers did not come to run a kernel")
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    for worker in workers:
        assert_gone(worker)


assert sys.platform == "linux"


def test_a_folder_that_is_gone_is_written_again_and_only_our_own_are_removed(tmp_path: Path) -> None:
    plan = a_plan(*SPECS, n=60, ops=("linear",), max_nodes=1)
    out, theirs = tmp_path / "out", tmp_path / "theirs"
    theirs.mkdir()
    before = fuzz(plan, folder=out)
    expected = files(out)
    for path in before.paths.values():
        shutil.rmtree(path)
    assert found(fuzz(plan, folder=out, resume=True)) == found(before)
    assert files(out) == expected
    # A file that somebody made says that a finding is for later, and lies elsewhere.
    with sqlite3.connect(out / FILE) as db:
        for text, f in read_snapshot(out).findings.items():
            data = msgspec.msgpack.encode(msgspec.structs.replace(f, reduction="none"))
            db.execute("update findings set found = ?, path = ? where signature = ?", (data, str(theirs), text))
    fuzz(plan, folder=out, resume=True)
    assert theirs.is_dir()


def test_a_folder_that_has_moved_is_where_it_is(tmp_path: Path) -> None:
    plan = a_plan(*SPECS, n=60, ops=("linear",), max_nodes=1)
    fuzz(plan, folder=tmp_path / "out")
    (tmp_path / "out").rename(tmp_path / "moved")
    moved = fuzz(plan, folder=tmp_path / "moved", resume=True)
    assert moved.paths and all(Path(p).parent == tmp_path / "moved" for p in moved.paths.values())


def test_a_symptom_that_an_earlier_example_shows_is_concluded_in_the_file_too(tmp_path: Path) -> None:
    """As when a shard that was lost, or left by `--fail-fast`, is done at last."""
    plan = a_plan("planted?fault=truncation", n=60, ops=("linear",), max_nodes=1)
    fuzz(plan, folder=tmp_path)
    with sqlite3.connect(tmp_path / FILE) as db:
        for s in read_snapshot(tmp_path).suspects:
            later = msgspec.msgpack.encode(msgspec.structs.replace(s, example=s.example + 1000))
            db.execute(
                "update suspects set example = example + 1000, suspect = ? where symptom = ?",
                (later, symptom_key(s)[1]),
            )
        db.execute("delete from facts where name in ('ranges', 'partial')")
    fuzz(plan, folder=tmp_path, resume=True)
    snapshot = read_snapshot(tmp_path)
    assert snapshot.suspects and all(s.example < 60 for s in snapshot.suspects)
    assert snapshot.concluded == {symptom_key(s) for s in snapshot.suspects}


class LosesReductions(LocalCrew):
    """Its workers are lost whenever they reduce, as where memory runs out."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._losses: list[Report] = []

    def give(self, task: Task) -> None:
        if isinstance(task, Conclude) and task.reduce:
            self._losses.append(Lost(task, "its worker was lost 3 times"))
        else:
            super().give(task)

    def wait(self, seconds: float) -> list[Report]:
        losses, self._losses = self._losses, []
        return losses or super().wait(seconds)


def test_what_cannot_be_reduced_is_kept_as_it_was_found(tmp_path: Path) -> None:
    plan = a_plan("planted?fault=truncation", n=60, ops=("linear",), max_nodes=1)
    crew = LosesReductions(plan.profile.specs, 1)
    try:
        campaign = fuzz(plan, folder=tmp_path, crew=crew)
    finally:
        crew.close()
    assert campaign.lost
    assert campaign.findings and {f.reduction for f in campaign.findings.values()} == {"none"}
    again = fuzz(plan, folder=tmp_path, resume=True)
    assert not again.lost
    assert again.findings and {f.reduction for f in again.findings.values()} == {"done"}
    assert sorted(p.name for p in tmp_path.iterdir() if p.is_dir()) == sorted(
        Path(p).name for p in again.paths.values()
    )
