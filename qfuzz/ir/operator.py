"""What every operator says of itself to the intermediate representation: name, arity, shape and type rule."""

from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal, TypeAlias

import msgspec

from qfuzz.ir.errors import InvalidCase
from qfuzz.ir.qtype import Element, PlainInteger
from qfuzz.ir.tensor import Tensor, TensorType

PlainOutput: TypeAlias = PlainInteger | Literal["bool"]
"""Types of plain results: accumulators, indices, truth values."""


class Operator(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="op", tag=str.lower):
    """An operator with its attributes. A subclass is one operator; its tag is the public name.

    Class attributes
    ----------------
    arity
        Least and greatest number of inputs.
    constant_inputs
        Positions that take a constant (weights and biases); all others take an activation.
    free_inputs
        Positions that take either (conditions).
    takes_non_finite
        Whether it is defined on infinities and NaN.
    plain_outputs
        Plain types that a node may give (accumulators, indices, truth values).
    """

    arity: ClassVar[tuple[int, int]] = (1, 1)
    constant_inputs: ClassVar[tuple[int, ...]] = ()
    takes_non_finite: ClassVar[bool] = False
    plain_outputs: ClassVar[tuple[PlainOutput, ...]] = ()
    free_inputs: ClassVar[tuple[int, ...]] = ()

    @property
    def name(self) -> str:
        """The public name, snake case after PyTorch's functional names."""
        return str(self.__struct_config__.tag)

    def infer(self, inputs: Sequence[TensorType], element: Element) -> tuple[int, ...]:
        """Shape of the output for these inputs and this output element type.

        Raises
        ------
        InvalidCase
            Naming the attribute or input, the value, and what would be valid; the caller adds the node.
        """
        raise NotImplementedError

    def check_constants(self, constants: Mapping[int, Tensor], inputs: Sequence[TensorType]) -> None:
        """Raise `InvalidCase` if the data of the constants (by input position) breaks a rule."""

    def check_arity(self, n_inputs: int) -> None:
        """Raise `InvalidCase` unless the operator takes `n_inputs` inputs."""
        least, most = self.arity
        if not least <= n_inputs <= most:
            wanted = f"{least}" if least == most else f"{least} to {most}"
            raise InvalidCase(f"{n_inputs} inputs; it takes {wanted}")
