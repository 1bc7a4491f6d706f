"""The other Python's side: loads an executor, and forks a child for each client, which runs what it is sent.

One file on the standard library and NumPy, for Python 3.9 or later; it imports nothing of qfuzz, but loads
`qfuzz.oracle.memory` by its path. Started as ``python -I -B foreign_host.py EXECUTOR_FILE MEMORY_FILE CONTROL_FD``. The
host stays single-threaded and runs no kernel, so that it can fork at any time. A client connects by sending two sockets
and its memory limit over the control socket: on the first it speaks with its child, on the second the host alone
writes, once, how that child died. When either side goes, so does the child.

Messages are a length (four bytes, little-endian) and MessagePack: maps with a ``type``, as
`qfuzz.backends.foreign_protocol` has them. What comes is bounded in length and depth, and never unpickled.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib.util
import os
import resource
import select
import signal
import socket
import struct
import sys
import traceback
from typing import Any, NamedTuple

PROTOCOL = 2
MAX_MESSAGE = 256 * 2**20
MAX_DEPTH = 32

_LENGTH = struct.Struct("<I")
_LIMIT = struct.Struct("<q")
_KEPT_OUTPUT = 2000
_MOST_OUTPUT = 256 * 2**20
_PR_SET_PDEATHSIG = 1


class Malformed(Exception):
    """A message that the protocol does not have."""


def main(executor_file: str, memory_file: str, control: socket.socket) -> int:
    """Load the executor, then serve until the control socket closes."""
    _die_with(os.getppid())
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the client's; it ends this process itself
    send(control, {"type": "Hello", "protocol": PROTOCOL, "python": list(sys.version_info[:3])})
    greeting = receive(control)
    if greeting is None:
        return 0
    if greeting.get("type") != "Hello" or greeting.get("protocol") != PROTOCOL:
        reason = f"speaks version {PROTOCOL} of the protocol, not {greeting.get('protocol')!r}"
        send(control, {"type": "NotReady", "reason": reason})
        return 3
    try:
        executor, memory = _loaded("executor", executor_file), _loaded("memory", memory_file)
        facts = {**executor.facts(), "ftz": _ftz()}
    except ModuleNotFoundError as e:
        send(control, {"type": "NotReady", "reason": f"has no {e.name}"})
        return 3
    except BaseException as e:  # noqa: BLE001  whatever a framework raises while it is imported, SystemExit included
        last = traceback.format_exception_only(type(e), e)[-1].strip()
        send(control, {"type": "NotReady", "reason": f"cannot load the framework: {last}"})
        return 3
    gc.freeze()  # what the framework loaded stays, and forks share its pages
    send(control, {"type": "Ready", "facts": {str(k): str(v) for k, v in facts.items()}})
    Host(executor, memory, control).serve()
    return 0


def _loaded(name: str, file: str) -> Any:
    import numpy  # noqa: F401  so that its absence is what is said

    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def _ftz() -> str:
    """Whether this process's float32 arithmetic flushes subnormal results to zero."""
    import numpy as np

    smallest_normal = np.full(4, 2.0**-126, dtype=np.float32)
    return "off" if (smallest_normal * np.float32(0.5)).all() else "on"


# The host.


class Child(NamedTuple):
    """A forked child, as the host sees it: where its client is told of its death, and what it prints."""

    obituary: socket.socket
    output: int


