"""How long processors have worked for a process and what came from it (proc(5))."""

from __future__ import annotations

import os
from typing import Final

from cellrun.launch.descendants import children

_TICKS: Final = os.sysconf("SC_CLK_TCK")
_MOST: Final = 1_000  # processes that are looked at


def cpu_seconds(pid: int) -> float:
    """Of the process and its descendants, those included that have ended and were waited for. 0 if it is gone.

    >>> cpu_seconds(os.getpid()) > 0
    True
    """
    ticks, seen, waiting = 0, {pid}, [pid]
    while waiting and len(seen) <= _MOST:
        process = waiting.pop()
        ticks += _ticks(process)
        new = children(process) - seen
        seen |= new
        waiting += new
    return ticks / _TICKS


def _ticks(pid: int) -> int:
    """Its own (utime, stime), and those of its ended children (cutime, cstime)."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            # The name, in parentheses, may itself hold spaces and parentheses: fields count from the last.
            fields = file.read().rpartition(b")")[2].split()
        return sum(map(int, fields[11:15]))
    except (OSError, ValueError):
        return 0
