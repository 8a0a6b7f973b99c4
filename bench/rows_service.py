"""What HTTP costs: the service, read as server-sent events, against a session in the library."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import aiohttp

import cellrun
from bench.measure import Bench, Check, Contender, Figures, Row
from bench.rows_calls import expect

LIBRARY: Final = "library"
SERVICE: Final = "service, server-sent events"
MORE: Final = "service, more than library"
_LINES: Final = 500_000


@contextlib.asynccontextmanager
async def _service(folder: Path) -> AsyncIterator[str]:
    """The address of one that runs for as long."""
    data = folder / "service"
    environment = {**os.environ, "CELLRUN_QUOTA_REQUESTS": "1000000", "CELLRUN_LOG_LEVEL": "warning"}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "cellrun", "serve", "--port", "0", "--data", str(data)),
        stdout=asyncio.subprocess.PIPE,
        env=environment,
    )
    try:
        assert process.stdout is not None
        async with asyncio.timeout(30):
            yield (await process.stdout.readline()).decode().strip()
    finally:
        process.send_signal(signal.SIGTERM)
        await process.wait()


async def _read(client: aiohttp.ClientSession, url: str, code: str) -> int:
    """Bytes of all events of a run in the one session."""
    size = 0
    headers = {"Accept": "text/event-stream"}
    async with client.post(f"{url}/v1/sessions/bench/runs", json={"code": code}, headers=headers) as answer:
        expect(answer.status, 200)
        async for piece in answer.content.iter_any():
            size += len(piece)
    return size


async def _consume(session: cellrun.AsyncSession, code: str) -> None:
    async with session.stream(code) as stream:
        while await stream.next_batch():
            pass


@contextlib.asynccontextmanager
async def _warm(bench: Bench) -> AsyncIterator[list[Contender]]:
    async with _service(bench.folder) as url, aiohttp.ClientSession() as client, cellrun.AsyncSession() as session:

        async def turn() -> Figures:
            started = time.perf_counter()
            await _consume(session, "1+1")
            between = time.perf_counter()
            await _read(client, url, "1+1")
            ended = time.perf_counter()
            library, service = 1000 * (between - started), 1000 * (ended - between)
            return {LIBRARY: library, SERVICE: service, MORE: service - library}

        yield [turn]


@contextlib.asynccontextmanager
async def _lines(bench: Bench) -> AsyncIterator[list[Contender]]:
    code = f"line = 'x' * 99\nfor _ in range({_LINES}): print(line)"
    async with _service(bench.folder) as url, aiohttp.ClientSession() as client, cellrun.AsyncSession() as session:

        async def turn() -> Figures:
            started = time.perf_counter()
            await _consume(session, code)
            between = time.perf_counter()
            await _read(client, url, code)
            ended = time.perf_counter()
            size = _LINES * 100 / 1e6
            return {LIBRARY: size / (between - started), SERVICE: size / (ended - between)}

        yield [turn]


ROWS: Final = (
    Row(
        "service-warm",
        "1+1 in a session, over HTTP and not",
        "ms",
        (50, 300),
        _warm,
        (Check(MORE, at_most=2), Check(SERVICE, LIBRARY)),
        warmups=(5, 20),
    ),
    Row(
        "service-lines",
        "50 MB of lines to one reader, over HTTP and not",
        "MB/s",
        (1, 6),
        _lines,
        (Check(SERVICE, LIBRARY, at_least=0.6),),
        warmups=(1, 1),
    ),
)
