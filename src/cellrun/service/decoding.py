"""Pictures are decoded in threads of their own, two at a time: each takes memory for all its pixels, however little it weighs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Final, ParamSpec, TypeVar

_P = ParamSpec("_P")
_T = TypeVar("_T")
_THREADS: Final = ThreadPoolExecutor(2, thread_name_prefix="cellrun-pictures")


async def in_turn(work: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
    """What the work gives. Cancelled, it does not begin, or goes on for nobody."""
    return await asyncio.get_running_loop().run_in_executor(_THREADS, partial(work, *args, **kwargs))
