"""The history of a kernel that keeps it in memory: nothing is written to disk, and no kernel sees another's."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator
from typing import Any

from IPython.core.history import HistoryManager

Entry = tuple[int, int, Any]


class MemoryHistory(HistoryManager):
    """What history requests and %history ask the database for, from the lists of this session."""

    def get_tail(
        self, n: int | None = 10, raw: bool = True, output: bool = False, include_latest: bool = False
    ) -> Iterator[Entry]:
        """The last `n` inputs as (session, line, input), or (input, output) in place of the input."""
        entries = list(self.get_range(0, 1, None, raw=raw, output=output))
        if not include_latest:
            entries = entries[:-1]
        count = 10 if n is None else n
        return iter(entries[-count:] if count else [])

    def search(
        self,
        pattern: str = "*",
        raw: bool = True,
        search_raw: bool = True,
        output: bool = False,
        n: int | None = None,
        unique: bool = False,
    ) -> Iterator[Entry]:
        """The inputs that match a glob pattern, oldest first; the last `n` of them."""
        searched = self.input_hist_raw if search_raw else self.input_hist_parsed
        found = [
            entry
            for entry in self.get_range(0, 1, None, raw=raw, output=output)
            if fnmatch.fnmatchcase(searched[entry[1]], pattern)
        ]
        if unique:
            latest = {entry[2][0] if output else entry[2]: entry for entry in found}
            found = sorted(latest.values(), key=lambda entry: entry[1])
        return iter(found if n is None else found[-n:] if n else [])
