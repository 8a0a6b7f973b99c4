"""Ending a process with everything that came from it.

A process group is not enough: a child may leave it with setsid, and a double fork leaves no parent to
follow. So three traces are used together: the group, the tree of parents, and a mark in the environment
that children inherit. Only a process that clears its environment *and* leaves the group *and* loses its
parent escapes; a container or the sandbox holds that one.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections import defaultdict
from pathlib import Path
from typing import Final

_PROC: Final = Path("/proc")
_ROUNDS: Final = 5


def kill_family(pid: int | None, mark: str, variable: str) -> None:
    """SIGKILL to the group of `pid`, to its descendants, and to processes with `variable=mark` in their
    environment; repeated until none is left, since a family can grow while it is being ended. `pid` is None
    where that process has ended already: its number may be another's by now."""
    own = os.getpid()
    if pid is None:
        _kill_rest(own, mark, variable)
        return
    with contextlib.suppress(ProcessLookupError, PermissionError):
        if os.getpgid(pid) == pid:  # never a group that we share
            family = _family(pid, mark, variable)
            os.killpg(pid, signal.SIGKILL)
            for member in family - {own}:
                _kill(member)
    _kill(pid)
    _kill_rest(own, mark, variable, pid)


def _kill_rest(own: int, mark: str, variable: str, pid: int | None = None) -> None:
    for _ in range(_ROUNDS):
        family = _family(pid, mark, variable) - {own, pid}
        if not family:
            return
        for member in family:
            _kill(member)


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, signal.SIGKILL)


def _family(pid: int | None, mark: str, variable: str) -> set[int]:
    """Descendants by parent, and marked processes; zombies are left out. Empty where there is no /proc."""
    children: dict[int, list[int]] = defaultdict(list)
    family: set[int] = set()
    wanted = f"{variable}={mark}".encode()
    try:
        entries = [int(name) for name in os.listdir(_PROC) if name.isdigit()]
    except OSError:
        return family
    for entry in entries:
        try:
            # The name, in parentheses, may itself hold spaces and parentheses: fields count from the last.
            stat = (_PROC / str(entry) / "stat").read_bytes().rpartition(b")")[2].split()
            if stat[0] in (b"Z", b"X"):
                continue
            children[int(stat[1])].append(entry)
            if wanted in (_PROC / str(entry) / "environ").read_bytes().split(b"\0"):
                family.add(entry)
        except (OSError, IndexError, ValueError):
            continue
    waiting = [] if pid is None else [pid]
    while waiting:
        for child in children.get(waiting.pop(), ()):
            if child not in family:
                family.add(child)
                waiting.append(child)
    return family
