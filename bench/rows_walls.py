"""What containment costs: the same kernels with walls around them and without."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator
from typing import Any, Final

import cellrun
from bench.measure import Bench, Check, Contender, Figures, Row
from bench.rows_calls import expect, milliseconds
from bench.rows_fleet import memory_of, process_of
from bench.rows_forked import quiet
from cellrun.launch import forkserver

FREE: Final = "uncontained"
CONTAINED: Final = "contained"
PORTABLE: Final = "contained, portable form"
COST: Final = f"{CONTAINED}, more than {FREE}"

_KINDS: Final[dict[str, Any]] = {
    FREE: "none",
    CONTAINED: "auto",
    PORTABLE: cellrun.SandboxPolicy(form="portable"),
}


@contextlib.asynccontextmanager
async def _providers(pool: int) -> AsyncIterator[dict[str, cellrun.LocalKernels]]:
    async with contextlib.AsyncExitStack() as stack:
        providers = {}
        for name, sandbox in _KINDS.items():
            provider = cellrun.LocalKernels(pool=pool, sandbox=sandbox)
            providers[name] = await stack.enter_async_context(provider)
            await quiet(provider)
        yield providers


@contextlib.asynccontextmanager
async def _warm(bench: Bench) -> AsyncIterator[list[Contender]]:
    async with _providers(0) as providers, contextlib.AsyncExitStack() as stack:
        contenders = []
        for name, provider in providers.items():
            session = await stack.enter_async_context(cellrun.AsyncSession(provider))

            async def once(session: cellrun.AsyncSession = session) -> None:
                expect((await session.run("1+1")).text, "2")

            contenders.append(milliseconds(name, once))
        yield contenders


@contextlib.asynccontextmanager
async def _first(bench: Bench) -> AsyncIterator[list[Contender]]:
    """All of them in one turn, so that the difference is one of neighbours in time."""
    async with _providers(0) as providers:

        async def turn() -> Figures:
            figures: dict[str, float] = {}
            for name, provider in providers.items():
                started = time.perf_counter()
                async with cellrun.AsyncSession(provider) as session:
                    expect((await session.run("1+1")).text, "2")
                    figures[name] = 1000 * (time.perf_counter() - started)
                await quiet(provider)
            return {**figures, COST: figures[CONTAINED] - figures[FREE]}

        yield [turn]


@contextlib.asynccontextmanager
async def _memory(bench: Bench) -> AsyncIterator[list[Contender]]:
    async def turn() -> Figures:
        figures: dict[str, float] = {}
        async with _providers(0) as providers, contextlib.AsyncExitStack() as stack:
            for name, provider in providers.items():
                sessions = [await stack.enter_async_context(cellrun.AsyncSession(provider)) for _ in range(10)]
                for session in sessions:
                    expect((await session.run("1+1")).text, "2")
                own = [memory_of(process_of(session))[0] for session in sessions]
                figures[name] = sum(own) / len(own)
        return {**figures, COST: figures[CONTAINED] - figures[FREE]}

    yield [turn]


ROWS: Final = (
    (
        Row(
            "walls-warm",
            "1+1 in a kernel that is kept, contained and not",
            "ms",
            (50, 300),
            _warm,
            (Check(CONTAINED, FREE, at_most=1.05), Check(PORTABLE, FREE, at_most=1.05)),
            warmups=(5, 10),
        ),
        Row(
            "walls-first",
            "nothing ready: a kernel and its first result, contained and not",
            "ms",
            (5, 30),
            _first,
            (Check(COST, at_most=5), Check(PORTABLE, FREE)),
            warmups=(1, 2),
        ),
        Row(
            "walls-memory",
            "memory of a kernel's own (USS, mean of 10), contained and not",
            "MB",
            (1, 2),
            _memory,
            (Check(COST, at_most=4),),
            warmups=(0, 0),
        ),
    )
    if forkserver.AVAILABLE
    else ()
)
