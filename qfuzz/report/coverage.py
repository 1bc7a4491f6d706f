"""The campaign's coverage as rows: one a feature, by operator."""

from collections.abc import Mapping

import msgspec


class FeatureRow(msgspec.Struct, frozen=True):
    """A feature of cases.

    Attributes
    ----------
    kind
        ``operator``, ``form`` (a dtype, an attribute, per-channel, …) or ``neighbours``.
    share
        Of the most frequent feature's examples, 0 to 1.
    """

    op: str
    kind: str
    feature: str
    examples: int
    share: float


_KINDS = ("operator", "form", "neighbours")


def feature_rows(coverage: Mapping[str, int]) -> tuple[FeatureRow, ...]:
    """Rows by operator, then kind, then the most frequent first."""
    most = max(coverage.values(), default=0) or 1
    rows = [FeatureRow(*_parts(feature), n, n / most) for feature, n in coverage.items()]
    return tuple(sorted(rows, key=lambda r: (r.op, _KINDS.index(r.kind), -r.examples, r.feature)))


def _parts(feature: str) -> tuple[str, str, str]:
    op, colon, what = feature.partition(": ")
    if colon:
        return op, "form", what
    op, arrow, after = feature.partition(" > ")
    if arrow:
        return op, "neighbours", f"{op} > {after}"
    return feature, "operator", feature
