"""Backends that are exact, but for one misbehaviour each. Given as ``misbehaving:Name``; each class is one fault."""

import ctypes
import hashlib
import mmap
import os
import platform
import signal
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt

from qfuzz.arithmetic.planted import PlantedBackend
from qfuzz.backends.reference import ReferenceBackend, ReferenceProgram
from qfuzz.ir.errors import Rejected, Unsupported
from qfuzz.ir.network import Network
from qfuzz.ir.protocols import NotSupported, Support
from qfuzz.oracle.memory import FILLS

LIBC = ctypes.CDLL(None)
LIBC.malloc.argtypes, LIBC.malloc.restype = [ctypes.c_size_t], ctypes.c_void_p
LIBC.aligned_alloc.argtypes, LIBC.aligned_alloc.restype = [ctypes.c_size_t, ctypes.c_size_t], ctypes.c_void_p
LIBC.free.argtypes = [ctypes.c_void_p]

Array = npt.NDArray[Any]
Values = dict[str, Array]

GUILTY = "add"
"""The operator at which those die that die."""


class Honest(ReferenceBackend):
    """Exact. What it returns passes through `spoil`, which here leaves it alone."""

    name = "misbehaving:Honest"

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        cls.name = f"misbehaving:{cls.__name__}"

    def compile(self, network: Network, taps: Sequence[str] = ()) -> ReferenceProgram:
        backend = self

        class Program(ReferenceProgram):
            def run(self, inputs: Mapping[str, Array], taps: Sequence[str] = ()) -> Values:
                backend.before(network, inputs)
                return backend.spoil(super().run(inputs, taps), network)

        return Program(network)

    def before(self, network: Network, inputs: Mapping[str, Array]) -> None:
        """Called with what it is given."""

    def spoil(self, values: Values, network: Network) -> Values:
        """What becomes of right outputs."""
        return values


def has_guilty(network: Network) -> bool:
    """Whether the operator is there that kills."""
    return any(n.op.name == GUILTY for n in network.nodes)


def last(values: Values, network: Network) -> tuple[str, Array]:
    """The last output and a copy of it."""
    name = network.outputs[-1]
    return name, np.array(values[name])


class Missing(Honest):
    def spoil(self, values: Values, network: Network) -> Values:
        del values[network.outputs[-1]]
        return values


class WrongShape(Honest):
    def spoil(self, values: Values, network: Network) -> Values:
        name, y = last(values, network)
        return values | {name: y[None]}


class WrongDtype(Honest):
    def spoil(self, values: Values, network: Network) -> Values:
        name, y = last(values, network)
        return values | {name: y.astype(np.int64)}


class OffByOne(Honest):
    def spoil(self, values: Values, network: Network) -> Values:
        name, y = last(values, network)
        y.flat[:1] -= 1
        return values | {name: y}


class NoNumbers(Honest):
    def spoil(self, values: Values, network: Network) -> Values:
        name, y = last(values, network)
        return values | {name: np.full_like(y, np.nan) if y.dtype == np.float32 else y}


class Permuted(Honest):
    def spoil(self, values: Values, network: Network) -> Values:
        name, y = last(values, network)
        return values | {name: np.ascontiguousarray(np.roll(y, 1))}


class Saturated(Honest):
    def spoil(self, values: Values, network: Network) -> Values:
        name, y = last(values, network)
        y.flat[:1] = 255
        return values | {name: y}


class Garbage(Honest):
    def spoil(self, values: Values, network: Network) -> Values:
        name, y = last(values, network)
        y.reshape(-1)[:1].view(np.uint8)[-1:] ^= 85  # of a float32, sign and exponent
        return values | {name: y}


class NotANumber(Honest):
    def spoil(self, values: Values, network: Network) -> Values:
        name, y = last(values, network)
        y.flat[0] = np.nan
        return values | {name: y}


class ChangesInputs(Honest):
    def before(self, network: Network, inputs: Mapping[str, Array]) -> None:
        inputs[network.inputs[0].name].flat[0] ^= 1


class WritesPastTheEnd(Honest):
    def before(self, network: Network, inputs: Mapping[str, Array]) -> None:
        x = inputs[network.inputs[0].name]
        ctypes.memset(x.ctypes.data + x.nbytes, 7, 4)


class WritesBeforeTheStart(Honest):
    def before(self, network: Network, inputs: Mapping[str, Array]) -> None:
        ctypes.memset(inputs[network.inputs[-1].name].ctypes.data - 1, 7, 1)


