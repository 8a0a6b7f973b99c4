"""A kernel that runs one cell, and a connection to it that breaks: what the laws of resuming are about."""

from __future__ import annotations

from typing import TypeVar

from tests.protocol.says import OURS, heard, reply, started, status, stdout

from cellrun.events import Event
from cellrun.protocol.kernel import Effect, Emit, KernelConnection
from cellrun.protocol.message import Message
from cellrun.protocol.resume import LOG

Item = TypeVar("Item")


class World:
    """One step at a time: the kernel `speaks` and `answers` requests to send again, the connection `carries`
    the oldest message of a channel, repeats an old one (`again`) or `breaks`; `end` is what follows the last
    break. The kernel's log holds its last `kept` messages; None: all.

    Like the channel below a KernelConnection, this lets no message through whose id has come before.
    """

    def __init__(self, lines: list[str], outcome: str, *, kept: int | None = None, answering: bool = True) -> None:
        self.connection = KernelConnection()
        self.events: list[Event] = []
        self.broken = 0
        self._holding = False  # what comes waits for the answer to the latest request
        self._kept, self._answering = kept, answering
        self._number = self._forgotten = 0
        self._log: list[tuple[int, Message]] = []
        self._replies: list[object] = []
        self._ways: dict[str, list[Message]] = {"shell": [], "iopub": []}
        self._carried: list[Message] = []
        self._seen: set[str] = set()
        self._asked: list[tuple[int, str]] = []
        self._tokens: list[str] = []
        self._say(heard("iopub", LOG, parent="prepare"))
        self._say(status("idle", parent="prepare"))
        self.carry("iopub")
        self.carry("iopub")
        self.connection.register(started())
        payload = [{"source": "page", "data": {}}]
        self._script = [
            status("busy"),
            heard("iopub", "execute_input", code="", execution_count=1),
            *(stdout(line) for line in lines),
            reply(outcome, execution_count=1, payload=payload),
            status("idle"),
        ]

    def speak(self) -> None:
        """The next message of the cell, or of a probe that waits behind it."""
        if self._script:
            self._say(self._script.pop(0))

    def answer(self) -> None:
        """The oldest request: everything after its number, then the word that this was all."""
        if not self._asked or not self._answering:
            return
        after, token = self._asked.pop(0)
        self._ways["iopub"] += [message for number, message in self._log if number > after]
        complete = self._forgotten <= after
        replies = list(self._replies)
        self._say(heard("iopub", LOG, parent="", after=after, token=token, complete=complete, replies=replies))

    def carry(self, channel: str) -> None:
        way = self._ways[channel]
        if not way:
            return
        message = way.pop(0)
        self._carried.append(message)
        if message.msg_id in self._seen:
            return
        self._seen.add(message.msg_id)
        if self._tokens and message.content.get("token") == self._tokens[-1]:
            self._holding = False
        self._perform(self.connection.receive(message, 1))

    def again(self, which: int) -> None:
        """The server sends something that it had sent before."""
        if self._carried:
            message = self._carried[which % len(self._carried)]
            self._ways[message.channel].append(message)

    def breaks(self, lost: int) -> None:
        """Of what is under way, each message whose bit is set in `lost` is lost, also the requests to the
        kernel; the server has kept the rest."""
        self._ways = {channel: _left(way, lost) for channel, way in self._ways.items()}
        self._asked = _left(self._asked, lost)
        self.broken += 1
        token = f"break {self.broken}"
        self._tokens.append(token)
        self._holding = True
        after = self.connection.reconnected(token)
        assert after is not None
        self._asked.append((after, token))
        info = heard("shell", "kernel_info_reply", parent=token, status="ok")
        self._script += [status("busy", parent=token), info, status("idle", parent=token)]

    def lose_patience(self, which: int) -> None:
        """The time of a request is up: of one that was answered or that a later break has overtaken, or of any
        if the kernel answers none."""
        up = self._tokens if not (self._answering and self._holding) else self._tokens[:-1]
        if up:
            token = up[which % len(up)]
            self._holding = self._holding and token != self._tokens[-1]
            self._perform(self.connection.resume_failed(token, 1))

    def end(self, first: str) -> None:
        """The connection holds: everything comes, and on one channel sooner."""
        while self._script or (self._asked and self._answering):
            self.speak()
            self.answer()
        while any(self._ways.values()):
            for channel in (first, *self._ways):
                self.carry(channel)
        if not self._answering:
            self.lose_patience(-1)

    def _say(self, message: Message) -> None:
        self._number += 1
        assert isinstance(message.header, dict)
        message.header["msg_id"] = f"kernel_1_{self._number}"
        self._ways[message.channel].append(message)
        if message.msg_type == "execute_reply":
            parts = ("header", "parent_header", "metadata", "content")
            self._replies.append({part: getattr(message, part) for part in parts})
        elif message.channel == "iopub" and message.msg_type != LOG:
            self._log.append((self._number, message))
            while self._kept is not None and len(self._log) > self._kept:
                self._forgotten, _ = self._log.pop(0)

    def _perform(self, effects: list[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, Emit):
                assert effect.execution_id == OURS
                self.events += effect.events


def _left(items: list[Item], lost: int) -> list[Item]:
    return [item for bit, item in enumerate(items) if not lost >> bit & 1]
