"""Blocking work off the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


async def in_thread(function: Callable[..., T], *arguments: object) -> T:
    """Does it to the end, also if we are cancelled: what it made would be nobody's otherwise. While the interpreter ends, when there are
    no more threads to be had, it is done right here."""
    try:
        task = asyncio.ensure_future(asyncio.to_thread(function, *arguments))
        return await asyncio.shield(task)
    except RuntimeError:
        return function(*arguments)
