"""Sending on IOPub from whatever thread has something to say."""

from __future__ import annotations

import collections
import os
import threading
import time
from collections.abc import Callable
from typing import Any, Final, Self

import zmq
from zmq.backend import Socket as BackendSocket

from cellrun.kernel.interrupts import InterruptGuard
from cellrun.kernel.relay import Relay

# How long to wait before a reader that lags is tried again: from … to, in seconds.
_RETRY: Final = (0.0005, 0.01)
_MORE: Final = int(zmq.SNDMORE) | int(zmq.NOBLOCK)
_LAST: Final = int(zmq.NOBLOCK)
_READABLE: Final = int(zmq.POLLIN)


def frame_sender(socket: zmq.Socket[bytes]) -> Callable[[bytes, int], Any]:
    """What `send_frames` sends with: the socket's send in C, without pyzmq's wrapper in Python."""
    sender: Callable[[bytes, int], Any] = BackendSocket.send.__get__(socket)
    return sender


def send_frames(sender: Callable[[bytes, int], Any], frames: list[bytes]) -> None:
    """Sends a message without waiting. One call into C for all frames: nothing of Python runs between two of them that could
    leave half a message. Raises zmq.Again where it cannot be taken; only the first frame can fail so (zmq_send(3))."""
    collections.deque(map(sender, frames, [_MORE] * (len(frames) - 1) + [_LAST]), 0)


class IOPub:
    """The XPUB socket behind a lock. Stands where ipykernel has its IOPub thread and that thread's socket:
    code that knows those (ours for servers among it) finds the attributes that it uses.

    A subscription is answered with `iopub_welcome` (JEP 65). Where the socket is set to drop nothing (XPUB_NODROP), a
    sender waits for a reader that lags, as a program waits for a pipe that is full.
    """

    io_loop: Any = None
    closed = False

    def __init__(self, guard: InterruptGuard) -> None:
        self.lock = threading.RLock()
        self.thread = threading.main_thread()
        self.welcome: Callable[[bytes], list[bytes]] | None = None
        self._guard = guard
        self.relay: Relay | None = None
        self.pid = 0
        self._deferred: list[bytes] | None = None

    def open(self, socket: zmq.Socket[bytes]) -> None:
        """From here on messages are sent; before, they are thrown away."""
        self.socket = socket
        self._send_frame = frame_sender(socket)
        self.pid = os.getpid()

    @property
    def background_socket(self) -> Self:
        return self

    @property
    def io_thread(self) -> Self:
        return self

    def schedule(self, call: Callable[[], Any]) -> None:
        """Calls it while nobody else sends."""
        with self.lock:
            call()

    def send(self, frame: bytes, *args: Any, **kwargs: Any) -> None:
        self.send_multipart([frame])

    def send_multipart(self, frames: list[bytes], *args: Any, **kwargs: Any) -> None:
        """Sends a message. Waits while a reader lags, without the lock."""
        wait = _RETRY[0]
        while not self.try_send(frames):
            time.sleep(wait)
            wait = min(2 * wait, _RETRY[1])

    def try_send(self, frames: list[bytes]) -> bool:
        """False if a reader lags too far behind for this message to be taken. From a forked child: by way of its parent."""
        if os.getpid() != self.pid:
            if self.relay is not None:
                self.relay.send(frames)
            return True
        with self._guard, self.lock:
            try:
                if self._deferred is not None:
                    self._really_send(self._deferred)
                    self._deferred = None
                self._really_send(frames)
            except zmq.Again:
                return False
            return True

    def defer(self, frames: list[bytes]) -> None:
        """Sends this with the next message, whosever that is, and before it."""
        if os.getpid() != self.pid:
            self.send_multipart(frames)
            return
        with self._guard, self.lock:
            earlier, self._deferred = self._deferred, None
            if earlier is not None:
                self.send_multipart(earlier)
            self._deferred = frames

    def _really_send(self, frames: list[bytes], *args: Any, **kwargs: Any) -> None:
        send_frames(self._send_frame, frames)

    def read_subscriptions(self) -> None:
        """Answers new subscribers. The socket's descriptor tells of them by edges, which a send may swallow: so this is
        called after sending as well (ZMQ_FD)."""
        with self._guard, self.lock:
            while int(self.socket.getsockopt(zmq.EVENTS)) & _READABLE:
                try:
                    event = self.socket.recv(zmq.NOBLOCK)
                except zmq.Again:
                    return
                if event[:1] == b"\x01" and self.welcome is not None:
                    topic = event[1:]
                    with_topic = [topic] if topic else []
                    try:
                        self._really_send([*with_topic, *self.welcome(topic)])
                    except zmq.Again:
                        return

    def start(self) -> None:
        """There is no thread to start."""

    def stop(self) -> None:
        """There is no thread to stop."""

    def close(self) -> None:
        """The socket is closed with its context."""
