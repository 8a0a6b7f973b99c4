"""When to interrupt, when to kill, when to give up waiting: a pure function of (timing, now).

One deadline holds for the whole execution, from its start. When it passes, or the caller wants the
execution stopped, the kernel is interrupted; after the grace it is killed; after the confirmation time
the execution is closed without the kernel's word.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto


class Action(Enum):
    WAIT = auto()
    INTERRUPT = auto()
    KILL = auto()
    ABANDON = auto()


@dataclass(slots=True)
class Timing:
    """Times are of one monotonic clock, in seconds; None: not set or not yet done."""

    started: float
    timeout: float | None
    grace: float
    confirmation: float
    stop_wanted: bool = False
    interrupted: float | None = None
    killed: float | None = None

    @property
    def deadline(self) -> float | None:
        return None if self.timeout is None else self.started + self.timeout


def plan(timing: Timing, now: float) -> tuple[Action, float | None]:
    """What to do at `now`, and until when nothing else is due (None: until something happens).

    >>> plan(Timing(started=0, timeout=2, grace=1, confirmation=0.5), 1.5)
    (<Action.WAIT: 1>, 2)
    """
    if timing.killed is not None:
        end = timing.killed + timing.confirmation
        return (Action.WAIT, end) if now < end else (Action.ABANDON, None)
    if timing.interrupted is not None:
        end = timing.interrupted + timing.grace
        return (Action.WAIT, end) if now < end else (Action.KILL, None)
    if timing.stop_wanted:
        return Action.INTERRUPT, None
    deadline = timing.deadline
    if deadline is None:
        return Action.WAIT, None
    return (Action.WAIT, deadline) if now < deadline else (Action.INTERRUPT, None)
