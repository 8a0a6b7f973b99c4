"""Events out of a body in lines of JSON, however it is cut into pieces."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from typing import Final

from cellrun.errors import ProtocolError
from cellrun.events import Event
from cellrun.limits import MIB
from cellrun.wire import event_from_json

_LONGEST: Final = 1024 * MIB


class Signs:
    """Passes the pieces of a body on. `seen`: whether a line came to its end in them: an event, or an empty one, which is a sign of life."""

    def __init__(self, pieces: AsyncGenerator[bytes, None]) -> None:
        self.seen = False
        self._pieces = pieces

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        piece = await anext(self._pieces)
        self.seen = self.seen or b"\n" in piece
        return piece

    async def aclose(self) -> None:
        await self._pieces.aclose()


async def events_in(pieces: AsyncIterator[bytes]) -> AsyncGenerator[list[Event], None]:
    """All whole events of each piece, at least one. Empty lines are signs of life; a last line without an end was cut off. Raises
    ProtocolError for what is no event."""
    begun: list[bytes] = []
    size = 0
    async for piece in pieces:
        whole, end, rest = piece.rpartition(b"\n")
        if not end:
            begun.append(piece)
            size += len(piece)
            if size > _LONGEST:
                raise ProtocolError(f"the service sent an event of more than {_LONGEST // MIB} MiB")
            continue
        lines = b"".join((*begun, whole)).split(b"\n")
        begun, size = [rest], len(rest)
        events = [event_from_json(line) for line in lines if line and not line.isspace()]
        if events:
            yield events
