"""What a campaign leaves behind: everything that a report shows, as plain data."""

from typing import Any

import msgspec


class Moment(msgspec.Struct, frozen=True):
    """Counts at one time of a campaign.

    Attributes
    ----------
    seconds
        Since the campaign began, pauses between resumptions left out.
    features
        Distinct features of cases seen so far: the campaign's coverage.
    deaths
        Worker processes lost to kernels.
    """

    seconds: float
    examples: int
    elements: int
    features: int
    findings: int
    deaths: int


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """A campaign, finished or not.

    Attributes
    ----------
    document
        What ``run --json`` prints.
    described
        What each backend says of itself, by spec.
    by_op
        Backend name to operator to verdict to count. ``exact``, ``admissible`` and ``violation`` count output elements,
        all others cases; ``cases`` counts the cases that held the operator and ran. ``network`` stands among the
        operators for networks that were judged as a whole.
    steps
        Backend name to signed error in quantized steps (returned minus correctly rounded) to output elements. Errors of
        more than 8 steps are counted at the next power of two away from zero.
    coverage
        Feature to examples that had it. A feature is ``op``, ``op: what`` (a dtype form, an attribute, per-channel, …)
        or ``op > op`` for two neighbours.
    timeline
        In order of time.
    """

    document: dict[str, Any]
    described: dict[str, dict[str, str]]
    by_op: dict[str, dict[str, dict[str, int]]]
    steps: dict[str, dict[int, int]]
    coverage: dict[str, int]
    timeline: tuple[Moment, ...]
