"""The database for the event loop: one thread writes, in batches; another reads.

All writes that wait while a batch is committed are the next batch, so the cost of a commit is shared by everything that happens at
the same time. The line of writes is bounded by its callers: each awaits its own.
"""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Final, TypeVar

from cellrun.event_log import End, Entry
from cellrun.service.database import Database

T = TypeVar("T")
FILE: Final = "cellrun.sqlite3"
_BATCH: Final = 256


class StorageError(OSError):
    """The service's database cannot be read or written (a full disk, most likely)."""


_Job = tuple[Callable[[Database], Any], "asyncio.Future[Any]"]


class Store:
    """In the folder `data`, which is made. Raises OSError if it cannot be used. Used on the loop that made it; `aclose()` must come last."""

    def __init__(self, data: Path) -> None:
        data.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.path = data / FILE
        self._loop = asyncio.get_running_loop()
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._database = Database(self.path)
        self._readable = Database(self.path)
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="cellrun-store-reader")
        self._writer = threading.Thread(target=self._write, name="cellrun-store-writer", daemon=True)
        self._writer.start()
        self._closed = False

    async def write(self, job: Callable[[Database], T]) -> T:
        """Does this in a transaction; when it returns, that is committed. Raises StorageError. Cancelled: it is done all the same."""
        if self._closed:
            raise StorageError("the service's database is closed")
        future: asyncio.Future[T] = self._loop.create_future()
        self._jobs.put((job, future))
        return await future

    async def read(self, run: str, after: int, size: int) -> list[Entry]:
        """See LogStore."""
        return await self.ask(lambda database: database.events(run, after, size))

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
                database.end_run(run, end.status, time.time(), end.result)

        await self.write(job)

    async def aclose(self) -> None:
        """What was to be written is written first. Never raises; a second call does nothing."""
        if self._closed:
            return
        self._closed = True
        self._jobs.put(None)
        await asyncio.to_thread(self._writer.join)
        await asyncio.to_thread(self._reader.shutdown)
        self._readable.close()
        self._database.close()

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
                answers = self._commit(jobs)
                self._loop.call_soon_threadsafe(_tell, answers)

    def _commit(self, jobs: Sequence[_Job]) -> list[tuple[asyncio.Future[Any], Any, Exception | None]]:
        answers: list[tuple[asyncio.Future[Any], Any, Exception | None]] = []
        try:
            with self._database.transaction():
                for job, future in jobs:
                    try:
                        with self._database.part():
                            answers.append((future, job(self._database), None))
                    except sqlite3.IntegrityError as error:
                        answers.append((future, None, StorageError(f"the service's database refused it: {error}")))
        except Exception as error:  # nothing of the batch is there: all of it is told
            failure = StorageError(f"the service's database cannot be written: {error}")
            return [(future, None, failure) for _, future in jobs]
        return answers


def _tell(answers: Sequence[tuple[asyncio.Future[Any], Any, Exception | None]]) -> None:
    for future, value, error in answers:
        if future.done():
            continue
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(value)
