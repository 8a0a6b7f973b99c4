"""Rows about single calls: on a session, in a fresh kernel, many at once."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final

import cellrun
from bench.common_way import PlainSession, run_snippet
from bench.measure import Bench, Check, Contender, Figures, Row
from bench.raw_zmq import raw_kernel
from bench.servers import Server

RAW: Final = "raw ZMQ"
LOCAL: Final = "cellrun local"
STOCK: Final = "cellrun, stock kernel"
SERVER: Final = "cellrun server"
PLAIN: Final = "plain client on a session"
COMMON: Final = "common way"
COMPAT: Final = "execute_code_jupyter"
WARM: Final = "cellrun warm"
WARM_RELEASED: Final = "cellrun warm, release included"

_PRINT: Final = "print(1)"
_PLOT: Final = "import matplotlib.pyplot as plt\nplt.plot([3, 1, 2])\nplt.show()"


def milliseconds(name: str, work: Callable[[], Awaitable[Any]]) -> Contender:
    """A contender whose figure is the time that `work` takes."""

    async def contender() -> Figures:
        started = time.perf_counter()
        await work()
        return {name: 1000 * (time.perf_counter() - started)}

    return contender


def expect(given: object, wanted: object) -> None:
    """A contender that loses output is not fast but wrong."""
    if given != wanted:
        raise RuntimeError(f"expected {wanted!r}, got {str(given)[:300]!r}")


@contextlib.asynccontextmanager
async def stock_session() -> AsyncIterator[cellrun.AsyncSession]:
    """On the kernel that raw ZMQ has too: what differs then is the client."""
    async with cellrun.LocalKernels(kernel="ipykernel") as provider, cellrun.AsyncSession(provider) as session:
        yield session


def provider_of(server: Server, **options: Any) -> cellrun.JupyterServer:
    return cellrun.JupyterServer(server.url, token=server.token, **options)


@contextlib.asynccontextmanager
async def _sessions(bench: Bench) -> AsyncIterator[list[Contender]]:
    server = await bench.server()
    async with (
        raw_kernel(bench.new_folder()) as raw,
        stock_session() as stock,
        provider_of(server) as provider,
        cellrun.AsyncSession(provider) as remote,
        PlainSession(server) as plain,
    ):

        async def by_raw() -> None:
            expect([data["text/plain"] for data in (await raw.execute("1+1")).data], ["2"])

        async def by_plain() -> None:
            expect((await plain.run("1+1"))["result"], "2")

        async def by(session: cellrun.AsyncSession) -> None:
            expect((await session.run("1+1")).text, "2")

        yield [
            milliseconds(RAW, by_raw),
            milliseconds(STOCK, lambda: by(stock)),
            milliseconds(SERVER, lambda: by(remote)),
            milliseconds(PLAIN, by_plain),
        ]


def _fresh(code: str, key: str, wanted: str) -> Callable[[Bench], Any]:
    """A row of fresh kernels: `wanted` is how the string under `key` begins."""

    @contextlib.asynccontextmanager
    async def opened(bench: Bench) -> AsyncIterator[list[Contender]]:
        server = await bench.server()

        async def common() -> None:
            expect((await run_snippet(server, code))[key][: len(wanted)], wanted)

        async def compat() -> None:
            result = await cellrun.execute_code_jupyter(server.url, code, token=server.token)
            expect(result[key][: len(wanted)], wanted)

        async with provider_of(server, warm=1) as provider:

            async def warm() -> Figures:
                await provider.ready()
                started = time.perf_counter()
                session = cellrun.AsyncSession(provider)
                try:
                    result = await session.run(code)
                    answered = time.perf_counter()
                finally:
                    await session.aclose()
                released = time.perf_counter()
                expect(result.ok, True)
                expect(len(result.images) if key == "result" else result.stdout.strip(), 1 if key == "result" else "1")
                # The next contender shall not share the machine with the kernel that takes this one's place.
                await provider.ready()
                return {WARM: 1000 * (answered - started), WARM_RELEASED: 1000 * (released - started)}

            yield [milliseconds(COMMON, common), milliseconds(COMPAT, compat), warm]

    return opened


def _many(calls: int) -> Callable[[Bench], Any]:
    @contextlib.asynccontextmanager
    async def opened(bench: Bench) -> AsyncIterator[list[Contender]]:
        server = await bench.server()

        async def common(_: int) -> None:
            expect((await run_snippet(server, _PRINT))["stdout"], "1")

        async def compat(_: int) -> None:
            result = await cellrun.execute_code_jupyter(server.url, _PRINT, token=server.token)
            expect(result["stdout"] or result["stderr"], "1")

        async def at_once(name: str, call: Callable[[int], Awaitable[None]]) -> Figures:
            async def ended(number: int) -> float:
                await call(number)
                return time.perf_counter()

            started = time.perf_counter()
            outcomes = await asyncio.gather(*(ended(number) for number in range(calls)), return_exceptions=True)
            times = [outcome for outcome in outcomes if not isinstance(outcome, BaseException)]
            failures = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
            # The time limit that a failed call ran into is no time of the contender's: it is counted apart.
            figures = {name: 1000 * (max(times) - started)}
            if failures:
                print(f"{name}: {failures[0]!r}", file=sys.stderr)
                figures[f"{name}: CALLS THAT FAILED"] = len(failures)
            return figures

        async with provider_of(server, warm=8) as provider:

            async def warm() -> Figures:
                answers: list[float] = []

                async def one(_: int) -> None:
                    async with cellrun.AsyncSession(provider) as session:
                        expect((await session.run(_PRINT)).stdout, "1\n")
                        answers.append(time.perf_counter())

                await provider.ready()
                started = time.perf_counter()
                figures = await at_once("cellrun warm=8, release included", one)
                await provider.ready()
                return {"cellrun warm=8": 1000 * (max(answers) - started), **figures}

            yield [lambda: at_once(COMMON, common), lambda: at_once(COMPAT, compat), warm]

    return opened


_MANY_CHECKS: Final = (
    Check(COMPAT, COMMON),
    Check(COMMON, "cellrun warm=8"),
    Check(COMMON, "cellrun warm=8, release included"),
)

ROWS: Final = (
    Row(
        "session",
        "1+1 in a stock kernel that is kept: what the client costs",
        "ms",
        (25, 200),
        _sessions,
        (Check(STOCK, RAW, at_most=1.15), Check(SERVER, RAW, at_most=1.35), Check(PLAIN, SERVER, at_least=5)),
        warmups=(5, 5),
    ),
    Row(
        "fresh-print",
        "print(1) in a fresh kernel per call",
        "ms",
        (1, 8),
        _fresh(_PRINT, "stdout", "1"),
        (Check(COMMON, WARM, at_least=40), Check(COMMON, WARM_RELEASED), Check(COMPAT, COMMON, at_most=1.0)),
        settle=0.2,
    ),
    Row(
        "fresh-plot",
        "a matplotlib plot in a fresh kernel per call",
        "ms",
        (0, 3),
        _fresh(_PLOT, "result", "data:image/png;base64,"),
        (Check(COMMON, WARM), Check(COMMON, WARM_RELEASED), Check(COMPAT, COMMON, at_most=1.0)),
        settle=0.2,
    ),
    Row(
        "many-8",
        "8 calls of print(1) at once, the last that succeeds",
        "ms",
        (0, 2),
        _many(8),
        _MANY_CHECKS,
        (0, 0),
        0.5,
    ),
    Row(
        "many-32",
        "32 calls of print(1) at once, the last that succeeds",
        "ms",
        (0, 1),
        _many(32),
        _MANY_CHECKS,
        (0, 0),
        0.5,
    ),
)
