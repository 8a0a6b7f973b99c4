"""Rows about kernels that are forked: a fresh one per call, many callers, one that is kept."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final

import cellrun
from bench.common_way import run_snippet
from bench.measure import Bench, Check, Contender, Figures, Row
from bench.raw_zmq import Answer, RawKernel, raw_kernel
from bench.rows_calls import COMMON, LOCAL, RAW, expect, milliseconds
from cellrun.launch import forkserver

READY: Final = "forked, from the pool"
RELEASED: Final = f"{READY}, release included"
ON_DEMAND: Final = "forked on demand"
SPAWNED: Final = "spawned stock kernel"
FORKED: Final = "forked"
ENDED: Final = f"{FORKED}, until the last has ended"

_DEADLINE: Final = 60.0

_PRINT: Final = "print(1)"
_PLOT: Final = """import numpy as np, pandas as pd, matplotlib.pyplot as plt
frame = pd.DataFrame({"a": np.sin(np.arange(50) / 5), "b": np.cos(np.arange(50) / 5)})
plt.plot(frame.values)
plt.show()"""
_PRINTS: Final = 20_000


# -- a fresh kernel per call ---------------------------------------------------------------------------


def _check(code: str, result: cellrun.Result) -> None:
    expect(result.status, "ok")
    if code == _PLOT:
        expect(len(result.images), 1)
    else:
        expect(result.stdout, "1\n")


def _check_common(code: str, result: dict[str, str]) -> None:
    if code == _PLOT:
        expect(result["result"][:22], "data:image/png;base64,")
    else:
        expect(result["stdout"], "1")


async def quiet(provider: cellrun.LocalKernels) -> None:
    """Until its pool is full and nothing of an earlier turn is still ending: the next contender shall not
    share the machine with that."""
    deadline = time.monotonic() + _DEADLINE
    await provider.ready()
    while (status := provider.status).ending or status.starting:
        if time.monotonic() > deadline:
            raise RuntimeError(f"kernels do not end: {status}")
        await asyncio.sleep(0.002)


def _fresh(code: str) -> Callable[[Bench], Any]:
    @contextlib.asynccontextmanager
    async def opened(bench: Bench) -> AsyncIterator[list[Contender]]:
        server = await bench.server()

        async def common() -> None:
            _check_common(code, await run_snippet(server, code))

        def by(provider: cellrun.LocalKernels, answer: str, release: str | None = None) -> Contender:
            async def contender() -> Figures:
                await quiet(provider)
                started = time.perf_counter()
                session = cellrun.AsyncSession(provider)
                try:
                    result = await session.run(code)
                    answered = time.perf_counter()
                finally:
                    await session.aclose()
                released = time.perf_counter()
                _check(code, result)
                await quiet(provider)
                figures = {answer: 1000 * (answered - started)}
                return figures if release is None else {**figures, release: 1000 * (released - started)}

            return contender

        async with (
            cellrun.LocalKernels(pool=2) as pooled,
            cellrun.LocalKernels(pool=0) as on_demand,
            cellrun.LocalKernels(kernel="ipykernel", pool=0) as spawned,
        ):
            yield [
                milliseconds(COMMON, common),
                by(pooled, READY, RELEASED),
                by(on_demand, ON_DEMAND, f"{ON_DEMAND}, release included"),
                by(spawned, SPAWNED),
            ]

    return opened


def _first(bench: Bench) -> Any:
    """Nothing is ready: from the call to the kernel, and to its first result."""

    @contextlib.asynccontextmanager
    async def opened() -> AsyncIterator[list[Contender]]:
        def by(provider: cellrun.LocalKernels, name: str, what: str, code: str) -> Contender:
            async def contender() -> Figures:
                await quiet(provider)
                started = time.perf_counter()
                async with cellrun.AsyncSession(provider) as session:
                    ready = time.perf_counter()
                    result = await session.run(code)
                    answered = time.perf_counter()
                expect(result.status, "ok")
                await quiet(provider)
                figures = {f"{name}: {what}": 1000 * (answered - started)}
                if code != _PLOT:
                    figures[f"{name}: the kernel alone"] = 1000 * (ready - started)
                return figures

            return contender

        async with (
            cellrun.LocalKernels(pool=0, preload=()) as bare,
            cellrun.LocalKernels(pool=0) as loaded,
        ):
            for provider in (bare, loaded):  # the forkserver starts with the first fork
                async with cellrun.AsyncSession(provider):
                    pass
            yield [
                by(provider, name, what, code)
                for provider, name in ((bare, "nothing preloaded"), (loaded, "all preloaded"))
                for what, code in (("1+1", "1+1"), ("a plot", _PLOT))
            ]

    return opened()


# -- many callers --------------------------------------------------------------------------------------


async def _in_a_row(name: str, callers: int, calls: int, call: Callable[[], Awaitable[None]]) -> Figures:
    """Executions per second of so many callers, of whom each makes its next call when the last one has
    ended, until all calls were made."""
    left = iter(range(calls))
    failures: list[Exception] = []

    async def caller() -> None:
        for _ in left:
            try:
                await call()
            except Exception as error:  # counted and shown: it is no execution, but the time it took counts
                failures.append(error)

    started = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(callers)))
    seconds = time.perf_counter() - started
    figures: dict[str, float] = {name: (calls - len(failures)) / seconds}
    if failures:
        print(f"{name}: {failures[0]!r}", file=sys.stderr)
        figures[f"{name}: CALLS THAT FAILED"] = len(failures)
    return figures


def _sustained(code: str, callers: int, quick: tuple[int, int], full: tuple[int, int]) -> Callable[[Bench], Any]:
    """`quick` and `full`: calls in all, of the common way and of forked kernels, which would else be done
    before they run evenly, or never."""

    @contextlib.asynccontextmanager
    async def opened(bench: Bench) -> AsyncIterator[list[Contender]]:
        server = await bench.server()
        common_calls, forked_calls = quick if bench.quick else full

        async def common() -> None:
            _check_common(code, await run_snippet(server, code))

        async with cellrun.LocalKernels() as provider:

            async def one() -> None:
                async with cellrun.AsyncSession(provider) as session:
                    _check(code, await session.run(code))

            async def forked() -> Figures:
                await quiet(provider)
                started = time.perf_counter()
                figures = await _in_a_row(FORKED, callers, forked_calls, one)
                await quiet(provider)
                succeeded = forked_calls - figures.get(f"{FORKED}: CALLS THAT FAILED", 0)
                return {**figures, ENDED: succeeded / (time.perf_counter() - started)}

            yield [lambda: _in_a_row(COMMON, callers, common_calls, common), forked]

    return opened


# -- a kernel that is kept -----------------------------------------------------------------------------


def _kept(code: str, check: Callable[[Answer], None], check_forked: Callable[[cellrun.Result], None]) -> Any:
    @contextlib.asynccontextmanager
    async def opened(bench: Bench) -> AsyncIterator[list[Contender]]:
        raw, session = await bench.shared("kept kernels", lambda: _kept_kernels(bench))

        async def by_raw() -> None:
            check(await raw.execute(code))

        async def forked() -> None:
            check_forked(await session.run(code))

        yield [milliseconds(RAW, by_raw), milliseconds(LOCAL, forked)]

    return opened


@contextlib.asynccontextmanager
async def _kept_kernels(bench: Bench) -> AsyncIterator[tuple[RawKernel, cellrun.AsyncSession]]:
    async with raw_kernel(bench.new_folder()) as raw, cellrun.LocalKernels() as provider:
        await provider.ready()
        async with cellrun.AsyncSession(provider) as session:
            await quiet(provider)
            yield raw, session


# -- the rows ------------------------------------------------------------------------------------------


def _one_picture(answer: Answer) -> None:
    expect(["image/png" in data for data in answer.data], [True])


def _rows() -> tuple[Row, ...]:
    kept = (
        (
            "warm",
            "1+1",
            "1+1",
            lambda answer: expect([data["text/plain"] for data in answer.data], ["2"]),
            lambda result: expect(result.text, "2"),
            (25, 200),
            0.3,
        ),
        (
            "warm-prints",
            f"{_PRINTS} prints",
            f"for number in range({_PRINTS}):\n    print(number)",
            lambda answer: expect(sum(text.count("\n") for text in answer.texts), _PRINTS),
            lambda result: expect(result.stdout.count("\n"), _PRINTS),
            (3, 20),
            0.5,
        ),
        ("warm-plot", "a plot", _PLOT, _one_picture, lambda result: _check(_PLOT, result), (3, 20), 1.0),
    )
    return (
        Row(
            "fork-print",
            "print(1) in a fresh kernel per call",
            "ms",
            (2, 10),
            _fresh(_PRINT),
            (
                Check(COMMON, READY, at_least=150),
                Check(COMMON, RELEASED),
                Check(COMMON, ON_DEMAND, at_least=25),
                Check(COMMON, SPAWNED),
            ),
            warmups=(1, 1),
            settle=0.2,
        ),
        Row(
            "fork-plot",
            "numpy, pandas and a plot in a fresh kernel per call",
            "ms",
            (1, 5),
            _fresh(_PLOT),
            (
                Check(COMMON, READY, at_least=50),
                Check(COMMON, RELEASED),
                Check(COMMON, ON_DEMAND, at_least=30),
                Check(COMMON, SPAWNED),
            ),
            settle=0.2,
        ),
        Row("fork-first", "nothing ready: a kernel and its first result", "ms", (3, 15), _first),
        Row(
            "sustained-8-print",
            "8 callers, a fresh kernel for each print(1)",
            "executions/s",
            (1, 2),
            _sustained(_PRINT, 8, (8, 120), (16, 240)),
            (Check(FORKED, COMMON, at_least=20), Check(ENDED, COMMON)),
            warmups=(0, 0),
            settle=0.5,
        ),
        Row(
            "sustained-8-plot",
            "8 callers, a fresh kernel for each plot",
            "executions/s",
            (0, 2),
            _sustained(_PLOT, 8, (8, 80), (8, 96)),
            (Check(FORKED, COMMON, at_least=30), Check(ENDED, COMMON)),
            warmups=(0, 0),
            settle=0.5,
        ),
        Row(
            "sustained-32-print",
            "32 callers, a fresh kernel for each print(1)",
            "executions/s",
            (0, 1),
            _sustained(_PRINT, 32, (32, 160), (32, 320)),
            (Check(FORKED, COMMON), Check(ENDED, COMMON)),
            warmups=(0, 0),
            settle=0.5,
        ),
        *(
            Row(
                name,
                f"{what} in a kernel that is kept, stock for raw ZMQ, forked for cellrun",
                "ms",
                rounds,
                _kept(code, check, check_forked),
                (Check(LOCAL, RAW, at_most=most),),
                warmups=(2, 5),
            )
            for name, what, code, check, check_forked, rounds, most in kept
        ),
    )


ROWS: Final = _rows() if forkserver.AVAILABLE else ()
