"""A campaign on disk: one SQLite file that is consistent at every instant, whoever is killed.

Shards count once they are committed, whole or up to where they were recalled; findings once their folder is written.
Its size is bounded: of each symptom the first example, of each signature the smallest case, done shards as ranges, a
timeline that thins out as it grows.
"""

import contextlib
import fcntl
import os
import shutil
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from qfuzz.campaign.plan import Ledger, Plan
from qfuzz.campaign.protocol import FoundCase, Suspect
from qfuzz.campaign.record import Moment
from qfuzz.campaign.tally import Tally
from qfuzz.findings.files import TEMPORARY
from qfuzz.ir.errors import CampaignFailed, InvalidCase

FILE = "campaign.db"
PREVIOUS = "campaign.previous.db"
"""Where the file of an unfinished campaign goes when a new one begins in its folder."""
SCHEMA = 1
MOMENTS_KEPT = 1000
"""Points of the timeline; twice as many are thinned to this."""
BUSY_SECONDS = 30.0
"""How long a reader of a running campaign waits for its writer."""

T = TypeVar("T")

_TABLES = """
create table facts (name text primary key, value blob not null) without rowid;
create table suspects (
    spec text not null, symptom blob not null, example integer not null, suspect blob not null,
    concluded integer not null,
    primary key (spec, symptom)
) without rowid;
create table findings (signature text primary key, found blob not null, path text not null) without rowid;
create table timeline (seconds real not null, moment blob not null);
"""


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """All that a campaign's file holds.

    Attributes
    ----------
    seconds
        That the campaign has taken so far.
    stopped
        Why it last ended before its plan: ``interrupted``, ``fail-fast``; empty for its end, ``running`` where it has
        not ended (it may have been killed).
    suspects, concluded
        The first example of each symptom, and those of them (by spec and symptom) that need no more looking at.
    findings, paths
        By signature.
    lost
        Shards that nobody could do, and why.
    """

    plan: Plan
    described: dict[str, dict[str, str]]
    tally: Tally
    ranges: tuple[tuple[int, int], ...]
    partial: dict[int, int]
    seconds: float
    stopped: str
    suspects: tuple[Suspect, ...]
    concluded: frozenset[tuple[str, bytes]]
    findings: dict[str, FoundCase]
    paths: dict[str, str]
    timeline: tuple[Moment, ...]
    lost: dict[int, str]
    errors: int = 0


def symptom_key(suspect: Suspect) -> tuple[str, bytes]:
    """What suspects are told apart by, in the file."""
    return suspect.spec, msgspec.msgpack.encode(suspect.symptom)


