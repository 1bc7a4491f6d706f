"""What runs on a Dask worker: a task of a campaign, done by a qfuzz worker process beside it.

Every thread of a Dask worker has a seat, kept from task to task and given up when no task has come for a while: however
a campaign ends, nothing of it stays on the cluster. The thread that starts a worker process must outlive it (Linux ends
the process with that thread), and Dask's threads do.
"""

import contextlib
import select
import threading
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec
from distributed import Status, get_worker

import qfuzz
from qfuzz.campaign.crew import Lost, Seat, Task
from qfuzz.campaign.pipes import frame
from qfuzz.campaign.protocol import PROTOCOL, Concluded, Judged, Revisited, ShardDone
from qfuzz.campaign.tally import Tally
from qfuzz.ir.errors import CampaignFailed, QfuzzError

IDLE_SECONDS = 20.0
"""After which a seat without a task gives up its process."""
LOOK_SECONDS = 0.25
"""Seconds between two looks at whether a task is still wanted."""

Versions = tuple[tuple[str, str], ...]
"""Of each spec, the version that its backend says it has."""

_TASKS: msgspec.msgpack.Decoder[Task] = msgspec.msgpack.Decoder(Task)
_GONE = (Status.closing, Status.closed, Status.closing_gracefully, Status.failed)


class TaskLost(Exception):
    """A task that could not be done, and why; the campaign goes on without it."""


class Unwanted(Exception):
    """The task was cancelled; nobody waits for what would have come of it."""


class _Holder:
    """The seat of one thread, made when a task needs one."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seat: Seat | None = None
        self._idle: threading.Timer | None = None

    @contextlib.contextmanager
    def taken(self, specs: Sequence[str]) -> Iterator[Seat]:
        """The seat, with a worker process that has loaded `specs`."""
        with self._lock:
            if self._idle is not None:
                self._idle.cancel()
            if self._seat is not None and self._seat.specs != tuple(specs):
                self._close()
            if self._seat is None:
                self._seat = Seat(specs)
            try:
                yield self._seat
            finally:
                self._idle = threading.Timer(IDLE_SECONDS, self._give_up)
                self._idle.daemon = True
                self._idle.start()

    def _give_up(self) -> None:
        if self._lock.acquire(blocking=False):
            try:
                self._close()
            finally:
                self._lock.release()

    def _close(self) -> None:
        if self._seat is not None:
            self._seat.close()
            self._seat = None


class _Holders(threading.local):
    """One holder a thread. Dask calls functions by name: what they keep from call to call can only live here."""

    def __init__(self) -> None:
        self.holder = _Holder()


_HERE = _Holders()


def versions_of(described: Mapping[str, Mapping[str, str]]) -> Versions:
    """The versions of backends, of what they say of themselves."""
    return tuple((spec, facts.get("version", "")) for spec, facts in described.items())


def me() -> str:
    """What qfuzz runs here, as it must be on all machines of a campaign."""
    return f"qfuzz {qfuzz.__version__} (protocol {PROTOCOL})"


def packed(frames: bytes) -> bytes:
    """Frames as they travel over a network: case files are text, and shrink to a quarter."""
    return zlib.compress(frames, 1)


def unpacked(data: bytes) -> bytes:
    """The frames."""
    return zlib.decompress(data)


def describe(specs: tuple[str, ...]) -> tuple[str, dict[str, dict[str, str]] | str]:
    """What qfuzz runs here, and what its backends say of themselves or, as a string, why there are none."""
    try:
        with _HERE.holder.taken(specs) as seat:
            return me(), seat.client.described
    except QfuzzError as e:
        return me(), str(e)


def do_task(data: bytes, who: str, versions: Versions) -> bytes:
    """Do a task to its end; what came of it, as packed frames. A shard's counts come as one.

    Parameters
    ----------
    data
        The task, as MessagePack.
    who, versions
        The qfuzz and the backends that this machine must have, which may have joined the cluster later.

    Raises
    ------
    CampaignFailed
        This machine is unfit.
    TaskLost, Unwanted
    """
    if who != me():
        raise CampaignFailed(f"it has {me()}, the campaign {who}")
    try:
        task = _TASKS.decode(data)
        with _HERE.holder.taken(task.profile.specs) as seat:
            _require_versions(versions, versions_of(seat.client.described))
            seat.give(task)
            return _done(seat)
    except QfuzzError as e:
        raise CampaignFailed(str(e)) from None  # its classes need not travel


def _require_versions(wanted: Versions, here: Versions) -> None:
    for (spec, theirs), (_, mine) in zip(wanted, here, strict=True):
        if theirs != mine:
            raise CampaignFailed(f"{spec} has version {mine} there, {theirs} on the others")


def _done(seat: Seat) -> bytes:
    """What comes of the seat's task, once it has ended."""
    lost_before = seat.lost
    told: list[Judged] = []
    while True:
        _await_reply(seat)
        for report in seat.receive():
            match report:
                case Judged():
                    told.append(report)
                case ShardDone():
                    whole = _in_sum(told, report)
                    whole.tally.deaths += seat.lost - lost_before
                    return packed(frame(whole) + frame(report))
                case Concluded() | Revisited():
                    return packed(frame(report))
                case Lost(why=why):
                    raise TaskLost(why)


def _in_sum(told: Sequence[Judged], done: ShardDone) -> Judged:
    total = Tally()
    for part in told:
        total.merge(part.tally)
    return Judged(
        shard=done.shard,
        stop=done.stop,
        tally=total,
        suspects=tuple(s for j in told for s in j.suspects),
        errors=tuple(e for j in told for e in j.errors),
    )


def _await_reply(seat: Seat) -> None:
    """Wait until the seat has something to say; end its process where nobody wants to hear it any more."""
    while True:
        if _is_unwanted():
            seat.abandon()
            raise Unwanted
        if select.select([seat.client.fileno], [], [], LOOK_SECONDS)[0]:
            return


def _is_unwanted() -> bool:
    """Whether the task was cancelled, or its Dask worker has lost its scheduler. Dask itself stops no thread."""
    worker: Any = get_worker()
    state = worker.state.tasks.get(worker.get_current_task())
    return state is None or state.state == "cancelled" or worker.status in _GONE