class Host:
    """Forks children, ends those whose client is gone, and tells clients how theirs died."""

    def __init__(self, executor: Any, memory: Any, control: socket.socket) -> None:
        self.executor, self.memory, self.control = executor, memory, control
        self.children: dict[int, Child] = {}
        self.poll = select.poll()

    def serve(self) -> None:
        """Until the control socket closes; then no child is left."""
        wake, woken = os.pipe()
        for fd in (wake, woken):
            os.set_blocking(fd, False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(woken, warn_on_full_buffer=False)
        self.poll.register(self.control, select.POLLIN)
        self.poll.register(wake, select.POLLIN)
        while True:
            for fd, _ in self.poll.poll():
                if fd == self.control.fileno():
                    if not self.connect((wake, woken)):
                        self.end()
                        return
                elif fd == wake:
                    os.read(wake, 512)
                else:
                    self.hung_up(fd)
            self.reap()

    def connect(self, close: tuple[int, ...]) -> bool:
        """Fork a child for the client that sends its sockets; false where the control socket has closed."""
        try:
            data, fds, _, _ = socket.recv_fds(self.control, _LIMIT.size, 2)
        except ConnectionError:
            return False
        if len(fds) != 2 or len(data) != _LIMIT.size:
            for fd in fds:
                os.close(fd)
            return bool(data)
        channel, obituary = (socket.socket(fileno=fd) for fd in fds)
        output = os.memfd_create("output")
        host = os.getpid()
        try:
            pid = os.fork()
        except OSError:  # the client sees that nobody answers
            pid = -1
        if pid == 0:
            try:
                _die_with(host)
                for child in self.children.values():
                    child.obituary.close()
                for fd in (*close, self.control.detach(), obituary.detach()):
                    os.close(fd)
                os.setpgid(0, 0)
                _limit(_LIMIT.unpack(data)[0])
                _work(self.executor, self.memory, channel, output)
            finally:
                os._exit(1)
        channel.close()
        if pid < 0:
            obituary.close()
            os.close(output)
            return True
        self.children[pid] = Child(obituary, output)
        self.poll.register(obituary, 0)  # a hangup is reported all the same
        return True

    def hung_up(self, fd: int) -> None:
        """The client of a child is gone: so is the child."""
        self.poll.unregister(fd)
        for pid, child in self.children.items():
            if child.obituary.fileno() == fd:
                _kill(pid)

    def reap(self) -> None:
        """Tell the clients of those children that have died."""
        for pid, child in list(self.children.items()):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                with contextlib.suppress(OSError):  # what a kernel started
                    os.killpg(pid, signal.SIGKILL)
                del self.children[pid]
                with contextlib.suppress(OSError):
                    send(child.obituary, {"type": "Died", "reason": _how(status) + _tail(child.output)})
                with contextlib.suppress(KeyError):  # a hangup was seen already
                    self.poll.unregister(child.obituary)
                child.obituary.close()
                os.close(child.output)

    def end(self) -> None:
        """End every child."""
        for pid in self.children:
            _kill(pid)
        for pid in self.children:
            os.waitpid(pid, 0)


def _kill(pid: int) -> None:
    """End a child and all that stayed in its group."""
    for kill in (os.killpg, os.kill):
        with contextlib.suppress(OSError):
            kill(pid, signal.SIGKILL)


def _limit(memory: int) -> None:
    """Leave no core files, flood no memory with output, and hold at most `memory` bytes, unless it is negative."""
    wanted = [(resource.RLIMIT_CORE, 0), (resource.RLIMIT_FSIZE, _MOST_OUTPUT)]
    for limit, most in wanted + [(resource.RLIMIT_DATA, memory)] * (memory >= 0):
        _, hard = resource.getrlimit(limit)
        resource.setrlimit(limit, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))


def _die_with(parent: int) -> None:
    """On Linux, ask the kernel to kill this process when its parent dies; it may be dead already."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def _how(status: int) -> str:
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        return (
            f"died of {signal.Signals(number).name}" if number in signal.valid_signals() else f"died of signal {number}"
        )
    return f"exited with status {os.WEXITSTATUS(status)}"


def _tail(output: int) -> str:
    size = os.fstat(output).st_size
    text = os.pread(output, _KEPT_OUTPUT, max(0, size - _KEPT_OUTPUT)).decode("utf-8", "replace")
    lines = [line for line in text.splitlines() if line.strip()]
    return ": " + " | ".join(lines[-4:]) if lines else ""


# A child.


def _work(executor: Any, memory: Any, channel: socket.socket, output: int) -> None:
    """Answer one request after another, until the client closes the channel."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.dup2(output, 1)
    os.dup2(output, 2)
    gc.disable()
    programs: dict[int, Program] = {}
    while True:
        try:
            request = receive(channel)
            if request is None:
                os._exit(0)
            sys.stdout.flush()
            sys.stderr.flush()
            os.ftruncate(1, 0)  # what was printed so far belongs to requests that are done
            os.lseek(1, 0, os.SEEK_SET)
            reply = framed(_answered(executor, memory, programs, request))
        except executor.Refusal as e:
            reply = framed({"type": "Refused", "text": str(e)})
        except Exception as e:  # noqa: BLE001  the child's rim: an error that is no kernel's, and no crash
            reply = framed({"type": "Failed", "error": type(e).__name__, "traceback": traceback.format_exc()})
        finally:
            memory.fill_allocations(0)
        channel.sendall(reply)


