"""A campaign over `faulty`, killed and resumed: what it should say, and what it said. Tests and bench share it."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from faulty import KINDS, OPS, SIGNS, faults_of

from qfuzz.campaign.processes import WORKER_VARIABLE
from qfuzz.campaign.protocol import SHARD_SIZE

SPECS = ("faulty:Faulty", "misbehaving:Honest")
_RUN = """
import sys
from campaigns import Heard, a_plan, fuzz
from pathlib import Path
from qfuzz.campaign.crew import LocalCrew
from qfuzz.cli.events import Events
seed, n, jobs, limit, folder, resume = sys.argv[1:]
events = Events()
plan = a_plan(*{specs!r}, seed=int(seed), n=int(n), ops={ops!r}, max_nodes=1, limit=float(limit), reduce=False,
              hangs_per_shard=1000, memory_limit=2**28)
campaign = fuzz(plan, jobs=int(jobs), folder=Path(folder), heard=events, resume=resume == "resume")
tally = campaign.tally
events.say("end", examples=tally.examples, errors=campaign.errors, lost=len(campaign.lost),
           backends={{name: [b.examples, b.unsupported, b.verdicts] for name, b in tally.backends.items()}},
           findings=sorted([f.signature.text, f.first_example] for f in campaign.findings.values()))
"""


@dataclass
class Story:
    """What a campaign said: all its accusations, its last event, and what was left over after it was killed."""

    accused: dict[tuple[int, str], tuple[str, str]] = field(default_factory=dict)
    end: dict[str, Any] = field(default_factory=dict)
    left_over: list[str] = field(default_factory=list)
    killed: int = 0
    contradictions: list[str] = field(default_factory=list)


def run(seed: int, n: int, jobs: int, folder: Path, limit: float, kill_after: tuple[int, ...] = ()) -> Story:
    """Run it to its end; the supervisor is killed with SIGKILL after so many accusations each, and resumed."""
    story = Story()
    script = _RUN.format(specs=SPECS, ops=OPS)
    paths = [str(Path(__file__).parent), *(p for p in sys.path if p)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
    resume = "new"
    for kill in (*kill_after, None):
        command = [sys.executable, "-c", script, str(seed), str(n), str(jobs), str(limit), str(folder), resume]
        process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True, start_new_session=True)
        assert process.stdout is not None
        heard = 0
        tokens: set[str] = set()
        for line in process.stdout:
            event = json.loads(line)
            if event["event"] == "accused":
                heard += 1
                key, said = (event["example"], event["backend"]), (event["verdict"], event["reason"])
                if story.accused.setdefault(key, said)[0] != said[0]:
                    story.contradictions.append(f"{key}: {story.accused[key]}, then {said}")
            elif event["event"] == "end":
                story.end = event
            if kill is not None and heard >= kill and _has_state(folder):
                tokens = _tokens(process.pid)
                os.kill(process.pid, signal.SIGKILL)
                story.killed += 1
                break
        process.stdout.close()
        process.wait()
        story.left_over += _still_there(tokens)
        resume = "resume"
    return story


def _has_state(folder: Path) -> bool:
    return (folder / "campaign.db").exists()


def _tokens(supervisor: int) -> set[str]:
    """What names the workers of a supervisor, in the environment of all that they started."""
    found = set()
    for child in psutil.Process(supervisor).children():
        with contextlib.suppress(psutil.Error):
            found.add(child.environ().get(WORKER_VARIABLE, ""))
    return found - {""}


def _still_there(tokens: set[str]) -> list[str]:
    """Processes that outlive their supervisor by more than a few seconds."""
    for _ in range(100):
        left = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.environ().get(WORKER_VARIABLE) in tokens and process.status() != psutil.STATUS_ZOMBIE:
                    left.append(f"{process.pid} {process.name()}")
        if not left:
            return []
        time.sleep(0.1)
    return left


def complaints(story: Story, seed: int, n: int) -> list[str]:
    """All that is not as it should be; nothing where every fault is attributed and every example counted once."""
    expected = faults_of(seed, n, SHARD_SIZE)
    wrong = [f"left over: {p}" for p in story.left_over] + story.contradictions
    faulty, _ = SPECS
    for number, fault in expected.items():
        said = story.accused.get((number, faulty))
        if said is None:
            wrong.append(f"example {number}: {fault} was not told")
        elif said[0] != KINDS[fault] or SIGNS[fault] not in said[1]:
            wrong.append(f"example {number}: {fault} was told as {said}")
    for number, spec in story.accused:
        if spec != faulty or number not in expected:
            wrong.append(f"example {number} on {spec}: accused of {story.accused[number, spec]}")
    counted = Counter(KINDS[fault] for fault in expected.values())
    for spec in SPECS:
        examples, unsupported, verdicts = story.end["backends"][spec]
        if (examples, unsupported) != (n, 0):
            wrong.append(f"{spec}: {examples} examples counted and {unsupported} unsupported, of {n}")
        for verdict in ("crash", "hang", "unstable", "corrupted"):
            right = counted[verdict] if spec == faulty else 0
            if verdicts[verdict] != right:
                wrong.append(f"{spec}: {verdicts[verdict]} {verdict} counted, {right} expected")
    if story.end["examples"] != n or story.end["errors"] or story.end["lost"]:
        wrong.append(f"the end: {story.end}")
    return wrong


def temporaries(folder: Path) -> list[str]:
    """What should not be there any more, in the campaign's folder and where temporary files go."""
    hidden = [str(p) for p in folder.rglob(".*")] + [str(p) for p in folder.glob("*-journal")]
    return hidden + [str(p) for p in Path(tempfile.gettempdir()).glob("qfuzz*")]
