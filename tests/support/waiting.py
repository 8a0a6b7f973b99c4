"""Bounded waiting for something to become true."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

# What a machine that is busy with much else may add to any wait. What a test guards against (no deadline, a wait for the end of a long sleep)
# takes far longer.
SLACK = 8.0
# After which what happens within a test, or should, has not happened.
HANG = 25.0
# The same for a command, which loads all that it needs anew: one that takes 3 s alone took 40 where a dozen ran at once on two processors.
PROCESS = 100.0


async def eventually(condition: Callable[[], object], seconds: float = HANG) -> None:
    """Until the condition holds; AssertionError when the time is up."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s: {condition}"
        await asyncio.sleep(0.01)


def process_exists(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()[0] not in (b"Z", b"X")
    except OSError:
        return False
