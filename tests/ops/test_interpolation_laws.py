"""Laws of interpolate, and of the bounds on what float32 kernels make of its coordinates and weights."""

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from one_node import LAW, apply, network_of, qtypes, stored

from qfuzz.ir.contract import Contract
from qfuzz.ir.errors import InvalidCase
from qfuzz.ir.qtype import QType, float32
from qfuzz.ir.tensor import TensorType
from qfuzz.ops.interpolation import Interpolate
from qfuzz.ops.sampling import Kernel, Sampling, keys, rows
from qfuzz.ops.semantics import Operand

X = QType.per_tensor("uint8", 0.5, 7)
COORDINATES = ("half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel", "half_pixel_symmetric")
NEAREST = ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")
U = Fraction(1, 2**24)
Array = np.ndarray[Any, Any]

sizes = st.tuples(st.integers(1, 5), st.integers(1, 5))
coordinates = st.sampled_from(COORDINATES)
modes = st.sampled_from(("nearest", "linear", "cubic"))
attributes = st.fixed_dictionaries(
    {"mode": modes, "coordinates": coordinates, "nearest_mode": st.sampled_from(NEAREST), "antialias": st.booleans()}
).map(lambda how: how | {"antialias": how["antialias"] and how["mode"] != "nearest"})


@LAW
@given(sizes, attributes, qtypes(), qtypes(), st.data())
def test_the_same_size_is_the_same_image(
    shape: tuple[int, ...], how: dict[str, Any], q: QType, out: QType, data: st.DataObject
) -> None:
    x = data.draw(stored(q, shape))
    assert np.array_equal(apply(Interpolate(sizes=shape, **how), [(x, q)], q), x)
    ones = Interpolate(scales=(1.0, 1.0), **how)
    assert np.array_equal(apply(ones, [(x, q)], out), apply(Interpolate(sizes=shape, **how), [(x, q)], out))


@LAW
@given(sizes, sizes, attributes, qtypes(), st.data())
def test_a_plain_surface_stays_plain(
    shape: tuple[int, ...], new: tuple[int, ...], how: dict[str, Any], q: QType, data: st.DataObject
) -> None:
    level = data.draw(st.integers(q.qmin, q.qmax))
    outside = (how["mode"] == "cubic" or how["antialias"]) and data.draw(st.booleans())
    y = apply(Interpolate(sizes=new, exclude_outside=outside, **how), [(np.full(shape, level), q)], q)
    assert y.shape == new and (y == level).all()


@LAW
@given(sizes, sizes, attributes, qtypes(), st.data())
def test_nothing_is_made_beyond_the_image(
    shape: tuple[int, ...], new: tuple[int, ...], how: dict[str, Any], q: QType, data: st.DataObject
) -> None:
    x = data.draw(stored(q, shape))
    y = apply(Interpolate(sizes=new, **how), [(x, q)], q)
    if how["mode"] == "nearest":
        assert np.isin(y, x).all()
    if how["mode"] == "linear":
        assert x.min() <= y.min() and y.max() <= x.max()


@LAW
@given(sizes, sizes, attributes, qtypes(), st.data())
def test_a_scale_is_the_quotient_of_sizes_and_axes_leave_the_rest(
    shape: tuple[int, ...], new: tuple[int, ...], how: dict[str, Any], q: QType, data: st.DataObject
) -> None:
    x = data.draw(stored(q, shape))
    factor = data.draw(st.sampled_from((1.0, 2.0, 3.0)))
    by_scale = apply(Interpolate(scales=(factor, 1.0), **how), [(x, q)], q)
    assert np.array_equal(by_scale, apply(Interpolate(sizes=(int(shape[0] * factor), shape[1]), **how), [(x, q)], q))
    whole = apply(Interpolate(sizes=(shape[0], new[1]), **how), [(x, q)], q)
    assert np.array_equal(apply(Interpolate(sizes=(new[1],), axes=(-1,), **how), [(x, q)], q), whole)


@LAW
@given(sizes, sizes, st.sampled_from(("linear", "cubic")), st.sampled_from(COORDINATES), qtypes(), st.data())
def test_a_mirrored_or_turned_image_gives_the_result_mirrored_or_turned(
    shape: tuple[int, ...], new: tuple[int, ...], mode: Any, how: Any, q: QType, data: st.DataObject
) -> None:
    x = data.draw(stored(q, shape))
    antialias = data.draw(st.booleans())
    op = Interpolate(sizes=new, mode=mode, coordinates=how, antialias=antialias)
    y = apply(op, [(x, q)], q)
    turned = Interpolate(sizes=new[::-1], mode=mode, coordinates=how, antialias=antialias)
    assert np.array_equal(apply(turned, [(np.ascontiguousarray(x.T), q)], q), y.T)
    if how in ("half_pixel", "align_corners", "half_pixel_symmetric") and (how != "align_corners" or 1 not in new):
        assert np.array_equal(apply(op, [(np.ascontiguousarray(x[::-1, ::-1]), q)], q), y[::-1, ::-1])


