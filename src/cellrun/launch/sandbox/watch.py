"""Limits that the system does not hold here: measured again and again, and a session that is beyond one is ended.

That is weaker than what the system holds itself: between two looks a session can go beyond. How far, the resource limits
of its processes bound (walls.py).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import stat
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from cellrun.launch.sandbox import marks
from cellrun.launch.sandbox.policy import SandboxPolicy, size_text
from cellrun.launch.sandbox.rooms import open_folder
from cellrun.launch.threads import in_thread

_PERIOD: Final = 0.25
_MOST_OF_THE_TIME: Final = 10  # a look takes at most this part of the time, if that makes no long pauses
_LONGEST: Final = 1.0
_DEEPEST: Final = 200
_BLOCK: Final = 512
_FAILURES: Final = 8  # of measuring, in a row, that may pass: a machine can be short of descriptors for a moment


@dataclass(frozen=True)
class Usage:
    """Of one session, now; None: not measured, since the system holds that limit.

    memory     bytes that are its own
    processes  processes and threads
    disk       bytes in its folders, and in files that it has deleted and still holds open
    files      files and folders in its folders
    depth      of its deepest folder
    """

    memory: int | None = None
    processes: int | None = None
    disk: int | None = None
    files: int | None = None
    depth: int = 0


def beyond(usage: Usage, policy: SandboxPolicy) -> str | None:
    """The limit that a session is beyond, in words; None if it is within all."""
    if usage.memory is not None and policy.memory is not None and usage.memory > policy.memory:
        return f"out of memory, limit {size_text(policy.memory)}"
    if usage.processes is not None and usage.processes > policy.processes:
        return f"too many processes and threads, limit {policy.processes}"
    if usage.disk is not None and policy.disk is not None and usage.disk > policy.disk:
        return f"too much on disk, limit {size_text(policy.disk)}"
    if usage.files is not None and usage.files > policy.files:
        return f"too many files, limit {policy.files}"
    if usage.depth > _DEEPEST:
        return f"folders nested too deep, limit {_DEEPEST}"
    return None


def measure(root: int | None, mark: int, folder: str, policy: SandboxPolicy, *, processes: bool, disk: bool) -> Usage:
    """`root` as in `marks.marked`. What is gone meanwhile counts nothing."""
    memory = count = None
    held = 0
    if processes or disk:
        pids = marks.marked(root, mark)
        if processes:
            count = sum(map(_threads, pids))
            if count > policy.processes:  # to look at the memory of so many takes long, and changes nothing
                return Usage(processes=count)
            memory = _memory(pids, policy.memory)
        if disk:
            held = _deleted(pids)
    if not disk:
        return Usage(memory, count)
    size, files, depth = _folder(folder, policy)
    return Usage(memory, count, size + held, files, depth)


def _memory(pids: Iterable[int], limit: int | None) -> int:
    """What is its own, and its parts of what it shares, as with others of its session. The quick figure counts what is shared with the forkserver as well; only if that is beyond the
    limit, the exact one is looked at, for which the system walks all pages."""
    # One thread of each that lives: it has the memory of all.
    threads = [alive[0] for pid in pids if (alive := marks.tasks(pid))]
    quick = {task: _field(task, "status", b"RssAnon:") + _field(task, "status", b"RssShmem:") for task in threads}
    if limit is None or sum(quick.values()) <= limit:
        return 0
    return sum(_exact(task) or quick[task] for task in threads)


def _exact(task: str) -> int:
    """0 where the process has closed itself to that (prctl(2), PR_SET_DUMPABLE)."""
    return _field(task, "smaps_rollup", b"Pss:") + _field(task, "smaps_rollup", b"SwapPss:")


def _field(folder: str, file: str, name: bytes) -> int:
    try:
        with open(f"{folder}/{file}", "rb") as lines:
            for line in lines:
                if line.startswith(name):
                    return int(line.split()[1]) * 1024
    except (OSError, ValueError):
        pass
    return 0


def _threads(pid: int) -> int:
    return len(marks.tasks(pid))


def _deleted(pids: Iterable[int]) -> int:
    found: dict[tuple[int, int], int] = {}
    for task in (alive[0] for pid in pids if (alive := marks.tasks(pid))):
        with contextlib.suppress(OSError):
            for name in os.listdir(f"{task}/fd"):
                with contextlib.suppress(OSError):
                    status = os.stat(f"{task}/fd/{name}")
                    if stat.S_ISREG(status.st_mode) and status.st_nlink == 0:
                        found[status.st_dev, status.st_ino] = status.st_blocks * _BLOCK
    return sum(found.values())


def _folder(folder: str, policy: SandboxPolicy) -> tuple[int, int, int]:
    """Bytes, entries, depth, from descriptor to descriptor: a path could be too long, or lead elsewhere by now. Ends
    where a limit is passed."""
    size = files = 0
    stack: list[tuple[int, list[str]]] = []

    def enter(name: str, within: int | None) -> None:
        nonlocal size, files
        with contextlib.suppress(OSError):  # gone
            descriptor = open_folder(name, within)
            inner: list[str] = []
            stack.append((descriptor, inner))
            with os.scandir(descriptor) as scan:
                for entry in scan:
                    files += 1
                    with contextlib.suppress(OSError):
                        status = entry.stat(follow_symlinks=False)
                        size += status.st_blocks * _BLOCK
                        if stat.S_ISDIR(status.st_mode):
                            inner.append(entry.name)
                    if files > policy.files:
                        return

    deepest = 0
    try:
        enter(folder, None)
        while stack and files <= policy.files and deepest <= _DEEPEST:
            deepest = max(deepest, len(stack))
            descriptor, inner = stack[-1]
            if inner:
                enter(inner.pop(), descriptor)
            else:
                os.close(descriptor)
                stack.pop()
    finally:
        for descriptor, _ in stack:
            os.close(descriptor)
    return size, files, deepest


class Watch:
    """Looks at sessions until it is closed. `sessions` gives a function that measures each, and one that ends it with a cause."""

    def __init__(
        self,
        policy: SandboxPolicy,
        sessions: Callable[[], Iterable[tuple[Callable[[], Usage], Callable[[str], None]]]],
    ) -> None:
        self._policy = policy
        self._sessions = sessions
        self._task = asyncio.ensure_future(self._look())

    async def _look(self) -> None:
        failures = 0  # in a row
        while True:
            started = time.monotonic()
            for usage, end in list(self._sessions()):
                try:
                    cause = beyond(await in_thread(usage), self._policy)
                    failures = 0
                except Exception as error:  # one session that cannot be measured may not hide the others
                    failures += 1
                    cause = f"what it takes cannot be measured: {error}" if failures > _FAILURES else None
                if cause is not None:
                    end(cause)
            pause = (time.monotonic() - started) * (_MOST_OF_THE_TIME - 1)
            await asyncio.sleep(min(max(_PERIOD, pause), _LONGEST))

    async def aclose(self) -> None:
        """Never raises."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
