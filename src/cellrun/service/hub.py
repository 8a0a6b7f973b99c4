"""The service without HTTP: tenants' sessions, their runs, and what is kept of both."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import logging
import re
import time
import uuid
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal

from cellrun.errors import SessionLost
from cellrun.event_log import EventLog
from cellrun.events import Event
from cellrun.limits import Limits, Unset
from cellrun.providers import LocalKernels
from cellrun.providers.base import Provider, finish
from cellrun.service.database import Database, RunRow, SessionRow
from cellrun.service.metrics import Metrics
from cellrun.service.options import ServiceOptions
from cellrun.service.problems import Problem
from cellrun.service.runs import RESULT, LiveRun, RunRequest, cut_off
from cellrun.service.store import Store
from cellrun.session import AsyncSession

_SESSION: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._~:@-]{0,127}")
_SWEEP: Final = 60.0
_TOUCH: Final = 60.0  # a session's time of use is written no more often than this
_SWEPT_AT_ONCE: Final = 100
_CUT_OFF: Final = "the service ended while this ran, and the kernel with it; the variables are gone"
_log: Final = logging.getLogger("cellrun.service")


@dataclass(eq=False)
class Held:
    """A session of a tenant. Its kernel comes and goes; `succeeds` says why the next one is not the last one."""

    row: SessionRow
    session: AsyncSession | None = None
    succeeds: str | None = None
    runs: int = 0
    deleted: bool = False

    @property
    def alive(self) -> bool:
        """Whether it has a kernel, or is about to."""
        return self.session is not None and not self.session.closed

    @property
    def state(self) -> Literal["new", "idle", "running"]:
        return "new" if not self.alive else "running" if self.runs else "idle"


@dataclass(frozen=True)
class EndedRun:
    """A run that was carried out before, as it is kept."""

    row: RunRow
    log: EventLog


class Hub:
    """Sessions and runs on the kernels of `provider`, which it closes. `open()` must come first, `aclose()` last."""

    def __init__(self, provider: Provider, store: Store, options: ServiceOptions, metrics: Metrics) -> None:
        self.provider = provider
        self.store = store
        self.options = options
        self.metrics = metrics
        self.draining = False
        self.live: dict[str, LiveRun] = {}
        self._sessions: dict[tuple[str, str], Held] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._limits = replace(
            Limits(text=RESULT.text, displays=RESULT.displays),
            timeout=options.timeout,
            idle_timeout=options.idle_timeout,
        )

    async def open(self) -> None:
        """Gives an end to runs that the last service left without one, and takes up its sessions. Raises OSError."""
        for run, last in await self.store.ask(lambda database: database.alive()):
            entries, end = await cut_off(self.store, run, last, _CUT_OFF)
            await self.store.append(run, entries, 0, end)
            self.metrics.ended("kernel_died", _CUT_OFF, 0.0)
        for session in await self.store.ask(lambda database: database.sessions()):
            succeeds = "the service was started anew" if session.began else None
            self._sessions[session.tenant, session.id] = Held(session, succeeds=succeeds)
        await self.provider.__aenter__()
        self._spawn(self._sweep())

    async def aclose(self) -> None:
        """Interrupts what runs, ends all kernels, stores every end. Never raises."""
        self.draining = True
        sessions = [held.session for held in self._sessions.values() if held.session is not None]
        await asyncio.gather(*(session.aclose() for session in sessions), return_exceptions=True)
        for run in list(self.live.values()):
            run.abandon()
        if self.live:
            await asyncio.wait([asyncio.ensure_future(run.done.wait()) for run in self.live.values()], timeout=10)
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.provider.aclose()
        await self.store.aclose()

    async def drain(self) -> None:
        """Takes no new runs, and waits for those that go on; not for longer than `drain_timeout`."""
        self.draining = True
        waits = [asyncio.ensure_future(run.done.wait()) for run in self.live.values()]
        if waits:
            await asyncio.wait(waits, timeout=self.options.drain_timeout)
            for wait in waits:
                wait.cancel()

    @property
    def containment(self) -> str | None:
        """What walls hold the kernels; None while that is not known, or cannot be."""
        return self.provider.containment

    def observe(self) -> None:
        """Brings the metrics up to date that are asked for, not counted."""
        if isinstance(self.provider, LocalKernels):
            status = self.provider.status
            for state in ("ready", "starting", "held", "ending"):
                self.metrics.kernels.labels(state).set(getattr(status, state))
            self.metrics.waiting.set(status.waiting)
        self.metrics.containment.clear()
        self.metrics.containment.labels((self.containment or "unknown").partition(":")[0]).set(1)

    # -- sessions --------------------------------------------------------------------------------

    def sessions(self, tenant: str) -> list[Held]:
        return [held for (owner, _), held in self._sessions.items() if owner == tenant]

    def find(self, tenant: str, id: str) -> Held:
        """Raises Problem where the tenant has no such session."""
        held = self._sessions.get((tenant, id))
        if held is None:
            raise Problem("not_found", f"there is no session {id[:128]!r}")
        return held

    async def session(self, tenant: str, id: str) -> Held:
        """The one that is there, or a new one. Raises Problem."""
        held = self._sessions.get((tenant, id))
        if held is not None:
            return held
        if not _SESSION.fullmatch(id):
            raise Problem(
                "bad_request",
                "a session is named with up to 128 letters, digits and . _ ~ : @ -, the first a letter or digit",
            )
        self._refuse_while_draining()
        most = self.options.quotas.sessions
        if most is not None and len(self.sessions(tenant)) >= most:
            raise Problem("quota_exceeded", f"{most} sessions are the limit: delete one", retry_after=60)
        now = time.time()
        held = self._sessions[tenant, id] = Held(SessionRow(tenant=tenant, id=id, created=now, used=now, began=False))
        await self._keep(held)
        return held

    async def delete(self, tenant: str, id: str) -> None:
        """Ends its runs and its kernel. Raises Problem."""
        held = self.find(tenant, id)
        del self._sessions[tenant, id]
        held.deleted = True
        try:
            await self.store.write(lambda database: database.delete_session(tenant, id))
        finally:
            if held.session is not None:
                await finish(held.session.aclose())

    async def restart(self, tenant: str, id: str) -> Held:
        """A fresh kernel, if it has one. Raises Problem and CellrunError."""
        held = self.find(tenant, id)
        if held.session is not None and held.alive:
            await held.session.restart()
        return held

    def kernel_of(self, held: Held) -> AsyncSession:
        """Its session in the library: the one that is there, or another if that has ended by itself. Raises SessionLost for one that
        was deleted: whoever found it before must not start a kernel that nobody would end."""
        if held.deleted:
            raise SessionLost(f"the session {held.row.id} was deleted")
        if held.session is not None and held.session.closed:
            held.succeeds = f"the session was not used for {self.options.idle_timeout:g} s"
            held.session = None
        if held.session is None:
            held.session = AsyncSession(self.provider, limits=self._limits, succeeds=held.succeeds)
            held.succeeds = None
        now = time.time()
        if not held.row.began or now - held.row.used > _TOUCH:
            held.row = replace(held.row, used=now, began=True)
            self._spawn(self._keep(held))
        return held.session

    async def _keep(self, held: Held) -> None:
        row = held.row
        if held.deleted:
            return
        await self.store.write(lambda database: database.put_session(row))

    # -- runs ------------------------------------------------------------------------------------

    async def start(
        self, tenant: str, session: str | None, request: RunRequest, key: str | None = None
    ) -> LiveRun | EndedRun:
        """A new run on this session (None: on one of its own, that ends with it); or the run that has this key. Raises Problem."""
        digest = _digest(session, request)
        if key is not None and (kept := await self.store.ask(lambda database: database.run_of_key(tenant, key))):
            return await self._same(kept, digest)
        self._refuse_while_draining()
        self._check(tenant, request)
        held = None if session is None else await self.session(tenant, session)
        id = uuid.uuid4().hex
        log = EventLog(self.store, id, keep=self.options.keep_events)
        run = LiveRun(id, tenant, session, request, log, self.store)
        row = RunRow(
            id=id,
            tenant=tenant,
            session=session,
            code=request.code,
            created=run.created,
            digest=digest,
            key=key,
        )
        adding = asyncio.ensure_future(self.store.write(lambda database: database.add_run(row), size=len(request.code)))
        if key is not None:
            kept = await asyncio.shield(adding)
            if kept.id != id:
                return await self._same(kept, digest)
        else:
            # Events are written after it, in the same line; its failure is theirs, too.
            adding.add_done_callback(lambda done: done.cancelled() or done.exception())
        self.live[id] = run
        run.task = self._spawn(self._carry_out(run, held))
        return run

    async def _same(self, kept: RunRow, digest: bytes) -> LiveRun | EndedRun:
        """The run that has this key already."""
        if kept.digest != digest:
            raise Problem("key_reused", "this Idempotency-Key came before with another request; take a new one")
        return await self.run(kept.tenant, kept.id)

    async def run(self, tenant: str, id: str) -> LiveRun | EndedRun:
        """Raises Problem where the tenant has no such run."""
        live = self.live.get(id)
        if live is not None and live.tenant == tenant:
            return live
        row = await self.store.ask(lambda database: database.run(id))
        if row is None or row.tenant != tenant:
            raise Problem("not_found", f"there is no run {id[:128]!r}")
        return ended(self.store, row)

    async def _carry_out(self, run: LiveRun, held: Held | None) -> None:
        self.metrics.runs.inc()
        started = time.monotonic()
        try:
            if held is None:
                async with contextlib.aclosing(AsyncSession(self.provider, limits=self._limits)) as session:
                    await run.carry_out(lambda: session, self._count)
            else:
                held.runs += 1
                try:
                    await run.carry_out(lambda: self.kernel_of(held), self._count)
                finally:
                    held.runs -= 1
        finally:
            self.live.pop(run.id, None)
            self.metrics.runs.dec()
            self.metrics.ended(run.status or "kernel_died", run.reason, time.monotonic() - started)

    def _check(self, tenant: str, request: RunRequest) -> None:
        most, longest = self.options.quotas.runs, self.options.max_timeout
        if most is not None and sum(run.tenant == tenant for run in self.live.values()) >= most:
            raise Problem(
                "quota_exceeded", f"{most} runs at once are the limit: wait until one has ended", retry_after=1
            )
        if longest is None or isinstance(request.timeout, Unset):
            return
        if request.timeout is None or request.timeout > longest:
            raise Problem("bad_request", f"a run may take {longest:g} s at most: name a shorter `timeout`")

    def _refuse_while_draining(self) -> None:
        if self.draining:
            raise Problem("draining", "the service ends: try again when it is back", retry_after=5)

    def _count(self, events: Sequence[Event]) -> None:
        self.metrics.count(events)

    # -- keeping ---------------------------------------------------------------------------------

    async def _sweep(self) -> None:
        while True:
            try:
                await self.sweep()
            except OSError as error:
                _log.error("old runs cannot be removed: %s", error)
            await asyncio.sleep(_SWEEP)

    async def sweep(self) -> None:
        """Forgets runs that are older than they are kept, or more than there is room for. Raises OSError."""
        before = time.time() - self.options.keep_runs
        while await self.store.write(lambda database: database.forget_runs(before, _SWEPT_AT_ONCE)):
            pass
        while await self.store.write(self._make_room):
            pass

    def _make_room(self, database: Database) -> int:
        oldest = database.oldest_end()
        if oldest is None or database.size() <= self.options.keep_data:
            return 0
        return database.forget_runs(oldest + 1e-6, 1)

    def _spawn(self, coroutine: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def ended(store: Store, row: RunRow) -> EndedRun:
    return EndedRun(row, EventLog.of_ended(store, row.id, row.last, row.forgotten))


def _digest(session: str | None, request: RunRequest) -> bytes:
    """Of what makes two requests the same."""
    timeout = "default" if isinstance(request.timeout, Unset) else request.timeout
    told = json.dumps([session, request.code, timeout, request.stdin, request.on_disconnect])
    return hashlib.sha256(told.encode("utf-8", "backslashreplace")).digest()
