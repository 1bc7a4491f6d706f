"""The corpus format: one case as a JSON document, versioned, with stable bytes. Loading never executes anything."""

import json
import math
import re
from collections.abc import Sequence
from typing import Any, Literal, Union

import msgspec
import numpy as np

from qfuzz.ir.errors import InvalidCase
from qfuzz.ir.expectation import Expectation
from qfuzz.ir.network import Case, Constant, Input, Network, Node
from qfuzz.ir.operator import Operator
from qfuzz.ir.qtype import INTEGER_RANGE, Element
from qfuzz.ir.tensor import DTYPES, MAX_ELEMENTS, Tensor, check_shape

SCHEMA_VERSION = 1
FORMAT = "qfuzz-case"
MAX_BYTES = 256 * 2**20
"""A case file is small; a larger one is refused unread."""


class CaseFile(msgspec.Struct, frozen=True):
    """A case, with what a corpus expects of it (often nothing)."""

    case: Case
    expect: tuple[Expectation, ...] = ()


class _TensorDocument(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    dtype: str
    shape: tuple[int, ...]
    data: list[int | float | Literal["NaN", "Infinity", "-Infinity"]]


class Codec:
    """Encodes and decodes case files over a set of operators."""

    def __init__(self, operators: Sequence[type[Operator]]) -> None:
        op_type: Any = Union[tuple(operators)]  # noqa: UP007  built at run time
        node = msgspec.defstruct(
            "Node",
            [("name", str), ("op", op_type), ("inputs", tuple[str, ...]), ("element", Element)],
            frozen=True,
            forbid_unknown_fields=True,
        )
        network = msgspec.defstruct(
            "Network",
            [
                ("inputs", tuple[Input, ...]),
                ("constants", tuple[Constant, ...]),
                ("nodes", tuple[node, ...]),  # type: ignore[valid-type]
                ("outputs", tuple[str, ...]),
                ("forms", tuple[str, ...], ()),
            ],
            frozen=True,
            forbid_unknown_fields=True,
            omit_defaults=True,
        )
        self._document = msgspec.defstruct(
            "CaseFile",
            [
                ("format", str),
                ("schema", int),
                ("network", network),
                ("inputs", tuple[Tensor, ...]),
                ("expect", tuple[Expectation, ...], ()),
            ],
            frozen=True,
            forbid_unknown_fields=True,
        )
        self._decoder = msgspec.json.Decoder(self._document, dec_hook=_decode_hook)

    def encode(self, case: Case, expect: Sequence[Expectation] = ()) -> bytes:
        """The document's bytes: the same case gives the same bytes, on any machine."""
        document = {"format": FORMAT, "schema": SCHEMA_VERSION, "network": case.network, "inputs": case.inputs}
        if expect:
            document["expect"] = tuple(expect)
        return _readable(msgspec.json.encode(document, enc_hook=_encode_hook))

    def decode(self, data: bytes) -> CaseFile:
        """Parse and validate a document.

        Raises
        ------
        InvalidCase
            In one line: what is wrong and where.
        """
        if len(data) > MAX_BYTES:
            raise InvalidCase(f"the file has {len(data)} bytes; a case file has at most {MAX_BYTES}")
        try:
            head = msgspec.json.decode(data, type=_Head)
        except msgspec.MsgspecError as e:
            raise InvalidCase(f"not a qfuzz case: {_one_line(e)}") from None
        except UnicodeDecodeError:
            raise InvalidCase("not a qfuzz case: a text in it is no UTF-8") from None
        except RecursionError:
            raise InvalidCase("not a qfuzz case: nested too deeply") from None
        if head.format != FORMAT:
            raise InvalidCase(f"not a qfuzz case: format is {head.format!r}, not {FORMAT!r}")
        if head.schema > SCHEMA_VERSION:
            raise InvalidCase(
                f"schema version {head.schema} is newer than this qfuzz reads ({SCHEMA_VERSION}); upgrade qfuzz"
            )
        if head.schema < 1:
            raise InvalidCase(f"schema version {head.schema}; versions start at 1")
        try:
            doc: Any = self._decoder.decode(data)
            network = Network(
                doc.network.inputs,
                doc.network.constants,
                tuple(Node(n.name, n.op, n.inputs, n.element) for n in doc.network.nodes),
                doc.network.outputs,
                doc.network.forms,
            )
            return CaseFile(Case(network, doc.inputs), doc.expect)
        except msgspec.MsgspecError as e:
            raise InvalidCase(_one_line(e)) from None
        except UnicodeDecodeError:
            raise InvalidCase("a text in it is no UTF-8") from None
        except RecursionError:
            raise InvalidCase("nested too deeply") from None

    def schema(self) -> dict[str, Any]:
        """The published JSON Schema of a case file."""
        schema = msgspec.json.schema(self._document, schema_hook=_schema_hook)
        schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
        schema["title"] = f"qfuzz case file, version {SCHEMA_VERSION}"
        return schema


class _Head(msgspec.Struct):
    format: str = ""
    schema: int = 0


def _one_line(e: Exception) -> str:
    return " ".join(str(e).split())


def _encode_hook(value: Any) -> Any:
    if isinstance(value, Tensor):
        numbers = value.array.astype(np.uint8) if value.dtype == "bool" else value.array
        return _TensorDocument(value.dtype, value.shape, [_legible(v) for v in numbers.ravel().tolist()])
    raise TypeError(f"{type(value).__name__} is no part of a case file")


def _legible(value: Any) -> Any:
    """A number as JSON has it: infinities and NaN by name."""
    if isinstance(value, int) or math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def _decode_hook(type_: type, value: Any) -> Any:
    if type_ is not Tensor:
        raise TypeError(f"{type_.__name__} is no part of a case file")
    try:
        doc = msgspec.convert(value, _TensorDocument)
        return _tensor(doc)
    except msgspec.ValidationError as e:
        raise InvalidCase(_one_line(e)) from None


def _tensor(doc: _TensorDocument) -> Tensor:
    check_shape(doc.shape)
    n = int(np.prod(doc.shape, dtype=object))
    if len(doc.data) != n:
        raise InvalidCase(f"data: {len(doc.data)} numbers for shape {doc.shape}; needs {n}")
    if doc.dtype not in DTYPES:
        raise InvalidCase(f"dtype: {doc.dtype!r}; one of {', '.join(DTYPES)}")
    dtype = DTYPES[doc.dtype]
    if doc.dtype not in INTEGER_RANGE:
        values = np.array(doc.data, dtype=np.float64)
        with np.errstate(over="ignore"):
            wrong = ~np.equal(values.astype(dtype).astype(np.float64), values) & ~np.isnan(values)
        if wrong.any():
            raise InvalidCase(f"data: {values[wrong][0].item()!r} is no {doc.dtype}")
        return Tensor(values.astype(dtype).reshape(doc.shape))
    lo, hi = INTEGER_RANGE[doc.dtype]
    for v in doc.data:
        if not isinstance(v, int) or not lo <= v <= hi:
            raise InvalidCase(f"data: {v!r} is no {doc.dtype}")
    return Tensor(np.array(doc.data, dtype=dtype).reshape(doc.shape))


def _schema_hook(type_: type) -> dict[str, Any]:
    if type_ is not Tensor:
        raise NotImplementedError
    return {
        "type": "object",
        "description": "Elements in row-major order.",
        "properties": {
            "dtype": {"enum": list(DTYPES)},
            "shape": {"type": "array", "items": {"type": "integer", "minimum": 0}},
            "data": {
                "type": "array",
                "items": {"anyOf": [{"type": "number"}, {"enum": ["NaN", "Infinity", "-Infinity"]}]},
                "maxItems": MAX_ELEMENTS,
            },
        },
        "required": ["dtype", "shape", "data"],
        "additionalProperties": False,
    }


_NUMBERS = re.compile(rb"\[\s+((?:-?[0-9][-+.0-9eE]*,\s+)*-?[0-9][-+.0-9eE]*)\s+\]")


def _readable(data: bytes) -> bytes:
    """Indented, with lists of numbers on one line: made to be read and diffed."""
    text = msgspec.json.format(data, indent=1)
    return _NUMBERS.sub(lambda m: b"[" + b", ".join(part.strip() for part in m[1].split(b",")) + b"]", text) + b"\n"


def schema_bytes(codec: Codec) -> bytes:
    """The JSON Schema as a file."""
    return (json.dumps(codec.schema(), indent=1, sort_keys=True) + "\n").encode()
