"""linear: the product of activations with a constant weight matrix, with bias and fused relu.

Semantics: `torch.nn.functional.linear`; ONNX Gemm with transB = 1, and com.microsoft QGemm for its quantized form. An
output of float32 elements is the real number itself: com.microsoft MatMulIntegerToFloat.
"""

from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np

from qfuzz.exact.rounding import Floats
from qfuzz.ir.errors import InvalidCase
from qfuzz.ir.qtype import FLOAT32_MAX, Element, QType
from qfuzz.ir.tensor import Tensor, TensorType
from qfuzz.ops.contraction import check_bias, check_weight, contraction_image, require_int32
from qfuzz.ops.quantization import MAX_DEQUANTIZED_SCALE
from qfuzz.ops.semantics import ExactOperator, Image, Operand, per_tensor


class Linear(ExactOperator, frozen=True, kw_only=True, tag="linear"):
    """`x` [..., K] times `weight` [M, K] transposed, plus `bias` [M].

    Attributes
    ----------
    relu
        Negative results become 0, before quantization where there is one.
    """

    relu: bool = False

    arity: ClassVar[tuple[int, int]] = (2, 3)
    constant_inputs: ClassVar[tuple[int, ...]] = (1, 2)

    def infer(self, inputs: Sequence[TensorType], element: Element) -> tuple[int, ...]:
        x, weight = inputs[0], inputs[1]
        per_tensor(x, "x")
        if len(x.shape) < 2:
            raise InvalidCase(f"x: shape {x.shape}; linear takes [..., K] of rank 2 or more")
        if len(weight.shape) != 2 or weight.shape[1] != x.shape[-1] or 0 in weight.shape:
            raise InvalidCase(f"weight: shape {weight.shape}; needs [M, {x.shape[-1]}] with no empty dimension")
        check_weight(x, weight, element)
        if not isinstance(element, QType):
            _check_finite(x.qtype, weight.qtype, x.shape[-1])
        check_bias(inputs, weight.shape[0])
        return (*x.shape[:-1], weight.shape[0])

    def check_constants(self, constants: Mapping[int, Tensor], inputs: Sequence[TensorType]) -> None:
        require_int32(constants, inputs)

    def image(self, operands: Sequence[Operand], element: Element) -> Image:
        x, weight = operands[0], operands[1]

        def multiply(a: Floats, w: Floats) -> Floats:
            return np.asarray(np.matmul(a, w.T))

        shape = (*x.type.shape[:-1], weight.type.shape[0])
        return contraction_image(
            operands,
            element,
            multiply,
            shape,
            channel_axis=len(shape) - 1,
            n_summed=weight.type.shape[1],
            relu=self.relu,
        )


def _check_finite(q_x: QType, q_w: QType, n_summed: int) -> None:
    """Raise `InvalidCase` where a float32 sum of products could overflow."""
    for name, q in (("x", q_x), ("weight", q_w)):
        if max(q.scale) > MAX_DEQUANTIZED_SCALE:
            raise InvalidCase(
                f"{name}: scale {max(q.scale)!r}; above {MAX_DEQUANTIZED_SCALE!r} real values overflow float32"
            )
    worst = (q_x.qmax - q_x.qmin) * q_x.scale[0] * (q_w.qmax - q_w.qmin) * max(q_w.scale) * n_summed
    if worst > FLOAT32_MAX / 2:
        raise InvalidCase(f"x, weight: a sum of {n_summed} products can reach {worst!r}, which overflows float32")
