"""The tools' backend for one user: sessions of the library, which end with the process."""

from __future__ import annotations

import asyncio
import builtins
import contextlib
import copy
import logging
import time
import uuid
from collections import OrderedDict
from collections.abc import AsyncIterable, AsyncIterator, Callable, Coroutine, Iterator
from typing import Any, Final

from cellrun.errors import CellrunError, SessionLost
from cellrun.events import Finished, Status, Stderr, Stdout
from cellrun.files import Files
from cellrun.folding import Folder
from cellrun.limits import MIB, UNSET, Limits
from cellrun.providers import Provider
from cellrun.providers.base import FileInfo, FileStore, in_background
from cellrun.remote.service import CellrunService
from cellrun.service.problems import Problem
from cellrun.service.tool_backend import Promises, last_line_of, promises_of, sentence, within
from cellrun.session import AsyncSession
from cellrun.stream import AsyncStream
from cellrun.wire import result_to_dict

_RUNS: Final = 8  # that can be come back to, of what has ended
_ALIVE: Final = 64
_SESSIONS: Final = 8
_NAMES: Final = 1_000  # of sessions that are gone: what became of them is told once
_GIVEN_UP: Final = f"{_SESSIONS} other sessions were used since; its files may be gone, too"
_KEPT: Final = Limits(text=2 * MIB, displays=16 * MIB)
_LINES: Final = 4096  # characters that the last line is looked for in
_log: Final = logging.getLogger("cellrun.service.tools")


class LocalRun:
    """See ToolRun. `restarted`: why the session's earlier kernel is gone, where it has to be said with this run. `failure`: why its code
    was never sent to a kernel."""

    def __init__(self, id: str, session_name: str, session: AsyncSession, restarted: str | None) -> None:
        self.session_name = session_name
        self.session = session
        self.restarted = restarted
        self.failure: Problem | CellrunError | None = None
        self._id = id
        self._folder = Folder(_KEPT)
        self._last = 0
        self._text = ""
        self._began = time.monotonic()
        self._stream: AsyncStream | None = None
        self._unwanted: str | None = None
        self._done = asyncio.Event()

    @property
    def id(self) -> str:
        return self._id

    @property
    def ended(self) -> bool:
        return self._done.is_set()

    async def carry_out(self, code: str, timeout: float | None) -> None:
        """Never raises but for a cancellation."""
        try:
            limit = UNSET if timeout is None else timeout
            async with self.session.stream(code, timeout=limit, stdin=()) as stream:
                self._stream = stream
                if self._unwanted is not None:
                    stream.cancel(self._unwanted)
                async for event in stream:
                    self._folder.add(event)
                    self._last = event.seq
                    if isinstance(event, (Stdout, Stderr)):
                        self._text = (self._text + event.text)[-_LINES:]
        except Exception as error:  # whoever waits for it is told, and nobody else could be
            failure = _failure_of(error)
            if self._stream is not None and self._stream.begun:
                self._folder.add(self._finished("kernel_died", sentence(failure)))
            else:
                self.failure = failure
        finally:
            self._done.set()

    async def wait(self, seconds: float | None) -> bool:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._done.wait()
        return self.ended

    async def last_line(self) -> str:
        return last_line_of(self._text)

    async def result(self, *, text_only: bool = False) -> dict[str, Any]:
        """All of it is in memory: `text_only` would save nothing."""
        if self.failure is not None:
            raise self.failure
        if self.ended:
            return self._told(self._folder)
        folder = copy.deepcopy(self._folder)
        folder.add(self._finished("interrupted"))
        return {**self._told(folder), "status": "running"}

    def _finished(self, status: Status, reason: str | None = None) -> Finished:
        taken = time.monotonic() - self._began
        return Finished(
            seq=self._last + 1,
            execution_id=self._id,
            status=status,
            execution_count=None,
            duration=taken,
            reason=reason,
        )

    def _told(self, folder: Folder) -> dict[str, Any]:
        told = result_to_dict(folder.result())
        return {**told, "restarted": told["restarted"] or self.restarted}

    async def interrupt(self) -> None:
        """One that waits leaves the line."""
        if self._stream is None:
            self._unwanted = "interrupted"
        elif self._stream.begun:
            await self._stream.interrupt()
        else:
            self._stream.cancel()

    def abandon(self, reason: str) -> None:
        self._unwanted = reason
        if self._stream is not None:
            self._stream.cancel(reason)


def _failure_of(error: Exception) -> Problem | CellrunError:
    """What is told of an exception of the library. A service that does not take what it was sent is a ValueError."""
    if isinstance(error, CellrunError):
        return error
    if isinstance(error, ValueError):
        return Problem("bad_request", str(error))
    _log.error("a run could not be carried out", exc_info=error)
    return Problem("internal", "cellrun has failed; its log says why")


class _Store(FileStore):
    """The files of a session. `lost`: what to raise when that turns out to be gone."""

    def __init__(self, files: Files, lost: Callable[[SessionLost], SessionLost]) -> None:
        self._files = files
        self._lost = lost

    async def write(self, path: str, chunks: AsyncIterable[bytes]) -> None:
        with self._told():
            await self._files.write(path, chunks)

    async def read(self, path: str, start: int = 0) -> AsyncIterator[bytes]:
        with self._told():
            async with contextlib.aclosing(self._files.chunks(path, start=start)) as pieces:
                async for piece in pieces:
                    yield piece

    async def stat(self, path: str) -> FileInfo:
        with self._told():
            return await self._files.stat(path)

    async def list(self, path: str = "") -> builtins.list[FileInfo]:
        with self._told():
            return await self._files.list(path)

    async def delete(self, path: str) -> None:
        with self._told():
            await self._files.delete(path)

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except SessionLost as error:
            raise self._lost(error) from None


