"""Ending a process with everything that came from it.

A process group is not enough: a child may leave it with setsid, and a double fork leaves no parent to
follow. So more than one trace is used: the group, the tree of parents, a mark in the environment, which programs
inherit that are started, and the process's name, which children inherit that are forked and start nothing.
Only a process that gets rid of all of them escapes; a container or the sandbox holds that one.
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
MARK: Final = "_CELLRUN_FAMILY"  # no name that could be a setting of ours


def process_name(mark: str) -> str:
    """The name of a forked kernel with this mark: 15 bytes is the most that Linux keeps (prctl(2), PR_SET_NAME)."""
    return f"cell-{mark[:10]}"


def kill_family(pid: int | None, mark: str) -> None:
    """SIGKILL to the group of `pid`, to its descendants, and to processes with the mark, in their
    environment or as their name; repeated until none is left, since a family can grow while it is being ended. `pid` is None
    where that process has ended already: its number may be another's by now."""
    own = os.getpid()
    if pid is None:
        _kill_rest(own, mark)
        return
    with contextlib.suppress(ProcessLookupError, PermissionError):
        if os.getpgid(pid) == pid:  # never a group that we share
            family = _family(pid, mark)
            os.killpg(pid, signal.SIGKILL)
            for member in family - {own}:
                _kill(member)
    _kill(pid)
    _kill_rest(own, mark, pid)


def _kill_rest(own: int, mark: str, pid: int | None = None) -> None:
    for _ in range(_ROUNDS):
        family = _family(pid, mark) - {own, pid}
        if not family:
            return
        for member in family:
            _kill(member)


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, signal.SIGKILL)


def _family(pid: int | None, mark: str) -> set[int]:
    """Descendants by parent, and marked processes; zombies are left out. Empty where there is no /proc."""
    children: dict[int, list[int]] = defaultdict(list)
    family: set[int] = set()
    wanted = f"{MARK}={mark}".encode()
    name = process_name(mark).encode()
    try:
        entries = [int(name) for name in os.listdir(_PROC) if name.isdigit()]
    except OSError:
        return family
    for entry in entries:
        try:
            # The name, in parentheses, may itself hold spaces and parentheses: fields count from the last.
            before, _, after = (_PROC / str(entry) / "stat").read_bytes().rpartition(b")")
            stat = after.split()
            if stat[0] in (b"Z", b"X"):
                continue
            children[int(stat[1])].append(entry)
            if before.endswith(b"(" + name) or wanted in (_PROC / str(entry) / "environ").read_bytes().split(b"\0"):
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


def has_mark(pid: int, mark: str) -> bool:
    """Whether this process came from the kernel with this mark, by its environment or its name."""
    with contextlib.suppress(OSError):
        name = (_PROC / str(pid) / "comm").read_bytes().strip()
        environment = (_PROC / str(pid) / "environ").read_bytes().split(b"\0")
        return name == process_name(mark).encode() or f"{MARK}={mark}".encode() in environment
    return False


def session_of(pid: int) -> int:
    """The session that a process belongs to; 0 if it is gone."""
    try:
        return os.getsid(pid)
    except OSError:
        return 0


def children(pid: int) -> set[int]:
    """The processes whose parent is this one, whichever of its threads made them; empty where the system does not say.
    A few small reads, where finding descendants reads all of /proc."""
    found: set[int] = set()
    with contextlib.suppress(OSError):
        for task in os.listdir(_PROC / str(pid) / "task"):
            found.update(map(int, (_PROC / str(pid) / "task" / task / "children").read_bytes().split()))
    return found
