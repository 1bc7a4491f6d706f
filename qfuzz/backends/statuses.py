"""What can be said of an operator of a framework, and how the counts are put into a sentence."""

from collections.abc import Sequence
from typing import Protocol

STATUSES = ("covered", "not yet", "out of scope", "unlisted")
"""In the order in which they are shown. The last is a release's news: in no table of ours."""


class HasStatus(Protocol):
    """A row of a matrix."""

    @property
    def status(self) -> str:
        """One of `STATUSES`."""
        ...


def counts(found: Sequence[HasStatus]) -> dict[str, int]:
    """How many rows have each status."""
    return {status: sum(r.status == status for r in found) for status in STATUSES}


def sentence(found: Sequence[HasStatus], which: str) -> str:
    """The counts of rows that are ``operators of`` `which`, as `qfuzz ops` and the README say them."""
    n = counts(found)
    listed = [f"{n['covered']} are covered", f"{n['out of scope']} are out of scope, each with the reason"]
    if n["not yet"]:
        listed.insert(1, f"{n['not yet']} are not covered yet")
    if n["unlisted"]:
        listed.append(f"{n['unlisted']} are new and unknown")
    return f"Of {len(found)} operators of {which}, {', '.join(listed[:-1])} and {listed[-1]}."
