"""One run on a service, as its caller has it here."""

from __future__ import annotations

import asyncio
import math
import time
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from cellrun.errors import ProtocolError
from cellrun.events import Event, Finished, InputRequest, OutputDropped, Queued
from cellrun.running import Run

SILENCE: Final = 25.0
"""Seconds without a sign of life after which a connection is taken for dead: the service sends one at least every 10."""
_AFTER_THE_DEADLINE: Final = 3.0


@dataclass(eq=False, kw_only=True)
class ServiceRun(Run):
    """`key`: its Idempotency-Key, with which it is submitted as often as it takes, and runs once. `id`: the service's for it, "" until it has told.
    `last`: the number of the newest event that we have. `known` is set when the id is, or when it is clear that there will be none; `gone` when the run has ended there.
    """

    key: str = field(default_factory=lambda: uuid.uuid4().hex)
    id: str = ""
    last: int = 0
    begun_at: float | None = None
    asked: int = 0
    known: asyncio.Event = field(default_factory=asyncio.Event)
    gone: asyncio.Event = field(default_factory=asyncio.Event)
    on_stop: Callable[[ServiceRun], object] | None = None
    _stopping: bool = False

    @property
    def execution_id(self) -> str:
        if not self.id:
            raise RuntimeError("the service has not told the run's id yet: it is known once the stream is entered")
        return self.id

    @property
    def over(self) -> bool:
        return self.gone.is_set()

    def body(self) -> dict[str, Any]:
        """The request that starts it. It goes on when we go away: only so can we come back to it."""
        body: dict[str, Any] = {"code": self.code, "on_disconnect": "detach"}
        if self.options.timeout_named:
            body["timeout"] = self.options.timeout
        if self.lines is not None:
            body["stdin"] = self.lines
        return body

    @property
    def lines(self) -> list[str] | None:
        """The lines of input that go with the request; None: they are asked for. Of an iterator nobody knows how many there are."""
        stdin = self.options.stdin
        if stdin is None:
            return [] if self.options.on_input is None else None
        return list(stdin) if isinstance(stdin, (list, tuple)) else None

    def accept(self, id: str) -> None:
        self.id = id
        self.known.set()

    def take(self, events: list[Event]) -> Awaitable[Any] | None:
        """What came, without what came before. Raises ProtocolError where something is missing."""
        new = [event for event in events if event.seq > self.last]
        for event in new:
            # What the service no longer keeps is told by one event with the number of the last one forgotten.
            if event.seq != self.last + 1 and not (isinstance(event, OutputDropped) and event.reason == "log"):
                raise ProtocolError(
                    f"the service left out events: after {self.last} of the run {self.id} came {event.seq}"
                )
            self.last = event.seq
            if self.begun_at is None and not isinstance(event, (Queued, Finished)):
                self.begun_at = time.monotonic()
            if isinstance(event, InputRequest):
                self.asked = event.seq
            elif isinstance(event, Finished):
                self.gone.set()
        return self.deliver(new)

    def silence(self) -> float:
        """Seconds for which its stream may be silent. After its deadline the end must come soon."""
        return min(SILENCE, self.patience())

    def patience(self) -> float:
        """Seconds for which it makes sense to wait for its end; without a deadline there is no end to that."""
        if self.begun_at is None or self.options.timeout is None:
            return math.inf
        left = self.begun_at + self.options.timeout + self.limits.grace - time.monotonic()
        return max(0.0, left) + _AFTER_THE_DEADLINE

    def stop(self, reason: str | None = None) -> None:
        super().stop(reason)
        if self.sent and not self.over and not self._stopping and self.on_stop is not None:
            self._stopping = True
            self.on_stop(self)

    def withdraw(self) -> None:
        self.close("interrupted", "cancelled before it began")
        self.known.set()

    def close(self, status: Literal["interrupted", "kernel_died"], reason: str) -> None:
        """Its end as we have it, whatever becomes of it there."""
        self.gone.set()
        self.deliver(
            [
                Finished(
                    seq=self.last + 1,
                    execution_id=self.id,
                    status=status,
                    execution_count=None,
                    duration=0.0 if self.begun_at is None else time.monotonic() - self.begun_at,
                    reason=reason,
                )
            ]
        )
