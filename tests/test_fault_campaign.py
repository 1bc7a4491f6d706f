"""Every kind of fault in one campaign, which is killed and resumed: all attributed, nothing lost, nothing left."""

from pathlib import Path

from fault_campaign import complaints, run, temporaries
from faulty import KINDS, SIGNS, faults_of

from qfuzz.campaign.protocol import SHARD_SIZE

SEED, N = 11, 600


def test_every_fault_is_attributed_across_a_kill(tmp_path: Path) -> None:
    expected = faults_of(SEED, N, SHARD_SIZE)
    assert KINDS.keys() == SIGNS.keys()
    assert len(expected) >= 30
    before = temporaries(tmp_path)
    story = run(SEED, N, 2, tmp_path / "out", limit=1.0, kill_after=(len(expected) // 2,))
    assert story.killed == 1
    assert complaints(story, SEED, N) == []
    assert temporaries(tmp_path / "out") == before
    assert len(story.end["findings"]) > 5


def test_the_complaints_notice(tmp_path: Path) -> None:
    """What is compared can differ: one fault told wrongly, one not told, one example too few."""
    story = run(SEED, 60, 1, tmp_path / "out", limit=1.0)
    assert complaints(story, SEED, 60) == []
    (key, (verdict, reason)), *_ = story.accused.items()
    story.accused[key] = ("violation" if verdict == "crash" else "crash", reason)
    assert len(complaints(story, SEED, 60)) == 1
    del story.accused[key]
    assert len(complaints(story, SEED, 60)) == 1
    story.end["backends"]["faulty:Faulty"][0] -= 1
    assert len(complaints(story, SEED, 60)) == 2
