"""Where campaigns leave their findings' cases for each other: an example database of Hypothesis's own, by name.

It is a folder, shared or not, or a Redis server; `Database` keeps case files in it, under keys of qfuzz's own, so that
it can be the database of a user's tests at the same time.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from urllib.parse import urlsplit

from hypothesis.database import DirectoryBasedExampleDatabase, ExampleDatabase

from qfuzz.ir.errors import CampaignFailed, ExtraMissing, InvalidCase

KEY = b"qfuzz/cases/1/"
"""Begins the keys; the backend's spec follows. The number is the version of what is kept there."""
KEPT_FOR = timedelta(days=90)
"""After which a Redis server forgets the cases of a backend, unless a campaign asks for them before."""
ANSWER_SECONDS = 5.0
REDIS = ("redis", "rediss")


class Database:
    """Case files by the spec of the backend that they accuse.

    Parameters
    ----------
    name
        How errors call it.
    examples
        What keeps them.
    errors
        What `examples` raises where it cannot be reached.
    """

    def __init__(self, name: str, examples: ExampleDatabase, errors: tuple[type[Exception], ...] = (OSError,)) -> None:
        self._name, self._examples, self._errors = name, examples, errors

    def fetch(self, spec: str) -> list[bytes]:
        """The cases that accuse a backend, in an order that depends on them alone."""
        with self._reached():
            return sorted(self._examples.fetch(_key(spec)))

    def save(self, spec: str, case: bytes) -> None:
        """Keep a case."""
        with self._reached():
            self._examples.save(_key(spec), case)
            if case not in self._examples.fetch(_key(spec)):  # a folder says nothing when it is full
                raise CampaignFailed(f"database {self._name}: cannot be written")

    def delete(self, spec: str, case: bytes) -> None:
        """Forget a case, if it is there."""
        with self._reached():
            self._examples.delete(_key(spec), case)

    @contextmanager
    def _reached(self) -> Iterator[None]:
        try:
            yield
        except self._errors as e:
            raise CampaignFailed(f"database {self._name}: {' '.join(str(e).split())}") from None


def full_name(spec: str) -> str:
    """`spec` as it can be used from any folder."""
    return spec if "://" in spec else os.path.abspath(spec)


def open_database(spec: str) -> Database:
    """The database `spec`: a folder, which need not be there yet, or ``redis://host:port/number``.

    Raises
    ------
    InvalidCase
        In one line: it is neither.
    CampaignFailed
        Nobody answers there.
    ExtraMissing
        Redis is asked for, and its package is not installed.
    """
    if "://" in spec:
        return _redis(spec)
    folder = Path(spec)
    there = next(p for p in (folder.absolute(), *folder.absolute().parents) if p.exists())
    if not there.is_dir():
        raise InvalidCase(f"database {spec}: {there} is no folder")
    if not os.access(there, os.R_OK | os.W_OK | os.X_OK):
        raise InvalidCase(f"database {spec}: {there} cannot be read and written")
    return Database(spec, DirectoryBasedExampleDatabase(folder))


def _redis(spec: str) -> Database:
    try:
        parts = urlsplit(spec)
        name = f"{parts.scheme}://{parts.hostname}:{parts.port or 6379}{parts.path}"  # without a password
        number = parts.path.strip("/")
        valid = parts.scheme in REDIS and bool(parts.hostname) and (not number or number.isdigit())
    except ValueError:
        valid = False
    if not valid:
        shown = spec.split("@")[-1]
        raise InvalidCase(f"database {shown}: is neither a folder nor redis://host:port/number")
    try:
        from hypothesis.extra.redis import RedisExampleDatabase
        from redis import Redis, RedisError
    except ImportError:
        raise ExtraMissing(f"database {name}: needs redis; pip install 'qfuzz[redis]'") from None
    server = Redis.from_url(spec, socket_connect_timeout=ANSWER_SECONDS, socket_timeout=ANSWER_SECONDS)
    database = Database(name, RedisExampleDatabase(server, expire_after=KEPT_FOR), (RedisError, OSError))
    database.fetch("")  # does it answer?
    return database


def _key(spec: str) -> bytes:
    return KEY + spec.encode()
