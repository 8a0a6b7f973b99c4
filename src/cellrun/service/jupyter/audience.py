"""Who hears what one kernel says: the clients that are connected, and those that are away and may come back."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Mapping
from typing import Any, Final

from cellrun.channels.base import Gone
from cellrun.protocol.message import Message
from cellrun.service.jupyter.connection import Connection
from cellrun.service.jupyter.replay import Replay, says, weight
from cellrun.service.jupyter.requests import Asked

_AWAY: Final = 4  # clients of one kernel that are waited for


class Audience:
    """`left` is when the last of them went (monotonic seconds); `expected`, whether one of those who have gone may come back."""

    def __init__(self) -> None:
        self.connections: list[Connection] = []
        self.left = time.monotonic()
        # False while none has come: nobody else is to be waited for.
        self.expected = False
        self._away: dict[str, Replay] = {}

    def join(self, connection: Connection) -> Connection | None:
        """What it was not given while it was away it is given now. The connection that the same client still has, which is to be closed."""
        other = None
        if connection.returns:
            other = next((one for one in self.connections if one.session == connection.session), None)
            if other is not None:
                self.leave(other, waited_for=True)
            replay = self._away.pop(connection.session, None)
            for message in [] if replay is None else replay.take():
                connection.inbox.put(message, weight(message))
        self.connections.append(connection)
        return other

    def leave(self, connection: Connection, *, waited_for: bool) -> None:
        """Nothing more is passed on to it; what it has not taken is kept for it where it is `waited_for` and can be known again."""
        self.connections.remove(connection)
        if not self.connections:
            self.left = time.monotonic()
        if connection.returns and waited_for:
            replay = self._away[connection.session] = Replay()
            for message in (*connection.unsent, *connection.inbox.rest()):
                replay.add(message)
            while len(self._away) > _AWAY:
                self._away.pop(next(iter(self._away)))
        self.expected = bool(self._away)
        connection.inbox.put(Gone("the client has gone"))
        connection.inbox.empty()  # whoever waits for room need not any more

    def pass_on(self, message: Message, asked: Asked | None) -> Awaitable[None] | None:
        """IOPub to all, an answer to whoever has asked. What to wait for where one of them has no room for more."""
        full: list[Connection] = []
        if message.channel == "iopub":
            full = [connection for connection in self.connections if not connection.offer(message)]
            for replay in self._away.values():
                replay.add(message)
        elif asked is not None:
            if asked.connection in self.connections:
                full = [] if asked.connection.offer(message) else [asked.connection]
            elif asked.connection.session in self._away:
                self._away[asked.connection.session].add(message)
        elif message.channel == "stdin" and self.connections:
            self.connections[-1].offer(message)
        return _room(full) if full else None

    def tell(self, msg_type: str, content: Mapping[str, Any]) -> None:
        """To all, of no request."""
        self.pass_on(says(msg_type, content, {}), None)

    def dismiss(self, reason: str) -> None:
        """All connections are to be closed."""
        for connection in list(self.connections):
            connection.close(reason)


async def _room(connections: list[Connection]) -> None:
    for connection in connections:
        await connection.inbox.room()
