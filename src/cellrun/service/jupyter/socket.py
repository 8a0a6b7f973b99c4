"""The channels of a kernel as a WebSocket, in both framings."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from dataclasses import replace
from typing import Final

from fastapi import APIRouter, WebSocket
from starlette.websockets import WebSocketDisconnect

from cellrun.channels.base import Gone
from cellrun.errors import ConnectionFailed, ProtocolError
from cellrun.protocol import ws_json, ws_v1
from cellrun.protocol.message import Message
from cellrun.service.jupyter import plain
from cellrun.service.jupyter.access import Refused, as_answer, tenant_of
from cellrun.service.jupyter.connection import Connection
from cellrun.service.jupyter.kernel import ServedKernel
from cellrun.service.jupyter.kernels import Kernels
from cellrun.service.jupyter.replay import weight
from cellrun.service.problems import Problem

router: Final = APIRouter()
_LARGE: Final = 200_000  # bytes of a message, from which on it is encoded in a thread
_SESSION: Final = 256
_HEADERS: Final = 16 * 1024
_BAD_FRAME: Final = 1007
_STUCK: Final = 60.0  # seconds in which a client that is connected takes nothing; it holds up the kernel and all others
_LAST_WORD: Final = 1.0
_DISCONNECTS: Final = (WebSocketDisconnect, RuntimeError, OSError)  # a TimeoutError is an OSError
_log: Final = logging.getLogger("cellrun.service.access")


@router.websocket("/api/kernels/{id}/channels")
async def channels(websocket: WebSocket, id: str) -> None:
    try:
        kernels, tenant = await tenant_of(websocket)
        try:
            kernels.hub.admission.refuse_while_draining()
            kernel = kernels.find(tenant, id)
            on_watch = kernels.hub.admission.watcher(tenant)
        except Problem as problem:
            raise Refused(problem) from None
    except Refused as refused:
        _say(websocket, refused.problem.kind.status)
        await websocket.send_denial_response(as_answer(refused.problem))
        return
    offered = ws_v1.SUBPROTOCOL in websocket.scope.get("subprotocols", ())
    session = websocket.query_params.get("session_id", "")[:_SESSION]
    await websocket.accept(ws_v1.SUBPROTOCOL if offered else None)
    _say(websocket, 101)
    on_watch(1)
    try:
        await _Relay(websocket, kernel, Connection(session, plain=not offered), kernels.slow).run(kernels)
    finally:
        on_watch(-1)


def _say(websocket: WebSocket, status: int) -> None:
    """The line of the access log: the address without its query, in which a token may stand."""
    scope = websocket.scope
    extra = {"method": "WEBSOCKET", "path": scope["path"], "status": status}
    _log.info("request", extra=extra | {"tenant": scope.get("state", {}).get("tenant")})


class _Relay:
    def __init__(
        self, websocket: WebSocket, kernel: ServedKernel, connection: Connection, slow: asyncio.Semaphore
    ) -> None:
        self._slow = slow
        self._websocket = websocket
        self._kernel = kernel
        self._connection = connection

    async def run(self, kernels: Kernels) -> None:
        self._kernel.connect(self._connection)
        kernels.metrics.connections.inc()
        sending = asyncio.ensure_future(self._send_all())
        receiving = asyncio.ensure_future(self._receive_all(kernels))
        try:
            await asyncio.wait({sending, receiving}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            kernels.metrics.connections.dec()
            for task in (sending, receiving):
                task.cancel()
            ends = await asyncio.gather(sending, receiving, return_exceptions=True)
            self._kernel.disconnect(self._connection)
            with contextlib.suppress(*_DISCONNECTS):
                async with asyncio.timeout(_LAST_WORD):
                    await self._websocket.close()
            for end in ends:
                if isinstance(end, Exception) and not isinstance(end, _DISCONNECTS):
                    raise end  # a fault of ours, for the log

    async def _receive_all(self, kernels: Kernels) -> None:
        while True:
            event = await self._websocket.receive()
            if event["type"] == "websocket.disconnect":
                return
            frame = event.get("text") if event.get("text") is not None else event.get("bytes")
            try:
                message = self._decode(frame or b"")
            except ProtocolError as error:
                await self._websocket.close(_BAD_FRAME, str(error)[:100])
                return
            if message is None:
                continue
            if kernels.hub.draining and message.msg_type == "execute_request":
                await self._refuse(message, "the service ends: try again when it is back")
                continue
            try:
                await self._kernel.request(self._connection, message)
            except ConnectionFailed as error:
                await self._refuse(message, str(error))

    def _decode(self, frame: str | bytes) -> Message | None:
        """None for what belongs to no channel. Raises ProtocolError."""
        # jupyter_server's own gateway client names no channel; the server takes that for shell.
        message = ws_json.decode(frame, channel="shell") if self._connection.plain else ws_v1.decode(frame)
        if not message.msg_id or not message.msg_type:
            raise ProtocolError("a message must have a header with msg_id and msg_type")
        if message.channel == "iopub":
            return None
        if weight(replace(message, metadata={}, content={}, buffers=())) > _HEADERS:
            raise ProtocolError("the headers of a message are no longer than 16 KiB")  # they come back with each answer
        return message

    async def _refuse(self, message: Message, reason: str) -> None:
        """No more is read from a client that does not take its answers."""
        self._connection.refuse(message, reason)
        await self._connection.inbox.room()

    async def _send_all(self) -> None:
        while True:
            items = await self._connection.inbox.take()
            unsent = self._connection.unsent = deque(item for item in items if isinstance(item, Message))
            while unsent:
                for frame in await self._frames(unsent[0]):
                    async with asyncio.timeout(_STUCK):
                        await self._send(frame)
                unsent.popleft()
            if isinstance(items[-1], Gone):
                return

    async def _send(self, frame: str | bytes) -> None:
        if isinstance(frame, str):
            await self._websocket.send_text(frame)
        else:
            await self._websocket.send_bytes(frame)

    async def _frames(self, message: Message) -> list[str | bytes]:
        connection = self._connection
        if not connection.plain:
            large = weight(message) > _LARGE
            return [await asyncio.to_thread(ws_v1.encode, message) if large else ws_v1.encode(message)]
        if weight(message) < _LARGE and not plain.is_slow(message):
            return plain.frames(message, buffers=connection.returns)
        async with self._slow:
            return await asyncio.to_thread(lambda: plain.frames(message, buffers=connection.returns))
