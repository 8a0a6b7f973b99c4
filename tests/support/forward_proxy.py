"""An HTTP forward proxy on loopback, as `http_proxy` names one: absolute request lines, Basic credentials."""

from __future__ import annotations

import asyncio
import base64
import contextlib
from typing import Self
from urllib.parse import urlsplit


class ForwardProxy:
    """Counts requests and WebSocket upgrades, and keeps the heads of requests as they came."""

    def __init__(self, user: str = "", password: str = "") -> None:
        self._wanted = base64.b64encode(f"{user}:{password}".encode()) if user else b""
        self.target_port: int | None = None
        self.requests = 0
        self.upgrades = 0
        self.heads = b""
        self.port = 0
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=2**22)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                await self._one(reader, writer)
        finally:
            writer.close()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        self.requests += 1
        self.heads += head
        if self._wanted and b"Proxy-Authorization: Basic " + self._wanted not in head:
            writer.write(
                b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            )
            await writer.drain()
            return
        line, _, rest = head.partition(b"\r\n")
        method, target, version = line.split()
        url = urlsplit(target.decode())
        path = url.path + (f"?{url.query}" if url.query else "")
        port = self.target_port or url.port or 80
        upgrade = b"upgrade: websocket" in head.lower()
        self.upgrades += upgrade
        headers = [header for header in rest.split(b"\r\n") if not header.lower().startswith(b"proxy-")]
        if not upgrade:  # one request per connection keeps this proxy simple
            headers = [header for header in headers if not header.lower().startswith(b"connection:")]
            headers.insert(0, b"Connection: close")
        upstream_reader, upstream = await asyncio.open_connection("127.0.0.1", port)
        try:
            upstream.write(b" ".join([method, path.encode(), version]) + b"\r\n" + b"\r\n".join(headers))
            await asyncio.gather(self._pump(reader, upstream), self._pump(upstream_reader, writer, close=True))
        finally:
            upstream.transport.abort()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, close: bool = False) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(2**16):
                writer.write(data)
                await writer.drain()
        if close:
            writer.close()
        elif writer.can_write_eof():
            with contextlib.suppress(OSError):
                writer.write_eof()
