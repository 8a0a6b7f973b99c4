"""Interrupts that never strike in the middle of sending."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any


class InterruptGuard:
    """Inside of `with guard:`, SIGINT waits for the end.

    The main thread sends messages itself. An interrupt between two frames of a message would leave a half one
    in the socket, and one between taking text from a buffer and sending it would lose the text.
    The handler is exchanged meanwhile, whoever's it is: a handler of ours all the time would show in tracebacks, and
    to libraries that look whether somebody has set one (asyncio's Runner).
    Only the main thread runs signal handlers, so other threads pass through.
    """

    def __init__(self) -> None:
        self._main = threading.main_thread().ident
        self._depth = 0
        self._handler: Any = None
        self._pending = False

    def hold_back(self) -> None:
        """From now on an interrupt is only noted, until a handler is set again: see `struck`."""
        self._pending = False
        signal.signal(signal.SIGINT, self._wait)

    def struck(self) -> bool:
        """Whether an interrupt was noted. It is asked once."""
        pending, self._pending = self._pending, False
        return pending

    def _wait(self, signum: int, frame: FrameType | None) -> None:
        self._pending = True

    def __enter__(self) -> None:
        if threading.get_ident() != self._main:
            return
        if not self._depth and callable(signal.getsignal(signal.SIGINT)):
            # Runs the handler for a signal that came before; raises then, with nothing begun.
            self._handler = signal.signal(signal.SIGINT, self._wait)
        self._depth += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if threading.get_ident() != self._main:
            return
        self._depth -= 1
        if self._depth or self._handler is None:
            return
        handler, self._handler = self._handler, None
        signal.signal(signal.SIGINT, handler)
        if self._pending:
            self._pending = False
            handler(signal.SIGINT, None)

    def after_fork(self) -> None:
        """In a child, whichever thread forked: that is the main thread now."""
        self._main = threading.get_ident()
        self._depth = 0
        self._handler = None
        self._pending = False