class WritesWhatIsThere(Honest):
    """Past the end of its input, the byte that the first run finds there."""

    def before(self, network: Network, inputs: Mapping[str, Array]) -> None:
        x = inputs[network.inputs[0].name]
        ctypes.memset(x.ctypes.data + x.nbytes, FILLS[0], 1)


class ReadsPastTheEnd(Honest):
    def before(self, network: Network, inputs: Mapping[str, Array]) -> None:
        x = inputs[network.inputs[0].name]
        self.read = ctypes.string_at(x.ctypes.data + x.nbytes, 1)[0]

    def spoil(self, values: Values, network: Network) -> Values:
        name, y = last(values, network)
        y.flat[-1] = self.read
        return values | {name: y}


class LeavesUnwrittenByNumPy(Honest):
    """All of its output but the first element, in memory that NumPy gives."""

    def spoil(self, values: Values, network: Network) -> Values:
        name, right = last(values, network)
        y = np.empty_like(right)
        y.flat[:1] = right.flat[:1]
        return values | {name: y}


class LeavesUnwritten(Honest):
    """All of its output but the first element, in aligned memory from the C library."""

    def spoil(self, values: Values, network: Network) -> Values:
        name, right = last(values, network)
        block = LIBC.aligned_alloc(64, max(right.nbytes, 1))
        y = np.frombuffer((ctypes.c_char * right.nbytes).from_address(block), right.dtype).reshape(right.shape)
        y.flat[:1] = right.flat[:1]
        return values | {name: y}


class Unstable(Honest):
    def __init__(self) -> None:
        self.runs = 0

    def spoil(self, values: Values, network: Network) -> Values:
        self.runs += 1
        name, y = last(values, network)
        y.flat[0] = self.runs
        return values | {name: y}


class Refuses(Honest):
    def compile(self, network: Network, taps: Sequence[str] = ()) -> ReferenceProgram:
        raise Rejected("no kernel was found\nin the registry")


class SaysSomethingNew(Honest):
    """Refuses, with words that it never said before."""

    def compile(self, network: Network, taps: Sequence[str] = ()) -> ReferenceProgram:
        text = repr([(n.op, network.types[n.name]) for n in network.nodes]).encode()
        word = "".join(chr(ord("a") + byte % 26) for byte in hashlib.sha256(text + network_bytes(network)).digest())
        raise Rejected(f"no kernel for {word}")


def network_bytes(network: Network) -> bytes:
    """What tells one network from another."""
    return repr(network.inputs).encode()


class HasNoKernel(Honest):
    def supports(self, network: Network) -> Support:
        return NotSupported("there is none")


class SaysSoLate(Honest):
    def compile(self, network: Network, taps: Sequence[str] = ()) -> ReferenceProgram:
        raise Unsupported("documented to be refused")


