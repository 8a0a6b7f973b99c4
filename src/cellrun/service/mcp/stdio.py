"""The tools over standard input and output: one user, whose kernels end with the process."""

from __future__ import annotations

import asyncio
import os
import queue
import sys
import threading
from collections.abc import AsyncIterator
from typing import Any, Final, cast

import anyio
from mcp.server.stdio import stdio_server

from cellrun.limits import MIB
from cellrun.providers import Provider
from cellrun.remote.service import CellrunService
from cellrun.service.describe import Place
from cellrun.service.local_tools import LocalTools
from cellrun.service.mcp.server import make_server

_PIECE: Final = 65_536
_LINE: Final = 64 * MIB
_PLACE: Final = Place("connection", "")


async def serve_stdio(target: Provider | CellrunService, *, timeout: float | None, version: str) -> None:
    """Until standard input ends, or we are cancelled. Whatever else is printed goes to standard error."""
    tools = LocalTools(target, timeout=timeout)
    server = make_server(lambda context: (tools, _PLACE), version=version)
    ours = _Pipes()
    try:
        lines, out = cast("Any", ours.lines()), cast("Any", ours)
        async with stdio_server(stdin=lines, stdout=out) as (incoming, outgoing):
            await server.run(incoming, outgoing, server.create_initialization_options())
    finally:
        await tools.aclose()


class _Pipes:
    """Standard input and output for us alone: what else reads or prints in this process, and its children, have the null device and
    standard error.

    In threads that nobody waits for at the end: they may stand in a read or a write for ever, where the `mcp` package's own wait for
    them, and a signal would not end us.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._in, self._out = os.dup(0), os.dup(1)
        sys.stdout.flush()
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        os.dup2(2, 1)
        os.close(nothing)
        self._read: asyncio.Queue[bytes] = asyncio.Queue(16)
        self._written: queue.SimpleQueue[tuple[bytes, asyncio.Future[None]]] = queue.SimpleQueue()
        for work in (self._reading, self._writing):
            threading.Thread(target=work, daemon=True).start()

    async def lines(self) -> AsyncIterator[str]:
        rest = bytearray()
        while piece := await self._read.get():
            rest += piece
            if b"\n" in piece:
                *whole, last = bytes(rest).split(b"\n")
                rest = bytearray(last)
                for line in whole:
                    yield line.decode("utf-8", "replace")
            elif len(rest) > _LINE:
                print(f"cellrun: a message of more than {_LINE} bytes: the end", file=sys.stderr)
                return

    async def write(self, text: str) -> None:
        """Raises ClosedResourceError where nobody reads any more."""
        done: asyncio.Future[None] = self._loop.create_future()
        self._written.put((text.encode("utf-8", "backslashreplace"), done))
        await done

    async def flush(self) -> None:
        pass

    def _reading(self) -> None:
        while True:
            try:
                piece = os.read(self._in, _PIECE)
            except OSError:
                piece = b""
            try:
                asyncio.run_coroutine_threadsafe(self._read.put(piece), self._loop).result()
            except (RuntimeError, asyncio.CancelledError):  # the loop has ended
                return
            if not piece:
                return

    def _writing(self) -> None:
        while True:
            data, done = self._written.get()
            error: Exception | None = None
            view = memoryview(data)
            try:
                while view:
                    view = view[os.write(self._out, view) :]
            except OSError:
                error = anyio.ClosedResourceError()
            try:
                self._loop.call_soon_threadsafe(_settle, done, error)
            except RuntimeError:  # the loop has ended
                return


def _settle(done: asyncio.Future[None], error: Exception | None) -> None:
    if done.done():
        return
    if error is None:
        done.set_result(None)
    else:
        done.set_exception(error)
