"""After a broken connection: what was on its way is asked for again, and put where it belongs.

A Jupyter server keeps what a kernel says while nobody is connected. It does not keep what it had already
written into the connection that broke, or what it wrote into one that was dead without knowing it. So the
kernel itself keeps its last messages (`providers/prepare.py` installs that in Python kernels) and sends them
again when asked. They come after newer ones: so from the reconnect on messages wait here, until the kernel's
`cellrun_log` says that all were sent; then they go on in the order of their numbers.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Mapping
from typing import Final

from cellrun.protocol.message import Message

LOG: Final = "cellrun_log"
RESEND: Final = "cellrun_resend"
_REPLIES: Final = 64  # numbers of replies that came; the kernel sends its last eight again
_NUMBERED: Final = re.compile(r"(.+_\d+)_(\d{1,18})\Z")


def numbered(msg_id: str) -> tuple[str, int] | None:
    """The kernel process and the number of a message, where ids have the form of jupyter_client's
    Session: `<session>_<pid>_<n>`.

    >>> numbered("0c1f-22_4711_12")
    ('0c1f-22_4711', 12)
    """
    match = _NUMBERED.match(msg_id)
    return None if match is None else (match[1], int(match[2]))


def forked(process: str, other: str) -> bool:
    """Whether these are processes of one session: a child of the kernel has its session id, its own pid, and
    counts on from the number at which it was forked. Another kernel has another session."""
    return process.rpartition("_")[0] == other.rpartition("_")[0]


def foreign(message: Message) -> bool:
    """Whether the server made this message itself (its notices of rate limits): with our session's id."""
    session = message.header.get("session")
    return bool(session) and session == message.parent_header.get("session")


class Resume:
    """`receive` gives the messages that are to be handled now. `supported` once the kernel has said so."""

    def __init__(self) -> None:
        self.supported = False
        self.complete = False
        self._process: str | None = None
        self._highest = 0  # on IOPub, which alone is logged: the other channels may be ahead of it
        self._replies: deque[int] = deque(maxlen=_REPLIES)
        self._since: int | None = None
        self._unanswered: int | None = None  # what an earlier request asked for and did not get in full
        self.asked = ""
        self._waiting: dict[tuple[int, str], Message] = {}

    @property
    def waiting(self) -> bool:
        return self._since is not None

    def begin(self, token: str) -> int | None:
        """The connection is back: the number after which the kernel is to send again; None where it
        cannot. A second break before the end asks for the same under another token: an answer to the first
        request knows nothing of what the second break took."""
        self.complete = False
        self.asked = token
        if not self.supported:
            return None
        if self._since is None:
            self._since = self._highest if self._unanswered is None else self._unanswered
        return self._since

    def receive(self, message: Message) -> list[Message]:
        if message.msg_type == LOG:
            return self._on_log(message)
        place = numbered(message.msg_id)
        if place is None or foreign(message):
            return [message]
        process, number = place
        released: list[Message] = []
        if self._process is None:
            self._process = process
        elif not forked(process, self._process):  # another kernel: its numbers start anew, and so does this
            released = self.give_up()
            self._process, self._highest, self._unanswered = process, 0, None
            self._replies.clear()
        if message.msg_type == "execute_reply" and message.channel == "shell":
            if number in self._replies:  # the log has said it already
                return released
            self._replies.append(number)
        if self._since is None or message.channel == "stdin":
            self._saw(message, process, number)
            return [*released, message]
        self._waiting[number, process] = message
        return released

    def _saw(self, message: Message, process: str, number: int) -> None:
        if message.channel == "iopub" and process == self._process:
            self._highest = max(self._highest, number)

    def give_up(self) -> list[Message]:
        """No answer came: what waits goes on, in order, with its gaps."""
        if self._since is not None:
            self._unanswered = None if self.complete else self._since
        self._since = None
        waiting, self._waiting = self._waiting, {}
        for (number, process), message in waiting.items():
            self._saw(message, process, number)
        return [waiting[place] for place in sorted(waiting)]

    def settled(self) -> None:
        """No execution is under way: what is missing up to here is no longer asked for."""
        self._unanswered = None

    def _on_log(self, message: Message) -> list[Message]:
        content = message.content
        if "after" not in content:  # the kernel says that it keeps a log
            self.supported = True
            return []
        if self._since is None or content.get("token") != self.asked:
            return []
        self.complete = content.get("complete") is True
        replies = content.get("replies")
        for reply in replies if isinstance(replies, list) else []:
            if isinstance(reply, Mapping) and isinstance(reply.get("header"), Mapping):
                place = numbered(str(reply["header"].get("msg_id")))
                if place is not None and place[0] == self._process and place[1] not in self._replies:
                    self._replies.append(place[1])
                    parts = [reply.get(key) for key in ("parent_header", "metadata", "content")]
                    parent, metadata, rest = (part if isinstance(part, Mapping) else {} for part in parts)
                    self._waiting[place[1], place[0]] = Message("shell", reply["header"], parent, metadata, rest)
        return self.give_up()
