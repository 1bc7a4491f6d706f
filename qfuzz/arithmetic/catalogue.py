"""The catalogue: every family of arithmetics, the kernels that are published to work so, and faults by name."""

from collections.abc import Mapping

from qfuzz.arithmetic import contraction, rounded
from qfuzz.arithmetic.contracting import ContractionEvaluation
from qfuzz.arithmetic.contraction import Contraction
from qfuzz.arithmetic.contraction_equalities import EQUALITIES
from qfuzz.arithmetic.contraction_published import PUBLISHED
from qfuzz.arithmetic.family import Family
from qfuzz.arithmetic.rounded import Rounded, RoundedEvaluation

CONTRACTION = Family(
    Contraction,
    ("conv", "linear"),
    contraction.why_not,
    ContractionEvaluation,
    EQUALITIES,
    PUBLISHED,
    contraction.FAULTS,
)
ROUNDED = Family(Rounded, (), rounded.why_not, RoundedEvaluation, faults=rounded.FAULTS)

FAMILIES: tuple[Family, ...] = (CONTRACTION,)

FAULTS: Mapping[str, Mapping[str, str]] = {
    "truncation": {"rounding": "truncation"},
    "half-away": {"rounding": "half_away"},
    "ties-up": {"rounding": "half_up"},
    "zero-point-before-rounding": {"zero_point": "before_rounding"},
    "pads-with-stored-zero": {"padding": "stored_zero"},
    "swapped-zero-points": {"zero_points": "swapped"},
    "scale-of-next-channel": {"channel_scale": "next"},
    "unscaled-bias": {"bias": "unscaled"},
    "int16-pair-saturation": {"products": "int16_pairs"},
    "int16-pair-saturation-channels-last": {"products": "int16_pairs_channels_last"},
    "int16-pair-saturation-per-tap": {"products": "int16_pairs_per_tap"},
    "last-channel-dropped": {"tail": "dropped"},
    "clamp-before-zero-point": {"clamp": "before_zero_point"},
    "relu-at-stored-zero": {"relu": "at_stored_zero"},
    "bfloat16-multiplier": {"multiplier": "bfloat16", "bias": "before_multiplier"},
}
"""Single departures from the exact arithmetic: what the planted backend plants, and causes of findings."""


def family_of(op: str) -> Family:
    """The family of an operator."""
    return next((f for f in FAMILIES if op in f.operators), ROUNDED)
