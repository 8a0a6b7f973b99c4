"""A client of the channels, as small as can be."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp

from cellrun.protocol import ws_v1
from cellrun.protocol.message import Message
from tests.support.waiting import PROCESS

JSON = dict[str, Any]
V1 = "v1.kernel.websocket.jupyter.org"


class Talk:
    """`sizes`: bytes of the frames that came."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.socket = socket
        self.sizes: list[int] = []

    @property
    def v1(self) -> bool:
        return self.socket.protocol == V1

    async def send(self, kind: str, content: JSON, channel: str = "shell") -> str:
        """The id of the request."""
        id = uuid.uuid4().hex
        header = {"msg_id": id, "msg_type": kind, "username": "u", "session": "s", "date": "", "version": "5.3"}
        if self.v1:
            await self.socket.send_bytes(ws_v1.encode(Message(channel, header, {}, {}, content)))
        else:
            whole = {"channel": channel, "header": header, "parent_header": {}, "metadata": {}, "content": content}
            await self.socket.send_str(json.dumps(whole))
        return id

    async def execute(self, code: str) -> str:
        return await self.send("execute_request", {"code": code, "allow_stdin": False, "stop_on_error": True})

    async def receive(self) -> JSON:
        """A message; of a socket that was closed `{"closed": code}`."""
        frame = await self.socket.receive(PROCESS)
        if frame.type not in (aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY):
            return {"closed": self.socket.close_code}
        self.sizes.append(len(frame.data))
        if self.v1:
            message = ws_v1.decode(frame.data)
            return {
                "channel": message.channel,
                "msg_type": message.msg_type,
                "parent": message.parent_id,
                "content": message.content,
            }
        told = json.loads(frame.data)
        return {
            "channel": told["channel"],
            "msg_type": told["msg_type"],
            "parent": told["parent_header"].get("msg_id"),
            "content": told["content"],
        }

    async def until_end(self, id: str) -> list[JSON]:
        """All of a request, to its reply and its idle."""
        found: list[JSON] = []
        left = {"idle", "reply"}
        async with asyncio.timeout(PROCESS):
            while left:
                message = await self.receive()
                assert "closed" not in message, message
                if message["parent"] != id:
                    continue
                found.append(message)
                if message["msg_type"] == "status" and message["content"]["execution_state"] == "idle":
                    left.discard("idle")
                elif message["channel"] == "shell":
                    left.discard("reply")
        return found

    async def run(self, code: str) -> list[JSON]:
        return await self.until_end(await self.execute(code))


def printed(messages: list[JSON], name: str = "stdout") -> str:
    streams = (message["content"] for message in messages if message["msg_type"] == "stream")
    return "".join(content["text"] for content in streams if content["name"] == name)


@asynccontextmanager
async def http_of(url: str, key: str | None = None) -> AsyncIterator[aiohttp.ClientSession]:
    headers = {} if key is None else {"Authorization": f"token {key}"}
    connector = aiohttp.TCPConnector(limit=0, force_close=True)
    async with aiohttp.ClientSession(url, headers=headers, connector=connector) as http:
        yield http


async def start(http: aiohttp.ClientSession) -> str:
    async with http.post("api/kernels") as answer:
        assert answer.status == 201, await answer.text()
        return str((await answer.json())["id"])


@asynccontextmanager
async def talking(
    http: aiohttp.ClientSession, kernel: str, *, v1: bool = False, session: str | None = None
) -> AsyncIterator[Talk]:
    query = {} if session is None else {"session_id": session}
    protocols = (V1,) if v1 else ()
    address = f"api/kernels/{kernel}/channels"
    async with http.ws_connect(address, params=query, protocols=protocols, max_msg_size=0) as socket:
        yield Talk(socket)
