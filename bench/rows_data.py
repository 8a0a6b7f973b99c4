"""Rows about much output and about early output."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final

import cellrun
from bench.measure import Bench, Check, Contender, Figures, Row
from bench.raw_zmq import RawKernel, raw_kernel
from bench.rows_calls import LOCAL, RAW, SERVER, STOCK, expect, milliseconds, provider_of, stock_session
from cellrun.limits import FLUSH_INTERVAL

MB: Final = 1_000_000
LINE: Final = 100
RAW_AS_OURS: Final = f"raw ZMQ, flushing each {FLUSH_INTERVAL:g} s"

Kernels = tuple[RawKernel, cellrun.AsyncSession, cellrun.AsyncSession, cellrun.AsyncSession]
"""A raw one; sessions on the same stock kernel, on a forked one, on a server without rate limits."""

_FIRST: Final = "import time\nprint('first')\ntime.sleep(1)"


def lines_code(size: int, lines: int = 1) -> str:
    """Prints so many bytes, so many lines with each print."""
    text = "f'" + r"\n".join([f"{{number:0{LINE - 1}d}}"] * lines) + "'"
    return f"for number in range({size // LINE // lines}):\n    print({text})"


async def _kernels(bench: Bench) -> Kernels:
    return await bench.shared("kernels", lambda: _open_kernels(bench))


@contextlib.asynccontextmanager
async def _open_kernels(bench: Bench) -> AsyncIterator[Kernels]:
    server = await bench.unlimited_server()
    async with (
        raw_kernel(bench.new_folder()) as raw,
        stock_session() as stock,
        cellrun.LocalKernels(pool=0) as kernels,
        cellrun.AsyncSession(kernels) as local,
        provider_of(server) as provider,
        cellrun.AsyncSession(provider) as remote,
    ):
        await kernels.ready()  # nothing is loaded any more while others are measured
        yield raw, stock, local, remote


def _throughput(name: str, size: int, work: Callable[[], Awaitable[int]]) -> Contender:
    """A contender whose figure is MB/s. `work` gives the number of bytes that arrived."""

    async def contender() -> Figures:
        started = time.perf_counter()
        expect(await work(), size)
        return {name: size / MB / (time.perf_counter() - started)}

    return contender


async def _raw_size(kernel: RawKernel, code: str) -> int:
    return sum(map(len, (await kernel.execute(code)).texts))


async def _size(session: cellrun.AsyncSession, code: str) -> int:
    return (await session.run(code)).stdout_size


@contextlib.asynccontextmanager
async def _lines(bench: Bench) -> AsyncIterator[list[Contender]]:
    size = (5 if bench.quick else 50) * MB
    code = lines_code(size)
    raw, stock, local, remote = await _kernels(bench)
    async with raw_kernel(bench.new_folder(), flush_interval=FLUSH_INTERVAL) as raw_as_ours:
        yield [
            _throughput(RAW, size, lambda: _raw_size(raw, code)),
            _throughput(RAW_AS_OURS, size, lambda: _raw_size(raw_as_ours, code)),
            _throughput(STOCK, size, lambda: _size(stock, code)),
            _throughput(LOCAL, size, lambda: _size(local, code)),
            _throughput(SERVER, size, lambda: _size(remote, code)),
        ]


@contextlib.asynccontextmanager
async def _one_print(bench: Bench) -> AsyncIterator[list[Contender]]:
    size = 50 * MB
    code = f"print('x' * {size - 1})"
    raw, stock, local, remote = await _kernels(bench)

    async def by_raw() -> None:
        expect(await _raw_size(raw, code), size)

    async def by(session: cellrun.AsyncSession) -> None:
        expect(await _size(session, code), size)

    yield [
        milliseconds(RAW, by_raw),
        milliseconds(STOCK, lambda: by(stock)),
        milliseconds(LOCAL, lambda: by(local)),
        milliseconds(SERVER, lambda: by(remote)),
    ]


@contextlib.asynccontextmanager
async def _display(bench: Bench) -> AsyncIterator[list[Contender]]:
    size = 10 * MB
    made = (
        f"import os\nfrom IPython.display import Image, display\npicture = Image(data=os.urandom({size}), format='png')"
    )
    shown = "display(picture)"

    def base64_size(data: Any) -> int:
        return len("".join(data["image/png"]).replace("\n", "")) // 4 * 3

    raw, stock, local, remote = await _kernels(bench)

    async def by_raw() -> None:
        [data] = (await raw.execute(shown)).data
        expect(base64_size(data) - size in (0, 1, 2), True)

    async def by(session: cellrun.AsyncSession) -> None:
        [output] = (await session.run(shown)).outputs
        assert isinstance(output, cellrun.DisplayOutput)
        expect(base64_size(output.data) - size in (0, 1, 2), True)

    await raw.execute(made)
    await stock.run(made)
    await local.run(made)
    await remote.run(made)
    yield [
        milliseconds(RAW, by_raw),
        milliseconds(STOCK, lambda: by(stock)),
        milliseconds(LOCAL, lambda: by(local)),
        milliseconds(SERVER, lambda: by(remote)),
    ]


@contextlib.asynccontextmanager
async def _first_byte(bench: Bench) -> AsyncIterator[list[Contender]]:
    raw, stock, local, remote = await _kernels(bench)

    async def by_raw() -> Figures:
        first = (await raw.execute(_FIRST)).first_text
        assert first is not None
        return {RAW: 1000 * first}

    def by(name: str, session: cellrun.AsyncSession) -> Contender:
        async def contender() -> Figures:
            first = None
            started = time.perf_counter()
            async with session.stream(_FIRST) as stream:
                async for event in stream:
                    if first is None and isinstance(event, cellrun.Stdout):
                        first = time.perf_counter() - started
            assert first is not None
            return {name: 1000 * first}

        return contender

    yield [by_raw, by(STOCK, stock), by(LOCAL, local), by(SERVER, remote)]


ROWS: Final = (
    Row(
        "lines",
        f"printed in lines of {LINE} bytes, 50 MB (quick: 5 MB)",
        "MB/s",
        (1, 3),
        _lines,
        (
            Check(STOCK, RAW, at_least=0.9),
            Check(STOCK, RAW_AS_OURS),
            Check(LOCAL, RAW),
            Check(SERVER, RAW),
            Check(RAW_AS_OURS, RAW),
        ),
        warmups=(0, 0),
    ),
    Row(
        "one-print",
        "one print of 50 MB",
        "ms",
        (1, 5),
        _one_print,
        (Check(STOCK, RAW), Check(LOCAL, RAW), Check(SERVER, RAW)),
    ),
    Row(
        "display",
        "one picture of 10 MB",
        "ms",
        (1, 8),
        _display,
        (Check(STOCK, RAW), Check(LOCAL, RAW), Check(SERVER, RAW)),
    ),
    Row(
        "first-byte",
        "until the output of a print without flush, before a sleep, is there",
        "ms",
        (1, 4),
        _first_byte,
        (Check(STOCK, at_most=60), Check(LOCAL, at_most=60), Check(SERVER, at_most=60)),
    ),
)