@LAW
@given(sizes, st.sampled_from(("linear", "cubic")), coordinates, qtypes(), st.data())
def test_antialiasing_changes_nothing_where_nothing_becomes_shorter(
    shape: tuple[int, ...], mode: Any, how: Any, q: QType, data: st.DataObject
) -> None:
    x = data.draw(stored(q, shape))
    new = tuple(n + data.draw(st.integers(0, 4)) for n in shape)
    plain, smooth = (Interpolate(sizes=new, mode=mode, coordinates=how, antialias=a) for a in (False, True))
    assert np.array_equal(apply(plain, [(x, q)], q), apply(smooth, [(x, q)], q))


@LAW
@given(st.integers(1, 4), st.integers(1, 3), st.integers(1, 3), attributes, qtypes(), st.data())
def test_a_kept_aspect_is_one_scale_for_all_axes(
    n: int, factor: int, more: int, how: dict[str, Any], q: QType, data: st.DataObject
) -> None:
    shape = (n, data.draw(st.integers(1, 4)))
    x = data.draw(stored(q, shape))
    asked = (shape[0] * factor, shape[1] * factor + more)
    kept = apply(Interpolate(sizes=asked, aspect="not_larger", **how), [(x, q)], q)
    assert np.array_equal(kept, apply(Interpolate(scales=(float(factor),) * 2, **how), [(x, q)], q))
    asked = (shape[0] * (factor + 1), max(1, shape[1] * (factor + 1) - more))
    kept = apply(Interpolate(sizes=asked, aspect="not_smaller", **how), [(x, q)], q)
    assert np.array_equal(kept, apply(Interpolate(scales=(float(factor + 1),) * 2, **how), [(x, q)], q))


def _in_float32(s: Sampling, mode: str, i: int) -> float:
    """The coordinate as core/providers/cpu/tensor/upsamplebase.h has it, in NumPy's float32."""
    f = np.float32
    scale = f(float(s.scale)) if s.given else f(s.out) / f(s.size)
    match mode:
        case "asymmetric":
            return float(f(i) / scale)
        case "align_corners":
            return 0.0 if s.out == 1 else float(f(i) * f(s.size - 1) / f(s.out - 1))
        case "pytorch_half_pixel" if s.out == 1:
            return 0.0
        case "half_pixel_symmetric":
            offset = f(s.size) / f(2) * (f(1) - f(s.out) / (scale * f(s.size)))
            return float(f(float(offset) + (i + 0.5) / float(scale) - 0.5))
        case _:
            return float((f(i) + f(0.5)) / scale - f(0.5))


samplings = st.one_of(
    st.tuples(st.integers(1, 70), st.integers(1, 90)).map(lambda n: Sampling(*n, Fraction(n[1], n[0]), False)),
    st.tuples(st.integers(1, 70), st.floats(0.125, 5.0, width=32)).map(
        lambda n: Sampling(n[0], max(1, int(n[0] * n[1])), Fraction(n[1]), True)
    ),
)


@LAW
@given(samplings, coordinates, st.data())
def test_slack_bounds_what_float32_makes_of_a_coordinate(s: Sampling, mode: str, data: st.DataObject) -> None:
    i = data.draw(st.integers(0, s.out - 1))
    exact, slack = s.coordinate(i, mode, Fraction(s.out)), s.slack(i, mode)
    assert abs(Fraction(_in_float32(s, mode, i)) - exact) <= Fraction(slack)


def _cubic_in_float32(t: float, a: float) -> list[np.float32]:
    """GetCubicCoeffs of core/providers/cpu/tensor/upsample.cc in NumPy's float32."""
    f = np.float32
    s, c, one, two = f(t), f(a), f(1), f(2)

    def outer(d: Any) -> Any:
        return ((c * d - f(5) * c) * d + f(8) * c) * d - f(4) * c

    def inner(d: Any) -> Any:
        return ((c + two) * d - (c + f(3))) * d * d + one

    return [outer(s + one), inner(s), inner(one - s), outer(two - s)]


