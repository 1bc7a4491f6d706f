"""The drawing side of fake_quantize: what the levels are, and how it is called."""

import numpy as np

from qfuzz.ir.forms import CHOICES
from qfuzz.ir.qtype import float32
from qfuzz.ops.fake_quantization import FakeQuantize
from qfuzz.strategies import fill
from qfuzz.strategies.builder import Builder

FORMS = ("fake_quantizer",)
"""Dimensions of form that are about this operator only."""
_CALLS = tuple(c for c in CHOICES if c[0] in FORMS)
_RANGES = (
    (0, 255), (-128, 127), (0, 127), (-127, 127), (0, 15), (-8, 7), (0, 65535), (-32768, 32767), (0, 1), (5, 5),
)  # fmt: skip
_MAX_CHANNELS = 64


def draw_fake_quantize(b: Builder) -> None:
    """A fake_quantize node on new reals, which ends a branch."""
    d = b.d
    source = b.current
    shape = b.type.shape if b.current else (8, 4)
    low, high = d.pick(_RANGES)
    channels = [a for a, size in enumerate(shape) if 0 < size <= _MAX_CHANNELS]
    axis = channels[d.integer(0, len(channels) - 1)] if channels and d.integer(0, 1) else None
    n = 1 if axis is None else shape[axis]
    base = b.scale(1.0, 6)
    key = d.key()
    steps = fill.below(fill.words(key, n, stream=5), 5)
    scales = np.array([float32(base * 2.0 ** int(s - 2)) if n > 1 else base for s in steps], np.float32)
    picks = fill.words(key, n, stream=6)
    middle = min(max(0, low), high)
    ends = np.array([middle, low, high, (low + high + 1) // 2])
    anything = low + fill.below(picks, high - low + 1)
    zero_points = np.where(fill.below(picks, 2) == 0, ends[fill.below(picks, 4)], anything if key else middle)
    as_given = () if axis is None else (n,)
    x = b.add_input(shape, "float32")
    scale = b.add_constant("s", "float32", scales.reshape(as_given))
    zero_point = b.add_constant("z", "int32", zero_points.astype(np.int32).reshape(as_given))
    b.add_node(FakeQuantize(quant_min=low, quant_max=high, axis=axis or 0), (x, scale, zero_point), "float32")
    if d.integer(0, 1):
        b.forms.append(d.pick(_CALLS))
    b.current = source