class Program:
    """A loaded program, and how often it has run: its runs find other bytes in memory that nobody wrote."""

    def __init__(self, loaded: Any) -> None:
        self.loaded, self.runs = loaded, 0


def _answered(executor: Any, memory: Any, programs: dict[int, Program], request: dict[str, Any]) -> dict[str, Any]:
    if request["type"] == "Load":
        for number in request["drop"]:
            programs.pop(number, None)
        data = [_arrays(d) if isinstance(d, dict) else d for d in request["data"]]
        memory.fill_allocations(memory.FILLS[0])
        loaded = executor.load(*data)
        programs[request["program"]] = Program(loaded)
        return {"type": "Loaded", "seconds": float(loaded.compile_seconds)}
    if request["type"] == "Run":
        program = programs[request["program"]]
        which = program.runs % 2
        program.runs += 1
        guarded = memory.Guarded(_arrays(request["inputs"]))
        guarded.fill(memory.BANDS[which])
        memory.fill_allocations(memory.FILLS[which])
        values = program.loaded.run(guarded.arrays, request["names"])
        sent = {name: _value(a) for name, a in values.items()}
        return {"type": "Ran", "values": sent, "damage": guarded.damage()}
    raise Malformed(f"no request: {request['type']!r}")


def _arrays(values: dict[str, Any]) -> dict[str, Any]:
    import numpy as np

    arrays = {}
    for name, value in values.items():
        array = np.empty(value["shape"], dtype=value["dtype"])
        if array.nbytes != len(value["data"]):
            raise Malformed(f"{name}: {len(value['data'])} bytes, {array.nbytes} expected")
        if array.nbytes:
            array[...] = np.frombuffer(value["data"], dtype=array.dtype).reshape(array.shape)
        array.flags.writeable = False
        arrays[name] = array
    return arrays


def _value(array: Any) -> dict[str, Any]:
    return {"dtype": array.dtype.name, "shape": list(array.shape), "data": array.tobytes()}


# Messages.


def send(channel: socket.socket, message: dict[str, Any]) -> None:
    """Send one message."""
    channel.sendall(framed(message))


def framed(message: dict[str, Any]) -> bytes:
    """A message as it is sent."""
    data = packed(message)
    if len(data) > MAX_MESSAGE:
        raise Malformed(f"a reply of {len(data)} bytes; at most {MAX_MESSAGE}")
    return _LENGTH.pack(len(data)) + data


def receive(channel: socket.socket) -> dict[str, Any] | None:
    """The next message, or None where the other side is gone."""
    head = _exactly(channel, _LENGTH.size)
    if head is None:
        return None
    (length,) = _LENGTH.unpack(head)
    if length > MAX_MESSAGE:
        raise Malformed(f"a message of {length} bytes; at most {MAX_MESSAGE}")
    data = _exactly(channel, length)
    if data is None:
        return None
    message = unpacked(data)
    if not isinstance(message, dict) or not isinstance(message.get("type"), str):
        raise Malformed("a message that is no map with a type")
    return message


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


# MessagePack: nil, bool, int, float64, str, bin, array and map; no extension types.


def packed(value: Any) -> bytes:
    """`value` as MessagePack."""
    parts: list[bytes] = []
    _pack(value, parts.append)
    return b"".join(parts)


