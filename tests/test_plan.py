"""Which shards are left: a ledger against a plain set."""

from itertools import islice, pairwise

from campaigns import a_plan
from hypothesis import given
from hypothesis import strategies as st

from qfuzz.campaign.plan import Ledger
from qfuzz.campaign.protocol import SHARD_SIZE


@given(st.lists(st.integers(0, 40)))
def test_a_ledger_is_a_set(done: list[int]) -> None:
    ledger = Ledger()
    for shard in dict.fromkeys(done):
        ledger.complete(shard)
    assert [s for s in range(42) if ledger.is_done(s)] == sorted(set(done))
    assert ledger.frontier == next(i for i in range(42) if i not in done)
    ranges = ledger.ranges
    assert all(first <= last for first, last in ranges)
    assert all(a[1] + 1 < b[0] for a, b in pairwise(ranges)), "as few ranges as there are"


@given(st.sets(st.integers(0, 9)), st.dictionaries(st.integers(0, 9), st.integers(0, SHARD_SIZE)), st.integers(1, 2000))
def test_what_remains_is_what_is_not_done(done: set[int], partial: dict[int, int], n: int) -> None:
    ledger = Ledger((), partial)
    for shard in done:
        ledger.complete(shard)
    plan = a_plan("reference", n=n)
    left = list(ledger.remaining(plan))
    wanted = {
        s * SHARD_SIZE + i
        for s in range(10)
        if s not in done
        for i in range(partial.get(s, 0), SHARD_SIZE)
        if s * SHARD_SIZE + i < n
    }
    assert [r.shard for r in left] == sorted(r.shard for r in left)
    assert {r.shard * SHARD_SIZE + i for r in left for i in range(r.start, r.stop)} == wanted


def test_without_an_end_there_are_always_more() -> None:
    left = Ledger(((0, 3), (5, 5))).remaining(a_plan("reference"))
    assert [r.shard for r in islice(left, 3)] == [4, 6, 7]
