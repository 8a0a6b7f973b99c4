"""A client's connection to a kernel."""

from __future__ import annotations

from collections import deque
from typing import Any

from cellrun.channels.base import Gone
from cellrun.channels.inbox import Inbox
from cellrun.protocol.message import Message
from cellrun.service.jupyter.replay import says, weight


class Connection:
    """A client's WebSocket. `session`: its `session_id`, by which it is known when it comes back; "" if it said none. `plain`: whether
    it does without the v1 subprotocol. `unsent`: what was taken out of its inbox and not sent yet."""

    def __init__(self, session: str, *, plain: bool) -> None:
        self.session = session
        self.plain = plain
        self.inbox = Inbox()
        self.unsent: deque[Message] = deque()

    @property
    def returns(self) -> bool:
        """Whether it can be told apart when it comes back."""
        return bool(self.session)

    def offer(self, message: Message) -> bool:
        """Whether there is room for more."""
        self.inbox.put(message, weight(message))
        return not self.inbox.full

    def close(self, reason: str) -> None:
        self.inbox.put(Gone(reason))

    def refuse(self, message: Message, reason: str) -> None:
        """The end of a request that does not reach the kernel."""
        kind = message.msg_type.replace("_request", "_reply")
        content: dict[str, Any] = {"status": "error", "ename": "ConnectionFailed", "evalue": reason, "traceback": []}
        self.offer(says(kind, content, message.header, message.channel))
        self.offer(says("status", {"execution_state": "idle"}, message.header))
