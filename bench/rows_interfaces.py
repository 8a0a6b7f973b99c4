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
from bench.servers import Server, jupyter_server

OURS: Final = "cellrun, /jupyter/"
STOCK: Final = "Jupyter server"
FORKED: Final = "Jupyter server, with our kernels"
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


async def _module(folder: Path) -> Any:
    folder.mkdir()
    module = await asyncio.to_thread(fetch, folder)
    # What it logs of failures has the token in it, and it fails where many want a kernel of the server at once.
    logging.getLogger(module.__name__).disabled = True
    return module


@contextlib.asynccontextmanager
async def _with_our_kernels(folder: Path) -> AsyncIterator[Server]:
    """A stock server whose kernels are forked, by the kernelspec that `cellrun kernelspec install` writes: the way that the Jupyter
    address was not built."""
    command = (sys.executable, "-m", "cellrun", "kernelspec", "install", "--prefix", str(folder))
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.DEVNULL)
    expect(await process.wait(), 0)
    path = {"JUPYTER_PATH": str(folder / "share" / "jupyter")}
    options = ("--MultiKernelManager.default_kernel_name=cellrun",)
    async with jupyter_server(folder / "server", *options, environment=path) as server:
        yield server


@contextlib.asynccontextmanager
async def _one(bench: Bench, name: str, code: str, field: str, begins: str) -> AsyncIterator[list[Contender]]:
    folder = bench.folder / name
    module = await _module(folder)
    async with (
        _service(folder / "data") as ours,
        jupyter_server(folder / "stock") as stock,
        _with_our_kernels(folder / "forked") as forked,
    ):
        addresses = {OURS: (ours, ""), STOCK: (stock.url, stock.token), FORKED: (forked.url, forked.token)}

        async def turn() -> Figures:
            took: dict[str, float] = {}
            for contender, (url, token) in addresses.items():
                started = time.perf_counter()
                out = await module.execute_code_jupyter(url, code, token)
                took[contender] = 1000 * (time.perf_counter() - started)
                expect(out[field].startswith(begins), True)
            return took

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
    folder = bench.folder / "owui-many"
    module = await _module(folder)
    async with _service(folder / "data") as ours, jupyter_server(folder / "stock") as stock:

        async def turn() -> Figures:
            took: list[float] = []
            failed = 0
            for url in (ours, stock.url):
                started = time.perf_counter()
                calls = (module.execute_code_jupyter(url, "print(1)", stock.token) for _ in range(_AT_ONCE))
                outs = await asyncio.gather(*calls)
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
        (Check(STOCK, OURS, at_least=15), Check(FORKED, OURS)),
        warmups=(1, 2),
    ),
    Row(
        "open-webui-plot",
        "Open WebUI's code interpreter: a plot",
        "ms",
        (3, 10),
        _plot,
        (Check(STOCK, OURS, at_least=20), Check(FORKED, OURS)),
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
