"""Throw-away Jupyter servers on loopback, ended by their own pid."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import aiohttp

NO_RATE_LIMITS: Final = "--ZMQChannelsWebsocketConnection.limit_rate=False"
_START_TIMEOUT: Final = 60.0
_END_TIMEOUT: Final = 15.0

_running: set[subprocess.Popen[bytes]] = set()


@dataclass(frozen=True)
class Server:
    """Its base address, ending in "/", and its token."""

    url: str
    token: str


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.asynccontextmanager
async def jupyter_server(
    folder: Path, *options: str, environment: Mapping[str, str] | None = None
) -> AsyncIterator[Server]:
    """A stock server, with its default settings but for the options given, whose root is in `folder`."""
    root = folder / "root"
    root.mkdir(parents=True)
    port, token = free_port(), secrets.token_hex(16)
    command = [
        sys.executable,
        "-m",
        "jupyter_server",
        "--no-browser",
        "--ServerApp.ip=127.0.0.1",
        f"--ServerApp.port={port}",
        "--ServerApp.port_retries=0",
        f"--ServerApp.root_dir={root}",
        *(["--allow-root"] if os.geteuid() == 0 else []),
        *options,
    ]
    log = folder / "log.txt"
    with log.open("wb") as output:
        # In a session of its own, so that Ctrl-C reaches it through us alone, after its kernels' clients.
        process = subprocess.Popen(
            command,
            env={**os.environ, **(environment or {}), "JUPYTER_TOKEN": token},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    _running.add(process)
    server = Server(f"http://127.0.0.1:{port}/", token)
    try:
        await _answers(server, process, log)
        yield server
    finally:
        await asyncio.shield(asyncio.to_thread(_end, process))


async def _answers(server: Server, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + _START_TIMEOUT
    async with aiohttp.ClientSession() as http:
        while time.monotonic() < deadline and process.poll() is None:
            with contextlib.suppress(aiohttp.ClientError):
                async with http.get(f"{server.url}api") as response:
                    if response.status == 200:
                        return
            await asyncio.sleep(0.1)
    raise RuntimeError(f"the Jupyter server did not start; it said: {log.read_text(errors='replace')[-1000:]}")


def _end(process: subprocess.Popen[bytes]) -> None:
    """SIGTERM, at which the server ends its kernels; SIGKILL if that takes too long (kernels notice that
    their parent is gone)."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(_END_TIMEOUT)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    _running.discard(process)


def end_all() -> None:
    """What an impatient second Ctrl-C has left running."""
    for process in list(_running):
        _end(process)
