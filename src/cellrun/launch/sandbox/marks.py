"""Which processes belong to a session, by a mark that they cannot lose.

A process can leave its group, clear its environment, change its name and lose its parent. What it cannot do is raise a
limit again that was lowered, and the seccomp filter keeps it from lowering this one further: the
limit of bytes in POSIX message queues, of which it can have none anyway. Children inherit it, and anyone can read it
(`/proc/PID/limits`, proc(5)).
"""

from __future__ import annotations

import contextlib
import itertools
import os
import resource
import signal
import time
from collections.abc import Iterable
from typing import Final

RESOURCE: Final = resource.RLIMIT_MSGQUEUE if hasattr(resource, "RLIMIT_MSGQUEUE") else -1
_NAME: Final = b"Max msgqueue size"
# Linux's own limit, 819 200, must be above every mark; small numbers are left to others who may want to set it.
FIRST, LAST = 1_000, 800_000
_PATIENCE: Final = 5.0
_LOOKS: Final = 3
_BETWEEN_LOOKS: Final = 0.001

_numbers = itertools.count(int.from_bytes(os.urandom(4), "little"))


def new_mark() -> int:
    """One that no other living session of this process has. Sessions of other processes may: they are not looked at (see `marked`)."""
    return FIRST + next(_numbers) % (LAST - FIRST)


def put_on(mark: int) -> None:
    """This process has the mark, and all that it starts. Raises ValueError where the limit was lower already."""
    resource.setrlimit(RESOURCE, (mark, mark))


def has(pid: int, mark: int) -> bool:
    """Whether this process has it; False if it is gone."""
    try:
        with open(f"/proc/{pid}/limits", "rb") as file:
            for line in file:
                if line.startswith(_NAME):
                    return line[len(_NAME) :].split()[1] == str(mark).encode()
    except OSError:
        pass
    return False


def descendants(pid: int) -> list[int]:
    """Of this process, nearest first, by the system's lists of children (CONFIG_PROC_CHILDREN); zombies included."""
    found: list[int] = []
    waiting = [pid]
    while waiting:
        parent = waiting.pop()
        with contextlib.suppress(OSError):
            for task in os.listdir(f"/proc/{parent}/task"):
                with open(f"/proc/{parent}/task/{task}/children", "rb") as file:
                    numbers = [int(number) for number in file.read().split()]
                found += numbers
                waiting += numbers
    return found


def marked(root: int | None, mark: int) -> list[int]:
    """The descendants of `root` that have the mark; None: among all processes, where one in 800 000 of another owner's may be found."""
    among = descendants(root) if root is not None else [int(name) for name in os.listdir("/proc") if name.isdigit()]
    return [pid for pid in among if has(pid, mark)]


def end_marked(root: int | None, mark: int, uid: int | None = None) -> bool:
    """SIGKILL to the processes of `marked` (and of `uid`, where the session has one of its own), until none is left; whether that was
    reached. They are stopped first: a family that starts processes faster than they are ended would never end. None is left when
    nothing is found several times in a row: a process that forks and ends, again and again, is not always there to be seen."""
    deadline = time.monotonic() + _PATIENCE
    empty = 0
    while empty < _LOOKS:
        living = _living(root, mark, uid)
        if not living:
            empty += 1
            time.sleep(_BETWEEN_LOOKS)
            continue
        if time.monotonic() > deadline:
            return False
        empty = 0
        _signal(living, signal.SIGSTOP)
        stopped = set(living)
        for _ in range(50):
            new = [pid for pid in _living(root, mark, uid) if pid not in stopped]
            if not new:
                break
            _signal(new, signal.SIGSTOP)
            stopped.update(new)
        _signal(stopped, signal.SIGKILL)
        time.sleep(_BETWEEN_LOOKS)
    return True


def _living(root: int | None, mark: int, uid: int | None) -> list[int]:
    return [pid for pid in marked(root, mark) if not is_over(pid) and (uid is None or _uid_of(pid) == uid)]


def _uid_of(pid: int) -> int:
    try:
        return os.stat(f"/proc/{pid}").st_uid
    except OSError:
        return -1


def _signal(pids: Iterable[int], number: int) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)


def tasks(pid: int) -> list[str]:
    """The folders in /proc of a process's threads that have not ended; none if it has. The process's own folder tells of its first
    thread alone, which can end before the others."""
    found = []
    with contextlib.suppress(OSError):
        for task in os.listdir(f"/proc/{pid}/task"):
            folder = f"/proc/{pid}/task/{task}"
            with contextlib.suppress(OSError, IndexError), open(f"{folder}/stat", "rb") as file:
                if file.read().rpartition(b")")[2].split()[0] not in (b"Z", b"X"):
                    found.append(folder)
    return found


def is_over(pid: int) -> bool:
    """Whether none of its threads is left."""
    return not tasks(pid)
