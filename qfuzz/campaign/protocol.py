"""What the supervisor and a worker say to each other: length-prefixed MessagePack over pipes. Nothing is unpickled."""

import os
import struct
from typing import TypeAlias

import msgspec
import numpy as np

from qfuzz.ir.errors import WorkerFailed
from qfuzz.ir.expectation import Condition
from qfuzz.ir.protocols import Array
from qfuzz.oracle.verdicts import BackendVerdict, Verdicts

MAX_MESSAGE = 256 * 2**20
_LENGTH = struct.Struct("<I")


TAP_EVERY = 4
"""Fusing backends run a second, tapped session on every so many-th example: it costs as much as the untapped one."""


class Ride(msgspec.Struct, frozen=True):
    """A backend in a campaign, run on every `every`-th example by index."""

    spec: str
    every: int = 1


KNOWN_EVERY = 20
"""Examples that look like a known crash or hang run on one in so many, by index."""


class KnownDeath(msgspec.Struct, frozen=True):
    """A known crash or hang: what a case has that shows it, on which backend, and under which condition."""

    spec: str
    op: str
    form: tuple[str, ...]
    when: Condition


class RunShard(msgspec.Struct, frozen=True, tag=True):
    """Generate shard `shard` of `seed` and judge its examples `start` to `stop` (exclusive).

    Attributes
    ----------
    tap_every
        Intermediate values of fusing backends are exposed on every n-th example by index.
    time_limit
        Seconds that one backend may take for one example.
    """

    seed: int
    shard: int
    start: int
    stop: int
    rides: tuple[Ride, ...]
    ops: tuple[str, ...] = ()
    max_nodes: int = 4
    tap_every: int = TAP_EVERY
    time_limit: float = 30.0
    known_deaths: tuple[KnownDeath, ...] = ()


class CheckCase(msgspec.Struct, frozen=True, tag=True):
    """Judge one case, given as the bytes of a case file.

    Attributes
    ----------
    known
        Verdicts on backends (by position) that are not to be run again.
    """

    case: bytes
    specs: tuple[str, ...]
    tap: bool = True
    time_limit: float = 30.0
    known: tuple[tuple[int, BackendVerdict], ...] = ()


class RunCase(msgspec.Struct, frozen=True, tag=True):
    """Run one case on one backend, and return what it computes; nothing is judged.

    Attributes
    ----------
    taps
        Intermediate values that are wanted, too.
    """

    case: bytes
    spec: str
    taps: tuple[str, ...] = ()
    time_limit: float = 30.0


Request: TypeAlias = RunShard | CheckCase | RunCase


class Ready(msgspec.Struct, frozen=True, tag=True):
    """The worker has loaded its backends."""

    described: dict[str, dict[str, str]]


class StartFailed(msgspec.Struct, frozen=True, tag=True):
    """The worker could not load a backend that was asked for."""

    message: str


class Example(msgspec.Struct, frozen=True, tag=True):
    """One judged example.

    Attributes
    ----------
    case
        Bytes of the case file where a backend is accused, else empty.
    ops
        Operator names of its nodes.
    """

    shard: int
    index: int
    verdicts: tuple[BackendVerdict, ...]
    ops: tuple[str, ...]
    case: bytes = b""
    reference_seconds: float = 0.0
    oracle_seconds: float = 0.0
    elements_refined: int = 0
    elements_decided: int = 0


class ShardDone(msgspec.Struct, frozen=True, tag=True):
    """The shard's last example was sent.

    Attributes
    ----------
    examples
        How many cases the shard has; fewer than asked where generation found no more.
    draws, draws_rejected
        Hypothesis's own count of tries, and of those that gave no case.
    deaths
        How many runner processes died.
    """

    shard: int
    examples: int
    generate_seconds: float
    seconds: float
    draws: int = 0
    draws_rejected: int = 0
    deaths: int = 0


class Checked(msgspec.Struct, frozen=True, tag=True):
    """The verdicts on a `CheckCase`."""

    verdicts: Verdicts


class Value(msgspec.Struct, frozen=True):
    """An array as it goes over a pipe."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    data: bytes

    @classmethod
    def of(cls, name: str, array: Array) -> "Value":
        """The value `name` with the elements of `array`."""
        return cls(name, array.dtype.name, array.shape, array.tobytes())

    @property
    def array(self) -> Array:
        """The elements."""
        return np.frombuffer(self.data, dtype=self.dtype).reshape(self.shape)


class Ran(msgspec.Struct, frozen=True, tag=True):
    """What a `RunCase` computed; or, in `refusal`, why nothing came of it: unsupported, rejected, crash or hang."""

    values: tuple[Value, ...] = ()
    refusal: BackendVerdict | None = None


class Broke(msgspec.Struct, frozen=True, tag=True):
    """An error inside qfuzz, with its traceback: never a finding about a backend."""

    traceback: str


Reply: TypeAlias = Ready | StartFailed | Example | ShardDone | Checked | Ran | Broke

_ENCODER = msgspec.msgpack.Encoder()
_REQUESTS: msgspec.msgpack.Decoder[Request] = msgspec.msgpack.Decoder(Request)
_REPLIES: msgspec.msgpack.Decoder[Reply] = msgspec.msgpack.Decoder(Reply)


def frame(message: Request | Reply) -> bytes:
    """A message as it goes over a pipe."""
    data = _ENCODER.encode(message)
    return _LENGTH.pack(len(data)) + data


def write_all(fd: int, data: bytes) -> None:
    """Write all of `data` to a blocking descriptor."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def read_request(fd: int) -> Request | None:
    """The next request, or None at the end of the pipe."""
    data = _read_frame(fd)
    return None if data is None else _REQUESTS.decode(data)


def _read_frame(fd: int) -> bytes | None:
    head = _read_exactly(fd, _LENGTH.size)
    if head is None:
        return None
    (length,) = _LENGTH.unpack(head)
    if length > MAX_MESSAGE:
        raise WorkerFailed(f"a message of {length} bytes; at most {MAX_MESSAGE}")
    return _read_exactly(fd, length)


def _read_exactly(fd: int, n: int) -> bytes | None:
    chunks = []
    while n:
        chunk = os.read(fd, min(n, 2**20))
        if not chunk:
            return None
        chunks.append(chunk)
        n -= len(chunk)
    return b"".join(chunks)


class FrameBuffer:
    """Collects bytes and gives whole replies; what a dying writer left half-written is never given."""

    def __init__(self) -> None:
        self._data = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """Add bytes; return the frames (with their length) that are now whole."""
        self._data += data
        frames = []
        while len(self._data) >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._data)
            if length > MAX_MESSAGE:
                raise WorkerFailed(f"a message of {length} bytes; at most {MAX_MESSAGE}")
            end = _LENGTH.size + length
            if len(self._data) < end:
                break
            frames.append(bytes(self._data[:end]))
            del self._data[:end]
        return frames


def decode_reply(data: bytes) -> Reply:
    """The reply in a whole frame."""
    return _REPLIES.decode(memoryview(data)[_LENGTH.size :])
