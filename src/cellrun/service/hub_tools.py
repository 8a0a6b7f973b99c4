"""The tools' backend in the service: the sessions and runs of one tenant."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from typing import Any, Final

from cellrun.event_log import Entry, EventLog
from cellrun.events import Finished, Stdout
from cellrun.files import Files
from cellrun.folding import Folder
from cellrun.limits import KIB, UNSET
from cellrun.service.held import EndedRun, ended
from cellrun.service.hub import Hub
from cellrun.service.problems import Problem, problem_of
from cellrun.service.runs import RESULT, LiveRun, RunRequest
from cellrun.service.tool_backend import Promises, last_line_of, promises_of
from cellrun.wire import event_from_json, result_to_dict

_LOOK_BACK: Final = 32  # events, for the last line
_PART: Final = 256 * KIB  # of a run that goes on: its beginning; and its newest events


class HubRun:
    """See ToolRun."""

    def __init__(self, hub: Hub, run: LiveRun | EndedRun) -> None:
        self._hub = hub
        self._run = run

    @property
    def id(self) -> str:
        return self._run.log.run

    @property
    def ended(self) -> bool:
        return isinstance(self._run, EndedRun) or self._run.done.is_set()

    async def wait(self, seconds: float | None) -> bool:
        if isinstance(self._run, LiveRun):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._run.done.wait()
        return self.ended

    async def last_line(self) -> str:
        log = self._run.log
        for entry in reversed(await _first_piece(log, max(0, log.last - _LOOK_BACK))):
            if entry.type in ("stdout", "stderr") and (line := last_line_of(json.loads(entry.data)["text"])):
                return line
        return ""

    async def result(self) -> dict[str, Any]:
        run = self._run
        if isinstance(run, LiveRun):
            if not run.done.is_set():
                return await self._so_far(run)
            if run.failure is not None and not run.begun:  # else what it had printed is in its result
                raise problem_of(run.failure)
            body = None if run.end is None else run.end.result
        else:
            row = run.row
            body = await self._hub.store.ask(lambda database: database.result(row.id, slim=False))
        if body is None:
            raise Problem("storage", "the result of this run was not kept")
        told: dict[str, Any] = await asyncio.to_thread(json.loads, body)
        return told

    async def interrupt(self) -> None:
        if isinstance(self._run, LiveRun):
            await self._run.interrupt()

    def abandon(self, reason: str) -> None:
        if isinstance(self._run, LiveRun):
            self._run.abandon(reason)

    async def _so_far(self, run: LiveRun) -> dict[str, Any]:
        """Of its beginning and of its newest events: all of it may be more than is worth reading."""
        log, upto = run.log, run.log.last
        folder, size, after = Folder(RESULT), 0, 0
        if upto:
            async with contextlib.aclosing(log.follow(0)) as pieces:
                async for piece in pieces:
                    for entry in piece:
                        if entry.type != "finished" and entry.seq <= upto and size < _PART:
                            folder.add(event_from_json(entry.data))
                            size, after = size + entry.size, entry.seq
                    if size >= _PART or after >= upto or piece[-1].seq >= upto:
                        break
        if after < upto:
            gap = "\n[… what comes here can be read when the run has ended …]\n"
            folder.add(Stdout(seq=after, execution_id=run.id, text=gap))
            for entry in await _first_piece(log, max(after, upto - _LOOK_BACK)):
                if entry.type != "finished":
                    folder.add(event_from_json(entry.data))
        sent = run.moments[1]
        taken = 0.0 if sent is None else time.monotonic() - sent
        folder.add(
            Finished(seq=upto + 1, execution_id=run.id, status="interrupted", execution_count=None, duration=taken)
        )
        return {**result_to_dict(folder.result()), "status": "running"}


class HubTools:
    """See ToolBackend. `idle`: seconds without use after which sessions here end anyhow; None: when the service says so."""

    def __init__(self, hub: Hub, tenant: str, *, idle: float | None = None) -> None:
        self._hub = hub
        self._tenant = tenant
        self._idle = idle

    @property
    def promises(self) -> Promises:
        options = self._hub.options
        idle = min((each for each in (self._idle, options.idle_timeout) if each is not None), default=None)
        return promises_of(self._hub.provider, timeout=options.timeout, longest=options.max_timeout, idle=idle)

    async def start(self, session: str | None, code: str, timeout: float | None) -> HubRun:
        asked = RunRequest(code=code, timeout=UNSET if timeout is None else timeout, stdin=())
        return HubRun(self._hub, await self._hub.start(self._tenant, session, asked))

    async def find(self, run: str) -> HubRun:
        return HubRun(self._hub, await self._hub.run(self._tenant, run))

    async def newest(self, session: str) -> HubRun | None:
        hub, tenant = self._hub, self._tenant
        live = [run for run in hub.live.values() if (run.tenant, run.session) == (tenant, session)]
        if live:
            return HubRun(hub, max(live, key=lambda run: run.created))
        held = hub.held.get((tenant, session))
        since = 0.0 if held is None else held.row.created
        rows = [] if held is None else await hub.store.ask(lambda base: base.runs_of(tenant, session, since, 1))
        if not rows:
            return None
        id = rows[0].id  # which may have begun while we asked
        return HubRun(hub, hub.live.get(id) or hub.unstored.get(id) or ended(hub.store, rows[0]))

    async def restart(self, session: str) -> bool:
        held = self._hub.held.get((self._tenant, session))
        if held is None or not held.alive:
            return False
        await self._hub.restart(self._tenant, session)
        return True

    async def files(self, session: str) -> Files:
        return self._hub.kernel_of(await self._hub.session(self._tenant, session)).files

    async def check_write(self, size: int) -> None:
        hub = self._hub
        if size > hub.options.file:
            raise Problem("too_large", f"a file may have {hub.options.file} bytes")
        hub.upkeep.check_disk(self._tenant, size)
        hub.upkeep.wrote(self._tenant, size)


async def _first_piece(log: EventLog, after: int) -> list[Entry]:
    """What there is after that number, or the first part of it; it waits for nothing."""
    if log.last <= after:
        return []
    async with contextlib.aclosing(log.follow(after)) as pieces:
        async for piece in pieces:
            return piece
    return []
