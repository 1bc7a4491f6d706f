"""All passes, in visible tiers: plain functions from a case to smaller candidates. The driver judges."""

from qfuzz.reduce.data import DATA
from qfuzz.reduce.edit import Pass
from qfuzz.reduce.saying_nothing import SAYING_NOTHING
from qfuzz.reduce.shapes import SHAPES
from qfuzz.reduce.structure import STRUCTURE

TIERS: list[list[Pass]] = [STRUCTURE, SHAPES, SAYING_NOTHING, DATA]
"""Each tier is run to its fixpoint before the next; the whole list again until no single step is left."""
