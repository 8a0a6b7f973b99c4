"""The bounded place between a socket and the reader: a mark to stop at, no message lost."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from cellrun.channels.base import Gone, Incoming
from cellrun.protocol.message import Message

# A single message can be larger than any bound, so this is a mark, not a cap: above it nothing more is
# read from the socket until the reader has taken what is there.
HIGH_WATER = 4 * 1024 * 1024
_OVERHEAD = 512


class Inbox:
    """`put` from the side of the socket, `take` from the reader's."""

    def __init__(self, on_room: Callable[[], None] | None = None, high_water: int = HIGH_WATER) -> None:
        self._items: deque[tuple[Incoming, int]] = deque()
        self._size = 0
        self._high = high_water
        self._on_room = on_room
        self._waiter: asyncio.Future[None] | None = None
        self._room = asyncio.Event()
        self._room.set()
        self._gone: Gone | None = None

    @property
    def full(self) -> bool:
        return not self._room.is_set()

    def put(self, item: Incoming, size: int = 0) -> None:
        """Never blocks: whoever reads the socket looks at `full`, or awaits `room`, before it reads on."""
        if self._gone is not None:
            return
        if isinstance(item, Gone):
            self._gone = item
        size += _OVERHEAD
        self._items.append((item, size))
        self._size += size
        if self._size > self._high:
            self._room.clear()
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def room(self) -> None:
        """Until the reader has caught up."""
        await self._room.wait()

    async def take(self) -> list[Incoming]:
        """All that is there, at least one item; after Gone, Gone again."""
        while not self._items:
            if self._gone is not None:
                return [self._gone]
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        items: list[Incoming] = []
        while self._items:
            item, size = self._items.popleft()
            self._size -= size
            items.append(item)
        if not self._room.is_set():
            self._room.set()
            if self._on_room is not None:
                self._on_room()
        return items

    def rest(self) -> list[Message]:
        """The messages that are there, for whoever goes on in the reader's place."""
        return [item for item, _ in self._items if isinstance(item, Message)]

    def empty(self) -> None:
        """Forgets what is there, but for its end: nobody will read it."""
        self._items.clear()
        self._size = 0
        self._room.set()
