"""When a kernel ends that nobody has asked to end. Pure; times are monotonic, in seconds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

UNCLAIMED: Final = 120.0
"""After which a kernel ends that nobody has connected to, or whose client has gone and cannot be told apart if it comes back."""


@dataclass(frozen=True, kw_only=True)
class Use:
    """Of a kernel that is ready.

    connected   whether a client is
    expected    whether the one that has gone may come back, and be known
    executing   whether a cell runs
    left        when nobody was connected any more
    used        when a cell was last run
    """

    connected: bool
    expected: bool
    executing: bool
    left: float
    used: float


def cause_to_end(use: Use, now: float, idle: float | None) -> str | None:
    """Why it is to end; None while it is not. `idle`: the seconds without use after which it does, None: never.

    >>> use = Use(connected=True, expected=False, executing=False, left=0.0, used=10.0)
    >>> cause_to_end(use, 30.0, 60.0), cause_to_end(use, 71.0, 60.0), cause_to_end(use, 71.0, None)
    (None, 'not used', None)
    """
    if not use.connected and not use.expected and now - use.left > UNCLAIMED:
        return "nobody is connected"
    if idle is None:
        return None
    if not use.connected and now - max(use.left, use.used) > idle:
        return "its client was away"
    if not use.executing and now - use.used > idle:
        return "not used"
    return None
