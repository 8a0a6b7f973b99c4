"""sys.stdout and sys.stderr of a kernel, and what is written past them to the descriptors 1 and 2."""

from __future__ import annotations

import codecs
import contextvars
import os
import threading
import time
from collections.abc import Callable
from typing import Any, Final

from ipykernel.iostream import OutStream

from cellrun.kernel.interrupts import InterruptGuard
from cellrun.kernel.iopub import IOPub
from cellrun.kernel.wire import LeanSession

_AT_ONCE: Final = 1024 * 1024  # characters that are gathered before they are sent without waiting
_AGAIN: Final = 0.005
_READ: Final = 65536
_MOST_WAITING: Final = 1024 * 1024  # characters
_PIPE: Final = 1024 * 1024  # the most that a pipe can be made to hold without privileges (pipe(7))

Later = Callable[[float, Callable[[], None]], None]
"""Calls something in the service thread after so many seconds."""


class LeanStream(OutStream):
    """Gathers text and sends it from the thread that flushes, or after `flush_interval` seconds from the service thread.

    In a forked child, text goes to the descriptor, which the kernel reads.
    """

    def __init__(
        self,
        name: str,
        *,
        session: LeanSession,
        iopub: IOPub,
        guard: InterruptGuard,
        later: Later,
        interval: float,
    ) -> None:
        self.session = session
        self.pub_thread = iopub
        self.name = name
        self.topic = b"stream." + name.encode()
        self.flush_interval = interval
        self.echo = None
        self._iopub = iopub
        self._guard = guard
        self._later = later
        self._parent_header = contextvars.ContextVar("parent_header")
        self._parent_header.set({})
        self._parent_header_global = {}
        self._master_pid = os.getpid()
        self._isatty = False
        self._should_watch = False
        self._local = threading.local()
        self._original_stdstream_fd = 1 if name == "stdout" else 2
        self._fid = None
        self._buffer_lock = threading.RLock()
        self._texts: list[tuple[dict[str, Any], list[str]]] = []
        self._size = 0
        self._flush_pending = False
        self._forked = False
        self._line = ""  # of a forked child, while it is not complete

    def _after_fork(self) -> None:
        """In a forked child: what the kernel has gathered is the kernel's to send."""
        self._forked = True
        self._texts = []
        self._buffer_lock = threading.RLock()

    def fileno(self) -> int:
        """The descriptor that is captured: what a subprocess is given with `stdout=sys.stdout` arrives."""
        descriptor: int = self._original_stdstream_fd
        return descriptor

    def write(self, string: str) -> int:
        """Takes text. Raises TypeError for anything else, ValueError after `close`."""
        if not isinstance(string, str):
            raise TypeError(f"write() argument must be str, not {type(string)}")
        if self.pub_thread is None:
            raise ValueError("I/O operation on closed file")
        if self._forked:
            # Whole lines, which a pipe takes in one piece: several children may write at once.
            lines, newline, self._line = (self._line + string).rpartition("\n")
            self._write_to_descriptor(lines + newline)
            return len(string)
        parent = self.parent_header
        with self._buffer_lock:
            if self._texts and self._texts[-1][0] is parent:
                self._texts[-1][1].append(string)
            else:
                self._texts.append((parent, [string]))
            self._size += len(string)
        if self._size > _AT_ONCE and threading.current_thread() is threading.main_thread():
            self.flush()
        elif not self._flush_pending:
            with self._guard:  # between these two an interrupt would leave text waiting for ever
                self._flush_pending = True
                self._later(self.flush_interval, self._flush_in_time)
        return len(string)

    @property
    def waiting(self) -> int:
        """Characters that are not sent yet."""
        return self._size

    def flush(self) -> None:
        """Sends what was gathered; waits while a reader lags."""
        if self._forked:
            line, self._line = self._line, ""
            self._write_to_descriptor(line)
        wait = _AGAIN / 8
        while self._texts and not self._forked:
            if not self._send_first():
                time.sleep(wait)
                wait = min(2 * wait, _AGAIN)

    def _flush(self) -> None:
        self.flush()

    def _flush_in_time(self) -> None:
        """In the service thread, which must not wait."""
        self._flush_pending = False  # first: whoever writes from here on asks again
        while self._texts:
            if not self._send_first_if_free():
                self._flush_pending = True
                self._later(_AGAIN, self._flush_in_time)
                return

    def _send_first_if_free(self) -> bool:
        """As `_send_first`, and False where somebody else is sending, who may be waiting for a reader. The locks are taken
        in the same order."""
        if not self._buffer_lock.acquire(blocking=False):
            return False
        try:
            if not self._iopub.lock.acquire(blocking=False):
                return False
            try:
                return self._send_first()
            finally:
                self._iopub.lock.release()
        finally:
            self._buffer_lock.release()

    def _send_first(self) -> bool:
        """Sends the oldest text that has one parent. False, and nothing lost, if a reader lags."""
        with self._guard, self._buffer_lock, self._iopub.lock:
            if not self._texts:
                return True
            parent, pieces = self._texts[0]
            text = "".join(pieces)
            message: dict[str, Any] | None = None
            if text:
                message = self.session.msg("stream", {"name": self.name, "text": text}, parent)
                for hook in self._hooks:
                    message = hook(message)
                    if message is None:
                        break
            if message is not None and not self._iopub.try_send(self.session.serialize(message, self.topic)):
                pieces[:] = [text]
                return False
            del self._texts[0]
            self._size -= len(text)
            return True

    def close(self) -> None:
        """Further writing raises ValueError."""
        self.flush()
        self.pub_thread = None

    def _write_to_descriptor(self, text: str) -> None:
        data = text.encode("utf-8", "replace")
        while data:
            data = data[os.write(self._original_stdstream_fd, data) :]


class CapturedDescriptor:
    """A pipe in place of descriptor 1 or 2: subprocesses, C code and forked children write there.

    Whoever reads writes to the stream before another can read, so the order is kept. `drain` at the end of a
    cell makes sure that what the cell's own subprocesses wrote goes out before the cell ends.
    """

    def __init__(self, descriptor: int, stream: LeanStream) -> None:
        self._stream = stream
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._lock = threading.Lock()
        self.pause: Callable[[], None] | None = None
        # A writing end stays here: were the user to close the descriptor, the end of the file could be read for ever.
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._reader, False)
        os.dup2(self._writer, descriptor)

    def fileno(self) -> int:
        return self._reader

    def read(self) -> None:
        """Passes on one portion; or none, where a reader lags and much waits to be sent: then the pipe fills up, and whoever writes there
        waits."""
        if self._stream.waiting > _MOST_WAITING and self.pause is not None:
            self.pause()
            return
        with self._lock:
            self._read()

    def drain(self) -> None:
        """Passes on what has been written so far: no more than a pipe holds, were a child to write on and on."""
        with self._lock:
            for _ in range(_PIPE // _READ):
                if self._read() < _READ:
                    return

    def _read(self) -> int:
        try:
            data = os.read(self._reader, _READ)
        except BlockingIOError:
            return 0
        if text := self._decoder.decode(data):
            self._stream.write(text)
        return len(data)
