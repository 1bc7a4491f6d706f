"""What is said to the host of another Python, and what it answers: length-prefixed MessagePack over Unix sockets.

`qfuzz.backends.foreign_host` speaks the same with a codec of its own. Nothing is unpickled, and what comes is
validated before it is used.
"""

import math
import socket
import struct
from collections.abc import Mapping
from typing import Any, TypeAlias

import msgspec
import numpy as np

from qfuzz.ir.errors import WorkerFailed
from qfuzz.ir.protocols import Array

PROTOCOL = 1
"""Version of everything below; both sides say theirs first."""

MAX_MESSAGE = 256 * 2**20
_LENGTH = struct.Struct("<I")

DTYPES = (
    "bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float16", "float32", "float64",
)  # fmt: skip
"""What elements may be."""


class Value(msgspec.Struct, frozen=True):
    """An array."""

    dtype: str
    shape: tuple[int, ...]
    data: bytes

    @classmethod
    def of(cls, array: Array) -> "Value":
        """The elements of `array`."""
        return cls(array.dtype.name, array.shape, array.tobytes())

    @property
    def array(self) -> Array:
        """The elements; writable, and shared with nobody."""
        if self.dtype not in DTYPES:
            raise WorkerFailed(f"an array of dtype {self.dtype!r}; one of {', '.join(DTYPES)}")
        dtype = np.dtype(self.dtype)
        if any(n < 0 for n in self.shape) or math.prod(self.shape) * dtype.itemsize != len(self.data):
            raise WorkerFailed(
                f"an array of {len(self.data)} bytes; its shape {self.shape} of {self.dtype} says others"
            )
        array = np.empty(self.shape, dtype=dtype)
        if self.data:
            array[...] = np.frombuffer(self.data, dtype=dtype).reshape(self.shape)
        return array


class Hello(msgspec.Struct, frozen=True, tag=True):
    """The first message of either side. `python` is the version of the other Python."""

    protocol: int
    python: tuple[int, ...] = ()


class Ready(msgspec.Struct, frozen=True, tag=True):
    """The host has loaded its executor; what that tells of the framework."""

    facts: dict[str, str]


class NotReady(msgspec.Struct, frozen=True, tag=True):
    """The host could not load its executor, and why: it ends."""

    reason: str


class Load(msgspec.Struct, frozen=True, tag=True):
    """Load `data` as the program of that number; mappings in it are arrays. Programs in `drop` are needed no more."""

    program: int
    data: tuple[Any, ...]
    drop: tuple[int, ...] = ()


class Run(msgspec.Struct, frozen=True, tag=True):
    """Run a program."""

    program: int
    inputs: dict[str, Value]
    names: tuple[str, ...]


class Loaded(msgspec.Struct, frozen=True, tag=True):
    """The program is loaded. `seconds` were spent inside the framework."""

    seconds: float


class Ran(msgspec.Struct, frozen=True, tag=True):
    """What was computed; and those inputs, as they are now, that the run has changed."""

    values: dict[str, Value]
    changed: dict[str, Value]


class Refused(msgspec.Struct, frozen=True, tag=True):
    """The executor raised its `Refusal`."""

    text: str


class Failed(msgspec.Struct, frozen=True, tag=True):
    """Anything else was raised, of class `error`: no verdict on a kernel."""

    error: str
    traceback: str


class Died(msgspec.Struct, frozen=True, tag=True):
    """The process that ran it ended: how, and what it printed last."""

    reason: str


Request: TypeAlias = Hello | Load | Run
Reply: TypeAlias = Hello | Ready | NotReady | Loaded | Ran | Refused | Failed | Died

_ENCODER = msgspec.msgpack.Encoder()
_REPLIES: msgspec.msgpack.Decoder[Reply] = msgspec.msgpack.Decoder(Reply)


def plain(datum: Any) -> Any:
    """A datum of `Load`: mappings are arrays by name, all else goes as it is."""
    return {name: Value.of(array) for name, array in datum.items()} if isinstance(datum, Mapping) else datum


def send(channel: socket.socket, message: Request) -> None:
    """Send one message."""
    data = _ENCODER.encode(message)
    if len(data) > MAX_MESSAGE:
        raise WorkerFailed(f"a message of {len(data)} bytes to another Python; at most {MAX_MESSAGE}")
    channel.sendall(_LENGTH.pack(len(data)) + data)


def receive(channel: socket.socket) -> Reply | None:
    """The next message, or None where the other side is gone.

    Raises
    ------
    WorkerFailed
        For a message that is too long, or that the protocol does not have.
    """
    head = _exactly(channel, _LENGTH.size)
    if head is None:
        return None
    (length,) = _LENGTH.unpack(head)
    if length > MAX_MESSAGE:
        raise WorkerFailed(f"a message of {length} bytes from another Python; at most {MAX_MESSAGE}")
    data = _exactly(channel, length)
    if data is None:
        return None
    try:
        return _REPLIES.decode(data)
    except msgspec.DecodeError as e:
        raise WorkerFailed(f"a message from another Python that the protocol does not have: {e}") from None


def _exactly(channel: socket.socket, n: int) -> bytes | None:
    chunks = []
    while n:
        try:
            chunk = channel.recv(min(n, 2**20))
        except ConnectionError:
            return None
        if not chunk:
            return None
        chunks.append(chunk)
        n -= len(chunk)
    return b"".join(chunks)
