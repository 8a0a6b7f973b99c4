"""A Jupyter client that sees single messages, for the tests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import zmq
from jupyter_client.asynchronous.client import AsyncKernelClient
from jupyter_client.manager import AsyncKernelManager

from tests.support.waiting import HANG, PROCESS

Message = dict[str, Any]
SECONDS = HANG


class Talk:
    """One kernel and everything that it has said and nobody has asked for yet. A message that is not signed or cannot be
    parsed is an error wherever messages are received."""

    def __init__(self, client: AsyncKernelClient, pid: int, manager: AsyncKernelManager | None = None) -> None:
        self.client = client
        self.pid = pid
        self.manager = manager
        self._waiting: dict[str, list[Message]] = {"shell": [], "iopub": [], "control": [], "stdin": []}

    def send(self, msg_type: str, content: Mapping[str, Any], *, channel: str = "shell", **extra: Any) -> str:
        """Gives the id."""
        message = self.client.session.msg(msg_type, dict(content))
        message.update(extra)
        self._channel(channel).send(message)
        return str(message["header"]["msg_id"])

    def execute(self, code: str, **content: Any) -> str:
        defaults = {"code": code, "silent": False, "store_history": True, "allow_stdin": False, "stop_on_error": True}
        return self.send("execute_request", {**defaults, "user_expressions": {}, **content})

    def _channel(self, name: str) -> Any:
        return getattr(self.client, f"{name}_channel")

    async def get(self, channel: str, accept: Callable[[Message], bool], seconds: float = SECONDS) -> Message:
        """The first message that is accepted. Raises TimeoutError. Others wait."""
        waiting = self._waiting[channel]
        for position, message in enumerate(waiting):
            if accept(message):
                return waiting.pop(position)
        async with asyncio.timeout(seconds):
            while True:
                message = await self._receive(channel)
                if accept(message):
                    return message
                waiting.append(message)

    async def _receive(self, channel: str) -> Message:
        socket = self._channel(channel).socket
        plain: zmq.Socket[bytes] = zmq.Socket.shadow(socket)
        while True:
            try:
                frames = plain.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                await socket.poll()
                continue
            message: Message = self.client.session.deserialize(self.client.session.feed_identities(frames)[1])
            return message

    async def reply(self, msg_id: str, channel: str = "shell", seconds: float = SECONDS) -> Message:
        """The content of the reply to this request."""
        found = await self.get(channel, lambda message: parent(message) == msg_id, seconds)
        content: Message = found["content"]
        return content

    async def output(self, msg_id: str, seconds: float = SECONDS) -> list[Message]:
        """What comes on IOPub of this request, between its statuses busy and idle; its input is left out."""
        messages: list[Any] = []
        while True:
            message = await self.get("iopub", lambda message: parent(message) == msg_id, seconds)
            if message["msg_type"] == "status":
                if message["content"]["execution_state"] == "idle":
                    return messages
            elif message["msg_type"] != "execute_input":
                messages.append(message)

    async def shown(self, msg_id: str, msg_type: str, seconds: float = SECONDS) -> Message:
        """The first message of this type for this request."""
        return await self.get(
            "iopub", lambda message: parent(message) == msg_id and message["msg_type"] == msg_type, seconds
        )

    async def run(self, code: str, seconds: float = SECONDS, **content: Any) -> tuple[Message, list[Message]]:
        """The reply to a cell, and what it sent on IOPub."""
        msg_id = self.execute(code, **content)
        return await self.reply(msg_id, seconds=seconds), await self.output(msg_id, seconds)

    async def text(self, code: str, seconds: float = SECONDS) -> str:
        """What a cell prints. AssertionError if it fails."""
        reply, messages = await self.run(code, seconds)
        assert reply["status"] == "ok", "\n".join(reply["traceback"])
        return stream(messages)


def parent(message: Message) -> str:
    return str(message["parent_header"].get("msg_id", ""))


def stream(messages: list[Message], name: str = "stdout") -> str:
    """The text of a stream."""
    return "".join(
        message["content"]["text"]
        for message in messages
        if message["msg_type"] == "stream" and message["content"]["name"] == name
    )


@asynccontextmanager
async def talking(connection: Mapping[str, Any], pid: int) -> AsyncIterator[Talk]:
    """With a kernel that runs already."""
    client = AsyncKernelClient()
    client.load_connection_info(dict(connection, key=str(connection["key"]).encode()))  # type: ignore[arg-type]
    client.start_channels(hb=False)
    try:
        await client.wait_for_ready(timeout=SECONDS)
        yield Talk(client, pid)
    finally:
        client.stop_channels()
        client.context.destroy(linger=0)


@asynccontextmanager
async def open_kernel(kernelspec: str, **options: Any) -> AsyncIterator[Talk]:
    """A fresh kernel of this kernelspec, as any Jupyter program starts one."""
    manager = AsyncKernelManager(kernel_name=kernelspec)
    await manager.start_kernel(**options)
    client = manager.client()
    client.start_channels(hb=False)
    try:
        await client.wait_for_ready(timeout=PROCESS)
        yield Talk(client, pid_of(manager), manager)
    finally:
        client.stop_channels()
        await manager.shutdown_kernel(now=True)
        client.context.destroy(linger=0)


def pid_of(manager: Any) -> int:
    """The process of a manager's kernel."""
    return int(manager.provisioner.pid)
