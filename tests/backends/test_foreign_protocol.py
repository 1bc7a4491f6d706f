"""What is said to another Python's host: both codecs agree, limits hold, and nonsense is an error, never a verdict."""

import os
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qfuzz.backends import foreign_host, foreign_protocol
from qfuzz.backends.foreign_host import MAX_DEPTH, Malformed, packed, unpacked
from qfuzz.backends.foreign_protocol import DTYPES, MAX_MESSAGE, Died, Failed, Hello, Loaded, Ready, Value, receive
from qfuzz.ir.errors import WorkerFailed
from qfuzz.oracle import memory

ECHO = Path(__file__).with_name("echo_executor.py")

plain_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: st.lists(inner).map(tuple) | st.dictionaries(st.text(), inner),
    max_leaves=30,
)


@given(plain_values)
def test_the_hosts_codec_and_msgspec_agree(value: Any) -> None:
    data = msgspec.msgpack.encode(value)
    assert msgspec.msgpack.encode(msgspec.msgpack.decode(packed(value))) == data
    assert unpacked(data) == value


@pytest.mark.parametrize("n", [0, 1, 15, 16, 31, 32, 255, 256, 65535, 65536])
def test_every_length_has_its_form(n: int) -> None:
    for value in ("x" * n, b"x" * n, (1,) * n, {str(i): i for i in range(n)}, n, -n, 2 * n, float(n)):
        data = msgspec.msgpack.encode(value)
        assert unpacked(data) == value
        assert msgspec.msgpack.encode(msgspec.msgpack.decode(packed(value))) == data


@given(st.binary())
def test_any_bytes_are_a_value_or_malformed(data: bytes) -> None:
    try:
        value = unpacked(data)
    except Malformed:
        return
    decoded = msgspec.msgpack.decode(data)
    assert msgspec.msgpack.encode(decoded) == msgspec.msgpack.encode(value), "NaN equals nothing"


@given(plain_values, st.data())
def test_what_was_cut_off_is_malformed(value: Any, data: st.DataObject) -> None:
    whole = packed(value)
    cut = data.draw(st.integers(0, len(whole) - 1))
    with pytest.raises(Malformed):
        unpacked(whole[:cut])
    with pytest.raises(Malformed, match="too many"):
        unpacked(whole + b"\0")


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"\x91" * (MAX_DEPTH + 2) + b"\x00", "nested"),
        (b"\xdd\xff\xff\xff\xff", "items announced"),
        (b"\xdf\xff\xff\xff\xff", "items announced"),
        (b"\xc6\xff\xff\xff\xff", "bytes announced"),
        (b"\xdb\xff\xff\xff\xff", "bytes announced"),
        (b"\xc1", "no such type: 0xc1"),
        (b"\xd4\x01\x00", "no such type: 0xd4"),
        (b"\xc7\x01\x01\x00", "no such type: 0xc7"),
        (b"\xa1\xff", "no UTF-8"),
        (b"\x81\xc0\xc0", "a key"),
        (b"", "announced"),
    ],
)
def test_nonsense_is_malformed(data: bytes, said: str) -> None:
    with pytest.raises(Malformed, match=said):
        unpacked(data)


def test_both_sides_have_the_same_limits() -> None:
    assert foreign_host.PROTOCOL == foreign_protocol.PROTOCOL
    assert foreign_host.MAX_MESSAGE == MAX_MESSAGE


@pytest.mark.parametrize("reader", [receive, foreign_host.receive], ids=["here", "there"])
def test_a_length_beyond_the_limit_is_not_read(reader: Any) -> None:
    mine, theirs = socket.socketpair()
    with mine, theirs:
        theirs.sendall(struct.pack("<I", MAX_MESSAGE + 1) + b"x")
        with pytest.raises((WorkerFailed, Malformed), match="a message of 268435457 bytes"):
            reader(mine)
        assert mine.recv(8) == b"x"


@pytest.mark.parametrize("reader", [receive, foreign_host.receive], ids=["here", "there"])
@pytest.mark.parametrize("cut", [b"", b"\x05\0", b"\x05\0\0\0", b"\x05\0\0\0\x81"])
def test_a_message_that_ends_early_is_none(cut: bytes, reader: Any) -> None:
    mine, theirs = socket.socketpair()
    with mine:
        theirs.sendall(cut)
        theirs.close()
        assert reader(mine) is None


@pytest.mark.parametrize(
    "message",
    [
        {"type": "Unheard"},
        {"reason": "x"},
        {"type": "Died"},
        {"type": "Died", "reason": 3},
        {"type": "Ready", "facts": {"version": 3}},
        {"type": "Ran", "values": {"y": {"dtype": "int8", "shape": "no", "data": b""}}, "damage": ""},
        [1, 2],
        None,
    ],
)
def test_what_the_protocol_does_not_have_is_refused(message: Any) -> None:
    mine, theirs = socket.socketpair()
    with mine, theirs:
        data = packed(message)
        theirs.sendall(struct.pack("<I", len(data)) + data)
        with pytest.raises(WorkerFailed, match="that the protocol does not have"):
            receive(mine)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (Value("object", (1,), b"x" * 8), "dtype 'object'"),
        (Value("O", (1,), b"x" * 8), "dtype 'O'"),
        (Value("int8", (2,), b"x"), "1 bytes"),
        (Value("int8", (-1, -1), b"x"), "1 bytes"),
        (Value("int32", (2**62, 4), b""), "0 bytes"),
    ],
)
def test_arrays_are_checked(value: Value, said: str) -> None:
    with pytest.raises(WorkerFailed, match=said):
        value.array  # noqa: B018
    assert value.dtype not in DTYPES or said.endswith("bytes")


# A host that is spoken to by hand.