@LAW
@given(st.floats(0.0, 1.0, width=32, exclude_max=True), st.floats(-1.0, 0.0, width=32))
def test_roundings_bound_what_float32_makes_of_a_cubic_weight(t: float, a: float) -> None:
    # 8 elements and a coordinate that lies in their middle: i / scale = 3 + t at i = 1.
    scale = 1 / (Fraction(t) + 3)
    s = Sampling(8, 2, scale, True)
    r = rows(s, Kernel("cubic", "asymmetric", "floor", a, False))
    for j, got in enumerate(_cubic_in_float32(t, a)):
        exact = keys(Fraction(t) - (j - 1), a)
        assert abs(Fraction(float(got)) - exact) <= U * Fraction(float(r.roundings[1, 2 + j])) * Fraction(11, 10)


@pytest.mark.parametrize("mode", ["linear", "cubic"])
def test_short_binary_weights_are_exact(mode: Any) -> None:
    """Doubling an image takes quarters: ties are decided, not ambiguous."""
    op = Interpolate(sizes=(8, 8), mode=mode)
    assert all(r is not None and r.exact.all() and not r.spread.any() for r in op.rows((4, 4)))
    assert not any(r is not None and r.exact.all() for r in Interpolate(sizes=(7, 7), mode=mode).rows((4, 4)))


@pytest.mark.parametrize(
    ("op", "message"),
    [
        (Interpolate(), r"scales, sizes: \(\), \(\); need 2 of one of them"),
        (Interpolate(scales=(1.0, 1.0), sizes=(2, 3)), "need 2 of one of them"),
        (Interpolate(sizes=(2,)), "need 2 of one of them"),
        (Interpolate(sizes=(2,), axes=(2,)), r"axes: 2; needs -2\.\.1"),
        (Interpolate(sizes=(2, 2), axes=(0, -2)), "twice"),
        (Interpolate(scales=(0.1, 1.0)), r"scales: 0\.1; needs a normal, positive float32"),
        (Interpolate(scales=(-1.0, 1.0)), "scales: -1"),
        (Interpolate(scales=(1.0, float32(5 / 3))), "integer in float32 only"),
        (Interpolate(scales=(1.0, 2.0**40)), "at most"),
        (Interpolate(sizes=(2, -1)), "sizes: -1"),
        (Interpolate(sizes=(2**23, 3)), "at most"),
        (Interpolate(sizes=(2, 3), cubic_coeff_a=0.5), r"cubic_coeff_a: 0\.5"),
        (Interpolate(sizes=(2, 3), exclude_outside=True), "exclude_outside: set for mode nearest"),
        (Interpolate(sizes=(2, 3), antialias=True), "antialias: set for mode nearest"),
        (Interpolate(scales=(1.0, 1.0), aspect="not_larger"), "aspect: not_larger; needs sizes"),
        (Interpolate(sizes=(2, 0), aspect="not_smaller"), "aspect: not_smaller; needs sizes of at least 1"),
    ],
)
def test_a_broken_attribute_is_named(op: Interpolate, message: str) -> None:
    with pytest.raises(InvalidCase, match=message):
        network_of(op, [((2, 3), X)], X)


def test_an_empty_dimension_cannot_grow() -> None:
    assert network_of(Interpolate(sizes=(0, 3)), [((0, 2), X)], X).types["y"].shape == (0, 3)
    with pytest.raises(InvalidCase, match="is empty, and cannot become 2"):
        network_of(Interpolate(sizes=(2, 3)), [((0, 3), X)], X)


def test_pytorch_takes_the_scale_that_is_given() -> None:
    """Where no length changes: ONNX and the float kernel of nearest leave open whether it counts, nearest-exact not."""
    x = np.array([[10, 20, 30, 40]], dtype=np.uint8)
    exact = Interpolate(
        scales=(1.0, float32(1.2)), mode="nearest", coordinates="half_pixel", nearest_mode="round_prefer_ceil"
    )
    floor = Interpolate(scales=(1.0, float32(1.2)), mode="nearest", coordinates="asymmetric", nearest_mode="floor")
    operand = Operand.point(TensorType(x.shape, X), x.astype(np.float64))
    onnx = Contract(terms="affine", k=1, tie="half_even", source="test")
    torch = Contract(terms="affine", k=1, tie="half_even", source="test", multiplies_scale=True)
    for op, contract, open_ in ((exact, onnx, True), (exact, torch, False), (floor, onnx, True), (floor, torch, True)):
        assert (op.image([operand], X).error(contract).max() >= 1.0) == open_


def test_a_coordinate_that_is_a_product_is_rounded_twice() -> None:
    """3 positions between corners 4 apart: a quotient is exact, the product with a rounded 4/6 is not."""
    s = Sampling(5, 7, Fraction(7, 5), False)
    assert s.slack(3, "align_corners") == 0.0
    assert s.slack(3, "align_corners", multiplied=True) > 0.0
    even = Sampling(5, 9, Fraction(9, 5), False)
    assert even.slack(3, "align_corners", multiplied=True) == 0.0, "a half is no rounded quotient"
