"""Windows are those that NumPy's own, slower functions give."""

import itertools

import numpy as np
import pytest

from qfuzz.ops.sliding import columns, padded, windows

FORMS = [
    (shape, kernel, strides, dilations, before, after)
    for shape, kernel in (((2, 4, 7), (3,)), ((0, 4, 7), (3,)), ((2, 4, 6, 5), (3, 2)), ((1, 2, 1, 1), (1, 1)))
    for strides, dilations in itertools.product((1, 2, 5), (1, 2))
    for before, after in ((0, 0), (1, 2), (2, 0))
]


@pytest.mark.parametrize(("shape", "kernel", "strides", "dilations", "before", "after"), FORMS, ids=str)
def test_windows_and_columns_are_those_of_numpy(
    shape: tuple[int, ...], kernel: tuple[int, ...], strides: int, dilations: int, before: int, after: int
) -> None:
    n = len(kernel)
    reach = tuple(dilations * (k - 1) + 1 for k in kernel)
    if any(size + before + after < r for size, r in zip(shape[2:], reach, strict=True)):
        before = after = max(reach)
    a = np.arange(float(np.prod(shape))).reshape(shape[::-1]).transpose()  # not contiguous
    wide = padded(a, (before,) * n, (after,) * n, -1.0)
    assert np.array_equal(wide, np.pad(a, [(0, 0), (0, 0), *[(before, after)] * n], constant_values=-1.0))
    steps = (slice(None), slice(None), *[slice(None, None, strides)] * n, *[slice(None, None, dilations)] * n)
    expected = np.lib.stride_tricks.sliding_window_view(wide, reach, axis=tuple(range(2, 2 + n)))[steps]
    out = expected.shape[2 : 2 + n]
    got = windows(wide, kernel, (strides,) * n, (dilations,) * n, out)
    assert np.array_equal(got, expected)
    groups = 2
    taken = columns(wide, groups, kernel, (strides,) * n, (dilations,) * n, out)
    order = (1, *range(2 + n, 2 + 2 * n), 0, *range(2, 2 + n))  # channels, taps, batch, positions
    assert np.array_equal(taken, expected.transpose(order).reshape(taken.shape))
    assert taken.shape[1] == shape[1] // groups * np.prod(kernel)


def test_a_view_beyond_its_buffer_is_refused() -> None:
    with pytest.raises(ValueError, match="incompatible"):
        windows(np.zeros((1, 1, 4)), (3,), (1,), (1,), (3,))
