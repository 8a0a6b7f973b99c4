"""Blocking work off the event loop."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


async def in_thread(function: Callable[..., T], *arguments: object, undo: Callable[[T], object] | None = None) -> T:
    """Does it in a thread, to the end, also if we are cancelled: then that is waited for, and what it made is undone. While the interpreter
    ends, when there are no more threads to be had, it is done right here."""
    try:
        task = asyncio.get_running_loop().run_in_executor(None, function, *arguments)
    except RuntimeError:  # of the executor: it has been shut down
        return function(*arguments)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        if undo is not None and not task.cancelled():
            await asyncio.wait({task})
            if task.exception() is None:
                with contextlib.suppress(RuntimeError):
                    await asyncio.get_running_loop().run_in_executor(None, undo, task.result())
        raise
