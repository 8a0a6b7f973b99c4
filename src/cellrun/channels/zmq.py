"""A kernel on this machine: four ZeroMQ sockets, signed messages.

The sockets are read with `add_reader` on their own descriptors. These are edge-triggered: a socket must
be read until it is empty, and looked at again after each send, or an edge is lost (libzmq, ZMQ_FD).
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import zmq
from jupyter_client.session import Session

from cellrun.channels.base import Channel, Gone, Incoming
from cellrun.channels.inbox import Inbox
from cellrun.errors import ConnectionFailed
from cellrun.protocol.message import MOST_PARTS, Message, parse

_SOCKETS = {"iopub": zmq.SUB, "shell": zmq.DEALER, "stdin": zmq.DEALER, "control": zmq.DEALER}
_DELIMITER = b"<IDS|MSG>"
_READABLE = int(zmq.POLLIN)  # as a flag of Python's enum it would be slow to test
_NEVER = 2**31 - 1  # milliseconds
_NO_MESSAGE = f"the kernel sent a message of more than {MOST_PARTS} parts, which is none of the protocol's"
_LARGEST = 256 * 1024 * 1024
_PATIENCE = 5.0  # a busy machine may take long to tell of an exit
_CUT_OFF = "the kernel closed its connection, or sent a message of more than 256 MiB"
_BATCH = 200  # messages read before the event loop gets a turn


class ZmqChannel(Channel):
    """`connection` is the content of a connection file (Connection files, jupyter_client). `once`: the kernel's sockets listen
    already, and nobody but that kernel ever will: so a connection that is lost is not made again, and ends the flow. `final`: the latter
    alone. A message with a part of more than 256 MiB loses the connection, before it is read.
    """

    def __init__(
        self,
        connection: Mapping[str, Any],
        context: zmq.Context[zmq.Socket[bytes]],
        *,
        once: bool = False,
        final: bool = False,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._session = Session(
            key=str(connection["key"]).encode("ascii"),
            signature_scheme=connection.get("signature_scheme", "hmac-sha256"),
        )
        self._inbox = Inbox(on_room=self._drain)
        self._sockets: dict[str, zmq.Socket[bytes]] = {}
        self._monitors: dict[str, zmq.Socket[bytes]] = {}
        self._connected: set[str] = set()
        self._watched: list[int] = []  # descriptors; a socket whose context has ended does not tell its own any more
        self._cut_off: asyncio.TimerHandle | None = None
        self._closed = False
        self._again: asyncio.Handle | None = None
        identity = self._session.bsession
        for name, kind in _SOCKETS.items():
            socket = self._sockets[name] = context.socket(kind)
            socket.linger = 0
            # A kernel that is booting is found within this many milliseconds of binding.
            # Where it must not be made again: not -1, which has libzmq take a message away in the middle of its being read, and
            # end the process for that (fq.cpp, "!_more").
            socket.reconnect_ivl = _NEVER if once else 10
            socket.reconnect_ivl_max = 0 if once else 100
            socket.maxmsgsize = _LARGEST
            # In messages, of which each can have a megabyte and more: what libzmq reads ahead while the
            # inbox is full. Then the kernel waits.
            socket.rcvhwm = 16
            if kind == zmq.SUB:
                socket.subscribe(b"")
            else:
                socket.setsockopt(zmq.IDENTITY, identity)
            if once or final:
                monitor = self._monitors[name] = socket.get_monitor_socket(zmq.EVENT_CONNECTED | zmq.EVENT_DISCONNECTED)
                self._watch(monitor, self._on_change, name)
                self._on_change(name)  # a socket that was never read from does not say that it can be
            socket.connect(_address(connection, name))
            self._watch(socket, self._drain)
        self._drain()

    def _watch(self, socket: zmq.Socket[bytes], callback: Callable[..., object], *args: str) -> None:
        self._watched.append(socket.fileno())
        self._loop.add_reader(socket.fileno(), callback, *args)

    async def send(self, message: Message) -> None:
        if self._closed:
            raise ConnectionFailed("the connection to the kernel is closed", retryable=False)
        parts = [
            json.dumps(part, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")
            for part in (message.header, message.parent_header, message.metadata, message.content)
        ]
        frames = [_DELIMITER, self._session.sign(parts), *parts, *message.buffers]
        try:
            self._sockets[message.channel].send_multipart(frames, zmq.NOBLOCK)
        except zmq.Again:
            raise ConnectionFailed("the kernel takes no more messages: a thousand wait for it") from None
        except zmq.ContextTerminated:
            self._close()
            raise ConnectionFailed("the connection to the kernel is closed", retryable=False) from None
        self._drain()

    async def connected(self, timeout: float) -> None:
        """Until all sockets are connected, also those of which nothing is heard when a kernel answers. Only with `once` or `final`.
        Raises ConnectionFailed."""
        deadline = self._loop.time() + timeout
        while len(self._connected) < len(self._monitors):
            if self._closed or self._loop.time() > deadline:
                raise ConnectionFailed(f"the kernel's sockets did not connect within {timeout:g} s")
            await asyncio.sleep(0.001)

    async def receive(self) -> Sequence[Incoming]:
        return await self._inbox.take()

    def gone(self, reason: str) -> None:
        """The process has ended: what it had already sent is read, then the flow ends with this reason."""
        if not self._closed:
            self._drain(unbounded=True)
            self._inbox.put(Gone(reason))

    async def aclose(self) -> None:
        self._close()

    def _close(self) -> None:
        """Also when its context was ended by its owner, with this channel open: that waits for its sockets to be closed
        (zmq_ctx_term), and until then their descriptors are readable."""
        if self._closed:
            return
        self._closed = True
        if self._again is not None:
            self._again.cancel()
        if self._cut_off is not None:
            self._cut_off.cancel()
        for descriptor in self._watched:
            self._loop.remove_reader(descriptor)
        for name, monitor in self._monitors.items():
            with contextlib.suppress(zmq.ContextTerminated):
                self._sockets[name].disable_monitor()
            monitor.close(linger=0)
        for socket in self._sockets.values():
            socket.close(linger=0)
        self._inbox.put(Gone("the connection was closed"))

    def _on_change(self, name: str) -> None:
        while True:
            try:
                event, *_ = self._monitors[name].recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            except zmq.ContextTerminated:
                self._close()
                return
            if int.from_bytes(event[:2], sys.byteorder) == zmq.EVENT_CONNECTED:
                self._connected.add(name)
            elif self._cut_off is None:
                # Mostly since the process has ended, which is told in a moment; otherwise the kernel can be heard no more.
                self._cut_off = self._loop.call_later(_PATIENCE, self.gone, _CUT_OFF)

    def _drain(self, unbounded: bool = False) -> None:
        if self._closed:
            return
        try:
            self._drain_sockets(unbounded)
        except zmq.ContextTerminated:
            self._close()

    def _drain_sockets(self, unbounded: bool) -> None:
        count = 0
        for name, socket in self._sockets.items():
            # Looking first is cheaper than an exception for each empty socket.
            while int(socket.getsockopt(zmq.EVENTS)) & _READABLE:
                if name == "iopub" and self._inbox.full and not unbounded:
                    break
                try:
                    frames = _parts(socket)
                except zmq.Again:
                    break
                except ValueError:
                    self._inbox.put(Gone(_NO_MESSAGE))
                    return
                message = self._decode(name, frames)
                if message is not None:
                    self._inbox.put(message, sum(map(len, frames)))
                count += 1
                if count >= _BATCH and not unbounded:
                    self._read_on()
                    return

    def _read_on(self) -> None:
        if self._again is not None:
            self._again.cancel()
        self._again = self._loop.call_soon(self._drain)

    def _decode(self, channel: str, frames: list[bytes]) -> Message | None:
        """The message, or None for what is not signed with our key or is no message: whoever sent that
        is not our kernel, and one bad message must not end the others."""
        try:
            start = frames.index(_DELIMITER) + 1
            signature, *parts = frames[start : start + 5]
            if len(parts) != 4 or not hmac.compare_digest(signature, self._session.sign(parts)):
                return None
            header, parent, metadata, content = (parse(_text(part)) for part in parts)
        except ValueError:
            return None
        if not all(isinstance(part, dict) for part in (header, parent, metadata, content)):
            return None
        return Message(channel, header, parent, metadata, content, tuple(frames[start + 5 :]))


def _parts(socket: zmq.Socket[bytes]) -> list[bytes]:
    """One message. Raises zmq.Again where there is none, ValueError for one with more parts than any kernel makes."""
    parts = [socket.recv(zmq.NOBLOCK)]
    while socket.getsockopt(zmq.RCVMORE):
        if len(parts) > MOST_PARTS:
            raise ValueError
        parts.append(socket.recv(zmq.NOBLOCK))
    return parts


def _text(part: bytes) -> str:
    """What is no UTF-8 comes from cells that print bytes as text; it is marked rather than lost."""
    try:
        return part.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return part.decode("utf-8", "replace")


def _address(connection: Mapping[str, Any], name: str) -> str:
    port = connection[f"{name}_port"]
    if connection.get("transport", "tcp") == "ipc":
        return f"ipc://{connection['ip']}-{port}"
    return f"tcp://{connection['ip']}:{port}"
