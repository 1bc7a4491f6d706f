"""A backend that is exact, but on some cases has a fault of every kind that a campaign must outlive.

Which fault a case meets is a pure function of the case, so that what a campaign should say is known without it.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence

import misbehaving
import numpy as np
from misbehaving import Array, Dies, Honest, Values

from qfuzz.backends.reference import ReferenceProgram
from qfuzz.ir.network import Case, Network
from qfuzz.strategies import cases_of

KINDS: dict[str, str] = {
    "Segfault": "crash",
    "DividesByZero": "crash",
    "IllegalInstruction": "crash",
    "Aborts": "crash",
    "AssertionFails": "crash",
    "ExitsInC": "crash",
    "ExitsInPython": "crash",
    "Allocates": "crash",
    "AllocatesInC": "crash",
    "LeavesADaemonAndDies": "crash",
    "Hangs": "hang",
    "PoolWaitsForItself": "hang",
    "LeavesUnwritten": "unstable",
    "Unstable": "unstable",
    "ChangesInputs": "corrupted",
    "WritesPastTheEnd": "corrupted",
    "WritesBeforeTheStart": "corrupted",
    "Missing": "violation",
}
"""Class in `misbehaving` to the verdict that it is."""

SIGNS: dict[str, str] = {
    "Segfault": "SIGSEGV",
    "DividesByZero": "SIGFPE",
    "IllegalInstruction": "SIGILL",
    "Aborts": "check failed: x > 0",
    "AssertionFails": "Assertion `n > 0' failed",
    "ExitsInC": "exited with status 0",
    "ExitsInPython": "exited with status",
    "Allocates": "memory limit",
    "AllocatesInC": "SIGSEGV",
    "LeavesADaemonAndDies": "SIGSEGV",
    "Hangs": "(busy)",
    "PoolWaitsForItself": "(waiting)",
    "LeavesUnwritten": "not written",
    "Unstable": "1, then 2",
    "ChangesInputs": "was changed by the run",
    "WritesPastTheEnd": "past the end",
    "WritesBeforeTheStart": "before the start",
    "Missing": "",
}
"""What the reason of such a verdict says."""

OPS = ("add", "mul", "relu", "clamp", "leaky_relu", "transpose", "reshape", "concat")
SHARE = 10
"""One eligible case in so many has a fault."""


def fault_of(network: Network, inputs: Iterable[Array]) -> str:
    """The fault that a case meets, or nothing. Cases whose values are too few to show every fault have none."""
    arrays = list(inputs)
    sizes = [a.size for a in arrays] + [network.types[name].n_elements for name in network.outputs]
    if min(sizes) < 2:
        return ""
    text = repr([(n.name, repr(n.op), n.inputs) for n in network.nodes]).encode()
    digest = hashlib.blake2b(text + b"".join(a.tobytes() for a in arrays), digest_size=8).digest()
    number = int.from_bytes(digest, "little")
    if number % SHARE:
        return ""
    kinds = list(KINDS)
    return kinds[number // SHARE % len(kinds)]


def faults_of(seed: int, n: int, shard_size: int, ops: Sequence[str] = OPS) -> dict[int, str]:
    """Example number to the fault that it meets, for the first `n` examples of a seed with one node each."""
    found = {}
    for shard in range(-(-n // shard_size)):
        for index, case in enumerate(cases_of(seed, shard, ops=ops, max_nodes=1)):
            number = shard * shard_size + index
            if number < n and (fault := case_fault(case)):
                found[number] = fault
    return found


def case_fault(case: Case) -> str:
    """The fault of a case."""
    return fault_of(case.network, (t.array for t in case.inputs))


class Faulty(Honest):
    """Meets the fault of the case that it is given."""

    def __init__(self) -> None:
        self.name = "faulty:Faulty"

    def compile(self, network: Network, taps: Sequence[str] = ()) -> ReferenceProgram:
        return _Program(network)


class _Program(ReferenceProgram):
    def __init__(self, network: Network) -> None:
        super().__init__(network)
        self.network = network
        self.fault: Honest | None = None

    def run(self, inputs: Mapping[str, Array], taps: Sequence[str] = ()) -> Values:
        if self.fault is None:
            kind = fault_of(self.network, [inputs[i.name] for i in self.network.inputs])
            self.fault = getattr(misbehaving, kind or "Honest")()
        if isinstance(self.fault, Dies):
            self.fault.death()
        self.fault.before(self.network, inputs)
        values = super().run({name: np.array(a) for name, a in inputs.items()}, taps)
        return self.fault.spoil(values, self.network)