class Started:
    """A host process, and its control socket."""

    def __init__(self) -> None:
        self.control, theirs = socket.socketpair()
        self.control.settimeout(20)
        with theirs:
            command = [sys.executable, "-I", "-B", foreign_host.__file__, str(ECHO)]
            command += [str(memory.__file__), str(theirs.fileno())]
            self.process = subprocess.Popen(
                command, pass_fds=[theirs.fileno()], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )

    def greet(self) -> None:
        assert isinstance(receive(self.control), Hello)
        foreign_protocol.send(self.control, Hello(foreign_protocol.PROTOCOL))
        assert isinstance(receive(self.control), Ready)

    def connect(self) -> tuple[socket.socket, socket.socket]:
        (mine, theirs), (death, tells) = socket.socketpair(), socket.socketpair()
        with theirs, tells:
            socket.send_fds(self.control, [struct.pack("<q", -1)], [theirs.fileno(), tells.fileno()])
        for end in (mine, death):
            end.settimeout(20)
        return mine, death


@pytest.fixture
def host() -> Iterator[Started]:
    started = Started()
    yield started
    started.control.close()
    assert started.process.wait(timeout=10) is not None


def test_the_host_ends_with_its_control_socket(host: Started) -> None:
    host.greet()
    host.control.close()
    assert host.process.wait(timeout=10) == 0


def test_the_host_refuses_another_version(host: Started) -> None:
    assert isinstance(receive(host.control), Hello)
    foreign_protocol.send(host.control, Hello(3))
    refusal = receive(host.control)
    assert isinstance(refusal, foreign_protocol.NotReady)
    assert refusal.reason == "speaks version 2 of the protocol, not 3"
    assert host.process.wait(timeout=10) == 3


@pytest.mark.parametrize("nonsense", [b"\xff\xff\xff\xff", b"\x01\0\0\0\xc1", b"\x01\0\0\0\x05"])
def test_nonsense_at_the_start_ends_the_host(nonsense: bytes, host: Started) -> None:
    assert isinstance(receive(host.control), Hello)
    host.control.sendall(nonsense)
    assert host.process.wait(timeout=10) == 1


@pytest.mark.parametrize(
    ("frame", "said"),
    [
        (b"\xff\xff\xff\xff", "a message of 4294967295 bytes"),
        (b"\x01\0\0\0\xc1", "no such type"),
        (b"\x05\0\0\0\x81\xa1x\xa1y", "no map with a type"),
    ],
)
def test_nonsense_in_a_conversation_is_no_death(frame: bytes, said: str, host: Started) -> None:
    host.greet()
    channel, death = host.connect()
    with channel, death:
        channel.sendall(frame.ljust(5, b"\0") if frame[0] == 0xFF else frame if len(frame) == 5 else frame[:9])
        answer = receive(channel)
        assert isinstance(answer, Failed) and said in answer.traceback


def test_requests_that_do_not_fit_are_no_death(host: Started) -> None:
    host.greet()
    channel, death = host.connect()
    with channel, death:
        foreign_protocol.send(channel, foreign_protocol.Run(7, {}, ()))
        answer = receive(channel)
        assert isinstance(answer, Failed) and answer.error == "KeyError"
        foreign_protocol.send(channel, foreign_protocol.Load(1, ("", ["add"], "", {"w": Value("int8", (3,), b"xy")})))
        answer = receive(channel)
        assert isinstance(answer, Failed) and "2 bytes, 3 expected" in answer.traceback
        foreign_protocol.send(channel, foreign_protocol.Load(1, ("", ["add"], "", {})))
        assert isinstance(receive(channel), Loaded)
        foreign_protocol.send(channel, foreign_protocol.Load(2, ("", ["add"], "", {}), (1,)))
        assert isinstance(receive(channel), Loaded)
        foreign_protocol.send(channel, foreign_protocol.Run(1, {}, ()))
        answer = receive(channel)
        assert isinstance(answer, Failed) and answer.error == "KeyError", "it was dropped"


def test_a_connection_without_sockets_is_ignored(host: Started) -> None:
    host.greet()
    host.control.sendall(struct.pack("<q", -1))
    channel, death = host.connect()
    with channel, death:
        foreign_protocol.send(channel, foreign_protocol.Load(1, ("", [], "", {})))
        assert isinstance(receive(channel), Loaded)


def test_a_death_is_told_to_its_own_client_only(host: Started) -> None:
    host.greet()
    (one, one_death), (two, two_death) = host.connect(), host.connect()
    with one, one_death, two, two_death:
        foreign_protocol.send(one, foreign_protocol.Load(1, ("exit3", ["add"], "", {})))
        foreign_protocol.send(two, foreign_protocol.Load(1, ("", ["add"], "", {})))
        assert isinstance(receive(one), Loaded) and isinstance(receive(two), Loaded)
        x = Value("uint8", (1,), b"x")
        foreign_protocol.send(one, foreign_protocol.Run(1, {"a": x}, ()))
        assert receive(one) is None
        assert receive(one_death) == Died("exited with status 3")
        foreign_protocol.send(two, foreign_protocol.Run(1, {"a": x, "=y": x}, ("y",)))
        answer = receive(two)
        assert isinstance(answer, foreign_protocol.Ran) and answer.values == {"y": x}


def test_a_hundred_clients_leave_no_descriptor(host: Started) -> None:
    host.greet()
    counted = []
    for i in range(100):
        channel, death = host.connect()
        with channel, death:
            foreign_protocol.send(channel, foreign_protocol.Load(1, ("", [], "", {})))
            assert isinstance(receive(channel), Loaded)
        if i in (20, 99):
            counted.append(len(os.listdir(f"/proc/{host.process.pid}/fd")))
    assert abs(counted[1] - counted[0]) <= 6, "a few clients may not have been buried yet"
