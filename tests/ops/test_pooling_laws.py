"""Laws of max_pool, avg_pool, global_avg_pool, adaptive_avg_pool."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from one_node import LAW, Array, apply, image_shapes, network_of, qtypes, stored

from qfuzz.ir.errors import InvalidCase
from qfuzz.ir.operator import Operator
from qfuzz.ir.qtype import QType
from qfuzz.ops.movement import Transpose
from qfuzz.ops.pooling import AdaptiveAvgPool, AvgPool, GlobalAvgPool, MaxPool
from qfuzz.ops.quantization import Requantize

X = QType.per_tensor("uint8", 0.5, 7)
POOLS = ("max_pool", "avg_pool", "global_avg_pool", "adaptive_avg_pool")


def _windows(data: st.DataObject, shape: tuple[int, ...], padded: bool = True) -> dict[str, Any]:
    """Attributes of a pool that fits `shape`."""
    kernel = tuple(data.draw(st.integers(1, d)) for d in shape[2:])
    return {
        "kernel": kernel,
        "strides": tuple(data.draw(st.integers(1, 4)) for _ in kernel),
        "padding": tuple(data.draw(st.integers(0, k // 2 if padded else 0)) for k in (*kernel, *kernel)),
        "ceil_mode": data.draw(st.booleans()),
    }


def _pool(data: st.DataObject, name: str, shape: tuple[int, ...], **fixed: Any) -> Operator:
    match name:
        case "max_pool":
            return MaxPool(**_windows(data, shape), dilations=(1, 1))
        case "avg_pool":
            return AvgPool(**_windows(data, shape), **{"count_include_pad": data.draw(st.booleans()), **fixed})
        case "adaptive_avg_pool":
            return AdaptiveAvgPool(output_size=tuple(data.draw(st.integers(1, d + 2)) for d in shape[2:]))
        case _:
            return GlobalAvgPool()


def _drawn(data: st.DataObject) -> tuple[Array, QType]:
    q = data.draw(qtypes())
    return data.draw(stored(q, data.draw(image_shapes))), q


@pytest.mark.parametrize("name", POOLS)
@LAW
@given(data=st.data())
def test_pool_of_a_constant_is_that_constant(name: str, data: st.DataObject) -> None:
    """Where padding does not count: an average that counts it falls towards 0."""
    q, out = data.draw(qtypes()), data.draw(qtypes())
    constant = np.array([data.draw(st.integers(q.qmin, q.qmax))], dtype=q.dtype)
    x = np.full(data.draw(image_shapes), constant)
    y = apply(_pool(data, name, x.shape, count_include_pad=False), [(x, q)], out)
    assert (y == apply(Requantize(), [(constant, q)], out)).all()


@pytest.mark.parametrize("name", POOLS)
@LAW
@given(data=st.data())
def test_pool_lies_between_the_least_and_the_greatest(name: str, data: st.DataObject) -> None:
    x, q = _drawn(data)
    y = apply(_pool(data, name, x.shape), [(x, q)], q)
    if x.size:  # counted padding is a real 0
        assert min(x.min(), q.zero_point[0]) <= y.min()
        assert y.max() <= max(x.max(), q.zero_point[0])
    assert y.shape[:2] == x.shape[:2]


@LAW
@given(data=st.data())
def test_pools_with_a_window_of_one_are_requantize(data: st.DataObject) -> None:
    x, q = _drawn(data)
    out = data.draw(qtypes())
    one = {"kernel": (1, 1), "strides": (1, 1), "padding": (0, 0, 0, 0)}
    expected = apply(Requantize(), [(x, q)], out)
    assert np.array_equal(apply(MaxPool(**one, dilations=(2, 3)), [(x, q)], out), expected)  # type: ignore[arg-type]
    assert np.array_equal(apply(AvgPool(**one), [(x, q)], out), expected)  # type: ignore[arg-type]


@LAW
@given(data=st.data())
def test_global_average_is_the_average_over_one_window_of_all(data: st.DataObject) -> None:
    x, q = _drawn(data)
    out = data.draw(qtypes())
    window = AvgPool(kernel=x.shape[2:], strides=(1, 1), padding=(0, 0, 0, 0))
    assert np.array_equal(apply(GlobalAvgPool(), [(x, q)], out), apply(window, [(x, q)], out))


@LAW
@given(data=st.data())
def test_adaptive_windows_that_divide_are_those_of_an_average(data: st.DataObject) -> None:
    """As many windows as there are elements change nothing but the type."""
    x, q = _drawn(data)
    out = data.draw(qtypes())
    parts = tuple(data.draw(st.sampled_from([n for n in range(1, d + 1) if d % n == 0])) for d in x.shape[2:])
    kernel = tuple(d // n for d, n in zip(x.shape[2:], parts, strict=True))
    window = AvgPool(kernel=kernel, strides=kernel, padding=(0,) * (2 * len(kernel)))
    y = apply(AdaptiveAvgPool(output_size=parts), [(x, q)], out)
    assert np.array_equal(y, apply(window, [(x, q)], out))


@LAW
@given(data=st.data())
def test_a_divisor_scales_sums_as_an_output_scale_does(data: st.DataObject) -> None:
    x, q = _drawn(data)
    a = _windows(data, x.shape, padded=False) | {"ceil_mode": False}
    n = int(np.prod(a["kernel"]))
    k = data.draw(st.sampled_from([1, 2, 4, 8]))
    out = QType.per_tensor(q.dtype, 1.0, q.zero_point[0])
    coarser = QType.per_tensor(q.dtype, float(k), q.zero_point[0])
    by_count = apply(AvgPool(**a), [(x, q)], coarser)
    assert np.array_equal(apply(AvgPool(**a, divisor_override=k * n), [(x, q)], out), by_count)


@pytest.mark.parametrize("name", POOLS[:2])
@LAW
@given(data=st.data())
def test_pool_of_the_transposed_is_the_transposed(name: str, data: st.DataObject) -> None:
    """Height and width are treated alike."""
    x, q = _drawn(data)
    kind: type[Any] = MaxPool if name == "max_pool" else AvgPool
    more = {"dilations": (1, 1)} if name == "max_pool" else {}
    a = _windows(data, x.shape)
    top, left, bottom, right = a["padding"]
    swapped = {**a, "padding": (left, top, right, bottom), "kernel": a["kernel"][::-1], "strides": a["strides"][::-1]}

    def turned(array: Array) -> Array:
        return apply(Transpose(perm=(0, 1, 3, 2)), [(array, q)], q)

    y = apply(kind(**a, **more), [(x, q)], q)
    assert np.array_equal(turned(y), apply(kind(**swapped, **more), [(turned(x), q)], q))


@LAW
@given(data=st.data())
def test_ceil_mode_only_adds_windows(data: st.DataObject) -> None:
    x, q = _drawn(data)
    a = _windows(data, x.shape)
    for op in (MaxPool(**{**a, "ceil_mode": False}, dilations=(1, 1)), AvgPool(**{**a, "ceil_mode": False})):
        floor = apply(op, [(x, q)], q)
        more = {"dilations": (1, 1)} if isinstance(op, MaxPool) else {}
        ceil = apply(type(op)(**{**a, "ceil_mode": True}, **more), [(x, q)], q)
        assert np.array_equal(ceil[:, :, : floor.shape[2], : floor.shape[3]], floor)


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "padding", "include", "divisors"),
    [
        (4, 3, 2, (0, 0), True, [3, 2]),  # the last window overhangs the input: what is beyond does not count
        (4, 3, 2, (1, 1), True, [3, 3, 2]),  # padding counts, what ceil_mode adds beyond it does not
        (4, 3, 2, (1, 1), False, [2, 3, 1]),
        (3, 2, 2, (1, 1), True, [2, 2]),
        (5, 2, 3, (0, 0), False, [2, 2]),
        (1, 2, 5, (1, 1), True, [2]),  # a second window would start beyond the input
    ],
)
def test_divisors_with_ceil_mode(
    size: int, kernel: int, stride: int, padding: tuple[int, int], include: bool, divisors: list[int]
) -> None:
    """`torch.nn.functional.avg_pool1d(..., ceil_mode=True)` of ones is each window's count of elements over these."""
    op = AvgPool(kernel=(kernel,), strides=(stride,), padding=padding, ceil_mode=True, count_include_pad=include)
    network = network_of(op, [((1, 1, size), X)], X)
    out = network.types["y"].shape[2:]
    assert op.divisors((size,), out).tolist() == divisors


