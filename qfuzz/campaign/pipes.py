"""Messages as they go over pipes: a length, then MessagePack. Nothing is unpickled, nothing too long is read."""

import os
import struct

import msgspec

from qfuzz.campaign.protocol import Broke, Checked, Reply, Request
from qfuzz.ir.errors import WorkerFailed
from qfuzz.oracle.verdicts import Verdicts

MAX_MESSAGE = 256 * 2**20
"""Bytes of a message, at most."""
READ_BYTES = 2**14
"""Read at a time. Larger buffers, cut to what came, fragment the heap of a process that lives for days: with 2**18, a
worker grew by 57 KiB a shard."""
_LENGTH = struct.Struct("<I")
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


def verdicts_in(reply: Reply | None) -> Verdicts:
    """What a `CheckCase` came to; raises `WorkerFailed` for anything but verdicts."""
    match reply:
        case Checked(verdicts):
            return verdicts
        case Broke(text):
            raise WorkerFailed(f"an error inside qfuzz:\n{text}")
        case other:
            raise WorkerFailed(f"unexpected reply {type(other).__name__}")


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
