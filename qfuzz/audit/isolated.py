"""An audit in a forked child: a framework that crashes or eats all memory leaves one clear line."""

import os
import resource
from collections.abc import Callable
from typing import TypeAlias

import msgspec

from qfuzz.audit.outcome import Audit
from qfuzz.campaign.pipes import decode_reply
from qfuzz.campaign.protocol import Broke
from qfuzz.campaign.runner import Mark, Send, run_forked
from qfuzz.ir.errors import BackendMissing, InvalidCase, WorkerFailed

MAX_MEMORY = 12 * 2**30
"""Bytes of address space; what an audit really touches is a small part of it."""
PATIENCE = 1800.0
"""Seconds without a layer finished after which an audit counts as hung."""


class Done(msgspec.Struct, frozen=True, tag=True):
    """The audit."""

    audit: Audit


class Refused(msgspec.Struct, frozen=True, tag=True):
    """An error that is not the framework's death; `missing` tells what is not installed from bad input."""

    message: str
    missing: bool = False


Answer: TypeAlias = Done | Refused

_ANSWERS: msgspec.msgpack.Decoder[Answer] = msgspec.msgpack.Decoder(Answer)


def isolated(job: Callable[[Callable[[int], None]], Audit]) -> Audit:
    """What `job` returns, run in a fork of this process; it is given a function to report progress to.

    Raises
    ------
    InvalidCase, BackendMissing
        As `job` did, or where it needs too much memory.
    WorkerFailed
        Where the child died or stood still.
    """
    fd = os.memfd_create("qfuzz-audit")
    broken: list[str] = []

    def forward(whole: bytes) -> None:
        reply = decode_reply(whole)
        if isinstance(reply, Broke):
            broken.append(reply.traceback)

    def child(send: Send, mark: Mark) -> None:
        with os.fdopen(os.dup(fd), "wb") as file:
            file.write(msgspec.msgpack.encode(_answer(job, mark)))

    try:
        death = run_forked(child, forward, PATIENCE, memory_limit=None)
        if broken:
            raise RuntimeError(broken[0])
        if death is not None:
            _, n_layers, _ = death.at
            when = "while the model ran" if n_layers < 0 else f"after {n_layers} layers were judged"
            raise WorkerFailed(f"the framework {death.reason} {when}")
        with os.fdopen(os.dup(fd), "rb") as file:
            file.seek(0)
            answer = _ANSWERS.decode(file.read())
    finally:
        os.close(fd)
    match answer:
        case Done(audit):
            return audit
        case Refused(message, missing):
            raise BackendMissing(message) if missing else InvalidCase(message)


def _answer(job: Callable[[Callable[[int], None]], Audit], mark: Mark) -> Answer:
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    limit = MAX_MEMORY if hard == resource.RLIM_INFINITY else min(MAX_MEMORY, hard)
    resource.setrlimit(resource.RLIMIT_AS, (limit, hard))
    try:
        return Done(job(lambda n: mark.set(0, n, 0)))
    except InvalidCase as e:
        return Refused(str(e))
    except BackendMissing as e:
        return Refused(str(e), missing=True)
    except OSError as e:
        return Refused(f"{e.filename or 'model'}: {e.strerror or e}")
    except MemoryError:
        return Refused("the model needs more memory than an audit may take")
