"""How a kernel process ended, in words."""

from __future__ import annotations

import math
import signal
import time
from pathlib import Path
from typing import Final

_VMSTAT: Final = Path("/proc/vmstat")


class OomWatch:
    """Whether the system's out-of-memory killer acted since this was made.

    Linux counts its kills, those within memory cgroups included, in the line `oom_kill` of /proc/vmstat.
    It does not say who was killed: together with a SIGKILL of our kernel it is the cause all but surely.
    """

    def __init__(self) -> None:
        self._before = _oom_kills_of_late()

    def happened(self) -> bool:
        return _oom_kills() > self._before


_known = (0, -math.inf)


def _oom_kills_of_late() -> int:
    """As it was less than a second ago: reading the file takes half a millisecond."""
    global _known
    if time.monotonic() - _known[1] > 1.0:
        _known = (_oom_kills(), time.monotonic())
    return _known[0]


def _oom_kills() -> int:
    try:
        for line in _VMSTAT.read_text("ascii").splitlines():
            if line.startswith("oom_kill "):
                return int(line.split()[1])
    except (OSError, ValueError):
        pass
    return 0


def describe_exit(code: int | None, *, out_of_memory: bool) -> str:
    """A return code as `subprocess` gives it (negative: killed by that signal) as a reason.

    >>> describe_exit(3, out_of_memory=False)
    'the kernel process exited with code 3'
    >>> describe_exit(-11, out_of_memory=False)
    'the kernel process was killed by SIGSEGV (signal 11: segmentation fault)'
    """
    if code is None:
        return "the kernel process ended"
    if code >= 0:
        return f"the kernel process exited with code {code}"
    number = -code
    try:
        name = signal.Signals(number).name
    except ValueError:
        return f"the kernel process was killed by signal {number}"
    if number == signal.SIGKILL and out_of_memory:
        return f"the kernel process ran out of memory: the system's out-of-memory killer ended it ({name})"
    text = (signal.strsignal(number) or "").lower()
    return f"the kernel process was killed by {name} (signal {number}{': ' + text if text else ''})"
