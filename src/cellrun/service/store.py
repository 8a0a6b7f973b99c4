"""The database for the event loop.

What is small is committed at once, on the loop: a tenth of a millisecond, for commits write to the page cache and wait for no disk. What is
large, or comes while something is being written, goes to a thread, in the order in which it came. All that waits there while a batch is
committed is the next batch. The disk is waited for by checkpoints only, which are that thread's. The line of writes is bounded by
its callers: each awaits its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Final, TypeVar
from weakref import WeakValueDictionary

from cellrun.event_log import End, Entry
from cellrun.limits import KIB, MIB
from cellrun.service.database import Database

T = TypeVar("T")
FILE: Final = "cellrun.sqlite3"
_LOCK: Final = "service.lock"
_BATCH: Final = 256
_SMALL: Final = 32 * KIB
_CHECKPOINT: Final = 4 * MIB  # written since the last one
_LONG: Final = 64 * MIB  # of the write-ahead log
_COMMIT: Final = 8 * KIB  # a commit's share of that, at least: it writes whole pages


class StorageError(OSError):
    """The service's database cannot be read or written (a full disk, most likely)."""


_Job = tuple[Callable[[Database], Any], "asyncio.Future[Any]"]


class Store:
    """In the folder `data`, which is made. Raises OSError if it cannot be used. Used on the loop that made it; `aclose()` must come last."""

    def __init__(self, data: Path) -> None:
        data.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.path = data / FILE
        self._log = data / f"{FILE}-wal"
        self._lock = _locked(data / _LOCK)
        try:
            self._open()
        except BaseException:
            os.close(self._lock)
            raise

    def _open(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._waiting = 0
        self._unsynced = 0
        self._writing = threading.Lock()
        self._database = Database(self.path, checkpoints=False)
        self._checkpointer = Database(self.path)
        self._readable = Database(self.path)
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="cellrun-store-reader")
        self._writer = threading.Thread(target=self._write, name="cellrun-store-writer", daemon=True)
        self._writer.start()
        self._closed = False
        self._pieces: WeakValueDictionary[tuple[str, int, int], _Piece] = WeakValueDictionary()

    async def write(self, job: Callable[[Database], T], *, size: int | None = None) -> T:
        """Does this in a transaction; when it returns, that is committed. `size`: about how many bytes are written, where that is known
        to be all that it does. Raises StorageError. Cancelled: it is done all the same."""
        if self._closed:
            raise StorageError("the service's database is closed")
        future: asyncio.Future[T] = self._loop.create_future()
        self._unsynced += _COMMIT + (size or 0)
        if size is not None and size <= _SMALL and not self._waiting and self._writing.acquire(blocking=False):
            try:
                _tell(self._commit([(job, future)]))
            finally:
                self._writing.release()
            if self._unsynced > _CHECKPOINT:
                self._put(_nothing, self._loop.create_future())
        else:
            self._put(job, future)
        return await future

    def _put(self, job: Callable[[Database], Any], future: asyncio.Future[Any]) -> None:
        self._waiting += 1
        self._jobs.put((job, future))

    async def read(self, run: str, after: int, size: int) -> list[Entry]:
        """See LogStore. Readers that stand at the same place share what they hold, where no more can come to it."""
        place = (run, after, size)
        piece = self._pieces.get(place)
        if piece is None:
            piece = _Piece(await self.ask(lambda database: database.events(run, after, size)))
            if sum(entry.size for entry in piece) >= size:
                self._pieces[place] = piece
        return piece

    async def ask(self, question: Callable[[Database], T]) -> T:
        """Reads what is committed. Raises StorageError."""
        if self._closed:
            raise StorageError("the service's database is closed")
        try:
            return await self._loop.run_in_executor(self._reader, question, self._readable)
        except sqlite3.Error as error:
            raise StorageError(f"the service's database cannot be read: {error}") from None

    async def append(self, run: str, entries: Sequence[Entry], forget: int, end: End | None) -> None:
        """See LogStore."""

        def job(database: Database) -> None:
            database.append(run, entries, forget)
            if end is not None:
                database.end_run(run, time.time(), end)

        await self.write(job, size=sum(entry.size for entry in entries) + (len(end.result) if end is not None else 0))

    async def aclose(self) -> None:
        """What was to be written is written first. Never raises; a second call does nothing."""
        if self._closed:
            return
        self._closed = True
        self._jobs.put(None)
        await asyncio.to_thread(self._writer.join)
        await asyncio.to_thread(self._reader.shutdown)
        self._readable.close()
        self._checkpointer.close()
        self._database.close()
        os.close(self._lock)

    # -- the writer's thread ---------------------------------------------------------------------

    def _write(self) -> None:
        going = True
        while going:
            batch = [self._jobs.get()]
            while len(batch) < _BATCH and batch[-1] is not None and not self._jobs.empty():
                batch.append(self._jobs.get())
            going = batch[-1] is not None
            jobs = [job for job in batch if job is not None]
            if jobs:
                with self._writing:
                    answers = self._commit(jobs)
                self._loop.call_soon_threadsafe(self._tell_all, answers)
                if self._unsynced > _CHECKPOINT:
                    self._unsynced = 0
                    with contextlib.suppress(sqlite3.Error, OSError):  # the next one will do it
                        self._checkpoint()

    def _checkpoint(self) -> None:
        """The log begins anew only when nothing of it is left to bring over (sqlite.org/wal.html, "Avoiding excessively large WAL files"):
        where writers never pause they are held up for that, once it has grown long."""
        if os.stat(self._log).st_size > _LONG:
            with self._writing:
                self._checkpointer.checkpoint(start_anew=True)
        else:
            self._checkpointer.checkpoint()

    def _tell_all(self, answers: Sequence[tuple[asyncio.Future[Any], Any, Exception | None]]) -> None:
        self._waiting -= len(answers)
        _tell(answers)

    def _commit(self, jobs: Sequence[_Job]) -> list[tuple[asyncio.Future[Any], Any, Exception | None]]:
        answers: list[tuple[asyncio.Future[Any], Any, Exception | None]] = []
        try:
            with self._database.transaction():
                for job, future in jobs:
                    try:
                        with self._database.part() if len(jobs) > 1 else contextlib.nullcontext():
                            answers.append((future, job(self._database), None))
                    except (sqlite3.IntegrityError, ValueError) as error:  # a text that is no UTF-8 is a ValueError
                        if len(jobs) == 1:
                            raise
                        answers.append((future, None, StorageError(f"the service's database refused it: {error}")))
        except Exception as error:  # nothing of the batch is there: all of it is told
            failure = StorageError(f"the service's database cannot be written: {error}")
            return [(future, None, failure) for _, future in jobs]
        return answers


class _Piece(list[Entry]):
    """Kept for as long as somebody sends it."""


def _locked(path: Path) -> int:
    """A descriptor that keeps others out for as long as it is open: a second service would give an end to the runs of the first. Raises
    OSError."""
    lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        raise OSError("another service uses it") from None
    return lock


def _nothing(database: Database) -> None:
    """Has the writer's thread look whether there is something else to do."""


def _tell(answers: Sequence[tuple[asyncio.Future[Any], Any, Exception | None]]) -> None:
    for future, value, error in answers:
        if future.done():
            continue
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(value)
