"""ipykernel's Session, cheaper: the same messages, signed by the same code."""

from __future__ import annotations

import itertools
import json
import os
import threading
import uuid
from typing import Any, Final

import zmq
from jupyter_client.jsonutil import json_default
from jupyter_client.session import DONE, Session

from cellrun.kernel.iopub import IOPub, frame_sender, send_frames

# As jupyter_client's json_packer, which makes an encoder for each part of each message.
_JSON: Final = json.JSONEncoder(default=json_default, ensure_ascii=False, allow_nan=False).encode
_ASCII_JSON: Final = json.JSONEncoder(default=json_default, allow_nan=False).encode


class LeanSession(Session):
    """What differs from jupyter_client's Session, for each message:

    - the parent's header, the same for all messages of a cell, is written as JSON once;
    - messages for IOPub are numbered and sent under one lock, so that their numbers rise on the wire also
      when two threads write;
    - messages are copied into the socket: without a copy, pyzmq keeps a thread to give memory back.
    """

    def rekey(self, key: bytes) -> None:
        """A new identity in this process: a forked kernel's messages must not carry its parent's."""
        self.check_pid = False  # IOPub knows what to do in a forked child
        self.session = uuid.uuid4().hex
        self.key = key
        self._numbers = itertools.count()
        self._parent: tuple[object, bytes] = (None, b"{}")

    @property
    def msg_id(self) -> str:
        return f"{self.session}_{os.getpid()}_{next(self._numbers)}"

    def serialize(self, msg: dict[str, Any], ident: list[bytes] | bytes | None = None) -> list[bytes]:
        parent = msg["parent_header"]
        known, packed = self._parent
        if parent is not known:
            packed = self._encode(parent)
            self._parent = (parent, packed)
        content = msg["content"]
        parts = [
            self._encode(msg["header"]),
            packed,
            self._encode(msg["metadata"]) if msg["metadata"] else b"{}",
            content if isinstance(content, bytes) else self._encode(content or {}),
        ]
        frames = list(ident) if isinstance(ident, list) else [] if ident is None else [ident]
        return [*frames, b"<IDS|MSG>", self.sign(parts), *parts]

    def _encode(self, part: object) -> bytes:
        try:
            return _JSON(part).encode()
        except UnicodeEncodeError:  # half a surrogate pair, which JSON can escape and UTF-8 cannot hold
            return _ASCII_JSON(part).encode()
        except (TypeError, ValueError):  # no JSON: the Session cleans it, and says so
            packed: bytes = self.pack(part)
            return packed

    def send(
        self,
        stream: Any,
        msg_or_type: dict[str, Any] | str,
        content: dict[str, Any] | None = None,
        parent: dict[str, Any] | None = None,
        ident: bytes | list[bytes] | None = None,
        buffers: list[Any] | None = None,
        track: bool = False,
        header: dict[str, Any] | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> dict[str, Any] | None:
        """As Session.send; a message that cannot be had without a copy is copied."""
        if stream is None:
            return None
        if not isinstance(stream, IOPub):
            message, frames = self._build(msg_or_type, content, parent, ident, buffers, header, metadata)
            self._pass_on(stream, frames)
            return message
        with stream.lock:
            message, frames = self._build(msg_or_type, content, parent, ident, buffers, header, metadata)
            if self.defer_results and message["msg_type"] == "execute_result":
                stream.defer(frames)
                return message
            if self._pass_on(stream, frames):
                return message
        stream.send_multipart(frames)  # waits for a reader, and must not keep others from the lock
        return message

    def _pass_on(self, stream: Any, frames: list[bytes]) -> bool:
        """Holds or sends it; False where a reader lags."""
        if self._held is not None and threading.get_ident() == self._holder:
            self._held.append((stream, frames))
            return True
        return _try(stream, frames)

    def _build(
        self,
        msg_or_type: dict[str, Any] | str,
        content: dict[str, Any] | None,
        parent: dict[str, Any] | None,
        ident: bytes | list[bytes] | None,
        buffers: list[Any] | None,
        header: dict[str, Any] | None,
        metadata: dict[str, Any] | None,
    ) -> tuple[dict[str, Any], list[bytes]]:
        if isinstance(msg_or_type, dict):
            message = msg_or_type
            buffers = buffers or message.get("buffers")
        else:
            message = self.msg(msg_or_type, content, parent, header, metadata)
        frames = self.serialize(message, ident)
        for buffer in buffers or ():
            view = memoryview(buffer)
            if not view.contiguous:
                raise ValueError("a buffer of a message must be contiguous")
            frames.append(view.tobytes() if not isinstance(buffer, bytes) else buffer)
        message["tracker"] = DONE
        return message, frames

    def hold(self, iopub: IOPub) -> None:
        """This thread's messages wait for `release`, and nobody else sends on IOPub meanwhile. Each message that finds ZeroMQ's
        thread asleep wakes it, which costs more than all else about a message; those that are sent one right after the
        other wake it once. For moments in which no code of the user's runs."""
        iopub.lock.acquire()
        self._holder = threading.get_ident()
        self._held = []

    def release(self, iopub: IOPub) -> None:
        """Sends what was held. Nothing happens if nothing is."""
        if self._held is None or self._holder != threading.get_ident():
            return
        held, self._held = self._held, None
        sent = 0
        try:
            while sent < len(held) and _try(*held[sent]):
                sent += 1
        finally:
            iopub.lock.release()
        for stream, frames in held[sent:]:
            stream.send_multipart(frames)

    defer_results = False
    """Whether a result goes with the message after it: for the main thread, while nothing follows in its cell."""
    _held: list[tuple[Any, list[bytes]]] | None = None
    _holder = 0


def _try(stream: Any, frames: list[bytes]) -> bool:
    """False if this is IOPub, and a reader lags."""
    if isinstance(stream, IOPub):
        return stream.try_send(frames)
    if isinstance(stream, zmq.Socket):
        send_frames(frame_sender(stream), frames)
    else:
        stream.send_multipart(frames)
    return True


def receive(session: Session, socket: zmq.Socket[bytes]) -> tuple[list[bytes], dict[str, Any]] | None:
    """The next request that waits on this socket, None where there is none. Raises ValueError for what is
    no message or not signed with our key."""
    try:
        frames = socket.recv_multipart(zmq.NOBLOCK)
    except zmq.Again:
        return None
    try:
        idents, rest = session.feed_identities(frames)
        return idents, session.deserialize(rest)
    except Exception as error:
        raise ValueError(f"{type(error).__name__}: {error}") from error