def _pack(value: Any, write: Any) -> None:
    if value is None:
        write(b"\xc0")
    elif isinstance(value, bool):
        write(b"\xc3" if value else b"\xc2")
    elif isinstance(value, int):
        write(struct.pack(">Bq", 0xD3, value) if value < 2**63 else struct.pack(">BQ", 0xCF, value))
    elif isinstance(value, float):
        write(struct.pack(">Bd", 0xCB, value))
    elif isinstance(value, str):
        data = value.encode("utf-8", "replace")
        write(struct.pack(">BI", 0xDB, len(data)) + data)
    elif isinstance(value, bytes):
        write(struct.pack(">BI", 0xC6, len(value)))
        write(value)
    elif isinstance(value, (list, tuple)):
        write(struct.pack(">BI", 0xDD, len(value)))
        for item in value:
            _pack(item, write)
    elif isinstance(value, dict):
        write(struct.pack(">BI", 0xDF, len(value)))
        for key, item in value.items():
            _pack(key, write)
            _pack(item, write)
    else:
        raise TypeError(f"{type(value).__name__} cannot be sent")


def unpacked(data: bytes) -> Any:
    """The value that MessagePack bytes hold, all of them."""
    reader = _Reader(data)
    value = reader.value(0)
    if reader.at != len(data):
        raise Malformed(f"{len(data) - reader.at} bytes too many")
    return value


_NUMBERS = {
    0xCA: ">f", 0xCB: ">d",
    0xCC: ">B", 0xCD: ">H", 0xCE: ">I", 0xCF: ">Q", 0xD0: ">b", 0xD1: ">h", 0xD2: ">i", 0xD3: ">q",
}  # fmt: skip
_CONSTANTS = {0xC0: None, 0xC2: False, 0xC3: True}
_STRINGS = {0xD9: ">B", 0xDA: ">H", 0xDB: ">I"}
_BYTES = {0xC4: ">B", 0xC5: ">H", 0xC6: ">I"}
_TUPLES = {0xDC: ">H", 0xDD: ">I"}
_MAPS = {0xDE: ">H", 0xDF: ">I"}


class _Reader:
    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def take(self, n: int) -> bytes:
        end = self.at + n
        if end > len(self.data):
            raise Malformed(f"{n} bytes announced, {len(self.data) - self.at} left")
        taken = self.data[self.at : end]
        self.at = end
        return taken

    def number(self, form: str) -> Any:
        return struct.unpack(form, self.take(struct.calcsize(form)))[0]

    def value(self, depth: int) -> Any:
        if depth > MAX_DEPTH:
            raise Malformed(f"nested more than {MAX_DEPTH} deep")
        head = self.take(1)[0]
        if head < 0x80:
            return head
        if head >= 0xE0:
            return head - 0x100
        if head in _CONSTANTS:
            return _CONSTANTS[head]
        if head in _NUMBERS:
            return self.number(_NUMBERS[head])
        if 0xA0 <= head < 0xC0 or head in _STRINGS:
            return self.text(head & 0x1F if head < 0xC0 else self.number(_STRINGS[head]))
        if head in _BYTES:
            return self.take(self.number(_BYTES[head]))
        if 0x90 <= head < 0xA0 or head in _TUPLES:
            return self.items(head & 0x0F if head < 0xA0 else self.number(_TUPLES[head]), depth)
        if 0x80 <= head < 0x90 or head in _MAPS:
            flat = self.items(2 * (head & 0x0F if head < 0x90 else self.number(_MAPS[head])), depth)
            if not all(isinstance(key, str) for key in flat[::2]):
                raise Malformed("a key that is no string")
            return dict(zip(flat[::2], flat[1::2]))  # noqa: B905  as many keys as values
        raise Malformed(f"no such type: {head:#x}")

    def text(self, n: int) -> str:
        try:
            return self.take(n).decode("utf-8")
        except UnicodeDecodeError as e:
            raise Malformed(f"a string that is no UTF-8: {e}") from None

    def items(self, n: int, depth: int) -> tuple[Any, ...]:
        """What was a tuple where it was sent from is one here: an executor sees the same data in any Python."""
        if n > len(self.data) - self.at:  # every item has a byte at least
            raise Malformed(f"{n} items announced, {len(self.data) - self.at} bytes left")
        return tuple(self.value(depth + 1) for _ in range(n))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2], socket.socket(fileno=int(sys.argv[3]))))
