"""What survives the service, in one SQLite file: the SQL, and nothing else. Blocking; one connection, one thread at a time.

Write-ahead logging with `synchronous=NORMAL`: what was committed survives the death of the process, and of the machine all but
the last moments (sqlite.org/wal.html).
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cellrun.event_log import Entry

VERSION: Final = 1
_BUSY: Final = 10_000  # milliseconds
_NUMBERS: Final = 2**32  # events of a run at most; an event's row is its run's row times this, plus its number

_SCHEMA: Final = """
CREATE TABLE keys (
  id TEXT PRIMARY KEY, tenant TEXT NOT NULL, name TEXT NOT NULL, hash BLOB NOT NULL, created REAL NOT NULL, revoked REAL
) STRICT;
CREATE TABLE sessions (
  tenant TEXT NOT NULL, id TEXT NOT NULL, created REAL NOT NULL, used REAL NOT NULL, began INTEGER NOT NULL DEFAULT 0,
  PRIMARY KEY (tenant, id)
) STRICT;
CREATE TABLE runs (
  number INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, tenant TEXT NOT NULL, session TEXT, code TEXT NOT NULL,
  created REAL NOT NULL, ended REAL, status TEXT, result BLOB, last INTEGER NOT NULL DEFAULT 0,
  forgotten INTEGER NOT NULL DEFAULT 0, key TEXT, digest BLOB NOT NULL, UNIQUE (tenant, key)
) STRICT;
CREATE INDEX runs_of_session ON runs (tenant, session, number);
CREATE INDEX runs_alive ON runs (number) WHERE ended IS NULL;
CREATE INDEX runs_by_age ON runs (ended) WHERE ended IS NOT NULL;
CREATE TABLE events (row INTEGER PRIMARY KEY, type TEXT NOT NULL, data BLOB NOT NULL) STRICT;
"""


@dataclass(frozen=True, kw_only=True)
class RunRow:
    """A run, as it is kept. `ended` and `created` are seconds since the epoch."""

    id: str
    tenant: str
    session: str | None
    code: str
    created: float
    digest: bytes
    key: str | None = None
    ended: float | None = None
    status: str | None = None
    last: int = 0
    forgotten: int = 0


@dataclass(frozen=True, kw_only=True)
class SessionRow:
    """A session, as it is kept. `began`: whether a kernel was ever started for it."""

    tenant: str
    id: str
    created: float
    used: float
    began: bool


@dataclass(frozen=True, kw_only=True)
class KeyRow:
    """A key, as it is kept: never itself."""

    id: str
    tenant: str
    name: str
    hash: bytes
    created: float
    revoked: float | None = None


_RUN: Final = "id, tenant, session, code, created, digest, key, ended, status, last, forgotten"


class Database:
    """Raises OSError for a file that cannot be used; later sqlite3.Error. `checkpoints`: whether its commits may have to wait for the disk
    now and then (sqlite.org/wal.html, "Performance considerations"); else somebody calls `checkpoint`."""

    def __init__(self, path: Path, *, checkpoints: bool = True) -> None:
        try:
            # The files beside it take its mode: it must have that before they are made.
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            os.chmod(path, 0o600)
            self._connection = sqlite3.connect(
                path, timeout=_BUSY / 1000, isolation_level=None, check_same_thread=False
            )
        except sqlite3.Error as error:
            raise OSError(f"{path} cannot be used as the service's database: {error}") from None
        try:
            self._connection.execute("PRAGMA journal_mode=WAL")
            self._connection.execute("PRAGMA synchronous=NORMAL")
            if not checkpoints:
                self._connection.execute("PRAGMA wal_autocheckpoint=0")
            self._numbers: dict[str, int] = {}  # of runs that go on
            self._prepare()
        except (sqlite3.Error, ValueError) as error:
            self._connection.close()
            raise OSError(f"{path} cannot be used as the service's database: {error}") from None

    def _prepare(self) -> None:
        with self.transaction():
            (version,) = self._connection.execute("PRAGMA user_version").fetchone()
            if version > VERSION:
                raise ValueError(f"it is of a newer cellrun (version {version}; this one knows {VERSION})")
            if version == 0:
                for statement in _SCHEMA.split(";\n"):
                    self._connection.execute(statement)
                self._connection.execute(f"PRAGMA user_version={VERSION}")

    def checkpoint(self) -> None:
        """Brings what was committed into the database itself, as far as no reader needs it as it was."""
        self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()

    def close(self) -> None:
        self._connection.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All of it, or nothing."""
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise
        self._connection.execute("COMMIT")

    @contextmanager
    def part(self) -> Iterator[None]:
        """All of it or nothing, within a transaction."""
        self._connection.execute("SAVEPOINT part")
        try:
            yield
        except BaseException:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK TO part")
                self._connection.execute("RELEASE part")
            raise
        self._connection.execute("RELEASE part")

    # -- runs ------------------------------------------------------------------------------------

    def add_run(self, run: RunRow) -> RunRow:
        """This one; or, if its key was used before, the run that has it."""
        if run.key is not None:
            before = self.run_of_key(run.tenant, run.key)
            if before is not None:
                return before
        self._connection.execute(
            "INSERT INTO runs (id, tenant, session, code, created, digest, key) VALUES (?, ?, ?, ?, ?, ?, ?)",
            (run.id, run.tenant, run.session, run.code, run.created, run.digest, run.key),
        )
        return run

    def run(self, id: str) -> RunRow | None:
        return self._run("id = ?", (id,))

    def run_of_key(self, tenant: str, key: str) -> RunRow | None:
        return self._run("tenant = ? AND key = ?", (tenant, key))

    def _run(self, condition: str, values: Sequence[object]) -> RunRow | None:
        row = self._connection.execute(f"SELECT {_RUN} FROM runs WHERE {condition}", values).fetchone()  # noqa: S608
        return None if row is None else RunRow(**dict(zip(_RUN.split(", "), row, strict=True)))

    def runs_of(self, tenant: str, session: str, limit: int) -> list[RunRow]:
        """The newest, newest first."""
        rows = self._connection.execute(
            f"SELECT {_RUN} FROM runs WHERE tenant = ? AND session = ? ORDER BY number DESC LIMIT ?",  # noqa: S608
            (tenant, session, limit),
        )
        return [RunRow(**dict(zip(_RUN.split(", "), row, strict=True))) for row in rows]

    def alive(self) -> list[tuple[str, int]]:
        """Runs that have no end, with the number of their last event."""
        rows = self._connection.execute("SELECT id, last FROM runs WHERE ended IS NULL ORDER BY number")
        return [(id, last) for id, last in rows]

    def result(self, id: str) -> bytes | None:
        row = self._connection.execute("SELECT result FROM runs WHERE id = ?", (id,)).fetchone()
        return None if row is None or row[0] is None else bytes(row[0])

    def append(self, id: str, entries: Sequence[Entry], forget: int) -> None:
        number = self._numbers.get(id) or self._numbers.setdefault(id, self._number(id))
        self._connection.executemany(
            "INSERT INTO events (row, type, data) VALUES (?, ?, ?)",
            [(number * _NUMBERS + entry.seq, entry.type, entry.data) for entry in entries],
        )
        if forget:
            first, last = number * _NUMBERS, number * _NUMBERS + forget
            self._connection.execute("DELETE FROM events WHERE row BETWEEN ? AND ?", (first, last))
        if entries:
            self._connection.execute(
                "UPDATE runs SET last = ?, forgotten = max(forgotten, ?) WHERE number = ?",
                (entries[-1].seq, forget, number),
            )

    def end_run(self, id: str, status: str, ended: float, result: bytes) -> None:
        self._numbers.pop(id, None)
        self._connection.execute(
            "UPDATE runs SET status = ?, ended = ?, result = ? WHERE id = ?", (status, ended, result, id)
        )

    def events(self, id: str, after: int, size: int) -> list[Entry]:
        """From `after` + 1 on; at least one, then no more than about `size` bytes."""
        number = self._number(id)
        first, last = number * _NUMBERS + after + 1, (number + 1) * _NUMBERS - 1
        entries: list[Entry] = []
        rows = self._connection.execute(
            "SELECT row, type, data FROM events WHERE row BETWEEN ? AND ? ORDER BY row", (first, last)
        )
        for row, type, data in rows:
            entry = Entry(row - number * _NUMBERS, type, bytes(data))
            entries.append(entry)
            size -= entry.size
            if size <= 0:
                break
        rows.close()
        return entries

    def _number(self, id: str) -> int:
        row = self._connection.execute("SELECT number FROM runs WHERE id = ?", (id,)).fetchone()
        if row is None:
            raise sqlite3.IntegrityError(f"there is no run {id}")
        return int(row[0])

    def forget_runs(self, before: float, limit: int) -> int:
        """Removes runs that ended before that time, the oldest first; gives how many, at most `limit`."""
        rows = self._connection.execute(
            "SELECT number FROM runs WHERE ended < ? ORDER BY ended LIMIT ?", (before, limit)
        ).fetchall()
        for (number,) in rows:
            first, last = number * _NUMBERS, (number + 1) * _NUMBERS - 1
            self._connection.execute("DELETE FROM events WHERE row BETWEEN ? AND ?", (first, last))
            self._connection.execute("DELETE FROM runs WHERE number = ?", (number,))
        return len(rows)

    def oldest_end(self) -> float | None:
        row = self._connection.execute("SELECT min(ended) FROM runs").fetchone()
        return None if row is None else row[0]

    def size(self) -> int:
        """Bytes that are in use."""
        (pages,) = self._connection.execute("PRAGMA page_count").fetchone()
        (free,) = self._connection.execute("PRAGMA freelist_count").fetchone()
        (page,) = self._connection.execute("PRAGMA page_size").fetchone()
        return int((pages - free) * page)

    # -- sessions --------------------------------------------------------------------------------

    def put_session(self, row: SessionRow) -> None:
        self._connection.execute(
            "INSERT INTO sessions (tenant, id, created, used, began) VALUES (?, ?, ?, ?, ?) "
            "ON CONFLICT (tenant, id) DO UPDATE SET used = excluded.used, began = excluded.began",
            (row.tenant, row.id, row.created, row.used, int(row.began)),
        )

    def sessions(self) -> list[SessionRow]:
        rows = self._connection.execute("SELECT tenant, id, created, used, began FROM sessions")
        return [SessionRow(tenant=t, id=i, created=c, used=u, began=bool(b)) for t, i, c, u, b in rows]

    def delete_session(self, tenant: str, id: str) -> None:
        self._connection.execute("DELETE FROM sessions WHERE tenant = ? AND id = ?", (tenant, id))

    # -- keys ------------------------------------------------------------------------------------

    def add_key(self, key: KeyRow) -> None:
        self._connection.execute(
            "INSERT INTO keys (id, tenant, name, hash, created) VALUES (?, ?, ?, ?, ?)",
            (key.id, key.tenant, key.name, key.hash, key.created),
        )

    def all_keys(self) -> list[KeyRow]:
        rows = self._connection.execute(
            "SELECT id, tenant, name, hash, created, revoked FROM keys ORDER BY created, id"
        )
        return [KeyRow(id=i, tenant=t, name=n, hash=bytes(h), created=c, revoked=r) for i, t, n, h, c, r in rows]

    def revoke_key(self, id: str, when: float) -> bool:
        """Whether there was one to revoke."""
        done = self._connection.execute("UPDATE keys SET revoked = ? WHERE id = ? AND revoked IS NULL", (when, id))
        return done.rowcount > 0
