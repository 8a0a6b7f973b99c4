"""Were messages lost while the connection was broken? Counted, where the kernel numbers its messages.

jupyter_client's Session, and so every kernel written with it, gives message n of a kernel the id
`<session>_<pid>_<n>`. After a reconnect every number must come: each that does not was lost with the
connection, or went to another client. Other clients of a kernel that is ours alone are the server's own
probes ("nudges"): each is seen by its parent, and explains at most three numbers.
"""

from __future__ import annotations

from typing import Final

from cellrun.protocol.resume import forked, numbered

_NUMBERS_OF_A_PROBE: Final = 3


class Gaps:
    """`saw` each message's id; `reconnected` when the connection is back; `lost` at an execution's end."""

    def __init__(self) -> None:
        self._prefix: str | None = None
        self._highest = 0
        self._published = 0  # the highest on IOPub
        self._ahead: set[int] = set()  # numbers above that, of the other channels
        self._since: int | None = None
        self._seen = 0
        self._strangers: set[str] = set()

    def saw(self, msg_id: str, parent_id: str, *, ours: bool, iopub: bool = True) -> None:
        place = numbered(msg_id)
        if place is None:
            return
        prefix, number = place
        if self._prefix is None or not forked(prefix, self._prefix):  # another kernel: its numbers start anew
            self._prefix, self._highest, self._since = prefix, number, None
            self._published, self._ahead = number, set()
            return
        if prefix != self._prefix:  # what a child of the kernel prints has numbers of its own
            return
        self._highest = max(self._highest, number)
        if not iopub:
            if number > self._published:
                self._ahead.add(number)
        elif number > self._published:
            self._published = number
            self._ahead = {other for other in self._ahead if other > number}
        if self._since is not None and number > self._since:
            self._seen += 1
            if not ours:
                self._strangers.add(parent_id)

    def reconnected(self) -> None:
        """From here on every number is expected, and before it those that another channel was ahead of.
        Several breaks in a row count as one."""
        if self._since is None:
            self._since, self._seen = self._published, len(self._ahead)
            self._strangers.clear()

    def closed(self) -> None:
        """The kernel has sent again whatever was missing: nothing is counted."""
        self._since = None

    def lost(self) -> int:
        """How many messages did not come, as of the highest number seen; then counting ends."""
        if self._since is None:
            return 0
        missing = self._highest - self._since - self._seen
        self._since = None
        return missing if missing > _NUMBERS_OF_A_PROBE * len(self._strangers) else 0
