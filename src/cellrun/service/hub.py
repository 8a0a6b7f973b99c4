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
from dataclasses import replace
from typing import Any, Final

from cellrun.errors import SessionLost
from cellrun.event_log import EventLog
from cellrun.events import Event
from cellrun.limits import Limits, Unset
from cellrun.providers import LocalKernels
from cellrun.providers.base import Provider, finish
from cellrun.service.admission import Admission
from cellrun.service.database import RunRow, SessionRow
from cellrun.service.held import EndedRun, Held, Leased, ended
from cellrun.service.metrics import Metrics
from cellrun.service.options import ServiceOptions
from cellrun.service.problems import Problem
from cellrun.service.runs import RESULT, LiveRun, RunRequest, cut_off
from cellrun.service.store import Store
from cellrun.service.tracing import Tracing
from cellrun.service.upkeep import Upkeep
from cellrun.session import AsyncSession

_SESSION: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._~:@-]{0,127}")
_TOUCH: Final = 60.0  # a session's time of use is written no more often than this
_UNSTORED: Final = 256
_GIVEN_WAY: Final = 10_000
CUT_OFF: Final = "the service ended while this ran, and the kernel with it; the variables are gone"
_log: Final = logging.getLogger("cellrun.service")


class Hub:
    """Sessions and runs on the kernels of `provider`, which it closes. `open()` must come first, `aclose()` last."""

    def __init__(
        self,
        provider: Provider,
        store: Store,
        options: ServiceOptions,
        metrics: Metrics,
        tracing: Tracing | None = None,
    ) -> None:
        self.provider = provider
        self.store = store
        self.options = options
        self.metrics = metrics
        self.tracing = tracing
        self.draining = False
        self.live: dict[str, LiveRun] = {}
        self.unstored: dict[str, LiveRun] = {}
        self.alone: dict[str, AsyncSession] = {}  # of runs that have no session
        self.held: dict[tuple[str, str], Held] = {}
        self._given_way: dict[tuple[str, str], str] = {}  # by tenant and id: what is told where they come again
        self.leased: dict[tuple[str, str], Leased] = {}  # by tenant and id
        self.admission = Admission(self)
        self.upkeep = Upkeep(self)
        self.notebook = asyncio.Lock()  # they are large: one is made at a time
        self._tasks: set[asyncio.Task[None]] = set()
        self._limits = replace(
            Limits(text=RESULT.text, displays=RESULT.displays),
            timeout=options.timeout,
            idle_timeout=options.idle_timeout,
        )

    async def open(self) -> None:
        """Gives an end to runs that the last service left without one, and takes up its sessions. Raises OSError."""
        for run, last in await self.store.ask(lambda database: database.alive()):
            entries, end = await cut_off(self.store, run, last, CUT_OFF)
            await self.store.append(run, entries, 0, end)
            self.metrics.ended("kernel_died", CUT_OFF, 0.0)
        for session in await self.store.ask(lambda database: database.sessions()):
            succeeds = "the service was started anew" if session.began else None
            self.held[session.tenant, session.id] = Held(session, succeeds=succeeds)
        await self.provider.__aenter__()
        await self.upkeep.load()
        self._spawn(self.upkeep.sweep_forever())
        if self.upkeep.measures:
            self._spawn(self.upkeep.measure_forever())

    async def aclose(self) -> None:
        """Interrupts what runs, ends all kernels, stores every end. Never raises."""
        self.draining = True
        sessions = [held.session for held in self.held.values() if held.session is not None]
        await asyncio.gather(*(session.aclose() for session in sessions), return_exceptions=True)
        for run in list(self.live.values()):
            run.abandon("the service ended")
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
        waits: list[asyncio.Future[Any]] = [asyncio.ensure_future(run.done.wait()) for run in self.live.values()]
        waits += [asyncio.ensure_future(kernel.quiet()) for kernel in self.leased.values() if kernel.executing]
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
        return [held for (owner, _), held in self.held.items() if owner == tenant]

    def find(self, tenant: str, id: str) -> Held:
        """Raises Problem where the tenant has no such session."""
        held = self.held.get((tenant, id))
        if held is None:
            raise Problem("not_found", f"there is no session {id[:128]!r}")
        return held

    async def session(self, tenant: str, id: str, *, make: bool = True) -> Held:
        """The one that is there, or a new one if it may be made. Raises Problem."""
        held = self.held.get((tenant, id))
        if held is not None:
            return held
        if not make:
            return self.find(tenant, id)
        if not _SESSION.fullmatch(id):
            raise Problem(
                "bad_request",
                "a session is named with up to 128 letters, digits and . _ ~ : @ -, the first a letter or digit",
            )
        now = time.time()
        gives_way = self.admission.check_session(tenant, now)
        if gives_way is not None:
            self._take_out(gives_way)
            if gives_way.row.began:
                self._given_way[tenant, gives_way.row.id] = "the session was not used, and gave way to others"
                if len(self._given_way) > _GIVEN_WAY:
                    del self._given_way[next(iter(self._given_way))]
        row = SessionRow(tenant=tenant, id=id, created=now, used=now, began=False)
        held = self.held[tenant, id] = Held(row, succeeds=self._given_way.pop((tenant, id), None))
        if gives_way is not None:
            await self._forget(gives_way)
        await self._keep(held)
        return held

    async def delete(self, tenant: str, id: str) -> None:
        """Ends its runs and its kernel. Raises Problem."""
        held = self.find(tenant, id)
        self._take_out(held)
        await self._forget(held)

    def _take_out(self, held: Held) -> None:
        del self.held[held.row.tenant, held.row.id]
        held.deleted = True

    async def _forget(self, held: Held) -> None:
        tenant, id = held.row.tenant, held.row.id
        try:
            await self.store.write(lambda database: database.delete_session(tenant, id))
        finally:
            if held.session is not None:
                await finish(self.give_up(tenant, id, held.session))

    async def give_up(self, tenant: str, id: str, session: AsyncSession) -> None:
        """Ends this one, which the hub has no more."""
        await self.upkeep.last_look(tenant, id, session)
        await session.aclose()

    async def restart(self, tenant: str, id: str) -> Held:
        """A fresh kernel, if it has one. Raises Problem and CellrunError."""
        held = self.find(tenant, id)
        if held.session is not None and held.alive:
            await held.session.restart()
        return held

    def kernel_of(self, held: Held, *, counted: bool = False) -> AsyncSession:
        """Its session in the library: the one that is there, or another if that has ended by itself. `counted`: it may have one, that
        was found before. Raises Problem where its tenant may have no more kernels; SessionLost for one that was deleted: whoever found it
        before must not start a kernel that nobody would end."""
        if held.deleted:
            raise SessionLost(f"the session {held.row.id} was deleted")
        if held.session is not None and held.session.closed:
            held.let_go(self.options.idle_timeout)
        if held.session is None:
            if not counted:
                self.admission.check_kernels(held.row.tenant)
            before = self._of_before(held)
            held.session = AsyncSession(self.provider, limits=self._limits, history=False, succeeds=before)
        now = time.time()
        if not held.row.began or now - held.row.used > _TOUCH:
            held.row = replace(held.row, used=now, began=True)
            self._spawn(self._keep(held))
        return held.session

    def _of_before(self, held: Held) -> str | None:
        """What became of the kernel that it had, and of what was in its folder."""
        if held.succeeds is None or not isinstance(self.provider, LocalKernels) or not self.provider.own_folders:
            return held.succeeds
        return f"{held.succeeds}; its files are gone, too"

    async def _keep(self, held: Held) -> None:
        row = held.row
        if held.deleted:
            return
        await self.store.write(lambda database: database.put_session(row))

    # -- runs ------------------------------------------------------------------------------------

    async def start(
        self, tenant: str, session: str | None, request: RunRequest, key: str | None = None, *, make: bool = True
    ) -> LiveRun | EndedRun:
        """A new run on this session (None: on one of its own, that ends with it), which is made where there is none if `make`; or the run
        that has this key. Raises Problem."""
        digest = _digest(session, request)
        if key is not None and (kept := await self.store.ask(lambda database: database.run_of_key(tenant, key))):
            return await self._same(kept, digest)
        self.admission.refuse_while_draining()
        self.admission.check_run(tenant, request)
        id = uuid.uuid4().hex
        run = LiveRun(id, tenant, session, request, EventLog(self.store, id, keep=self.options.keep_events), self.store)
        self.live[id] = run  # it has its place before anything is waited for
        adding: asyncio.Future[RunRow] | None = None
        try:
            held = None if session is None else await self.session(tenant, session, make=make)
            if held is not None:
                run.created = max(run.created, held.row.created)  # which it may be the first of
            if held is None:
                self.admission.check_kernels(tenant, besides=run)
            else:
                self.kernel_of(held)  # from now on it is the session's
            adding = self._add(run, digest, key)
            # Without a key nobody waits: events are written after it, in the same line, and its failure is theirs, too.
            kept = None if key is None else await asyncio.shield(adding)
        except asyncio.CancelledError:
            self._spawn(self._take_back(run, adding))
            raise
        except BaseException:
            self._drop(run)
            raise
        if kept is not None and kept.id != id:
            self._drop(run)
            return await self._same(kept, digest)
        run.task = self._spawn(self._traced(run, held))
        return run

    def _add(self, run: LiveRun, digest: bytes, key: str | None) -> asyncio.Future[RunRow]:
        """Stores it; gives it, or the run that has its key already."""
        row = RunRow(id=run.id, tenant=run.tenant, session=run.session, created=run.created, digest=digest, key=key)
        code = run.request.code
        adding = asyncio.ensure_future(self.store.write(lambda database: database.add_run(row, code), size=len(code)))
        adding.add_done_callback(lambda done: done.cancelled() or done.exception())
        return adding

    async def _take_back(self, run: LiveRun, adding: asyncio.Future[RunRow] | None) -> None:
        """Whoever wanted it has gone before it began."""
        try:
            if adding is not None and (await adding).id == run.id:
                await run.give_up("the request was given up before it began")
                await self.store.write(lambda database: database.forget_key(run.id))
        except OSError as error:
            _log.error("run %s: it cannot be given up: %s", run.id, error)
        finally:
            self._drop(run)

    def _drop(self, run: LiveRun) -> None:
        """It never began."""
        self.live.pop(run.id, None)
        run.done.set()

    async def _same(self, kept: RunRow, digest: bytes) -> LiveRun | EndedRun:
        """The run that has this key already."""
        if kept.digest != digest:
            raise Problem("key_reused", "this Idempotency-Key came before with another request; take a new one")
        return await self.run(kept.tenant, kept.id)

    async def run(self, tenant: str, id: str) -> LiveRun | EndedRun:
        """Raises Problem where the tenant has no such run."""
        live = self.live.get(id) or self.unstored.get(id)
        if live is not None and live.tenant == tenant:
            return live
        row = await self.store.ask(lambda database: database.run(id))
        if row is None or row.tenant != tenant:
            raise Problem("not_found", f"there is no run {id[:128]!r}")
        return ended(self.store, row)

    async def _traced(self, run: LiveRun, held: Held | None) -> None:
        with contextlib.nullcontext() if self.tracing is None else self.tracing.run(run):
            await self._carry_out(run, held)

    async def _carry_out(self, run: LiveRun, held: Held | None) -> None:
        self.metrics.runs.inc()
        started = time.monotonic()
        try:
            if held is None:
                async with contextlib.aclosing(
                    AsyncSession(self.provider, limits=self._limits, history=False)
                ) as session:
                    self.alone[run.id] = session
                    try:
                        await run.carry_out(lambda: session, self._count)
                    finally:
                        del self.alone[run.id]
                        await finish(self.upkeep.last_look(run.tenant, run.id, session))
            else:
                held.runs += 1
                try:
                    await run.carry_out(lambda: self.kernel_of(held, counted=True), self._count)
                finally:
                    held.runs -= 1
                    self._let_go_of_none(held)
            if run.failure is not None and run.failure.retryable and not run.begun:
                # The same request may be sent again, and would find this one for ever.
                await self.store.write(lambda database: database.forget_key(run.id))
        except OSError as error:
            _log.error("run %s: what follows its end cannot be done: %s", run.id, error)
        finally:
            if not run.stored:
                self._remember(run)
            self.live.pop(run.id, None)
            run.done.set()
            self._spawn(self._measure_disk(run.tenant))
            self.metrics.runs.dec()
            self.metrics.ended(run.status or "kernel_died", run.reason, time.monotonic() - started)

    async def _measure_disk(self, tenant: str) -> None:
        try:
            await self.upkeep.measure_disk(tenant)
        except OSError as error:
            _log.error("what a tenant takes on disk cannot be measured: %s", error)

    def _let_go_of_none(self, held: Held) -> None:
        """Of a session that waits for its next use without a kernel: none could be started."""
        session = held.session
        if session is not None and not held.runs and not session.closed and not session.began:
            held.session = None
            self._spawn(session.aclose())

    def _remember(self, run: LiveRun) -> None:
        """A run whose end could not be stored: it is told as it is, until it can be."""
        self.unstored[run.id] = run
        if len(self.unstored) > _UNSTORED:
            self.unstored.pop(next(iter(self.unstored)))

    def _count(self, events: Sequence[Event]) -> None:
        self.metrics.count(events)

    def _spawn(self, coroutine: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def _digest(session: str | None, request: RunRequest) -> bytes:
    """Of what makes two requests the same."""
    timeout = "default" if isinstance(request.timeout, Unset) else request.timeout
    told: list[Any] = [session, request.code, timeout, request.stdin, request.on_disconnect]
    if request.metadata:  # left out where there is none: digests that are kept were made without it
        told.append(request.metadata)
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode("utf-8", "backslashreplace")).digest()
