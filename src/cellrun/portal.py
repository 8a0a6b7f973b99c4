"""The one door between blocking code and the event loop: a thread with a loop of its own.

It works wherever it is called from, a running event loop or a notebook included, because it never uses the
caller's loop. It is started by its first use and shared by everything blocking in the process.
"""

from __future__ import annotations

import asyncio
import atexit
import concurrent.futures
import contextlib
import os
import sys
import threading
import weakref
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

_lock = threading.Lock()
_loop: asyncio.AbstractEventLoop | None = None
_pid = 0
_open: weakref.WeakSet[Any] = weakref.WeakSet()

_GOODBYE = 10.0


def call(coroutine: Coroutine[Any, Any, T]) -> T:
    """Runs a coroutine on the portal's loop and gives its result or raises its exception.

    Ctrl-C while waiting cancels it, waits for that to have happened, and raises KeyboardInterrupt.
    Raises RuntimeError when called from the portal's own thread, where waiting would never end.
    """
    loop = _running_loop()
    if threading.current_thread() is getattr(loop, "cellrun_thread", None):
        coroutine.close()
        raise RuntimeError("a blocking call was made from a callback of cellrun; use the async form there")
    future = asyncio.run_coroutine_threadsafe(coroutine, loop)
    try:
        return future.result()
    except KeyboardInterrupt:
        future.cancel()
        with contextlib.suppress(BaseException):
            concurrent.futures.wait([future], timeout=_GOODBYE)
        raise


def submit(coroutine: Coroutine[Any, Any, T]) -> concurrent.futures.Future[T]:
    """Starts a coroutine on the portal's loop: for code that is on another loop, and awaits it there (asyncio.wrap_future)."""
    return asyncio.run_coroutine_threadsafe(coroutine, _running_loop())


def start(coroutine: Coroutine[Any, Any, Any]) -> None:
    """Starts a coroutine on the portal's loop and does not wait: for finalizers, which may not block."""
    if sys.is_finalizing() or _loop is None:
        coroutine.close()
    else:
        asyncio.run_coroutine_threadsafe(coroutine, _loop)


def on_loop(function: Callable[[], T]) -> T:
    """Runs a plain function on the portal's loop: for objects that must be made there."""

    async def body() -> T:
        return function()

    return call(body())


def close_at_exit(closeable: Any) -> None:
    """Remembers, weakly, something with `aclose()`, to be closed when the process ends."""
    _open.add(closeable)


def _running_loop() -> asyncio.AbstractEventLoop:
    global _loop, _pid
    with _lock:
        if _loop is None or _pid != os.getpid():  # a forked child has the loop but not its thread
            _loop, _pid = asyncio.new_event_loop(), os.getpid()
            thread = threading.Thread(target=_loop.run_forever, name="cellrun portal", daemon=True)
            _loop.cellrun_thread = thread  # type: ignore[attr-defined]
            thread.start()
        return _loop


@atexit.register
def _close_all() -> None:
    if _loop is None or _pid != os.getpid():
        return

    async def close() -> None:
        await asyncio.gather(*(item.aclose() for item in list(_open)), return_exceptions=True)

    with contextlib.suppress(Exception):
        asyncio.run_coroutine_threadsafe(close(), _loop).result(_GOODBYE)
