"""Were messages lost while the connection was broken? Counted, where the kernel numbers its messages.

jupyter_client's Session, and so every kernel written with it, gives message n of a kernel the id
`<session>_<pid>_<n>`. After a reconnect every number must come: each that does not was lost with the
connection, or went to another client. Other clients of a kernel that is ours alone are the server's own
probes ("nudges"): each is seen by its parent, and explains at most three numbers.
"""

from __future__ import annotations

from typing import Final

from cellrun.protocol.resume import numbered

_NUMBERS_OF_A_PROBE: Final = 3


class Gaps:
    """`saw` each message's id; `reconnected` when the connection is back; `lost` at an execution's end."""

    def __init__(self) -> None:
        self._prefix: str | None = None
        self._highest = 0
        self._since: int | None = None
        self._seen = 0
        self._strangers: set[str] = set()

    def saw(self, msg_id: str, parent_id: str, *, ours: bool) -> None:
        place = numbered(msg_id)
        if place is None:
            return
        prefix, number = place
        if prefix != self._prefix:  # another kernel process: its numbers start anew
            self._prefix, self._highest, self._since = prefix, number, None
            return
        self._highest = max(self._highest, number)
        if self._since is not None and number > self._since:
            self._seen += 1
            if not ours:
                self._strangers.add(parent_id)

    def reconnected(self) -> None:
        """From here on every number is expected. Several breaks in a row count as one."""
        if self._since is None:
            self._since, self._seen = self._highest, 0
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
