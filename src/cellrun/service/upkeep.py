"""What the hub does beside requests: ends that could not be stored, runs that are old, and what tenants take of processors and disk."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Final

from cellrun.providers.base import finish
from cellrun.service.database import Database
from cellrun.service.problems import Problem
from cellrun.service.runs import cut_off
from cellrun.service.usage import CpuHour, Meter
from cellrun.session import AsyncSession

if TYPE_CHECKING:
    from cellrun.service.held import Leased
    from cellrun.service.hub import Hub

_SWEEP: Final = 60.0
_SWEPT_AT_ONCE: Final = 100
_LOOK: Final = 1.0
_FOLDERS: Final = 10.0  # folders are looked through no more often
_BUSY: Final = 0.05  # processor seconds in a look; a kernel without a run takes less, unless it works all the same
_OVER: Final = "its tenant has used up the processor seconds of this hour"
_log: Final = logging.getLogger("cellrun.service")


class Upkeep:
    """Of one hub. `load()` must come first."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        quotas = hub.options.quotas
        self._cpu = CpuHour(quotas.cpu)
        self._meter = Meter()
        self._most_disk = quotas.disk
        self._taken: dict[str, int] = {}  # bytes, as of the last look
        self._counting = asyncio.Lock()
        self._looked_through: set[str] = set()  # tenants whose folders are, just now

    @property
    def measures(self) -> bool:
        """Whether there is a quota that wants kernels to be looked at."""
        return self._cpu.most is not None or self._most_disk is not None

    def check(self, tenant: str) -> None:
        """Raises Problem where the tenant has used up its processor seconds or its disk."""
        self.check_cpu(tenant)
        self.check_disk(tenant)

    def check_cpu(self, tenant: str) -> None:
        """Raises Problem."""
        wait = self._cpu.wait(tenant, now=time.monotonic())
        if wait:
            raise Problem(
                "quota_exceeded", f"{self._cpu.most:g} processor seconds in an hour are the limit", retry_after=wait
            )

    def check_disk(self, tenant: str, more: int = 0) -> None:
        """`more`: bytes that are about to be written. Raises Problem."""
        if self._most_disk is None:
            return
        if self._taken.get(tenant, 0) + more > self._most_disk:
            raise Problem(
                "quota_exceeded",
                f"{self._most_disk} bytes on disk, runs and files together, are the limit: remove files, or wait until old runs are forgotten",
                retry_after=_SWEEP,
            )

    def wrote(self, tenant: str, size: int) -> None:
        """Counted until the next look finds it."""
        self._taken[tenant] = self._taken.get(tenant, 0) + size

    async def load(self) -> None:
        """What is stored of tenants that have no kernel. Raises OSError."""
        with_kernel = {tenant for (tenant, _), _ in self._kernels()}
        stored = await self._hub.store.ask(lambda database: database.usage())
        self._taken = {**stored, **{tenant: self._taken.get(tenant, 0) for tenant in with_kernel}}

    # -- sweeping --------------------------------------------------------------------------------

    async def sweep_forever(self) -> None:
        while True:
            try:
                await self.sweep()
            except OSError as error:
                _log.error("old runs cannot be removed: %s", error)
            await asyncio.sleep(_SWEEP)

    async def sweep(self) -> None:
        """Gives an end to runs whose own could not be stored; forgets sessions that were not used for as long as runs are kept, and runs that
        are older than that, or more than there is room for. Raises OSError."""
        hub = self._hub
        for run in list(hub.unstored.values()):
            row = await hub.store.ask(partial(Database.run, id=run.id))
            if row is not None and row.ended is None:
                entries, end = await cut_off(hub.store, run.id, row.last, run.reason or "its output was lost")
                await hub.store.append(run.id, entries, 0, end)
            hub.unstored.pop(run.id, None)
        for held in hub.held.values():
            if held.session is not None and held.session.closed:
                held.let_go(hub.options.idle_timeout)
        before = time.time() - hub.options.keep_runs
        for (tenant, id), held in list(hub.held.items()):
            if not held.alive and not held.runs and held.row.used < before:
                await hub.delete(tenant, id)
        while await hub.store.write(lambda database: database.forget_runs(before, _SWEPT_AT_ONCE)):
            pass
        while await hub.store.write(self._make_room):
            pass
        await self.load()

    def _make_room(self, database: Database) -> int:
        oldest = database.oldest_end()
        if oldest is None or database.size() <= self._hub.options.keep_data:
            return 0
        return database.forget_runs(oldest + 1e-6, 1)

    # -- measuring -------------------------------------------------------------------------------

    async def measure_forever(self) -> None:
        """Processors each second; folders apart from them, for they may take long. Nothing where there is no quota for it."""
        async with asyncio.TaskGroup() as looks:
            if self._cpu.most is not None:
                looks.create_task(self._look_forever(self.measure_cpu, _LOOK))
            if self._most_disk is not None:
                looks.create_task(self._look_forever(self._measure_disks, _FOLDERS))

    async def _look_forever(self, look: Callable[[], Awaitable[None]], every: float) -> None:
        while True:
            try:
                await look()
            except OSError as error:
                _log.error("what tenants take cannot be measured: %s", error)
            await asyncio.sleep(every)

    async def measure_cpu(self) -> None:
        """What all kernels have taken since the last look; whose tenant has no more is stopped."""
        async with self._counting:
            kernels = self._kernels()
            taken = await asyncio.to_thread(lambda: {key: kernel.cpu_seconds() or 0.0 for key, kernel in kernels})
            grown = self._meter.since(taken)
            now = time.monotonic()
            for (tenant, _), seconds in grown.items():
                self._cpu.add(tenant, seconds, now=now)
        for tenant in {tenant for (tenant, _), _ in kernels}:
            if self._cpu.wait(tenant, now=now):
                await self._stop(tenant, {key[1] for key, seconds in grown.items() if seconds > _BUSY})

    async def last_look(self, tenant: str, name: str, kernel: AsyncSession | Leased) -> None:
        """What it has taken of processors, before it is given up. The hub has it no more."""
        if self._cpu.most is None:
            return
        async with self._counting:
            seconds = await asyncio.to_thread(kernel.cpu_seconds)
            self._cpu.add(tenant, self._meter.last((tenant, name), seconds or 0.0), now=time.monotonic())

    async def _measure_disks(self) -> None:
        for tenant in {tenant for (tenant, _), _ in self._kernels()}:
            await self.measure_disk(tenant)

    async def measure_disk(self, tenant: str) -> None:
        """What its runs and its files take now; nothing where that does not matter, or while somebody else looks. Raises OSError."""
        if self._most_disk is None or tenant in self._looked_through:
            return
        self._looked_through.add(tenant)
        try:
            stored = await self._hub.store.ask(lambda database: database.usage_of(tenant))
            kernels = [kernel for (owner, _), kernel in self._kernels() if owner == tenant]
            folders = await asyncio.to_thread(lambda: sum(kernel.disk_bytes() or 0 for kernel in kernels))
            self._taken[tenant] = stored + folders
        finally:
            self._looked_through.discard(tenant)

    def _kernels(self) -> list[tuple[tuple[str, str], AsyncSession | Leased]]:
        """All that tenants have, by tenant and by the name of session or run."""
        hub = self._hub
        found: list[tuple[tuple[str, str], AsyncSession | Leased]] = list(hub.leased.items())
        found += [(key, held.session) for key, held in hub.held.items() if held.session is not None]
        found += [((hub.live[id].tenant, id), session) for id, session in hub.alone.items() if id in hub.live]
        return found

    async def _stop(self, tenant: str, busy: set[str]) -> None:
        """Runs of this tenant are interrupted; a kernel that is busy without one is ended."""
        hub = self._hub
        working = {run.session for run in hub.live.values() if run.tenant == tenant}
        for run in list(hub.live.values()):
            if run.tenant == tenant:
                run.abandon(_OVER)
        for (owner, id), held in list(hub.held.items()):
            if owner == tenant and id in busy - working and held.session is not None:
                session, held.session, held.succeeds = held.session, None, _OVER
                await finish(hub.give_up(owner, id, session))
        for (owner, id), kernel in list(hub.leased.items()):
            if owner == tenant and id in busy:
                await kernel.stop(_OVER)