class State:
    """A campaign's file, held by one process. A context manager: leaving it lets go.

    Raises
    ------
    InvalidCase
        In one line: the folder is none, is in use, or holds the campaign of a newer qfuzz.
    CampaignFailed
        Where it can no longer be written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock = _locked(folder)
        try:
            self._db = _connected(folder / FILE)
        except BaseException:
            os.close(self._lock)
            raise

    @classmethod
    def create(cls, folder: Path, plan: Plan) -> "State":
        """A new campaign in `folder`. One that was there is replaced; unfinished, it is kept as `PREVIOUS`."""
        lock = _locked(folder)  # nobody else is at it
        try:
            _set_aside(folder)
            fresh = folder / f"{TEMPORARY}{FILE}"
            fresh.unlink(missing_ok=True)
            with contextlib.closing(_connected(fresh)) as db:
                db.executescript(_TABLES)
                db.execute("insert into facts values ('plan', ?)", (_packed(plan),))
                db.execute("insert into facts values ('stopped', ?)", (_packed("running"),))
                db.execute(f"pragma user_version = {SCHEMA}")
                db.commit()
            os.replace(fresh, folder / FILE)
        except sqlite3.Error as e:
            raise CampaignFailed(f"{folder / FILE}: cannot be written: {e}") from e
        finally:
            os.close(lock)
        return cls(folder)

    @classmethod
    def open(cls, folder: Path) -> "State":
        """The campaign that `folder` holds, to go on with it. What a killed process left half-written is removed."""
        if not (folder / FILE).is_file():
            raise InvalidCase(f"{folder}: holds no campaign to resume ({FILE} is not there)")
        state = cls(folder)
        try:
            _require_schema(state._db, folder)
            for left_over in folder.glob(f"{TEMPORARY}*"):
                shutil.rmtree(left_over) if left_over.is_dir() else left_over.unlink()
        except BaseException:
            state.close()
            raise
        return state

    def snapshot(self) -> Snapshot:
        """All of it. Raises `InvalidCase` in one line where it cannot be read."""
        return _read(self._db, self.folder / FILE)

    def begin(self, described: Mapping[str, Mapping[str, str]], plan: Plan) -> None:
        """Workers are there, and `plan` is what is to be done."""
        with self._writing():
            self._put(described=described, plan=plan, stopped="running")

    def commit(
        self,
        ledger: Ledger,
        tally: Tally,
        suspects: Sequence[Suspect],
        dropped: Sequence[Suspect],
        seconds: float,
        moment: Moment | None,
        lost: Mapping[int, str],
        errors: int,
    ) -> None:
        """Shards have been done: what they add up to, and the suspects that are new or now have a lower example.

        `dropped` are those that need no room any more.
        """
        with self._writing():
            self._put(
                tally=tally,
                ranges=ledger.ranges,
                partial=ledger.partial,
                seconds=seconds,
                lost=dict(lost),
                errors=errors,
            )
            for s in dropped:
                self._db.execute("delete from suspects where spec = ? and symptom = ?", symptom_key(s))
            for s in suspects:
                self._db.execute(
                    "insert or replace into suspects values (?, ?, ?, ?, 0)",
                    (*symptom_key(s), s.example, msgspec.msgpack.encode(s)),
                )
            if moment is not None:
                self._db.execute("insert into timeline values (?, ?)", (moment.seconds, msgspec.msgpack.encode(moment)))
                (n,) = self._db.execute("select count(*) from timeline").fetchone()
                if n >= 2 * MOMENTS_KEPT:
                    self._db.execute("delete from timeline where rowid % 2")
                    self._db.execute("create table t as select * from timeline order by seconds")
                    self._db.execute("drop table timeline")
                    self._db.execute("alter table t rename to timeline")

    def conclude(self, suspect: Suspect, found: FoundCase | None, path: str, *, for_good: bool = True) -> None:
        """What a suspect came to; `found` is the finding of its signature that is to be kept.

        Not for good: the campaign was interrupted before it was reduced, which is done when it is resumed.
        """
        with self._writing():
            if for_good:
                self._db.execute(
                    "update suspects set concluded = 1 where spec = ? and symptom = ?", symptom_key(suspect)
                )
            if found is not None:
                self._put_finding(found, path)

    def keep(self, found: FoundCase, path: str) -> None:
        """The finding of a signature that is to be kept, of no suspect."""
        with self._writing():
            self._put_finding(found, path)

    def forget(self, signature: str) -> None:
        """A finding that was not for good."""
        with self._writing():
            self._db.execute("delete from findings where signature = ?", (signature,))

    def end(self, stopped: str, seconds: float) -> None:
        """The campaign has ended."""
        with self._writing():
            self._put(stopped=stopped, seconds=seconds)

    def _put(self, **facts: Any) -> None:
        for name, value in facts.items():
            self._db.execute("insert or replace into facts values (?, ?)", (name, _packed(value)))

    def _put_finding(self, found: FoundCase, path: str) -> None:
        row = found.signature.text, msgspec.msgpack.encode(found), path
        self._db.execute("insert or replace into findings values (?, ?, ?)", row)

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            with self._db:
                yield
        except sqlite3.Error as e:
            raise CampaignFailed(
                f"{self.folder / FILE}: cannot be written: {e}; what was committed before is kept"
            ) from e

    def close(self) -> None:
        """Let go of the folder."""
        self._db.close()
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def __enter__(self) -> "State":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def read_snapshot(folder: Path) -> Snapshot:
    """The campaign in `folder`, running or not.

    Raises
    ------
    InvalidCase
        In one line: there is none, or it is of a newer qfuzz.
    """
    path = folder / FILE
    if not path.is_file():
        raise InvalidCase(f"{folder}: holds no campaign ({FILE} is not there)")
    db = _connected(path)
    try:
        _require_schema(db, folder)
        return _read(db, path)
    finally:
        db.close()


def _read(db: sqlite3.Connection, path: Path) -> Snapshot:
    try:
        return _snapshot(db)
    except (sqlite3.Error, msgspec.MsgspecError) as e:
        raise InvalidCase(f"{path}: cannot be read: {e}") from None
    except KeyError as e:
        raise InvalidCase(f"{path}: cannot be read: {e} is missing") from None


def _snapshot(db: sqlite3.Connection) -> Snapshot:
    db.execute("begin")  # one state, though the campaign goes on
    try:
        facts = dict(db.execute("select name, value from facts"))

        def fact(name: str, kind: type[T], default: T) -> T:
            return msgspec.msgpack.decode(facts[name], type=kind, dec_hook=_path) if name in facts else default

        rows = db.execute("select suspect, concluded from suspects order by example, spec").fetchall()
        suspects = [(msgspec.msgpack.decode(data, type=Suspect), done) for data, done in rows]
        found = db.execute("select signature, found, path from findings").fetchall()
        moments = db.execute("select moment from timeline order by seconds").fetchall()
        return Snapshot(
            plan=msgspec.msgpack.decode(facts["plan"], type=Plan, dec_hook=_path),
            described=fact("described", dict[str, dict[str, str]], {}),
            tally=fact("tally", Tally, Tally()),
            ranges=fact("ranges", tuple[tuple[int, int], ...], ()),
            partial=fact("partial", dict[int, int], {}),
            seconds=fact("seconds", float, 0.0),
            stopped=fact("stopped", str, ""),
            suspects=tuple(s for s, _ in suspects),
            concluded=frozenset(symptom_key(s) for s, done in suspects if done),
            findings={text: msgspec.msgpack.decode(data, type=FoundCase) for text, data, _ in found},
            paths={text: path for text, _, path in found},
            timeline=tuple(msgspec.msgpack.decode(data, type=Moment) for (data,) in moments),
            lost=fact("lost", dict[int, str], {}),
            errors=fact("errors", int, 0),
        )
    finally:
        db.execute("commit")


def _packed(value: Any) -> bytes:
    return msgspec.msgpack.encode(value, enc_hook=str)  # paths


def _path(kind: type, value: Any) -> Any:
    return kind(value)


def _set_aside(folder: Path) -> None:
    """Make room for a new campaign. Of an unfinished one whatever can be read is kept."""
    path = folder / FILE
    if not path.is_file():
        return
    try:
        unfinished = read_snapshot(folder).stopped in ("running", "interrupted")
    except InvalidCase:
        unfinished = True  # of another version, or not a campaign at all: not ours to delete
    if unfinished:
        os.replace(path, folder / PREVIOUS)
    else:
        path.unlink()
    path.with_name(f"{FILE}-journal").unlink(missing_ok=True)


def _locked(folder: Path) -> int:
    """A lock on the folder itself, which leaves no file and ends with its holder."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileExistsError:
        raise InvalidCase(f"{folder}: is no folder; a campaign needs one") from None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        raise InvalidCase(f"{folder}: another campaign is running there") from None
    except OSError:
        pass  # a file system without locks
    return fd


def _connected(path: Path) -> sqlite3.Connection:
    try:
        db = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level="IMMEDIATE")
        db.execute("pragma synchronous = normal")
    except sqlite3.Error as e:
        raise InvalidCase(f"{path}: is no campaign: {e}") from None
    return db


def _require_schema(db: sqlite3.Connection, folder: Path) -> None:
    try:
        (version,) = db.execute("pragma user_version").fetchone()
    except sqlite3.DatabaseError as e:
        raise InvalidCase(f"{folder / FILE}: is no campaign: {e}") from None
    if version > SCHEMA:
        raise InvalidCase(f"{folder / FILE}: schema version {version} is newer than {SCHEMA}; upgrade qfuzz")
    if version < 1:
        raise InvalidCase(f"{folder / FILE}: is no campaign")
