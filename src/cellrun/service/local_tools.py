"""The tools' backend for one user: sessions of the library, which end with the process."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import time
import uuid
from collections import OrderedDict
from collections.abc import Coroutine
from typing import Any, Final

from cellrun.errors import CellrunError
from cellrun.events import Finished, Status, Stderr, Stdout
from cellrun.files import Files
from cellrun.folding import Folder
from cellrun.limits import MIB, UNSET, Limits
from cellrun.providers import Provider
from cellrun.providers.base import in_background
from cellrun.remote.service import CellrunService
from cellrun.service.problems import Problem
from cellrun.service.tool_backend import Promises, last_line_of, promises_of
from cellrun.session import AsyncSession
from cellrun.stream import AsyncStream
from cellrun.wire import result_to_dict

_RUNS: Final = 8  # that can be come back to, of what has ended
_ALIVE: Final = 64
_SESSIONS: Final = 8
_NAMES: Final = 1_000  # of sessions that gave way: what became of them is told once
_GIVEN_UP: Final = f"{_SESSIONS} other sessions were used since; its files may be gone, too"
_KEPT: Final = Limits(text=2 * MIB, displays=16 * MIB)
_LINES: Final = 4096  # characters that the last line is looked for in


class LocalRun:
    """See ToolRun. `restarted`: why the session's earlier kernel is gone, where it has to be said with this run."""

    def __init__(self, id: str, session_name: str, restarted: str | None) -> None:
        self.session_name = session_name
        self._restarted = restarted
        self._id = id
        self._folder = Folder(_KEPT)
        self._last = 0
        self._text = ""
        self._began = time.monotonic()
        self._stream: AsyncStream | None = None
        self._unwanted: str | None = None
        self._failure: CellrunError | None = None
        self._done = asyncio.Event()

    @property
    def id(self) -> str:
        return self._id

    @property
    def ended(self) -> bool:
        return self._done.is_set()

    async def carry_out(self, session: AsyncSession, code: str, timeout: float | None) -> None:
        """Never raises but for a cancellation."""
        try:
            async with session.stream(code, timeout=UNSET if timeout is None else timeout, stdin=()) as stream:
                self._stream = stream
                if self._unwanted is not None:
                    stream.cancel(self._unwanted)
                async for event in stream:
                    self._folder.add(event)
                    self._last = event.seq
                    if isinstance(event, (Stdout, Stderr)):
                        self._text = (self._text + event.text)[-_LINES:]
        except CellrunError as error:
            if self._stream is not None and self._stream.begun:
                self._folder.add(self._finished("kernel_died", str(error)))
            else:
                self._failure = error
        finally:
            self._done.set()

    async def wait(self, seconds: float | None) -> bool:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._done.wait()
        return self.ended

    async def last_line(self) -> str:
        return last_line_of(self._text)

    async def result(self) -> dict[str, Any]:
        if self._failure is not None:
            raise self._failure
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
        return {**told, "restarted": told["restarted"] or self._restarted}

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
        self._given_up: OrderedDict[str, None] = OrderedDict()
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
        gone = name in self._given_up
        self._given_up.pop(name, None)
        run = LocalRun(uuid.uuid4().hex, name, _GIVEN_UP if gone else None)
        self._runs[run.id] = run
        for id in [id for id, old in self._runs.items() if old.ended][:-_RUNS]:
            del self._runs[id]
        self._begin(run.carry_out(kernel, code, timeout))
        return run

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
        await kernel.restart()
        return True

    async def files(self, session: str) -> Files:
        return self._session(session).files

    async def check_write(self, size: int) -> None:
        pass

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _session(self, name: str) -> AsyncSession:
        """For one more than there may be, the longest unused in which nothing runs gives way."""
        found = self._sessions.get(name)
        if found is not None:
            self._sessions.move_to_end(name)
            return found
        if len(self._sessions) >= _SESSIONS:
            self._begin(self._unused().aclose())
        limits = Limits(timeout=self._timeout)
        there = self._session_id if not name or self._session_id is None else f"{self._session_id}:{name}"
        made = self._sessions[name] = AsyncSession(self._target, limits=limits, session_id=there, history=False)
        return made

    def _unused(self) -> AsyncSession:
        busy = {run.session_name for run in self._runs.values() if not run.ended}
        name = next((name for name in self._sessions if name not in busy), None)
        if name is None:
            raise Problem(
                "quota_exceeded", f"code runs in {_SESSIONS} sessions, and more there may not be: wait for one"
            )
        if self._sessions[name].began:
            self._given_up[name] = None
            if len(self._given_up) > _NAMES:
                self._given_up.popitem(last=False)
        return self._sessions.pop(name)

    async def aclose(self) -> None:
        """Ends what runs, all kernels, and what they came from. Never raises; cancelled, it goes on in the background."""
        await asyncio.shield(in_background(self._close()))

    async def _close(self) -> None:
        await asyncio.gather(*(session.aclose() for session in self._sessions.values()), return_exceptions=True)
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._owned:
            await self._target.aclose()
