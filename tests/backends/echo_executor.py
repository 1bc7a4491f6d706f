"""An executor without a framework: it returns the values that it is given, but for the fault that it is loaded with.

Standard library and NumPy, as every executor: this file runs in another Python.
"""

import ctypes
import os
import signal
import sys
import time
from pathlib import Path

import numpy as np

os.write(1, b"a framework that greets\n" * 1000)
print("and on Python's own stream, too", flush=True)


class Refusal(Exception):
    """The fault `refuse`."""


def facts():
    return {"version": np.__version__, "framework": "echo"}


def load(fault, ops, marker, constants):
    return Echo(fault if "add" in ops else "", marker, constants)


class Echo:
    compile_seconds = 0.0

    def __init__(self, fault, marker, constants):
        self.fault, self.marker, self.runs = fault, Path(marker), 0
        if fault == "refuse-load":
            raise Refusal("no such kernel")
        if fault == "sigsegv-load":
            ctypes.string_at(0)
        if fault == "once" and not self.marker.exists():
            self.marker.touch()
            os.abort()
        if fault == "every-other":
            self.marker.open("a").write("x")
            if self.marker.stat().st_size % 2:
                os.abort()
        if fault == "constants" and any(a.flags.writeable for a in constants.values()):
            raise AssertionError("constants are nobody's to write")

    def run(self, inputs, names):
        self.runs += 1
        self.act(inputs)
        return {name: inputs["=" + name] for name in names}

    def act(self, inputs):
        first = next(a for name, a in inputs.items() if not name.startswith("="))
        if self.fault.startswith("SIG"):
            os.kill(os.getpid(), getattr(signal, self.fault))
        elif self.fault == "segfault":
            ctypes.string_at(0)
        elif self.fault == "abort":
            os.write(2, b"check failed: x > 0\n")
            os.abort()
        elif self.fault.startswith("exit"):
            os._exit(int(self.fault[4:]))
        elif self.fault == "sys.exit":
            sys.exit(0)
        elif self.fault == "hang":
            while True:
                time.sleep(1)
        elif self.fault == "refuse-run":
            raise Refusal("no memory\nfor that")
        elif self.fault == "changes-input":
            first.flat[0] ^= 1
        elif self.fault == "unstable":
            for name, a in inputs.items():
                if name.startswith("="):
                    a.flat[0] = self.runs
        elif self.fault == "raises":
            raise ZeroDivisionError("in the executor's own code")
        elif self.fault == "memory":
            raise MemoryError("too much")
        elif self.fault == "prints":
            for _ in range(50):
                os.write(1, b"INFO: a line from C\n" * 100)
                print("a line from Python")
        elif self.fault == "kills-host":
            os.kill(os.getppid(), signal.SIGKILL)
            time.sleep(5)
