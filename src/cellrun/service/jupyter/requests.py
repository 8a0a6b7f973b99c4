"""What clients have asked of one kernel and is not answered yet. Pure; times are monotonic, in seconds."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from cellrun.errors import ConnectionFailed
from cellrun.limits import MIB
from cellrun.protocol.message import Message
from cellrun.service.jupyter.connection import Connection
from cellrun.service.jupyter.replay import says, weight

MOST: Final = 10_000
MOST_BYTES: Final = 64 * MIB  # of requests that wait for their turn in the kernel, or for the kernel


@dataclass
class Asked:
    """A request that was not answered yet; and whose it is."""

    header: dict[str, Any]
    channel: str
    connection: Connection
    executes: bool
    size: int
    started: float | None = None
    replied: bool = False
    idle: bool = False
    stopped: bool = False
    unwanted: bool = False  # whoever asked has gone
    over: asyncio.Event = field(default_factory=asyncio.Event)


class Requests:
    """In the order in which they came, by their `msg_id`."""

    def __init__(self) -> None:
        self._asked: dict[str, Asked] = {}
        self._size = 0

    def __iter__(self) -> Iterator[Asked]:
        return iter(list(self._asked.values()))

    def get(self, id: str) -> Asked | None:
        return self._asked.get(id)

    @property
    def executing(self) -> bool:
        return any(asked.executes for asked in self._asked.values())

    @property
    def running(self) -> Asked | None:
        """The cell that runs; others wait for it."""
        begun = (asked for asked in self._asked.values() if asked.executes and not asked.idle)
        return next((asked for asked in begun if asked.started is not None), None)

    @property
    def first(self) -> Asked | None:
        """The cell that runs, or is the next to run."""
        return next((asked for asked in self._asked.values() if asked.executes), None)

    def add(self, message: Message, connection: Connection) -> Asked:
        """Raises ConnectionFailed where too many, or too large ones, wait."""
        size = weight(message)
        if len(self._asked) >= MOST:
            # A kernel answers what it does not know with nothing but its statuses.
            for id in [id for id, asked in self._asked.items() if asked.idle and not asked.executes]:
                self.drop(id)
        if len(self._asked) >= MOST or (self._asked and self._size + size > MOST_BYTES):
            raise ConnectionFailed("too many requests wait for the kernel")
        self.drop(message.msg_id)
        executes = message.channel == "shell" and message.msg_type == "execute_request"
        asked = Asked(dict(message.header), message.channel, connection, executes, size)
        # Only requests are replied to ("Messages on the shell channel"): of a comm's messages nothing comes but the statuses.
        asked.replied = not message.msg_type.endswith("_request")
        self._asked[message.msg_id] = asked
        self._size += size
        return asked

    def drop(self, id: str) -> Asked | None:
        """This one, which is waited for no longer; None if it was not there."""
        asked = self._asked.pop(id, None)
        if asked is not None:
            self._size -= asked.size
            asked.over.set()
        return asked

    def note(self, message: Message, now: float) -> bool:
        """What a message from the kernel says of the request that it belongs to. Whether that is over."""
        asked = self._asked.get(message.parent_id)
        if asked is None:
            return False
        if message.channel in ("shell", "control"):
            asked.replied = True
        elif message.channel == "iopub" and message.msg_type == "status":
            if message.content.get("execution_state") == "idle":
                asked.idle = True
            elif asked.started is None:
                asked.started = now
        if not (asked.replied and asked.idle):
            return False
        self.drop(message.parent_id)
        return True

    def ends(self, status: str, name: str, reason: str) -> Iterator[tuple[Asked, Message]]:
        """What those are told that will get no other end; none is left."""
        left, self._asked, self._size = self._asked, {}, 0
        for asked in left.values():
            asked.over.set()
            content = {"status": status, "ename": name, "evalue": reason, "traceback": [f"{name}: {reason}"]}
            error = {key: value for key, value in content.items() if key != "status"}
            if not asked.idle and asked.executes:
                yield asked, says("error", error, asked.header)
            if not asked.replied:
                kind = str(asked.header.get("msg_type", "")).replace("_request", "_reply")
                yield asked, says(kind, {**content, "execution_count": 0}, asked.header, asked.channel)
            if not asked.idle:
                yield asked, says("status", {"execution_state": "idle"}, asked.header)
