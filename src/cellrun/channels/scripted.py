"""A kernel from a transcript: for tests, also those of programs that use cellrun.

A transcript is a list of steps. Each waits for a request of one type and plays its messages, with the
parent set to that request. It answers `kernel_info_request` by itself unless a step is there for it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cellrun.channels.base import Channel, Gone, Incoming, Reconnected
from cellrun.channels.inbox import Inbox
from cellrun.errors import ConnectionFailed
from cellrun.protocol.message import Message


@dataclass(frozen=True)
class Say:
    """One message of the kernel: `say("iopub", "stream", name="stdout", text="hi")` makes it."""

    channel: str
    msg_type: str
    content: Mapping[str, Any] = field(default_factory=dict)
    buffers: tuple[bytes, ...] = ()


def say(channel: str, msg_type: str, /, *, buffers: tuple[bytes, ...] = (), **content: Any) -> Say:
    return Say(channel, msg_type, content, buffers)


def execution(*outputs: Say, status: str = "ok", count: int = 1, **reply: Any) -> list[Say]:
    """The messages of a whole execution around these outputs: busy, input, outputs, reply, idle."""
    return [
        say("iopub", "status", execution_state="busy"),
        say("iopub", "execute_input", code="", execution_count=count),
        *outputs,
        say("shell", "execute_reply", status=status, execution_count=count, **reply),
        say("iopub", "status", execution_state="idle"),
    ]


@dataclass(frozen=True)
class Step:
    """On the next request of this type, these things happen, in this order."""

    on: str
    then: Sequence[Say | Reconnected | Gone]


class ScriptedChannel(Channel):
    """Plays `steps`; `sent` holds every message that it was given."""

    def __init__(self, steps: Iterable[Step] = (), *, language: str = "python") -> None:
        self._steps = deque(steps)
        self._language = language
        self._inbox = Inbox()
        self._number = 0
        self._closed = False
        self.sent: list[Message] = []

    async def send(self, message: Message) -> None:
        if self._closed:
            raise ConnectionFailed("the connection is closed")
        self.sent.append(message)
        step = next((step for step in self._steps if step.on == message.msg_type), None)
        if step is not None:
            self._steps.remove(step)
            self.play(step.then, parent=message)
        elif message.msg_type == "kernel_info_request":
            info = {"status": "ok", "language_info": {"name": self._language}, "protocol_version": "5.4"}
            self.play(
                [
                    say("iopub", "status", execution_state="busy"),
                    Say(message.channel, "kernel_info_reply", info),
                    say("iopub", "status", execution_state="idle"),
                ],
                parent=message,
            )
        elif message.msg_type == "execute_request" and message.content.get("silent"):
            self.play(execution(), parent=message)

    def play(self, says: Iterable[Say | Reconnected | Gone], parent: Message | None = None) -> None:
        """Delivers these now; messages get `parent`'s header as their parent."""
        for item in says:
            if isinstance(item, Say):
                self._number += 1
                header = {"msg_id": f"scripted_1_{self._number}", "msg_type": item.msg_type, "session": "scripted"}
                parent_header = parent.header if parent is not None else {}
                self._inbox.put(Message(item.channel, header, parent_header, {}, item.content, item.buffers))
            else:
                self._inbox.put(item)

    async def receive(self) -> Sequence[Incoming]:
        return await self._inbox.take()

    async def aclose(self) -> None:
        self._closed = True
        self._inbox.put(Gone("the connection was closed"))