class Dies(Honest):
    """Of `death()`, in a network that holds the guilty operator."""

    def before(self, network: Network, inputs: Mapping[str, Array]) -> None:
        if has_guilty(network):
            self.death()

    def death(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


class Segfault(Dies):
    def death(self) -> None:
        ctypes.string_at(0)


class DividesByZero(Dies):
    """Where the processor traps it; else by the signal."""

    def death(self) -> None:
        LIBC.div(1, 0)
        os.kill(os.getpid(), signal.SIGFPE)


class IllegalInstruction(Dies):
    def death(self) -> None:
        code = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
        code.write(b"\x0f\x0b" if platform.machine() == "x86_64" else bytes(4))
        ctypes.CFUNCTYPE(None)(ctypes.addressof(ctypes.c_char.from_buffer(code)))()


class Aborts(Dies):
    def death(self) -> None:
        os.write(2, b"check failed: x > 0\n")
        os.abort()


class AssertionFails(Dies):
    def death(self) -> None:
        getattr(LIBC, "__assert_fail")(b"n > 0", b"kernel.cc", ctypes.c_uint(17), b"run")


class Throws(Dies):
    """A C++ exception that nobody catches."""

    def death(self) -> None:
        ctypes.CDLL("libstdc++.so.6")._ZSt19__throw_logic_errorPKc(b"k out of range")


class FreesTwice(Dies):
    def death(self) -> None:
        block = LIBC.malloc(2000)
        LIBC.free(block)
        LIBC.free(block)


class ExitsInC(Dies):
    def death(self) -> None:
        LIBC.exit(0)


class ExitsInPython(Dies):
    def death(self) -> None:
        sys.exit()


class Exits(Dies):
    """With status 0, as if all were well."""

    def death(self) -> None:
        os._exit(0)


class Hangs(Dies):
    def death(self) -> None:
        while True:
            pass


class TakesALockTwice(Dies):
    def death(self) -> None:
        lock = threading.Lock()
        lock.acquire()
        lock.acquire()


class PoolWaitsForItself(Dies):
    """A thread pool's only thread waits for what only it could do."""

    def death(self) -> None:
        pool = ThreadPoolExecutor(1)
        pool.submit(lambda: pool.submit(os.getpid).result()).result()


class Allocates(Dies):
    """Without end, in Python."""

    def death(self) -> None:
        blocks = []
        while True:
            blocks.append(bytearray(2**28))


class AllocatesTooMuch(Dies):
    """All at once."""

    def death(self) -> None:
        np.empty(2**36, np.uint8)


class AllocatesInC(Dies):
    """Without end, and without a look at what malloc returns."""

    def death(self) -> None:
        while True:
            ctypes.memset(LIBC.malloc(2**26), 1, 2**26)


class AllocatesInCpp(Dies):
    """Without end, in C++: the exception is caught by nobody."""

    def death(self) -> None:
        new = ctypes.CDLL("libstdc++.so.6")._Znwm
        new.argtypes, new.restype = [ctypes.c_size_t], ctypes.c_void_p
        while True:
            new(2**28)


class TorchAllocates(Dies):
    """Torch itself asks for `BYTES`, and says so as it does in any of its kernels."""

    BYTES = 2**36

    def death(self) -> None:
        from qfuzz.backends.torch_executor import Execution, Refusal

        size = (("literal", [self.BYTES]),)
        calls = ("", (), (), (), (("y", "torch.empty", size, (("dtype", ("torch", "torch.uint8")),)),), (), ())
        try:
            Execution(calls, {}).run({}, ())
        except Refusal as e:
            raise Rejected(str(e)) from None


class TorchAllocatesTheAbsurd(TorchAllocates):
    BYTES = 2**50


class OnnxRuntimeAllocates(Dies):
    """ONNX Runtime itself asks for `N` floats."""

    N = 2**34

    def death(self) -> None:
        from onnx import TensorProto, helper

        from qfuzz.backends.onnx_executor import Refusal, Session

        graph = helper.make_graph(
            [helper.make_node("Expand", ["x", "shape"], ["y"])],
            "expand",
            [
                helper.make_tensor_value_info("x", TensorProto.FLOAT, [1]),
                helper.make_tensor_value_info("shape", TensorProto.INT64, [1]),
            ],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
        fed = {"x": np.ones(1, np.float32), "shape": np.array([self.N], np.int64)}
        try:
            Session(model.SerializeToString()).run(fed, ["y"])
        except Refusal as e:
            raise Rejected(str(e)) from None


class LeavesASleeper(Dies):
    """A process in its own group that nobody waits for."""

    def death(self) -> None:
        if os.fork() == 0:
            time.sleep(1000)
            os._exit(0)


class LeavesADaemon(Dies):
    """A process that leaves group, session and parent."""

    def death(self) -> None:
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                time.sleep(1000)
            os._exit(0)
        os.wait()


class LeavesASleeperAndDies(LeavesASleeper):
    def death(self) -> None:
        super().death()
        ctypes.string_at(0)


class LeavesADaemonAndDies(LeavesADaemon):
    def death(self) -> None:
        super().death()
        ctypes.string_at(0)


class LeavesADaemonAndHangs(LeavesADaemon):
    def death(self) -> None:
        super().death()
        time.sleep(1000)


class Prints(Dies):
    """Thousands of lines past Python's own streams, and lives."""

    def death(self) -> None:
        for _ in range(50):
            os.write(1, b"INFO: a line from C\n" * 100)
            os.write(2, b"WARNING: another line from C\n" * 100)


class Raises(Dies):
    """An error of the backend's own code: no verdict on any kernel."""

    def death(self) -> None:
        raise ZeroDivisionError("in the backend's own code")


class Truncates(PlantedBackend):
    """A planted fault under another name."""

    def __init__(self) -> None:
        super().__init__("truncation")
        self.name = "misbehaving:Truncates"


class SaysWhatCannotBeWritten(Honest):
    """A message that is no Unicode text."""

    def before(self, network: Network, inputs: Mapping[str, Array]) -> None:
        raise Rejected("a lone \ud800 surrogate")


class SaysTooMuch(Honest):
    """A message of several MB."""

    def __init__(self, times: str = "1000000") -> None:
        self.times = int(times)

    def before(self, network: Network, inputs: Mapping[str, Array]) -> None:
        raise Rejected("no kernel " * self.times)
