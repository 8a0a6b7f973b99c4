"""What HTTP costs: the service, read as server-sent events, against a session in the library. And how soon it answers when cells burn
all processors."""

from __future__ import annotations

import asyncio
import contextlib
import json
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
_BURNING: Final = 8
_ASKED: Final = 100
_FILE: Final = b"x" * 10_000
# Three processes and two threads that never pause, and do not heed an interrupt.
_BURN: Final = """
import signal, subprocess, sys, threading
others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(3)]
def burn():
    while True: pass
threading.Thread(target=burn, daemon=True).start()
signal.signal(signal.SIGINT, signal.SIG_IGN)
print("burns", flush=True)
burn()
"""


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
            address = (await process.stdout.readline()).decode().strip()
        yield address
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


async def _burn(client: aiohttp.ClientSession, url: str, session: str) -> str:
    """A run that takes all the processor time there is; its id, once it does."""
    body = {"code": _BURN, "timeout": 3000, "on_disconnect": "detach"}
    headers = {"Accept": "application/x-ndjson"}
    async with client.post(f"{url}/v1/sessions/{session}/runs", json=body, headers=headers) as answer:
        expect(answer.status, 200)
        async for line in answer.content:
            if b"burns" in line:
                return str(json.loads(line)["execution_id"])
    raise AssertionError("the run has ended")


@contextlib.asynccontextmanager
async def _control(bench: Bench) -> AsyncIterator[list[Contender]]:
    async with _service(bench.folder) as url, aiohttp.ClientSession() as client:
        runs = [await _burn(client, url, f"burns-{number}") for number in range(_BURNING)]
        file = f"{url}/v1/sessions/burns-0/files/control.bin"
        asked: dict[str, tuple[str, str, bytes | None]] = {
            "health": ("GET", f"{url}/healthz", None),
            "list of sessions": ("GET", f"{url}/v1/sessions", None),
            "list of files": ("GET", f"{url}/v1/sessions/burns-0/files", None),
            "write of a file": ("PUT", file, _FILE),
            "read of a file": ("GET", file, None),
            "interrupt": ("POST", f"{url}/v1/runs/{runs[0]}/interrupt", None),
        }

        async def turn() -> Figures:
            """The time that 95 of 100 answers keep."""
            took: dict[str, list[float]] = {name: [] for name in asked}
            async with client.put(file, data=_FILE) as answer:  # before it is read
                await answer.read()
            for _ in range(_ASKED):
                for name, (method, address, data) in asked.items():
                    started = time.perf_counter()
                    async with client.request(method, address, data=data) as answer:
                        said = await answer.read()
                        expect((answer.status < 300 and name) or f"{name}: {answer.status} {said!r}", name)
                    took[name].append(1000 * (time.perf_counter() - started))
            return {name: sorted(times)[_ASKED * 95 // 100 - 1] for name, times in took.items()}

        yield [turn]


_CONTROL: Final = ("health", "list of sessions", "list of files", "write of a file", "read of a file", "interrupt")
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
    Row(
        "service-control",
        f"{_BURNING} sessions burn all processors: what 95 of {_ASKED} answers keep",
        "ms",
        (1, 5),
        _control,
        tuple(Check(name, at_most=250) for name in _CONTROL),
        warmups=(0, 0),
    ),
)
