"""What a channel is, and what it says besides messages."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from cellrun.protocol.message import Message


@dataclass(frozen=True, slots=True)
class Reconnected:
    """The connection broke and is back. What was under way may have been lost or may be replayed."""


@dataclass(frozen=True, slots=True)
class Gone:
    """The kernel, or the way to it, is gone for good. Always the last thing that a channel says."""

    reason: str


Incoming = Message | Reconnected | Gone


class Channel(ABC):
    """All four channels of one kernel as one ordered flow.

    Messages of one Jupyter channel keep their order; between channels there is none. Nothing is lost
    or repeated while the connection holds; where it breaks, `Reconnected` stands at the place. One
    task calls `receive`, any task `send`.
    """

    @abstractmethod
    async def send(self, message: Message) -> None:
        """Hands a message over. It is sent once: a broken connection does not send it again.

        Raises ConnectionFailed if it was certainly not sent. Cancelled while waiting: it may be sent.
        """

    @abstractmethod
    async def receive(self) -> Sequence[Incoming]:
        """Everything that is there, at least one. Waits without limit; `Gone` ends the flow.

        While nobody calls it, at most the channel's own bound is read ahead; then the other side waits.
        Cancelling loses nothing: what was not returned is returned by the next call.
        """

    @abstractmethod
    async def aclose(self) -> None:
        """Frees sockets and tasks; bounded in time, harmless a second time. `receive` then gives Gone."""
