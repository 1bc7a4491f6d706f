"""Laws of matrix products, transposed convolutions, sums of integers and Gemm's factors, over drawn values."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from one_node import LAW, Array, apply, qtypes, stored
from slow_evaluator import evaluate

from qfuzz.exact.reals import FilterCount
from qfuzz.ir.errors import InvalidCase
from qfuzz.ir.network import Case, Constant, Input, Network, Node
from qfuzz.ir.operator import Operator
from qfuzz.ir.qtype import Element, QType
from qfuzz.ir.tensor import DTYPES, Tensor, TensorType
from qfuzz.ops.conv_transpose import ConvTranspose
from qfuzz.ops.convolution import ConvInteger, unit_conv
from qfuzz.ops.linear import Linear
from qfuzz.ops.matmul import LinearInteger, MatMul, MatMulInteger
from qfuzz.ops.semantics import Operand
from qfuzz.oracle.admissible import admissible
from qfuzz.oracle.reference import CORRECT, exact_outputs

ACTIVATION = qtypes(dyadic=True)
UNIT = QType.per_tensor("int8", 1.0, 0)


def weighted(op: Operator, x: tuple[Array, Element], constants: list[tuple[Array, Element]], out: Element) -> Array:
    """The correctly rounded output of one node over an activation and constants."""
    data, element = x
    fed = Input("x", TensorType(data.shape, element))
    kept = tuple(Constant(f"c{i}", TensorType(a.shape, e), Tensor(a)) for i, (a, e) in enumerate(constants))
    network = Network((fed,), kept, (Node("y", op, ("x", *(c.name for c in kept)), out),), ("y",))
    return exact_outputs(Case(network, (Tensor(data),)))["y"]


@st.composite
def matrices(draw: st.DrawFn) -> tuple[tuple[Array, QType], tuple[Array, QType]]:
    """Two operands of a matrix product, of any ranks that can be multiplied."""
    m, k, n = (draw(st.integers(1, 3)) for _ in range(3))
    stack = draw(st.lists(st.integers(1, 2), max_size=2))
    shapes = [(*stack, m, k), (*stack, k, n), (m, k), (k, n), (k,)]
    left, right = draw(st.sampled_from([0, 2, 4])), draw(st.sampled_from([1, 3, 4]))
    q_a, q_b = draw(ACTIVATION), draw(ACTIVATION)
    return (draw(stored(q_a, shapes[left])), q_a), (draw(stored(q_b, shapes[right])), q_b)


def centered(a: Array, q: QType) -> Array:
    return np.asarray(a.astype(np.int64) - q.zero_point[0])


@LAW
@given(matrices(), st.booleans())
def test_matmul_integer_is_numpys_product_of_centered_integers(operands: Any, omits: bool) -> None:
    (a, q_a), (b, q_b) = operands
    y = apply(MatMulInteger(omits_zeros=omits), [(a, q_a), (b, q_b)], "int32")
    assert y.dtype == np.int32
    assert np.array_equal(y, np.matmul(centered(a, q_a), centered(b, q_b)))


@LAW
@given(matrices(), qtypes())
def test_matmul_is_a_rounded_matmul_integer(operands: Any, out: QType) -> None:
    """In units of the product of the scales, where nothing is rounded."""
    (a, q_a), (b, q_b) = operands
    acc = apply(MatMulInteger(), [(a, q_a), (b, q_b)], "int32").astype(np.int64)
    unit = q_a.scale[0] * q_b.scale[0]
    exact = QType.per_tensor(out.dtype, unit, out.zero_point[0])
    y = apply(MatMul(), [(a, q_a), (b, q_b)], exact)
    assert np.array_equal(y, np.clip(acc + out.zero_point[0], out.qmin, out.qmax))
    assert (apply(MatMul(relu=True), [(a, q_a), (b, q_b)], exact) >= out.zero_point[0]).all()


@LAW
@given(st.data(), qtypes())
def test_matmul_by_an_activation_is_linear_by_the_same_weight(data: Any, out: QType) -> None:
    q_x, q_w = data.draw(qtypes()), data.draw(qtypes())
    rows, k, n = (data.draw(st.integers(1, 3)) for _ in range(3))
    x, w = data.draw(stored(q_x, (rows, k))), data.draw(stored(q_w, (k, n)))
    by_weight = weighted(Linear(), (x, q_x), [(np.ascontiguousarray(w.T), q_w)], out)
    assert np.array_equal(apply(MatMul(), [(x, q_x), (w, q_w)], out), by_weight)
    acc = weighted(LinearInteger(), (x, q_x), [(np.ascontiguousarray(w.T), q_w)], "int32")
    assert np.array_equal(acc, apply(MatMulInteger(), [(x, q_x), (w, q_w)], "int32"))


@LAW
@given(matrices(), qtypes())
def test_a_product_of_transposed_matrices_is_the_transposed_product(operands: Any, out: QType) -> None:
    (a, q_a), (b, q_b) = operands
    if min(a.ndim, b.ndim) < 2:
        return
    y = apply(MatMul(), [(a, q_a), (b, q_b)], out)
    flipped = [(np.ascontiguousarray(np.swapaxes(v, -1, -2)), q) for v, q in ((b, q_b), (a, q_a))]
    assert np.array_equal(apply(MatMul(), flipped, out), np.swapaxes(y, -1, -2))


@st.composite
def transposed(draw: st.DrawFn) -> tuple[ConvTranspose, tuple[Array, QType], tuple[Array, QType]]:
    """A transposed convolution, its input and its weight; padding leaves something."""
    spatial = draw(st.integers(1, 2))
    groups, each, filters = (draw(st.integers(1, 2)) for _ in range(3))
    sizes, kernel, strides, dilations = (tuple(draw(st.integers(1, 3)) for _ in range(spatial)) for _ in range(4))
    more = tuple(draw(st.integers(0, s - 1)) for s in strides)
    full = [
        s * (n - 1) + r * (k - 1) + 1 + m for s, n, r, k, m in zip(strides, sizes, dilations, kernel, more, strict=True)
    ]
    before = tuple(draw(st.integers(0, (f - 1) // 2)) for f in full)
    after = tuple(draw(st.integers(0, f - 1 - b)) for f, b in zip(full, before, strict=True))
    op = ConvTranspose(
        strides=strides, padding=(*before, *after), dilations=dilations, output_padding=more, groups=groups
    )
    q_x, q_w = draw(ACTIVATION), draw(ACTIVATION)
    x = draw(stored(q_x, (draw(st.integers(0, 2)), groups * each, *sizes)))
    return op, (x, q_x), (draw(stored(q_w, (groups * each, filters, *kernel))), q_w)


@LAW
@given(transposed())
def test_conv_transpose_is_the_adjoint_of_conv(drawn: Any) -> None:
    """<conv_transpose(x), z> = <x, conv(z)> for every z, by the same weight: which is why it is called transposed."""
    op, (x, q_x), (w, q_w) = drawn
    points = [Operand.point(TensorType(a.shape, q), a) for a, q in ((x, q_x), (w, q_w))]
    y = op.image(points, QType.per_tensor("uint8", q_x.scale[0] * q_w.scale[0], 0)).lower.approx
    z = np.random.default_rng(x.size).integers(-128, 128, y.shape).astype(np.int8)
    conv = ConvInteger(strides=op.strides, padding=op.padding, dilations=op.dilations, groups=op.groups)
    back = weighted(conv, (z, UNIT), [(w, q_w)], "int32")
    assert (y * z).sum() == (centered(x, q_x) * back[tuple(slice(0, n) for n in x.shape)].astype(np.int64)).sum()


@LAW
@given(transposed(), qtypes())
def test_sizes_said_in_place_of_padding_change_nothing(drawn: Any, out: QType) -> None:
    op, x, w = drawn
    n = len(op.strides)
    before, after = op.padding[:n], op.padding[n:]
    said = ConvTranspose(**{f: getattr(op, f) for f in op.__struct_fields__} | {"says_sizes": True})
    if all(b - a in (0, 1) for b, a in zip(before, after, strict=True)):
        assert np.array_equal(weighted(op, x, [w], out), weighted(said, x, [w], out))
    else:
        with pytest.raises(InvalidCase, match="padding"):
            weighted(said, x, [w], out)


@LAW
@given(st.data(), qtypes())
def test_a_conv_of_volumes_of_one_layer_is_a_conv_of_images(data: Any, out: QType) -> None:
    q_x, q_w = data.draw(qtypes()), data.draw(qtypes())
    shape = (data.draw(st.integers(0, 2)), 2, *(data.draw(st.integers(1, 4)) for _ in range(2)))
    kernel = tuple(data.draw(st.integers(1, n)) for n in shape[2:])
    x, w = data.draw(stored(q_x, shape)), data.draw(stored(q_w, (3, 2, *kernel)))
    flat = weighted(unit_conv(2), (x, q_x), [(w, q_w)], out)
    axis = data.draw(st.integers(2, 4))
    volume = weighted(unit_conv(3), (np.expand_dims(x, axis), q_x), [(np.expand_dims(w, axis), q_w)], out)
    assert np.array_equal(volume, np.expand_dims(flat, axis))


@LAW
@given(st.data(), qtypes(), st.sampled_from((2.0, 0.5, 4.0)))
def test_a_factor_of_a_product_is_one_of_a_scale(data: Any, out: QType, factor: float) -> None:
    """alpha * x * w is x * w with the scale of w times alpha; beta does the same to a float32 bias."""
    q_x, q_w = data.draw(qtypes()), data.draw(qtypes())
    x, w = data.draw(stored(q_x, (2, 3))), data.draw(stored(q_w, (2, 3)))
    bias = np.array([1.5, -40.25], dtype=np.float32)
    wider = QType.per_tensor(q_w.dtype, q_w.scale[0] * factor, q_w.zero_point[0])
    with_factors = weighted(Linear(alpha=factor, beta=-factor), (x, q_x), [(w, q_w), (bias, "float32")], out)
    scaled = weighted(Linear(), (x, q_x), [(w, wider), (bias * np.float32(-factor), "float32")], out)
    assert np.array_equal(with_factors, scaled)


@LAW
@given(st.data(), qtypes())
def test_a_bias_of_no_factor_is_none(data: Any, out: QType) -> None:
    q_x, q_w = data.draw(qtypes()), data.draw(qtypes())
    x, w = data.draw(stored(q_x, (2, 3))), data.draw(stored(q_w, (2, 3)))
    bias = np.array([99, -7], dtype=data.draw(st.sampled_from(("int32", "float32"))))
    element: Element = "int32" if bias.dtype == np.int32 else "float32"
    without = weighted(Linear(), (x, q_x), [(w, q_w)], out)
    assert np.array_equal(weighted(Linear(beta=0.0), (x, q_x), [(w, q_w), (bias, element)], out), without)


@pytest.mark.parametrize("factor", [float("inf"), float("nan"), 0.1, 0.0])
def test_a_factor_is_a_float32_that_leaves_something(factor: float) -> None:
    x, w = np.zeros((1, 1), np.int8), np.zeros((1, 1), np.int8)
    with pytest.raises(InvalidCase, match=r"alpha|multiplier|product"):
        weighted(Linear(alpha=factor), (x, UNIT), [(w, UNIT)], UNIT)


def test_sums_that_could_leave_int32_are_refused() -> None:
    u8 = QType.per_tensor("uint8", 1.0, 0)
    shapes = (1, 2**31 // 255**2 + 1), (2**31 // 255**2 + 1, 1)
    for op, out in ((MatMul(), u8), (MatMulInteger(), "int32")):
        with pytest.raises(InvalidCase, match="accumulator"):
            apply(op, [(np.zeros(s, np.uint8), u8) for s in shapes], out)  # type: ignore[arg-type]


SUMS = (MatMulInteger(), LinearInteger(), ConvInteger(strides=(1,), padding=(0, 0), dilations=(1,)))


@pytest.mark.parametrize("op", SUMS, ids=lambda op: op.name)
def test_sums_of_integers_are_plain_int32_only(op: Operator) -> None:
    with pytest.raises(InvalidCase, match="plain int32"):
        op.infer([TensorType((1, 1, 1), UNIT), TensorType((1, 1, 1), UNIT)], UNIT)


LAYERS = ("linear", "conv", "conv_transpose")


def layer(op: str) -> tuple[Operator, tuple[int, ...], tuple[int, ...]]:
    """A layer of two output channels, and the shapes of its input and weight."""
    match op:
        case "linear":
            return Linear(), (2, 3), (2, 3)
        case "conv":
            return unit_conv(1), (2, 3, 2), (2, 3, 2)
        case _:
            plain = {"strides": (1,), "padding": (0, 0), "dilations": (1,), "output_padding": (0,)}
            return ConvTranspose(**plain), (2, 3, 2), (3, 2, 2)  # type: ignore[arg-type]


@pytest.mark.parametrize("op", LAYERS)
@LAW
@given(st.data(), ACTIVATION, ACTIVATION, qtypes())
def test_a_bias_in_units_of_the_accumulator_is_plain_int32(
    op: str, data: Any, q_x: QType, q_w: QType, out: QType
) -> None:
    """Where its scale is scale_x * scale_w, which float32 holds of powers of two."""
    node, shape, weight = layer(op)
    x, w = data.draw(stored(q_x, shape)), data.draw(stored(q_w, weight))
    counts = np.array(data.draw(st.lists(st.integers(-9999, 9999), min_size=2, max_size=2)), dtype=np.int32)
    unit = q_x.scale[0] * q_w.scale[0]
    plain = weighted(node, (x, q_x), [(w, q_w), (counts, "int32")], out)
    for q in (QType.per_tensor("int32", unit, 0), QType("int32", (unit, unit), (0, 0), 0)):
        assert np.array_equal(weighted(node, (x, q_x), [(w, q_w), (counts, q)], out), plain)


@pytest.mark.parametrize("op", LAYERS)
@LAW
@given(st.data(), qtypes(), qtypes(), ACTIVATION, qtypes())
def test_a_stored_bias_is_the_real_one_that_it_stands_for(
    op: str, data: Any, q_x: QType, q_w: QType, q_b: QType, out: QType
) -> None:
    node, shape, weight = layer(op)
    x, w, b = (data.draw(stored(q, s)) for q, s in ((q_x, shape), (q_w, weight), (q_b, (2,))))
    real = (centered(b, q_b) * q_b.scale[0]).astype(np.float32)
    of_reals = weighted(node, (x, q_x), [(w, q_w), (real, "float32")], out)
    assert np.array_equal(weighted(node, (x, q_x), [(w, q_w), (b, q_b)], out), of_reals)


@pytest.mark.parametrize("op", LAYERS)
@pytest.mark.parametrize("dtype", ["int2", "uint2", "int4", "uint4", "int16", "uint16"])
def test_integers_of_any_width_mean_the_same(op: str, dtype: Any) -> None:
    node, shape, weight = layer(op)
    draw = np.random.default_rng(5)
    out = QType.per_tensor("int8", 0.75, 3)
    narrow, wide = QType.per_tensor(dtype, 0.5, 1), QType.per_tensor("int8", 0.5, 1)
    low, high = max(narrow.qmin, -128), min(narrow.qmax, 127)
    x, w = draw.integers(0, 2, shape).astype(np.int8), draw.integers(low, high + 1, weight).astype(np.int8)
    expected = weighted(node, (x, wide), [(w, wide)], out)
    told = DTYPES[dtype]
    assert np.array_equal(weighted(node, (x, wide), [(w.astype(told), narrow)], out), expected)
    assert np.array_equal(weighted(node, (x.astype(told), narrow), [(w.astype(told), narrow)], out), expected)


OWN: dict[str, tuple[Element, str]] = {
    "zero point of int32": (QType.per_tensor("int32", 1.0, 3), "no zero point"),
    "int16": (QType.per_tensor("int16", 1.0, 0), "int16"),
    "blocks": (QType("int8", (1.0,), (0,), 0, 2), "in blocks"),
    "huge": (QType.per_tensor("int32", 2.0**100, 0), "overflow"),
    "float16": ("float16", "needs plain int32"),
}


@pytest.mark.parametrize("op", LAYERS)
@pytest.mark.parametrize("name", OWN)
def test_biases_that_mean_nothing_are_refused(op: str, name: str) -> None:
    node, shape, weight = layer(op)
    bias, message = OWN[name]
    with pytest.raises(InvalidCase, match=message):
        node.infer([TensorType(shape, UNIT), TensorType(weight, UNIT), TensorType((2,), bias)], UNIT)


def test_sums_of_wider_integers_fit_float64_in_place_of_int32() -> None:
    wide = QType.per_tensor("int16", 1.0, 0)
    x, w = (np.full((1, 4), -(2**15), np.int16) for _ in range(2))
    out = QType.per_tensor("int16", 2.0**20, 0)
    assert weighted(Linear(), (x, wide), [(w, wide)], out)[0, 0] == 2**12
    n = 2**23 + 1
    with pytest.raises(InvalidCase, match="float64"):
        Linear().check_constants({1: Tensor(np.full((1, n), -(2**15), np.int16))}, [TensorType((1, n), wide)] * 2)


def test_sums_that_are_given_are_of_bytes() -> None:
    narrow = QType.per_tensor("int4", 1.0, 0)
    for op in SUMS:
        with pytest.raises(InvalidCase, match="int4"):
            op.infer([TensorType((1, 1, 1), UNIT), TensorType((1, 1, 1), narrow)], "int32")


@LAW
@given(
    st.lists(st.floats(-(2.0**20), 2.0**20, width=32), min_size=6, max_size=6),
    st.lists(st.integers(-140, 20), min_size=6, max_size=6),
    qtypes(),
    st.one_of(qtypes(), st.just("float32")),
)
def test_real_activations_of_any_magnitude_are_summed_exactly(
    numbers: list[float], exponents: list[int], q_w: QType, out: Element
) -> None:
    x = np.ldexp(np.array(numbers), exponents).astype(np.float32).reshape(1, 2, 3)
    w = np.array([[[3, -100], [127, 1]], [[q_w.qmin, q_w.qmax], [0, 5]]]).clip(q_w.qmin, q_w.qmax).astype(q_w.dtype)
    fed = Input("x", TensorType(x.shape, "float32"))
    constants = (Constant("w", TensorType(w.shape, q_w), Tensor(w)),)
    case = Case(Network((fed,), constants, (Node("y", unit_conv(1), ("x", "w"), out),), ("y",)), (Tensor(x),))
    assert exact_outputs(case)["y"].ravel().tolist() == list(evaluate(case)["y"].stored)


@pytest.mark.parametrize("got", [0, 7, 255])
def test_where_real_sums_overflow_any_integer_is_admissible(got: int) -> None:
    q = QType.per_tensor("uint8", 1.0, 3)
    points = [
        Operand.point(TensorType((1, 2, 1), "float32"), np.array([[[3e38], [-3e38]]], np.float32)),
        Operand.point(TensorType((1, 2, 1), UNIT), np.array([[[100], [100]]], np.int8)),
    ]
    image = unit_conv(1).image(points, q)
    allowed = admissible(image, CORRECT, q, FilterCount())
    assert allowed.lo.item() <= got <= allowed.hi.item()
