"""Rows about many kernels at once: their memory, their threads, and how soon they are there."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from statistics import mean
from typing import Any, Final

import cellrun
from bench.measure import Bench, Check, Contender, Figures, Row
from bench.rows_calls import expect
from bench.rows_data import MB
from bench.rows_forked import FORKED, SPAWNED, quiet
from cellrun.kernel_session import KernelSession
from cellrun.launch import forkserver
from cellrun.launch.process import KernelProcess
from cellrun.providers.local_lease import LocalLease

_IMPORTS: Final = "import numpy, pandas, matplotlib.pyplot"


def process_of(session: cellrun.AsyncSession) -> int:
    """The kernel's process, by the number that it has here."""
    assert isinstance(session._backend, KernelSession)
    lease = session._backend.lease
    assert isinstance(lease, LocalLease)
    within = (
        lease._enclosure.first_of(lease.pid) if isinstance(lease._process, KernelProcess) and lease._enclosure else None
    )
    return within or lease.pid


def memory_of(pid: int) -> tuple[float, float]:
    """What is the process's alone, and that with its part of what it shares, in MB (USS, PSS: proc(5), smaps_rollup)."""
    sizes: dict[str, int] = {}
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text("ascii").splitlines()[1:]:
        name, size = line.split()[:2]
        sizes[name] = int(size) * 1024
    return (sizes["Private_Clean:"] + sizes["Private_Dirty:"]) / MB, sizes["Pss:"] / MB


def _threads_of(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/task"))


def _descriptors_of(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


class _Fleet:
    """Sessions that are kept open, and the processes behind them."""

    def __init__(self, provider: cellrun.LocalKernels, stack: contextlib.AsyncExitStack) -> None:
        self._provider = provider
        self._stack = stack
        self._sessions: list[cellrun.AsyncSession] = []
        self.pids: list[int] = []

    @property
    def forkserver(self) -> int:
        assert self._provider._server is not None
        return self._provider._server.pids[0]

    async def grow(self, size: int) -> None:
        """All that are missing start at once."""
        sessions = [cellrun.AsyncSession(self._provider) for _ in range(size - len(self._sessions))]
        for session in sessions:
            self._stack.push_async_callback(session.aclose)
        self._sessions += sessions
        await asyncio.gather(*(session.start() for session in sessions))

    async def run(self, code: str) -> None:
        """One cell in each kernel."""
        for session in self._sessions[len(self.pids) :]:
            expect((await session.run(code or "1")).status, "ok")
            self.pids.append(process_of(session))


@contextlib.asynccontextmanager
async def _fleet(**options: Any) -> AsyncIterator[_Fleet]:
    async with cellrun.LocalKernels(pool=0, **options) as provider, contextlib.AsyncExitStack() as stack:
        await provider.ready()
        yield _Fleet(provider, stack)


@contextlib.asynccontextmanager
async def _fleet_memory(bench: Bench) -> AsyncIterator[list[Contender]]:
    async def measured(fleet: _Fleet, name: str, sizes: Sequence[int], code: str) -> dict[str, float]:
        figures: dict[str, float] = {}
        for size in sizes:
            await fleet.grow(size)
            await fleet.run(code)
            own, proportional = zip(*(memory_of(pid) for pid in fleet.pids), strict=True)
            figures |= {f"{name}, {size}: USS": mean(own), f"{name}, {size}: PSS": mean(proportional)}
        return figures

    async def forked() -> Figures:
        async with _fleet() as fleet:
            figures = await measured(fleet, FORKED, (1, 10, 50) if bench.quick else (1, 10, 50, 100), "")
            return {**figures, "the forkserver beside them: PSS": memory_of(fleet.forkserver)[1]}

    async def spawned() -> Figures:
        async with _fleet(kernel="ipykernel") as fleet:
            return await measured(fleet, SPAWNED, (1,) if bench.quick else (1, 5), _IMPORTS)

    yield [forked, spawned]


_UNTIL_READY: Final = "until 100 are ready"


@contextlib.asynccontextmanager
async def _fleet_start(bench: Bench) -> AsyncIterator[list[Contender]]:
    async def forked() -> Figures:
        async with cellrun.LocalKernels(pool=0) as provider:
            await provider.ready()
            async with contextlib.AsyncExitStack() as stack:
                started = time.perf_counter()
                await _Fleet(provider, stack).grow(100)
                ready = time.perf_counter()
            await quiet(provider)
            return {_UNTIL_READY: ready - started, "until they have ended again": time.perf_counter() - ready}

    yield [forked]


@contextlib.asynccontextmanager
async def _fleet_handles(bench: Bench) -> AsyncIterator[list[Contender]]:
    async def measured(name: str, size: int, **options: Any) -> Figures:
        async with _fleet(**options) as fleet:
            await fleet.grow(size)
            await fleet.run("")
            return {
                f"{name}: threads": max(map(_threads_of, fleet.pids)),
                f"{name}: descriptors": max(map(_descriptors_of, fleet.pids)),
            }

    yield [lambda: measured(FORKED, 20), lambda: measured(SPAWNED, 1, kernel="ipykernel")]


_ROWS: Final = (
    Row(
        "fleet-memory",
        "a kernel's memory (mean) where so many are idle, numpy, pandas and matplotlib loaded",
        "MB",
        (1, 1),
        _fleet_memory,
        (
            Check(f"{FORKED}, 50: USS", at_most=14),
            Check(f"{FORKED}, 50: PSS", at_most=20),
            Check(f"{FORKED}, 50: USS", f"{SPAWNED}, 1: USS"),
        ),
        warmups=(0, 0),
    ),
    Row(
        "fleet-start",
        "100 kernels wanted at once, all preloaded and none ready",
        "s",
        (1, 3),
        _fleet_start,
        (Check(_UNTIL_READY, at_most=5),),
        warmups=(0, 0),
    ),
    Row(
        "fleet-handles",
        "of the kernel that has most, of 20 forked ones and of one spawned",
        "each",
        (1, 1),
        _fleet_handles,
        (Check(f"{FORKED}: threads", at_most=5), Check(f"{FORKED}: descriptors", at_most=32)),
        warmups=(0, 0),
    ),
)
ROWS: Final = _ROWS if forkserver.AVAILABLE else ()
