"""What survives the service, in one SQLite file: the SQL, and nothing else. Blocking; one connection, one thread at a time.

Write-ahead logging with `synchronous=NORMAL`: what was committed survives the death of the process, and of the machine all but
the last moments (sqlite.org/wal.html).
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cellrun.blobs import Blob, together
from cellrun.event_log import End, Entry
from cellrun.service.schema import bring_up
from cellrun.wire import data_to_json

_BUSY: Final = 10_000  # milliseconds
_NUMBERS: Final = 2**32  # events of a run at most; an event's row is its run's row times this, plus its number


@dataclass(frozen=True, kw_only=True)
class RunRow:
    """A run, as it is kept. `ended` and `created` are seconds since the epoch."""

    id: str
    tenant: str
    session: str | None
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


_RUN: Final = "id, tenant, session, created, digest, key, ended, status, last, forgotten"


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
            self._numbers: dict[str, tuple[int, str]] = {}  # of runs that go on: row and tenant
            self._prepare()
        except (sqlite3.Error, ValueError) as error:
            self._connection.close()
            raise OSError(f"{path} cannot be used as the service's database: {error}") from None

    def _prepare(self) -> None:
        with self.transaction():
            bring_up(self._connection)

    def checkpoint(self, *, start_anew: bool = False) -> None:
        """Brings what was committed into the database itself, as far as no reader needs it as it was. `start_anew`: waits for readers,
        and cuts the log to nothing; nobody may write meanwhile."""
        self._connection.execute(f"PRAGMA wal_checkpoint({'TRUNCATE' if start_anew else 'PASSIVE'})").fetchone()

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

    def add_run(self, run: RunRow, code: str) -> RunRow:
        """This one; or, if its key was used before, the run that has it."""
        if run.key is not None:
            before = self.run_of_key(run.tenant, run.key)
            if before is not None:
                return before
        number = self._connection.execute(
            "INSERT INTO runs (id, tenant, session, created, digest, key) VALUES (?, ?, ?, ?, ?, ?)",
            (run.id, run.tenant, run.session, run.created, run.digest, run.key),
        ).lastrowid
        self._connection.execute("INSERT INTO codes (run, code) VALUES (?, ?)", (number, code))
        self._connection.execute(
            "INSERT INTO sizes (run, tenant, bytes) VALUES (?, ?, ?)", (number, run.tenant, len(code))
        )
        return run

    def run(self, id: str) -> RunRow | None:
        return self._run("id = ?", (id,))

    def run_of_key(self, tenant: str, key: str) -> RunRow | None:
        return self._run("tenant = ? AND key = ?", (tenant, key))

    def _run(self, condition: str, values: Sequence[object]) -> RunRow | None:
        row = self._connection.execute(f"SELECT {_RUN} FROM runs WHERE {condition}", values).fetchone()  # noqa: S608
        return None if row is None else RunRow(**dict(zip(_RUN.split(", "), row, strict=True)))

    def runs_of(self, tenant: str, session: str, since: float, limit: int) -> list[RunRow]:
        """Those that were started since then, newest first."""
        rows = self._connection.execute(
            f"SELECT {_RUN} FROM runs WHERE tenant = ? AND session = ? AND created >= ? ORDER BY number DESC LIMIT ?",  # noqa: S608
            (tenant, session, since, limit),
        )
        return [RunRow(**dict(zip(_RUN.split(", "), row, strict=True))) for row in rows]

    def code(self, id: str, *, most: int | None = None) -> str | None:
        """Its first `most` characters, or all; None where there is no such run."""
        row = self._connection.execute(
            "SELECT substr(code, 1, ifnull(?, length(code))) FROM codes JOIN runs ON codes.run = runs.number WHERE runs.id = ?",
            (most, id),
        ).fetchone()
        return None if row is None else str(row[0])

    def alive(self) -> list[tuple[str, int]]:
        """Runs that have no end, with the number of their last event."""
        rows = self._connection.execute("SELECT id, last FROM runs WHERE ended IS NULL ORDER BY number")
        return [(id, last) for id, last in rows]

    def forget_key(self, id: str) -> None:
        """The run stays; its key may be used for another."""
        self._connection.execute("UPDATE runs SET key = NULL WHERE id = ?", (id,))

    def result(self, id: str, *, slim: bool) -> bytes | None:
        """`slim`: without its large values."""
        row = self._connection.execute(
            "SELECT r.result, n.tenant FROM results r JOIN runs n ON n.number = r.run WHERE n.id = ?", (id,)
        ).fetchone()
        return None if row is None else bytes(row[0]) if slim else self._whole(bytes(row[0]), row[1])

    def append(self, id: str, entries: Sequence[Entry], forget: int) -> None:
        number, tenant = self._number_of(id)
        start = number * _NUMBERS
        self._connection.executemany(
            "INSERT INTO events (row, type, data) VALUES (?, ?, ?)",
            [(start + entry.seq, entry.type, entry.data if entry.slim is None else entry.slim) for entry in entries],
        )
        for entry in entries:
            self._use(start + entry.seq, tenant, entry.blobs)
        size = sum(map(_stored, entries))
        if forget:
            size -= self._forget(start + 1, start + forget)
        if entries:
            self._connection.execute(
                "UPDATE runs SET last = ?, forgotten = max(forgotten, ?) WHERE number = ?",
                (entries[-1].seq, forget, number),
            )
        self._connection.execute("UPDATE sizes SET bytes = bytes + ? WHERE run = ?", (size, number))

    def end_run(self, id: str, ended: float, end: End) -> None:
        number, tenant = self._number_of(id)
        self._numbers.pop(id, None)
        self._connection.execute("UPDATE runs SET status = ?, ended = ? WHERE number = ?", (end.status, ended, number))
        self._connection.execute(
            "INSERT OR REPLACE INTO results (run, result) VALUES (?, ?)",
            (number, end.result if end.slim is None else end.slim),
        )
        self._use(number * _NUMBERS, tenant, end.blobs)
        self._connection.execute("UPDATE sizes SET bytes = bytes + ? WHERE run = ?", (_stored(end), number))

    def events(self, id: str, after: int, size: int) -> list[Entry]:
        """From `after` + 1 on; at least one, then no more than about `size` bytes."""
        number, tenant = self._number(id)
        first, last = number * _NUMBERS + after + 1, (number + 1) * _NUMBERS - 1
        entries: list[Entry] = []
        rows = self._connection.execute(
            "SELECT row, type, data FROM events WHERE row BETWEEN ? AND ? ORDER BY row", (first, last)
        )
        for row, type, data in rows:
            whole = self._whole(data, tenant)
            entry = Entry(row - number * _NUMBERS, type, whole, None if whole is data else data)
            entries.append(entry)
            size -= entry.size
            if size <= 0:
                break
        rows.close()
        return entries

    def _number(self, id: str) -> tuple[int, str]:
        row = self._connection.execute("SELECT number, tenant FROM runs WHERE id = ?", (id,)).fetchone()
        if row is None:
            raise sqlite3.IntegrityError(f"there is no run {id}")
        return int(row[0]), str(row[1])

    def _number_of(self, id: str) -> tuple[int, str]:
        """Of a run that goes on, for whom we write."""
        return self._numbers.get(id) or self._numbers.setdefault(id, self._number(id))

    def forget_runs(self, before: float, limit: int) -> int:
        """Removes runs that ended before that time, the oldest first; gives how many, at most `limit`."""
        rows = self._connection.execute(
            "SELECT number FROM runs WHERE ended < ? ORDER BY ended LIMIT ?", (before, limit)
        ).fetchall()
        for (number,) in rows:
            self._forget(number * _NUMBERS, (number + 1) * _NUMBERS - 1)
            self._connection.execute("DELETE FROM runs WHERE number = ?", (number,))
            for table in ("codes", "results", "sizes"):
                self._connection.execute(f"DELETE FROM {table} WHERE run = ?", (number,))  # noqa: S608
        return len(rows)

    def _forget(self, first: int, last: int) -> int:
        """Removes these rows of events, and what only they used; gives how many bytes they were counted as."""
        between = (first, last)
        rows = self._connection.execute(
            "SELECT b.number, length(b.data) FROM uses u JOIN blobs b ON b.number = u.blob WHERE u.row BETWEEN ? AND ?",
            between,
        ).fetchall()
        size: int = sum(length for _, length in rows)
        self._connection.execute("DELETE FROM uses WHERE row BETWEEN ? AND ?", between)
        self._connection.executemany(
            "DELETE FROM blobs WHERE number = ?1 AND NOT EXISTS (SELECT 1 FROM uses WHERE blob = ?1)",
            [(blob,) for blob, _ in rows],
        )
        (events,) = self._connection.execute(
            "SELECT ifnull(sum(length(data)), 0) FROM events WHERE row BETWEEN ? AND ?", between
        ).fetchone()
        self._connection.execute("DELETE FROM events WHERE row BETWEEN ? AND ?", between)
        return size + int(events)

    def usage(self) -> dict[str, int]:
        """Bytes of all runs of each tenant."""
        return dict(self._connection.execute("SELECT tenant, sum(bytes) FROM sizes GROUP BY tenant"))

    def usage_of(self, tenant: str) -> int:
        (size,) = self._connection.execute(
            "SELECT ifnull(sum(bytes), 0) FROM sizes WHERE tenant = ?", (tenant,)
        ).fetchone()
        return int(size)

    # -- blobs -----------------------------------------------------------------------------------

    def blob(self, tenant: str, sha256: bytes) -> bytes | None:
        row = self._connection.execute(
            "SELECT data FROM blobs WHERE tenant = ? AND hash = ?", (tenant, sha256)
        ).fetchone()
        return None if row is None else bytes(row[0])

    def _use(self, row: int, tenant: str, blobs: Sequence[Blob]) -> None:
        for blob in blobs:
            self._connection.execute(
                "INSERT OR IGNORE INTO blobs (tenant, hash, data) VALUES (?, ?, ?)", (tenant, blob.sha256, blob.data)
            )
            self._connection.execute(
                "INSERT OR IGNORE INTO uses (row, blob) SELECT ?, number FROM blobs WHERE tenant = ? AND hash = ?",
                (row, tenant, blob.sha256),
            )

    def _whole(self, data: bytes, tenant: str) -> bytes:
        """With its large values, if any were taken out: the same object where none were."""
        if b'"blobs":' not in data:
            return data
        told = json.loads(data)

        def get(sha256: bytes) -> bytes | None:
            return self.blob(tenant, sha256)

        if "outputs" in told:
            told["outputs"] = [together(output, get) if "blobs" in output else output for output in told["outputs"]]
        elif "blobs" in told:
            told = together(told, get)
        else:
            return data
        return data_to_json(told).encode("utf-8")

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


def _stored(one: Entry | End) -> int:
    """Bytes that it takes, as they are counted again when it goes."""
    data = one.data if isinstance(one, Entry) else one.result
    return len(data if one.slim is None else one.slim) + sum(len(blob.data) for blob in one.blobs)