@pytest.mark.parametrize(
    ("op", "message"),
    [
        (MaxPool(kernel=(2,), strides=(1,), padding=(0, 0), dilations=(1,)), "kernel: .* needs 2 values"),
        (AvgPool(kernel=(0, 1), strides=(1, 1), padding=(0, 0, 0, 0)), r"kernel: \(0, 1\)"),
        (AvgPool(kernel=(2, 2), strides=(0, 1), padding=(0, 0, 0, 0)), r"strides: \(0, 1\)"),
        (AvgPool(kernel=(2, 2), strides=(1, 1), padding=(2, 0, 0, 0)), "padding: .* at most half"),
        (AvgPool(kernel=(9, 1), strides=(1, 1), padding=(0, 0, 0, 0)), "larger than the padded input 4"),
        (MaxPool(kernel=(2, 2), strides=(1, 1), padding=(1, 1, 1, 1), dilations=(9, 1)), "larger than the padded"),
        (AvgPool(kernel=(2**33, 1), strides=(1, 1), padding=(2**32, 0, 2**32, 0)), "needs 2 values in 1"),
        (AvgPool(kernel=(2**23, 1), strides=(1, 1), padding=(2**22, 0, 2**22, 0)), "at most"),
        (MaxPool(kernel=(2, 2), strides=(2**70, 1), padding=(0, 0, 0, 0), dilations=(1, 1)), "strides: "),
        (MaxPool(kernel=(1, 1), strides=(1, 1), padding=(0, 0, 0, 0), dilations=(2**70, 1)), "dilations: "),
    ],
)
def test_a_broken_attribute_is_named(op: Operator, message: str) -> None:
    with pytest.raises(InvalidCase, match=message):
        network_of(op, [((1, 2, 4, 4), X)], X)


def test_an_empty_image_has_no_windows() -> None:
    with pytest.raises(InvalidCase, match="only the batch may be empty"):
        network_of(GlobalAvgPool(), [((1, 1, 0, 2), X)], X)
    with pytest.raises(InvalidCase, match="1-d to 3-d"):
        network_of(GlobalAvgPool(), [((1, 1), X)], X)
