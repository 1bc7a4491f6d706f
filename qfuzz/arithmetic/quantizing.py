"""float32 numbers to stored integers."""

from qfuzz.arithmetic import rounded
from qfuzz.arithmetic.dequantized import Output
from qfuzz.arithmetic.family import Published
from qfuzz.arithmetic.rounded import Rounded, RoundedEvaluation
from qfuzz.ir.protocols import Array


class Quantizing(Rounded, frozen=True, kw_only=True):
    """An arithmetic of `quantize`."""

    output: Output = "own"


def why_not(m: Quantizing) -> str | None:
    """Why these choices do not go together, or None."""
    return rounded.why_not(m) if m.output == "own" else rounded.why_not_of_floats(m)


class QuantizingEvaluation(RoundedEvaluation):
    """A `quantize` on known inputs."""

    def compute(self, model: Quantizing) -> Array:
        """Inputs over the scale."""
        return self.exact() if model.output == "own" else self.over_scale(self.arrays[0], model.output)


PUBLISHED: tuple[Published, ...] = (
    Published(
        "PyTorch quantize_per_tensor",
        Quantizing(output="reciprocal_fused", zero_point="before_rounding"),
        "pytorch/FBGEMM include/fbgemm/QuantUtils.h Quantize, LEGACY: nearbyint(zero_point + x * inv_scale), which the "
        "compiler contracts, as measured",
    ),
    Published(
        "PyTorch quantize, vectors; FBGEMM QuantizeAvx2",
        Quantizing(output="reciprocal", clamp="int32_limit"),
        "pytorch/FBGEMM src/QuantUtilsAvx2.cc QuantizeAvx2; pytorch vec512_qint.h QuantizeAvx512",
    ),
    Published(
        "MLAS QuantizeLinear",
        Quantizing(output="divided", clamp="before_rounding"),
        "microsoft/onnxruntime onnxruntime/core/mlas/lib/quantize.cpp MlasQuantizeLinear",
    ),
    Published(
        "XNNPACK convert",
        Quantizing(output="reciprocal", rounding="magic", clamp="before_rounding"),
        "google/XNNPACK src/f32-qs8-vcvt/scalar-fmagic.c.in",
    ),
    Published(
        "TFLite quantize",
        Quantizing(output="divided", rounding="half_away"),
        "tensorflow/lite/kernels/internal/reference/quantize.h: TfLiteRound(x / scale)",
    ),
)
