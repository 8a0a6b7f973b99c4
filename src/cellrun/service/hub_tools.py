"""The tools' backend in the service: the sessions and runs of one tenant."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Sequence
from typing import Any, Final

from cellrun.event_log import Entry, EventLog
from cellrun.events import Finished, Stdout
from cellrun.files import Files
from cellrun.folding import Folder
from cellrun.limits import KIB, MIB, UNSET
from cellrun.service.held import EndedRun, ended
from cellrun.service.hub import Hub
from cellrun.service.problems import Problem, problem_of
from cellrun.service.runs import RESULT, LiveRun, RunRequest
from cellrun.service.tool_backend import Promises, last_line_of, promises_of
from cellrun.wire import event_from_json, result_to_dict

_LOOK_BACK: Final = 32  # events, for the last line
_PART: Final = 256 * KIB  # of a run that goes on: its beginning; and its newest events
_FAR: Final = 16 * MIB  # of events, about, among which the newest line is looked for


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
        newest = await _newest(log, max(0, log.last - _LOOK_BACK))
        return next((line for entry in reversed(newest) if (line := _line_of(entry))), "")

    async def result(self, *, text_only: bool = False) -> dict[str, Any]:
        run = self._run
        if isinstance(run, LiveRun):
            if not run.done.is_set():
                return await self._so_far(run)
            if run.failure is not None and not run.begun:  # else what it had printed is in its result
                raise problem_of(run.failure)
            end = run.end
            body = None if end is None else end.slim if text_only and end.slim is not None else end.result
        else:
            row = run.row
            body = await self._hub.store.ask(lambda database: database.result(row.id, slim=text_only))
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
            newest = await _newest(log, max(after, upto - _LOOK_BACK))
            if newest and newest[0].seq > after + 1:
                gap = "\n[… what comes here can be read when the run has ended …]\n"
                folder.add(Stdout(seq=after, execution_id=run.id, text=gap))
            await asyncio.to_thread(_fold, folder, newest)
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


def _fold(folder: Folder, entries: Sequence[Entry]) -> None:
    for entry in entries:
        if entry.type != "finished":
            folder.add(event_from_json(entry.data))


def _line_of(entry: Entry) -> str:
    """The last line that is printed there; "" where none is."""
    return last_line_of(json.loads(entry.data)["text"]) if entry.type in ("stdout", "stderr") else ""


async def _newest(log: EventLog, after: int) -> list[Entry]:
    """What there is after that number; where that is more than one piece, the newest of it, as far back as the newest line, and not much
    more than `_FAR` bytes. It waits for nothing."""
    last = log.last
    piece = await _first_piece(log, after)
    if not piece or piece[-1].seq >= last:
        return piece
    found: list[Entry] = []
    size, line = 0, False
    for seq in range(last, after, -1):
        entry = (await _first_piece(log, seq - 1))[0]
        if entry.seq != seq:  # what was there is forgotten
            break
        found.append(entry)
        size += entry.size
        line = line or _line_of(entry) != ""
        if size >= (_PART if line else _FAR):
            break
    return found[::-1]


async def _first_piece(log: EventLog, after: int) -> list[Entry]:
    """What there is after that number, or the first part of it; it waits for nothing."""
    if log.last <= after:
        return []
    async with contextlib.aclosing(log.follow(after)) as pieces:
        async for piece in pieces:
            return piece
    return []
