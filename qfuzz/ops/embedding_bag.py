"""embedding_bag: rows of a stored table, looked up and summed, bag by bag.

Semantics: torch.nn.functional.embedding_bag ("Compute sums, means or maxes of bags of embeddings, without instantiating
the intermediate embeddings"), of rows ``scale * stored + bias`` with ``bias = -zero_point * scale``, where scale and
bias are what a row stores of them: float32, or float16 "2 bytes each" behind rows of 4 and 2 bits (PyTorch,
qembeddingbag_prepack.cpp). Pruned tables are read through a mapping whose -1 stands for a row of zeros (FBGEMM,
GenerateEmbeddingSpMDMRowWiseSparse).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from qfuzz.exact.combination import array_lsb
from qfuzz.exact.reals import Bounds, Reals
from qfuzz.exact.rounding import Floats, Ints, gamma
from qfuzz.ir.contract import Contract
from qfuzz.ir.errors import InvalidCase
from qfuzz.ir.qtype import FLOAT32_MAX, Element, QType
from qfuzz.ir.tensor import Tensor, TensorType, check_shape
from qfuzz.ops.semantics import ExactOperator, Image, Operand

TABLE_DTYPES = ("uint2", "uint4", "uint8")
UNDERFLOW = 2.0**-140
"""More than what the products of one row lose below the normal float32 numbers: half of 2^-149, 255 times."""


@dataclass(frozen=True)
class BagImage(Image):
    """Sums over bags.

    Attributes
    ----------
    magnitude
        Of all products with stored integers, and of all with biases.
    lengths
        How many rows a bag has, as [bags, 1].
    lsb
        A power of two that divides all products of a bag.
    """

    lower: Reals
    upper: Reals
    magnitude: Floats
    lengths: Floats
    lsb: float
    is_mean: bool

    def error(self, contract: Contract) -> Floats:
        if contract.terms == "exact":
            return np.zeros(())
        counted = 2 * self.lengths + contract.k + 2 * self.is_mean
        unit = np.array([gamma(k) for k in counted.ravel().tolist()]).reshape(counted.shape)
        bound = unit * (1 + 2.0**-40) * self.magnitude + counted * UNDERFLOW
        summed = self.magnitude * np.maximum(self.lengths, 1.0) if self.is_mean else self.magnitude
        exact = (summed < 2.0**24 * self.lsb) & (self.lsb >= 2.0**-100)
        if self.is_mean:
            exact &= np.log2(np.maximum(self.lengths, 1.0)) % 1.0 == 0.0
        return np.where(exact | (self.lengths == 0), 0.0, bound)


class EmbeddingBag(ExactOperator, frozen=True, kw_only=True, tag="embedding_bag"):
    """Sums of rows of a stored `table` [rows, features]: float32 of [bags, features].

    Inputs are the table, of 2, 4 or 8 bits, quantized by rows or per tensor; `indices`; `offsets`, where bags of one
    shape [bags, length] do not say it all; `weights` of float32, one an index; and the `mapping` of a pruned table.

    Attributes
    ----------
    mode
        Whether a bag is summed, or is the mean of its rows (0 where it is empty).
    include_last_offset
        Whether the last offset is the number of indices, and begins no bag.
    weighted, pruned
        Whether there are weights, and a mapping.
    parameters
        What scale and bias of a row are rounded to before anything is computed with them.
    """

    mode: Literal["sum", "mean"] = "sum"
    include_last_offset: bool = False
    weighted: bool = False
    pruned: bool = False
    parameters: Literal["float32", "float16"] = "float32"

    arity: ClassVar[tuple[int, int]] = (2, 5)
    constant_inputs: ClassVar[tuple[int, ...]] = (0, 1, 2, 3, 4)

    def read(self, rank: int) -> dict[str, int]:
        """Input positions by name, for indices of `rank`."""
        given = ("table", "indices", *("offsets",) * (rank == 1), *("weights",) * self.weighted)
        return {name: i for i, name in enumerate((*given, *("mapping",) * self.pruned))}

    def infer(self, inputs: Sequence[TensorType], element: Element) -> tuple[int, ...]:
        table, indices = inputs[:2]
        if element != "float32":
            raise InvalidCase(f"output: {element}; embedding_bag gives float32")
        q = table.element
        if not isinstance(q, QType) or q.dtype not in TABLE_DTYPES or q.block or q.axis not in (None, 0):
            raise InvalidCase(f"table: {table.dtype}; needs {', '.join(TABLE_DTYPES)}, per tensor or by rows (axis 0)")
        if len(table.shape) != 2 or 0 in table.shape:
            raise InvalidCase(f"table: shape {table.shape}; needs [rows, features], and some of both")
        if len(indices.shape) not in (1, 2) or (len(indices.shape) == 2 and not indices.shape[1]):
            raise InvalidCase(f"indices: shape {indices.shape}; needs [n], or [bags, length] with a length")
        if self.weighted and self.mode == "mean":
            raise InvalidCase("mode: mean; only sums are weighted")
        read = self.read(len(indices.shape))
        if len(inputs) != len(read):
            raise InvalidCase(f"{len(inputs)} inputs; needs {', '.join(read)}")
        for name in ("indices", "offsets", "mapping"):
            if name in read and inputs[read[name]].element not in ("int32", "int64"):
                raise InvalidCase(f"{name}: {inputs[read[name]].dtype}; needs plain int32 or int64 elements")
        if self.weighted:
            weights = inputs[read["weights"]]
            if weights.element != "float32" or weights.shape != indices.shape:
                raise InvalidCase(f"weights: {weights.dtype} of shape {weights.shape}; needs float32 {indices.shape}")
        if self.pruned and (inputs[read["mapping"]].dtype != "int32" or len(inputs[read["mapping"]].shape) != 1):
            raise InvalidCase(f"mapping: shape {inputs[read['mapping']].shape}; needs int32 [n]")
        bags = indices.shape[0]
        if "offsets" in read:
            offsets = inputs[read["offsets"]]
            if len(offsets.shape) != 1 or not offsets.shape[0]:
                raise InvalidCase(f"offsets: shape {offsets.shape}; needs [n], at least 1")
            bags = offsets.shape[0] - self.include_last_offset
        elif self.include_last_offset:
            raise InvalidCase("include_last_offset: there are no offsets")
        check_shape((bags, table.shape[1]))
        return (bags, table.shape[1])

    def check_constants(self, constants: Mapping[int, Tensor], inputs: Sequence[TensorType]) -> None:
        given = {name: constants[i].array for name, i in self.read(len(inputs[1].shape)).items()}
        n_indices = given["indices"].size
        rows = inputs[0].shape[0]
        if self.pruned:
            mapping = given["mapping"]
            if ((mapping < -1) | (mapping >= rows)).any():
                raise InvalidCase(f"mapping: {mapping.min()}..{mapping.max()}; needs -1..{rows - 1}")
            rows = mapping.size
        if ((given["indices"] < 0) | (given["indices"] >= rows)).any():
            raise InvalidCase(f"indices: {given['indices'].min()}..{given['indices'].max()}; needs 0..{rows - 1}")
        if "offsets" in given:
            offsets = given["offsets"].astype(np.int64)
            last = n_indices if self.include_last_offset else min(n_indices, int(offsets[-1]))
            if offsets[0] != 0 or (np.diff(offsets) < 0).any() or offsets[-1] != last:
                raise InvalidCase(f"offsets: {offsets.tolist()}; they rise from 0 to at most {n_indices} indices")
        scale, bias = self.parameters_of(inputs[0])
        if not (np.isfinite(scale).all() and np.isfinite(bias).all()):
            raise InvalidCase(f"table: scale {max(inputs[0].qtype.scale)!r} or its bias overflows {self.parameters}")
        weights = given.get("weights", np.ones(()))
        largest = float((np.abs(scale) * inputs[0].qtype.qmax + np.abs(bias)).max())
        with np.errstate(over="ignore", invalid="ignore"):
            total = float(np.abs(weights).astype(np.float64).sum()) * largest * max(n_indices, 1)
        if not total < FLOAT32_MAX / 4:
            raise InvalidCase(f"weights: sums up to {total!r} may overflow float32")

    def parameters_of(self, table: TensorType) -> tuple[Floats, Floats]:
        """Scale and bias of each row, as it stores them."""
        q = table.qtype
        scale, zero_point = np.array(q.scale, dtype=np.float32), np.array(q.zero_point, dtype=np.float32)
        with np.errstate(over="ignore"):
            bias = scale * zero_point * np.float32(-1)
            stored = [np.broadcast_to(a.astype(self.parameters), table.shape[:1]) for a in (scale, bias)]
        return stored[0].astype(np.float64), stored[1].astype(np.float64)

    def image(self, operands: Sequence[Operand], element: Element) -> Image:
        table, indices = operands[:2]
        read = self.read(len(indices.type.shape))
        at = indices.lo.astype(np.int64)
        begins, lengths = self._bags(at, operands[read["offsets"]].lo if "offsets" in read else None)
        flat = at.ravel()
        weights = operands[read["weights"]].lo.ravel() if self.weighted else np.ones(flat.shape)
        if self.pruned:
            flat = operands[read["mapping"]].lo.astype(np.int64)[flat]
            weights, flat = np.where(flat < 0, 0.0, weights), np.maximum(flat, 0)
        scale, bias = (p[flat] for p in self.parameters_of(table.type))
        stored = table.lo[flat]
        scaled, shifted = weights * scale, weights * bias  # of two float32 numbers, exact in float64
        terms = scaled[:, None] * stored + shifted[:, None]
        size = np.abs(scaled)[:, None] * stored + np.abs(shifted)[:, None]
        shape = (len(begins), table.type.shape[1])
        approx, magnitude = (_summed(t, begins, lengths, shape) for t in (terms, size))
        lsb = min(_lsb_of(scaled), _lsb_of(shifted))
        divisor = np.maximum(lengths, 1) if self.mode == "mean" else np.ones(len(begins), dtype=np.int64)
        exact = bool((magnitude < 2.0**53 * lsb).all()) and self.mode == "sum"
        counted = (lengths + 4.0).reshape(-1, 1)
        error = np.zeros(shape) if exact else magnitude * counted * 2.0**-51
        column = divisor.reshape(-1, 1)

        def refine(i: int, bits: int) -> Bounds:
            bag, j = divmod(i, shape[1])
            total = Fraction(0)
            for n in range(int(begins[bag]), int(begins[bag] + lengths[bag])):
                row = Fraction(float(scale[n])) * int(stored[n, j]) + Fraction(float(bias[n]))
                total += Fraction(float(weights[n])) * row
            return (total / int(divisor[bag]),) * 2

        r = Reals(approx / column, error / column, refine)
        counts = lengths.astype(np.float64).reshape(-1, 1)
        return BagImage(r, r, magnitude / column, counts, lsb, self.mode == "mean")

    def _bags(self, indices: Ints, offsets: Floats | None) -> tuple[Ints, Ints]:
        """Where each bag begins among all indices, and how long it is."""
        if offsets is None:
            bags, length = indices.shape
            return np.arange(bags) * length, np.full(bags, length)
        begins = offsets.astype(np.int64)
        ends = begins[1:] if self.include_last_offset else np.append(begins[1:], indices.size)
        begins = begins[: len(ends)]
        return begins, ends - begins


def _summed(terms: Floats, begins: Ints, lengths: Ints, shape: tuple[int, ...]) -> Floats:
    sums: npt.NDArray[Any] = np.zeros(shape)
    for bag, (begin, length) in enumerate(zip(begins.tolist(), lengths.tolist(), strict=True)):
        sums[bag] = terms[begin : begin + length].sum(axis=0)
    return sums


def _lsb_of(values: Floats) -> float:
    """`array_lsb` of values that may all be 0."""
    return array_lsb(values) if values.any() else np.inf
