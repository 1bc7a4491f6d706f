"""The probes of every operator."""

from qfuzz.identify import contraction_probes
from qfuzz.identify.probe import Probe

PROBES: dict[str, tuple[Probe, ...]] = {
    "conv": contraction_probes.PROBES,
    "linear": contraction_probes.PROBES,
}
"""By operator, in the order in which they are first tried."""
