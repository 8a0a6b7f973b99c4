"""How much memory processes take, shared pages counted in parts."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

_PERIOD: Final = 1.0


def proportional_set_size(pid: int) -> int:
    """Bytes: what is this process's alone, and its part of what it shares ("Pss", proc(5)); 0 if it is gone."""
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text("ascii").splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError):
        pass
    return 0


class MemoryWatch:
    """The memory of some processes, measured when it is asked for, in a thread and at most once a second: a measurement walks all
    their pages. `latest` is what the last one found, None before the first."""

    def __init__(self, pids: Callable[[], Iterable[int]], on_measured: Callable[[], None]) -> None:
        self._pids = pids
        self._on_measured = on_measured
        self._measuring: asyncio.Task[None] | None = None
        self._measured = -_PERIOD
        self._value: int | None = None

    def latest(self) -> int | None:
        if self._measuring is None and time.monotonic() - self._measured >= _PERIOD:
            self._measuring = asyncio.ensure_future(self._measure())
        return self._value

    async def _measure(self) -> None:
        pids = list(self._pids())
        self._value = await asyncio.to_thread(lambda: sum(map(proportional_set_size, pids)))
        self._measured = time.monotonic()
        self._measuring = None
        self._on_measured()

    async def aclose(self) -> None:
        if self._measuring is not None:
            await asyncio.wait({self._measuring})
