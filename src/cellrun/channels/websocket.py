"""The channels endpoint of a Jupyter server, over connections that may break.

The server keeps what a kernel says while nobody is connected and replays it to whoever comes back with the
same `session_id` (jupyter_server, "start_buffering"). So the same id is used for the channel's whole life, a
connection that went silent is closed before a new one is opened, and what comes twice is recognised by its
message id.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import aiohttp
import stamina

from cellrun.channels.base import Channel, Gone, Incoming, Reconnected
from cellrun.channels.inbox import Inbox
from cellrun.errors import CellrunError, ConnectionFailed, ProtocolError
from cellrun.protocol import ws_json, ws_v1
from cellrun.protocol.message import Message

CONNECTION_LOST: Final = "the connection to the server was lost and could not be restored"
PING_INTERVAL: Final = 10.0
PING_TIMEOUT: Final = 10.0
_REMEMBERED: Final = 10_000
_QUICKACK: Final = getattr(socket, "TCP_QUICKACK", None)

Connect = Callable[[], Awaitable[aiohttp.ClientWebSocketResponse]]


class WebSocketChannel(Channel):
    """`connect` opens one connection. It raises ConnectionFailed where another try may help and any
    other CellrunError where it cannot (the kernel is gone, the credentials no longer hold).

    After a break, `connect` is tried for `patience` seconds; then the flow ends with Gone.
    """

    def __init__(self, first: aiohttp.ClientWebSocketResponse, connect: Connect, *, patience: float) -> None:
        self._connect = connect
        self._patience = patience
        self._inbox = Inbox()
        self._seen: OrderedDict[str, None] = OrderedDict()
        self._use(first)
        self._connected = asyncio.Event()
        self._connected.set()
        self._closed = False
        self._over: str | None = None
        self._tasks = [
            asyncio.create_task(self._read(), name="cellrun websocket reader"),
            asyncio.create_task(self._ping(), name="cellrun websocket ping"),
        ]

    async def send(self, message: Message) -> None:
        await self._connected.wait()
        if self._over is not None or self._closed:
            raise ConnectionFailed(f"nothing was sent: {self._over or 'the connection is closed'}")
        frame = (ws_v1 if self._v1 else ws_json).encode(message)
        try:
            if isinstance(frame, bytes):
                await self._ws.send_bytes(frame)
            else:
                await self._ws.send_str(frame)
        except (aiohttp.ClientError, OSError):
            # The transport was closing already: the frame did not go out whole, and the server does
            # not act on parts. It is not sent again; the caller may.
            raise ConnectionFailed("nothing was sent: the connection broke at that moment") from None
        self._acknowledge_quickly()

    async def receive(self) -> Sequence[Incoming]:
        return await self._inbox.take()

    async def aclose(self) -> None:
        self._closed = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._end("the connection was closed")
        with contextlib.suppress(Exception):
            await asyncio.wait_for(self._ws.close(), 1.0)
        self._abort()

    # -- one connection --------------------------------------------------------------------------

    def _use(self, ws: aiohttp.ClientWebSocketResponse) -> None:
        self._ws = ws
        self._v1 = ws.protocol == ws_v1.SUBPROTOCOL
        self._socket: socket.socket | None = ws.get_extra_info("socket")
        self._heard = asyncio.get_running_loop().time()
        self._acknowledge_quickly()

    def _acknowledge_quickly(self) -> None:
        """jupyter_server leaves Nagle's algorithm on; with delayed acknowledgements that costs 40 ms an
        execution. Linux forgets this option by itself, so it is set again after each send and receive."""
        if _QUICKACK is not None and self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.setsockopt(socket.IPPROTO_TCP, _QUICKACK, 1)

    def _abort(self) -> None:
        transport = getattr(self._ws, "_response", None) and self._ws._response.connection
        if transport is not None and transport.transport is not None:
            transport.transport.abort()

    def _end(self, reason: str) -> None:
        if self._over is None:
            self._over = reason
            self._inbox.put(Gone(reason))
            self._connected.set()

    # -- tasks -----------------------------------------------------------------------------------

    async def _read(self) -> None:
        try:
            while True:
                await self._read_one_connection()
                self._connected.clear()
                self._abort()
                await self._reconnect()
                self._inbox.put(Reconnected())
                self._connected.set()
        except CellrunError as error:
            self._end(f"{CONNECTION_LOST}: {error}")
        except asyncio.CancelledError:
            raise
        except Exception as error:  # a fault of ours may not leave the reader of this channel waiting
            self._end(f"the reader of the connection failed: {type(error).__name__}")
            raise

    async def _read_one_connection(self) -> None:
        loop = asyncio.get_running_loop()
        decode = (ws_v1 if self._v1 else ws_json).decode
        while True:
            frame = await self._ws.receive()
            self._heard = loop.time()
            self._acknowledge_quickly()
            if frame.type in (aiohttp.WSMsgType.BINARY, aiohttp.WSMsgType.TEXT):
                try:
                    message = decode(frame.data)
                except ProtocolError:
                    continue  # one frame that is no message must not end the others
                if self._is_new(message.msg_id):
                    self._inbox.put(message, len(frame.data))
                    if self._inbox.full:
                        await self._inbox.room()
            elif frame.type is aiohttp.WSMsgType.PING:
                with contextlib.suppress(aiohttp.ClientError, OSError):
                    await self._ws.pong(frame.data)
            elif frame.type is not aiohttp.WSMsgType.PONG:
                return

    def _is_new(self, msg_id: str) -> bool:
        if not msg_id:
            return True
        if msg_id in self._seen:
            return False
        self._seen[msg_id] = None
        if len(self._seen) > _REMEMBERED:
            self._seen.popitem(last=False)
        return True

    async def _reconnect(self) -> None:
        async for attempt in stamina.retry_context(
            on=ConnectionFailed,
            attempts=None,
            timeout=self._patience,
            wait_initial=0.02,
            wait_max=0.5,
            wait_jitter=0.05,
        ):
            with attempt:
                self._use(await self._connect())

    async def _ping(self) -> None:
        """Finds the connection that died without a word (a partition, a sleeping laptop)."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(PING_INTERVAL)
            if not self._connected.is_set() or self._inbox.full:
                continue
            if loop.time() - self._heard > PING_INTERVAL + PING_TIMEOUT:
                self._abort()
                continue
            with contextlib.suppress(aiohttp.ClientError, OSError):
                await self._ws.ping()
