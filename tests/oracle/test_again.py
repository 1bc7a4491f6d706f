"""Fresh inputs: of every case, whatever its inputs hold."""

import itertools

import numpy as np

from qfuzz.ir.qtype import integer_range
from qfuzz.oracle.again import fresh_inputs
from qfuzz.strategies.generate import cases_of


def test_every_case_has_fresh_inputs_of_its_types() -> None:
    dtypes = set()
    for shard in range(3):
        for case in itertools.islice(cases_of(9, shard, max_nodes=1), 200):
            for again in fresh_inputs(case):
                for value, old, new in zip(case.network.inputs, case.inputs, again.inputs, strict=True):
                    assert (new.dtype, new.shape) == (old.dtype, old.shape)
                    bounds = integer_range(value.type.element)
                    if bounds is not None and new.array.size:
                        assert bounds[0] <= new.array.astype(np.int64).min() <= new.array.max() <= bounds[1]
                    dtypes.add(new.dtype)
    assert {"int2", "uint4", "bool", "int16", "float32"} <= dtypes
