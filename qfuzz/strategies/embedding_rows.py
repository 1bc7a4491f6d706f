"""The drawing side of embedding_rows."""

from qfuzz.ops.embedding_rows import EmbeddingRows
from qfuzz.strategies import fill
from qfuzz.strategies.builder import Builder, RealRange

FEATURES = (1, 4, 8, 2, 12, 16, 31, 32, 33, 36, 64, 100, 3)
"""The kernels have vectors of 8, and four of them at once."""


def draw_embedding_rows(b: Builder) -> None:
    """An embedding_rows node on a new float32 input, which ends a branch."""
    d = b.d
    source = b.current
    lead = (d.pick((1, 2, 3, 9) if b.flavour.common else (1, 2, 3, 9, 0)), *(2,) * d.rarely(6))
    x = b.add_input((*lead, d.pick(FEATURES)), "float32")
    magnitude = d.pick((1.0, 1.0, 2.0**-8, 2.0**8, 2.0**-14, 2.0**-26))
    b.ranges[x] = RealRange(d.integer(0, fill.N_RANGES - 1), magnitude)
    b.add_node(EmbeddingRows(bits=d.pick((8, 4, 2))), (x,), "float32")
    if d.rarely(3):
        b.forms.append(("call", "overload"))
    b.current = source