class LocalTools:
    """See ToolBackend. `target`: whose kernels they are; where it is `owned`, it is closed with this object. `timeout`: of a run that names
    none. `session_id`: on a service, the name there of the session that calls are for which name none."""

    def __init__(
        self,
        target: Provider | CellrunService,
        *,
        timeout: float | None,
        owned: bool = True,
        session_id: str | None = None,
    ) -> None:
        self._target = target
        self._timeout = timeout
        self._owned = owned
        self._session_id = session_id
        self._sessions: OrderedDict[str, AsyncSession] = OrderedDict()  # the longest unused first
        self._given_up: OrderedDict[str, str] = OrderedDict()  # why they are gone
        self._lost: set[AsyncSession] = set()  # until their runs have ended
        self._runs: OrderedDict[str, LocalRun] = OrderedDict()
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def promises(self) -> Promises:
        return promises_of(self._target, timeout=self._timeout)

    async def start(self, session: str | None, code: str, timeout: float | None) -> LocalRun:
        name = session or ""
        if sum(not run.ended for run in self._runs.values()) >= _ALIVE:
            raise Problem("quota_exceeded", f"{_ALIVE} runs go on or wait for their turn: wait, or interrupt one")
        kernel = self._session(name)
        run = LocalRun(uuid.uuid4().hex, name, kernel, self._given_up.pop(name, None))
        self._runs[run.id] = run
        for id in [id for id, old in self._runs.items() if old.ended][:-_RUNS]:
            del self._runs[id]
        self._begin(self._carry_out(run, code, timeout))
        return run

    async def _carry_out(self, run: LocalRun, code: str, timeout: float | None) -> None:
        await run.carry_out(code, timeout)
        # Before anybody who waits for it has a turn.
        if isinstance(run.failure, SessionLost):
            run.failure = self._lose(run.session_name, run.session, run.failure)
        if run.failure is not None and run.restarted is not None and run.session_name not in self._given_up:
            self._give_up(run.session_name, run.restarted)  # nobody was told

    async def find(self, run: str) -> LocalRun:
        found = self._runs.get(run)
        if found is None:
            raise Problem("not_found", f"there is no run {run[:128]!r}; the last {_RUNS} that have ended are kept")
        return found

    async def newest(self, session: str) -> LocalRun | None:
        return next((run for run in reversed(self._runs.values()) if run.session_name == session), None)

    async def restart(self, session: str) -> bool:
        kernel = self._sessions.get(session)
        if kernel is None:
            return False
        try:
            await kernel.restart()
        except SessionLost as error:
            raise self._lose(session, kernel, error) from None
        return True

    async def files(self, session: str) -> Files:
        kernel = self._session(session)

        async def store() -> FileStore:
            return _Store(kernel.files, lambda error: self._lose(session, kernel, error))

        return Files(store)

    async def check_write(self, size: int) -> None:
        pass

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _session(self, name: str) -> AsyncSession:
        """For one more than there may be, the longest unused in which nothing runs gives way. Raises Problem."""
        found = self._sessions.get(name)
        if found is not None:
            self._sessions.move_to_end(name)
            return found
        there = self._session_id if not name or self._session_id is None else within(self._session_id, name)
        try:
            made = AsyncSession(self._target, limits=Limits(timeout=self._timeout), session_id=there, history=False)
        except ValueError as error:
            raise Problem("bad_request", str(error)) from None
        if len(self._sessions) >= _SESSIONS:
            self._begin(self._unused().aclose())
        self._sessions[name] = made
        return made

    def _unused(self) -> AsyncSession:
        busy = {run.session_name for run in self._runs.values() if not run.ended}
        name = next((name for name in self._sessions if name not in busy), None)
        if name is None:
            raise Problem(
                "quota_exceeded", f"code runs in {_SESSIONS} sessions, and more there may not be: wait for one"
            )
        if self._sessions[name].began:
            self._give_up(name, _GIVEN_UP)
        return self._sessions.pop(name)

    def _give_up(self, name: str, why: str) -> None:
        self._given_up[name] = why
        if len(self._given_up) > _NAMES:
            self._given_up.popitem(last=False)

    def _lose(self, name: str, kernel: AsyncSession, error: SessionLost) -> SessionLost:
        """A session is gone where it was, on a service for instance that has ended it: the next call has a fresh one. Gives what is told of
        that to the call that has met it."""
        if error.retryable:
            return error
        why = str(error).partition("; make a new")[0]  # which a model cannot do
        if self._sessions.get(name) is kernel:
            del self._sessions[name]
            self._give_up(name, f"{why}; its files may be gone, too")
            self._lost.add(kernel)
            self._begin(self._leave(kernel))
        return SessionLost(
            f"{why}. Variables are gone, and files may be; call again: the next call has a fresh session"
        )

    async def _leave(self, kernel: AsyncSession) -> None:
        """What waits in it is told the same as the run that came first, and not that it was closed."""
        for run in [run for run in self._runs.values() if run.session is kernel]:
            await run.wait(None)
        await kernel.aclose()
        self._lost.discard(kernel)

    async def aclose(self) -> None:
        """Ends what runs, all kernels, and what they came from. Never raises; cancelled, it goes on in the background."""
        await asyncio.shield(in_background(self._close()))

    async def _close(self) -> None:
        sessions = [*self._sessions.values(), *self._lost]
        await asyncio.gather(*(session.aclose() for session in sessions), return_exceptions=True)
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._owned:
            await self._target.aclose()
