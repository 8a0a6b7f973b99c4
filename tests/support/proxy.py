"""A TCP proxy on loopback that can break in every way that a network does."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from types import TracebackType
from typing import Self


class FaultProxy:
    """Forwards to a port. `reset` breaks what is open, `freeze` makes it silent, `refuse` what is to come.

    `hide_v1` asks the server for no WebSocket subprotocol, so that it speaks the JSON framing. `cut_after`
    breaks a connection once so many bytes have come from the server.
    """

    def __init__(self, port: int, *, hide_v1: bool = False, delay: float = 0.0) -> None:
        self._port = port
        self._hide_v1 = hide_v1
        self._delay = delay
        self._frozen = asyncio.Event()
        self._frozen.set()
        self._refusing = False
        self._pairs: set[tuple[asyncio.StreamWriter, asyncio.StreamWriter]] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.cut_after: int | None = None
        self.received = bytearray()
        self.connections = 0
        self.port = 0

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=2**22)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        self._server.close()
        self.thaw()
        self.reset()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def url(self, url: str) -> str:
        """The same address, through the proxy."""
        return url.replace(f":{self._port}/", f":{self.port}/")

    def reset(self) -> None:
        """Every open connection is reset (RST) on both sides."""
        for pair in list(self._pairs):
            for writer in pair:
                sock: socket.socket | None = writer.get_extra_info("socket")
                if sock is not None:
                    with contextlib.suppress(OSError):
                        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                writer.transport.abort()
            self._pairs.discard(pair)

    def freeze(self) -> None:
        """Nothing is forwarded any more and nobody is told: a partition. New connections stay silent too."""
        self._frozen.clear()

    def thaw(self) -> None:
        self._frozen.set()

    def refuse(self, refusing: bool = True) -> None:
        """New connections are reset at once."""
        self._refusing = refusing

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        if self._refusing:
            writer.transport.abort()
            return
        try:
            upstream_reader, upstream = await asyncio.open_connection("127.0.0.1", self._port, limit=2**22)
        except OSError:
            writer.transport.abort()
            return
        pair = (writer, upstream)
        self._pairs.add(pair)
        up = asyncio.create_task(self._pump(reader, upstream, from_client=True))
        down = asyncio.create_task(self._pump(upstream_reader, writer, from_client=False))
        self._tasks |= {up, down}
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait({up, down}, return_when=asyncio.FIRST_COMPLETED)
        for end in pair:
            end.close()
        self._pairs.discard(pair)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, from_client: bool) -> None:
        passed = 0
        with contextlib.suppress(OSError):
            while data := await reader.read(2**16):
                await self._frozen.wait()
                if self._delay:
                    await asyncio.sleep(self._delay)
                if from_client:
                    self.received += data
                    if self._hide_v1:
                        data = data.replace(b"v1.kernel.websocket.jupyter.org", b"x1.kernel.websocket.jupyter.org")
                elif self.cut_after is not None:
                    data = data[: max(0, self.cut_after - passed)]
                passed += len(data)
                writer.write(data)
                await writer.drain()
                if not from_client and self.cut_after is not None and passed >= self.cut_after:
                    self.reset()
                    return
