"""The probes of every operator."""

from qfuzz.identify import contraction_probes, elementwise_probes
from qfuzz.identify.probe import Probe

CONTRACTIONS = ("conv", "linear")
ELEMENTWISE = (
    *("add", "mul", "avg_pool", "global_avg_pool", "quantize", "dequantize", "requantize", "relu", "clamp"),
    *("leaky_relu", "concat", "sigmoid", "tanh", "elu", "hardsigmoid", "hardswish", "softmax"),
)
"""The other operators move stored integers: no two models of them can differ."""

PROBES: dict[str, tuple[Probe, ...]] = {
    **dict.fromkeys(CONTRACTIONS, contraction_probes.PROBES),
    **dict.fromkeys(ELEMENTWISE, elementwise_probes.PROBES),
    **dict.fromkeys(elementwise_probes.FUNCTIONS, elementwise_probes.FUNCTION_PROBES),
}
"""By operator, in the order in which they are first tried."""
