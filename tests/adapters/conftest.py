"""What the frameworks leave to their callers."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest


@pytest.fixture
def loop_for_blocking_runs() -> Iterator[None]:
    """Their blocking calls take the thread's event loop, or make one that nobody closes."""
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    yield
    asyncio.set_event_loop(None)
    loop.close()
