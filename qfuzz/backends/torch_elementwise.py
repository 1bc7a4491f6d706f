"""Binary operators and activations as torch's eager quantized kernels."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from qfuzz.backends.torch_builder import Builder, Lowering, scale_of, zero_point_of
from qfuzz.backends.torch_calls import Arg, literal, torch_name
from qfuzz.backends.torch_kernels import fixed_qparams, keep_qparams, qtype_in, qtype_out, same_dtype
from qfuzz.ir.errors import Unsupported
from qfuzz.ir.forms import form_of
from qfuzz.ir.network import Node
from qfuzz.ir.qtype import float32
from qfuzz.ops.activation import Celu, Clamp, Elu, LeakyRelu
from qfuzz.ops.comparison import Compare, CompareScalar
from qfuzz.ops.deviation import Std
from qfuzz.ops.elementwise import Add, Mul
from qfuzz.ops.gelu import Gelu
from qfuzz.ops.matmul import MatMul
from qfuzz.ops.reduction import Mean
from qfuzz.ops.scalar import AddScalar, MulScalar
from qfuzz.ops.softmax import Softmax
from qfuzz.ops.threshold import Threshold


def _add(b: Builder, node: Node) -> None:
    op: Any = node.op
    assert isinstance(op, Add)
    _binary(b, node, "add_relu" if op.relu else "add")


def _mul(b: Builder, node: Node) -> None:
    op: Any = node.op
    assert isinstance(op, Mul)
    _binary(b, node, "mul_relu" if op.relu else "mul")


def _binary(b: Builder, node: Node, kernel: str) -> None:
    q = qtype_out(node)
    same_dtype(b, node, q)
    b.call(node.name, f"torch.ops.quantized.{kernel}", b.x(node, 0), b.x(node, 1), scale_of(q), zero_point_of(q))


def _add_scalar(b: Builder, node: Node) -> None:
    op: Any = node.op
    assert isinstance(op, AddScalar)
    _scalar(b, node, op, "add")


def _mul_scalar(b: Builder, node: Node) -> None:
    op: Any = node.op
    assert isinstance(op, MulScalar)
    _scalar(b, node, op, "mul")


def _scalar(b: Builder, node: Node, op: AddScalar | MulScalar, kernel: str) -> None:
    """The output's type follows from the input's. Its scale is a float64, so that nothing else may read it."""
    q_x = qtype_in(b, node)
    derived = op.derived(q_x)
    if node.element != derived.qtype(q_x):
        raise Unsupported(f"output: the kernel gives scale {derived.scale!r}, zero_point {derived.zero_point}")
    if float32(derived.scale) != derived.scale and b.network.consumers(node.name):
        raise Unsupported(f"output: its scale {derived.scale!r} is no float32, and a node reads it")
    relu = "_relu" if op.relu else ""
    number, x = literal(op.other), b.x(node)
    match form_of(b.network.forms, "call"):
        case "overload":
            b.call(node.name, f"torch.ops.quantized.{kernel}{relu}", x, number)
        case "swapped":
            b.call(node.name, f"torch.ops.quantized.{kernel}{relu}", number, x)
        case "tensor":
            dtype = torch_name("torch.float64")
            tensor = b.prepare_call(b.fresh(f"{node.name}_number"), "torch.tensor", number, dtype=dtype)
            b.call(node.name, f"torch.ops.quantized.{kernel}_scalar{relu}", x, tensor)
        case _:
            b.call(node.name, f"torch.ops.quantized.{kernel}_scalar{relu}", x, number)


def _compare(b: Builder, node: Node) -> None:
    op: Any = node.op
    assert isinstance(op, Compare)
    b.call(node.name, f"torch.{op.relation}", b.x(node, 0), b.x(node, 1))


def _compare_scalar(b: Builder, node: Node) -> None:
    op: Any = node.op
    assert isinstance(op, CompareScalar)
    b.call(node.name, f"torch.{op.relation}", b.x(node), literal(op.other))


def _matmul(b: Builder, node: Node) -> None:
    op: Any = node.op
    assert isinstance(op, MatMul)
    if op.relu:
        raise Unsupported("relu: quantized.matmul has no fused relu")
    _binary(b, node, "matmul")


def _relu(b: Builder, node: Node) -> None:
    keep_qparams(b, node)
    b.call(node.name, "torch.relu", b.x(node))


def _clamp(b: Builder, node: Node) -> None:
    op: Any = node.op
    assert isinstance(op, Clamp)
    keep_qparams(b, node)
    call = form_of(b.network.forms, "call")
    if call == "plain" and (op.min, op.max) == (0.0, 6.0):
        b.call(node.name, "torch.ops.quantized.relu6", b.x(node))
    else:
        targets = {"aten": "torch.clamp", "overload": "torch.nn.functional.hardtanh"}
        target = targets.get(call, "torch.ops.quantized.clamp")
        b.call(node.name, target, b.x(node), literal(op.min), literal(op.max))


def _threshold(b: Builder, node: Node) -> None:
    op: Any = node.op
    assert isinstance(op, Threshold)
    keep_qparams(b, node)
    target = "torch.nn.functional.threshold" if _is_aten(b) else "torch.ops.quantized.threshold"
    b.call(node.name, target, b.x(node), literal(op.threshold), literal(op.value))


def _is_aten(b: Builder) -> bool:
    """Whether a call of aten:: is preferred to that of quantized:: which means the same."""
    return form_of(b.network.forms, "call") == "aten"


def _keeps(b: Builder, node: Node) -> bool:
    return node.element == b.type(node, 0).element


def _leaky_relu(b: Builder, node: Node) -> None:
    op: Any = node.op
    assert isinstance(op, LeakyRelu)
    if _is_aten(b) and _keeps(b, node):
        b.call(node.name, "torch.nn.functional.leaky_relu", b.x(node), literal(op.negative_slope))
        return
    _activation(b, node, "leaky_relu", literal(op.negative_slope), literal(False))


def _elu(b: Builder, node: Node) -> None:
    op: Any = node.op
    assert isinstance(op, Elu)
    q = qtype_out(node)
    same_dtype(b, node, q)
    factors = [literal(f) for f in (op.alpha, op.scale, op.input_scale)]
    b.call(node.name, "torch.ops.quantized.elu", b.x(node), scale_of(q), zero_point_of(q), *factors)


def _celu(b: Builder, node: Node) -> None:
    op: Any = node.op
    assert isinstance(op, Celu)
    q = qtype_out(node)
    same_dtype(b, node, q)
    b.call(node.name, "torch.ops.quantized.celu", b.x(node), scale_of(q), zero_point_of(q), literal(op.alpha))


def _prelu(b: Builder, node: Node) -> None:
    q = qtype_out(node)
    same_dtype(b, node, q)
    q_w = qtype_in(b, node, 1)
    slope = b.prepare_call(
        b.fresh(f"{node.name}_slope"),
        "torch._make_per_tensor_quantized_tensor",
        b.constant(node.inputs[1]),
        scale_of(q_w),
        zero_point_of(q_w),
    )
    if _is_aten(b) and _keeps(b, node):
        b.call(node.name, "torch.prelu", b.x(node), slope)
    else:
        b.call(node.name, "torch.ops.quantized.prelu", b.x(node), slope, scale_of(q), zero_point_of(q))


def _gelu(b: Builder, node: Node) -> None:
    op: Any = node.op
    assert isinstance(op, Gelu)
    keep_qparams(b, node)
    b.call(node.name, "torch.nn.functional.gelu", b.x(node), approximate=literal(op.approximate))


def _mean(b: Builder, node: Node) -> None:
    op: Any = node.op
    assert isinstance(op, Mean)
    keep_qparams(b, node)
    if not op.reduced(len(b.type(node, 0).shape)):
        raise Unsupported("axes: none; torch's mean takes no axes for all of them")
    b.call(node.name, "torch.mean", b.x(node), literal(list(op.axes)), literal(op.keepdims))


def _std(b: Builder, node: Node) -> None:
    op: Any = node.op
    assert isinstance(op, Std)
    keep_qparams(b, node)
    settings = {"correction": literal(op.correction), "keepdim": literal(op.keepdims)}
    b.call(node.name, "torch.std", b.x(node), literal(list(op.axes)), **settings)


def _hardswish(b: Builder, node: Node) -> None:
    _activation(b, node, "hardswish")


def _sigmoid(b: Builder, node: Node) -> None:
    q = qtype_out(node)
    own = (2.0**-32, 0) if q.dtype == "int32" else (2.0**-8, q.qmin)
    if _is_aten(b) and q.dtype == b.type(node, 0).dtype and (q.scale[0], q.zero_point[0]) == own:
        b.call(node.name, "torch.sigmoid", b.x(node))
        return
    _activation(b, node, "sigmoid")


def _softmax(b: Builder, node: Node) -> None:
    op: Any = node.op
    assert isinstance(op, Softmax)
    _activation(b, node, "softmax", literal(op.axis))


def _activation(b: Builder, node: Node, kernel: str, *settings: Arg) -> None:
    q = qtype_out(node)
    same_dtype(b, node, q)
    b.call(node.name, f"torch.ops.quantized.{kernel}", b.x(node), *settings, scale_of(q), zero_point_of(q))


def _hardsigmoid(b: Builder, node: Node) -> None:
    fixed_qparams(b, node, 2.0**-8, 0, -128)
    b.call(node.name, "torch.nn.functional.hardsigmoid", b.x(node))


def _tanh(b: Builder, node: Node) -> None:
    fixed_qparams(b, node, 2.0**-7, 128, 0)
    b.call(node.name, "torch.tanh", b.x(node))


LOWERINGS: Mapping[str, Lowering] = MappingProxyType(
    {
        "add": _add,
        "mul": _mul,
        "add_scalar": _add_scalar,
        "mul_scalar": _mul_scalar,
        "matmul": _matmul,
        "compare": _compare,
        "compare_scalar": _compare_scalar,
        "relu": _relu,
        "clamp": _clamp,
        "sigmoid": _sigmoid,
        "tanh": _tanh,
        "leaky_relu": _leaky_relu,
        "elu": _elu,
        "celu": _celu,
        "threshold": _threshold,
        "prelu": _prelu,
        "gelu": _gelu,
        "mean": _mean,
        "std": _std,
        "hardsigmoid": _hardsigmoid,
        "hardswish": _hardswish,
        "softmax": _softmax,
    }
)
