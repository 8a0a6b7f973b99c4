"""A client's connection to a kernel, and what it has asked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from cellrun.channels.base import Gone
from cellrun.channels.inbox import Inbox
from cellrun.protocol.message import Message
from cellrun.service.jupyter.replay import weight


class Connection:
    """A client's WebSocket. `session`: its `session_id`, by which it is known when it comes back; "" if it said none. `plain`: whether
    it does without the v1 subprotocol."""

    def __init__(self, session: str, *, plain: bool) -> None:
        self.session = session
        self.plain = plain
        self.inbox = Inbox()

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


@dataclass
class Asked:
    """A request that was not answered yet; and whose it is."""

    header: dict[str, Any]
    channel: str
    connection: Connection
    executes: bool
    started: float | None = None
    replied: bool = False
    idle: bool = False
    stopped: bool = False
