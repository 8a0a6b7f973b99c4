"""Open WebUI's own code interpreter, unmodified, against the Jupyter address and against a stock Jupyter server."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import aiohttp

from bench.measure import Bench, Check, Contender, Figures, Row
from bench.open_webui import fetch
from bench.rows_calls import expect
from bench.servers import jupyter_server

OURS: Final = "cellrun, /jupyter/"
STOCK: Final = "Jupyter server"
FAILED: Final = "Jupyter server, calls that failed"
_PLOT: Final = "import matplotlib.pyplot as plt\nplt.plot([1, 2, 3])\nplt.show()"
_AT_ONCE: Final = 32


@contextlib.asynccontextmanager
async def _service(folder: Path) -> AsyncIterator[str]:
    """The Jupyter address of one that runs for as long."""
    environment = {**os.environ, "CELLRUN_QUOTA_REQUESTS": "1000000", "CELLRUN_LOG_LEVEL": "warning"}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "cellrun", "serve", "--port", "0", "--data", str(folder)),
        stdout=asyncio.subprocess.PIPE,
        env={**environment, "CELLRUN_INTERFACES": "jupyter"},
    )
    try:
        assert process.stdout is not None
        async with asyncio.timeout(30):
            said = await process.stdout.readline()
        url = said.decode().strip()
        await _kernels_ready(url)
        yield f"{url}/jupyter/"
    finally:
        process.send_signal(signal.SIGTERM)
        await process.wait()


async def _kernels_ready(url: str) -> None:
    """Until everything is loaded and kernels wait, as on a service that did not start just now."""
    async with aiohttp.ClientSession() as http, asyncio.timeout(60):
        text = ""
        while 'cellrun_kernels{state="ready"} 2.0' not in text:
            await asyncio.sleep(0.1)
            async with http.get(f"{url}/metrics") as answer:
                text = await answer.text()


@contextlib.asynccontextmanager
async def _both(bench: Bench, name: str) -> AsyncIterator[tuple[Any, str, str, str]]:
    """The module, both addresses, and the server's token."""
    folder = bench.folder / name
    folder.mkdir()
    module = await asyncio.to_thread(fetch, folder)
    # What it logs of failures has the token in it, and it fails where many want a kernel of the server at once.
    logging.getLogger(module.__name__).disabled = True
    async with _service(folder / "data") as ours, jupyter_server(folder / "server") as stock:
        yield module, ours, stock.url, stock.token


@contextlib.asynccontextmanager
async def _one(bench: Bench, name: str, code: str, field: str, begins: str) -> AsyncIterator[list[Contender]]:
    async with _both(bench, name) as (module, ours, stock, token):

        async def turn() -> Figures:
            took: list[float] = []
            for url in (ours, stock):
                started = time.perf_counter()
                out = await module.execute_code_jupyter(url, code, token)
                took.append(1000 * (time.perf_counter() - started))
                expect(out[field].startswith(begins), True)
            return dict(zip((OURS, STOCK), took, strict=True))

        yield [turn]


@contextlib.asynccontextmanager
async def _print(bench: Bench) -> AsyncIterator[list[Contender]]:
    async with _one(bench, "owui-print", "print(1)", "stdout", "1") as contenders:
        yield contenders


@contextlib.asynccontextmanager
async def _plot(bench: Bench) -> AsyncIterator[list[Contender]]:
    async with _one(bench, "owui-plot", _PLOT, "result", "data:image/png;base64,") as contenders:
        yield contenders


@contextlib.asynccontextmanager
async def _at_once(bench: Bench) -> AsyncIterator[list[Contender]]:
    async with _both(bench, "owui-many") as (module, ours, stock, token):

        async def turn() -> Figures:
            took: list[float] = []
            failed = 0
            for url in (ours, stock):
                started = time.perf_counter()
                outs = await asyncio.gather(
                    *(module.execute_code_jupyter(url, "print(1)", token) for _ in range(_AT_ONCE))
                )
                took.append(time.perf_counter() - started)
                failed = sum(out["stdout"] != "1" for out in outs)
                if url == ours:
                    expect(failed, 0)
            return {OURS: took[0], STOCK: took[1], FAILED: float(failed)}

        yield [turn]


ROWS: Final = (
    Row(
        "open-webui-print",
        "Open WebUI's code interpreter: print(1)",
        "ms",
        (5, 20),
        _print,
        (Check(STOCK, OURS, at_least=15),),
        warmups=(1, 2),
    ),
    Row(
        "open-webui-plot",
        "Open WebUI's code interpreter: a plot",
        "ms",
        (3, 10),
        _plot,
        (Check(STOCK, OURS, at_least=20),),
        warmups=(1, 2),
    ),
    Row(
        "open-webui-at-once",
        f"Open WebUI's code interpreter: {_AT_ONCE} at once; what fails against the server counts as ended",
        "s",
        (1, 3),
        _at_once,
        (Check(STOCK, OURS, at_least=10),),
        warmups=(0, 1),
    ),
)
