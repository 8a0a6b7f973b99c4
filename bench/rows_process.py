"""Rows about this side's own process: memory, start, import."""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, Final

import cellrun
from bench.measure import Bench, Check, Contender, Figures, Row
from bench.raw_zmq import raw_kernel
from bench.rows_calls import LOCAL, RAW, STOCK, expect
from bench.rows_data import MB

_ROOT: Final = Path(__file__).resolve().parent.parent
_GROWTH: Final = "growth of resident memory"
_GROWTH_STOCK: Final = f"{_GROWTH}, stock kernel"


async def _child(*arguments: str) -> bytes:
    """What a Python process writes; it is killed if we are cancelled."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, *arguments, cwd=_ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
    )
    try:
        output, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        raise RuntimeError(f"a child process ended with code {process.returncode}")
    return output


def _memory(lines: int, pause: float = 0.0) -> Callable[[Bench], Any]:
    """A row in which so many lines are printed at once, for a reader that pauses so long after the first.
    A stock kernel makes messages of whatever came in 40 ms, a forked one of about a megabyte."""

    @contextlib.asynccontextmanager
    async def opened(bench: Bench) -> AsyncIterator[list[Contender]]:
        size = (50 if bench.quick else 250) * MB

        def on(name: str, kernel: str) -> Contender:
            async def contender() -> Figures:
                report = json.loads(await _child("-m", "bench.memory_child", kernel, str(size), str(lines), str(pause)))
                if not pause:
                    expect(report["size"], size)
                return {name: report["growth"] / MB}

            return contender

        yield [on(_GROWTH, "python3"), on(_GROWTH_STOCK, "ipykernel")]

    return opened


@contextlib.asynccontextmanager
async def _start(bench: Bench) -> AsyncIterator[list[Contender]]:
    async def by_raw() -> Figures:
        started = time.perf_counter()
        async with raw_kernel(bench.new_folder()) as kernel:
            expect([data["text/plain"] for data in (await kernel.execute("1+1")).data], ["2"])
            return {RAW: 1000 * (time.perf_counter() - started)}

    def by(name: str, kernel: str) -> Contender:
        async def contender() -> Figures:
            started = time.perf_counter()
            async with cellrun.LocalKernels(kernel=kernel) as provider, cellrun.AsyncSession(provider) as session:
                expect((await session.run("1+1")).text, "2")
                answered = time.perf_counter()
            released = time.perf_counter()
            return {name: 1000 * (answered - started), f"{name}, close included": 1000 * (released - started)}

        return contender

    yield [by_raw, by(STOCK, "ipykernel"), by(LOCAL, "python3")]


@contextlib.asynccontextmanager
async def _import(bench: Bench) -> AsyncIterator[list[Contender]]:
    def timed(name: str, code: str) -> Contender:
        async def contender() -> Figures:
            started = time.perf_counter()
            await _child("-c", code)
            return {name: 1000 * (time.perf_counter() - started)}

        return contender

    yield [
        timed("bare python", "pass"),
        timed("import cellrun", "import cellrun"),
        timed("cellrun.AsyncSession", "import cellrun; cellrun.AsyncSession"),
        timed("what that stands on", "import aiohttp, jupyter_client.manager, zmq.asyncio"),
    ]


ROWS: Final = (
    Row(
        "memory",
        "the client's, while stream() passes 250 MB of lines, two a print (quick: 50 MB)",
        "MB",
        (1, 1),
        _memory(lines=2),
        (Check(_GROWTH, at_most=64), Check(_GROWTH_STOCK, at_most=64)),
        warmups=(0, 0),
    ),
    Row(
        "memory-fast",
        "the same with 100 lines a print: a stock kernel makes messages of up to 60 MB",
        "MB",
        (0, 1),
        _memory(lines=100),
        (Check(_GROWTH), Check(_GROWTH_STOCK)),
        warmups=(0, 0),
    ),
    Row(
        "memory-pause",
        "10 lines a print, for a reader that does not read for five seconds",
        "MB",
        (0, 1),
        _memory(lines=10, pause=5),
        (Check(_GROWTH), Check(_GROWTH_STOCK)),
        warmups=(0, 0),
    ),
    Row(
        "start",
        "a new provider's first kernel up to its first result",
        "ms",
        (2, 6),
        _start,
        (Check(STOCK, RAW), Check(LOCAL, RAW)),
        settle=0.2,
    ),
    Row(
        "import",
        "a Python process that imports and ends",
        "ms",
        (2, 10),
        _import,
        (Check("import cellrun", "bare python"), Check("cellrun.AsyncSession", "what that stands on")),
    ),
)
