"""The file of checkpoints: SQLite, one row for each, the latest whole one of a place and its
increments.

A checkpoint is there as a whole or not at all, also when the machine loses its power (WAL,
synchronous=FULL). One that is whole replaces what its place had, in one transaction. Not for tasks:
its calls block, and it is used by one thread at a time.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bridge.workers.channel.packets import Kind
from bridge.workers.checkpoints.sealing import Plain, Sealer, SealError

_VERSION = 1
_PAGE_BYTES = 4_096
_CHECK = b"ringbridge checkpoints"  # sealed, in the file: a wrong key is noticed when it is opened
_SCHEMA = """
CREATE TABLE IF NOT EXISTS about (
    version INTEGER NOT NULL, sealer TEXT NOT NULL, mark BLOB NOT NULL
);
CREATE TABLE IF NOT EXISTS checkpoint (
    role TEXT NOT NULL, place INTEGER NOT NULL, number INTEGER NOT NULL,
    kind INTEGER NOT NULL, saved_ms INTEGER NOT NULL, state BLOB NOT NULL,
    PRIMARY KEY (role, place, number)
);
"""


class StoreFailed(Exception):
    """The store could not do it, and says why; what it had before stands."""


@dataclass(frozen=True, slots=True)
class Place:
    """Whose state it is: a worker's place in its role, through all its lives."""

    role: str
    index: int


@dataclass(frozen=True, slots=True)
class Part:
    """One checkpoint of a place. `saved_ms`: Unix time."""

    kind: Kind
    state: bytes
    saved_ms: int


@dataclass(frozen=True, slots=True)
class Kept:
    """What a place has: increments behind its whole one, the bytes of all, and since when."""

    increments: int
    bytes: int
    saved_ms: int


class Store:
    """An open file, or memory without a `path`. Raises StoreFailed where a call cannot be done."""

    def __init__(
        self, path: Path | None, *, sealer: Sealer | None = None, bytes_max: int = 1 << 30
    ) -> None:
        self._sealer = sealer or Plain()
        self._bytes_max = bytes_max
        with _told():
            if path is not None:  # nobody else's to read; SQLite gives its journals the same mode
                os.close(os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))
            self._db = sqlite3.connect(
                path or ":memory:", isolation_level=None, check_same_thread=False, timeout=5.0
            )
        try:
            with _told():
                self._open(path is not None)
        except BaseException:
            self._db.close()
            raise

    def _open(self, in_file: bool) -> None:
        run = self._db.execute
        run(f"PRAGMA page_size = {_PAGE_BYTES}")
        if in_file:
            run("PRAGMA journal_mode = WAL")
            run("PRAGMA synchronous = FULL")
        run("PRAGMA secure_delete = ON")
        (page_bytes,) = run("PRAGMA page_size").fetchone()
        run(f"PRAGMA max_page_count = {max(16, self._bytes_max // page_bytes)}")
        self._db.executescript(_SCHEMA)
        about = run("SELECT version, sealer, mark FROM about").fetchone()
        if about is None:
            mark = self._sealer.seal(_CHECK, b"")
            run("INSERT INTO about VALUES (?, ?, ?)", (_VERSION, self._sealer.name, mark))
            return
        version, sealer, mark = about
        if version != _VERSION:
            raise StoreFailed(f"it is of version {version}, this bridge has version {_VERSION}")
        if sealer != self._sealer.name:
            raise StoreFailed(f"it was begun as {sealer}, and the settings say {self._sealer.name}")
        if type(mark) is not bytes or self._sealer.open(mark, b"") != _CHECK:
            raise StoreFailed("its mark is not ours")

    def close(self) -> None:
        with _told():
            self._db.close()

    def put(self, place: Place, kind: Kind, state: bytes) -> None:
        """Keep a checkpoint: a whole one in place of what was there, an increment behind it."""
        with _told(), self._transaction():
            self._put(place, kind, state, int(time.time() * 1000))

    def get(self, place: Place) -> list[Part]:
        """The whole one, then its increments; empty where there is none. A file can be damaged, or
        written into by another hand: what is no row of ours is a StoreFailed, too.
        """
        with _told():
            rows = self._db.execute(
                "SELECT number, kind, saved_ms, state FROM checkpoint"
                " WHERE role = ? AND place = ? ORDER BY number",
                (place.role, place.index),
            ).fetchall()
            parts = [self._part(place, *row) for row in rows]
        if any((part.kind is Kind.FULL) != (i == 0) for i, part in enumerate(parts)):
            raise _damaged(place, "is not a whole one and its increments")
        return parts

    def _part(
        self, place: Place, number: object, kind: object, saved: object, state: object
    ) -> Part:
        if type(number) is not int or type(saved) is not int or type(state) is not bytes:
            raise _damaged(place, "has a row of other types")
        if type(kind) is not int or kind not in tuple(Kind):
            raise _damaged(place, f"has a row of kind {kind!r}")
        sort = Kind(kind)
        return Part(sort, self._sealer.open(state, _about(place, number, sort)), saved)

    def kept(self, place: Place) -> Kept | None:
        """What there is of a place, without reading it."""
        with _told():
            count, size, saved_ms = self._db.execute(
                "SELECT COUNT(*), SUM(LENGTH(state)), MAX(saved_ms) FROM checkpoint"
                " WHERE role = ? AND place = ?",
                (place.role, place.index),
            ).fetchone()
        if not count:
            return None
        if type(size) is not int or type(saved_ms) is not int:
            raise _damaged(place, "has a row of other types")
        return Kept(count - 1, size, saved_ms)

    def drop(self, place: Place) -> None:
        """Forget what a place has."""
        with _told(), self._transaction():
            self._drop(place)

    def move(self, source: Place, target: Place) -> None:
        """What `source` has becomes what `target` has, and `source` has nothing; in one step."""
        parts = self.get(source)
        with _told(), self._transaction():
            self._drop(target)
            self._drop(source)
            for part in parts:
                self._put(target, part.kind, part.state, part.saved_ms)

    def _put(self, place: Place, kind: Kind, state: bytes, saved_ms: int) -> None:
        (last,) = self._db.execute(
            "SELECT COALESCE(MAX(number), 0) FROM checkpoint WHERE role = ? AND place = ?",
            (place.role, place.index),
        ).fetchone()
        if kind is Kind.FULL:
            self._drop(place)
        if type(last) is not int:
            raise _damaged(place, "has a row of other types")
        number = last + 1
        sealed = self._sealer.seal(state, _about(place, number, kind))
        self._db.execute(
            "INSERT INTO checkpoint VALUES (?, ?, ?, ?, ?, ?)",
            (place.role, place.index, number, kind, saved_ms, sealed),
        )

    def _drop(self, place: Place) -> None:
        self._db.execute(
            "DELETE FROM checkpoint WHERE role = ? AND place = ?", (place.role, place.index)
        )

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise


def _about(place: Place, number: int, kind: Kind) -> bytes:
    """What a checkpoint is bound to where it is sealed."""
    return f"{place.role}\0{place.index}\0{number}\0{int(kind)}".encode()


def _damaged(place: Place, how: str) -> StoreFailed:
    whose = f"worker {place.index} of {place.role}"
    return StoreFailed(f"the file is damaged, or was changed by another hand: {whose} {how}")


@contextmanager
def _told() -> Iterator[None]:
    """The store's own word for whatever SQLite and the sealer raise."""
    try:
        yield
    except (sqlite3.Error, SealError, OSError) as error:
        raise StoreFailed(str(error)) from error
