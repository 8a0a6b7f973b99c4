"""Messages of forked children (multiprocessing, os.fork), sent by the kernel for them.

A ZeroMQ socket cannot be used by two processes (zmq_ctx_new(3)), so a child hands its messages over through
a pair of unix sockets for packets that it inherited: packets of several writers do not mix.
"""

from __future__ import annotations

import itertools
import os
import socket
import struct
import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

_HEADER: Final = struct.Struct("!IIII")  # process, message, part, parts
_PART: Final = 32 * 1024
_UNFINISHED: Final = 64  # messages whose parts are being waited for; the oldest goes when there are more


class Relay:
    """`send` in a child, `drain` in the kernel: in the service thread, and at the end of a cell so that what its children
    sent goes out before it ends. `pass_on` sends a message."""

    def __init__(self, pass_on: Callable[[list[bytes]], None]) -> None:
        self._pass_on = pass_on
        self._lock = threading.Lock()
        self._reader, self._writer = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._reader.setblocking(False)
        self._numbers = itertools.count()
        self._unfinished: OrderedDict[tuple[int, int], dict[int, bytes]] = OrderedDict()

    def fileno(self) -> int:
        return self._reader.fileno()

    def send(self, frames: list[bytes]) -> None:
        """Hands a message to the kernel; waits while it is busy with earlier ones. Where the kernel is gone,
        there is nobody left to tell."""
        lengths = struct.pack(f"!{len(frames) + 1}I", len(frames), *map(len, frames))
        data = lengths + b"".join(frames)
        number = next(self._numbers)
        parts = [data[start : start + _PART] for start in range(0, len(data), _PART)]
        try:
            for index, part in enumerate(parts):
                self._writer.send(_HEADER.pack(os.getpid(), number, index, len(parts)) + part)
        except OSError:
            return

    def drain(self) -> None:
        """Passes on the messages that are complete by now."""
        with self._lock:
            for frames in self.receive():
                self._pass_on(frames)

    def receive(self) -> list[list[bytes]]:
        """The messages that are complete by now."""
        messages: list[list[bytes]] = []
        while True:
            try:
                datagram = self._reader.recv(_HEADER.size + _PART)
            except BlockingIOError:
                return messages
            process, number, index, parts = _HEADER.unpack_from(datagram)
            key = (process, number)
            gathered = self._unfinished.setdefault(key, {})
            gathered[index] = datagram[_HEADER.size :]
            if len(gathered) == parts:
                del self._unfinished[key]
                messages.append(_frames(b"".join(gathered[index] for index in range(parts))))
            elif len(self._unfinished) > _UNFINISHED:
                self._unfinished.popitem(last=False)


def _frames(data: bytes) -> list[bytes]:
    (count,) = struct.unpack_from("!I", data)
    lengths = struct.unpack_from(f"!{count}I", data, 4)
    start = 4 + 4 * count
    frames = []
    for length in lengths:
        frames.append(data[start : start + length])
        start += length
    return frames
