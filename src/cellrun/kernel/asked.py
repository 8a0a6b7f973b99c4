"""What the metadata of an execute request asks our kernel for, below the key `cellrun`. Who does not ask pays nothing.

- `environment`: names and values, in force for this cell alone. The code is left as it is, and so are its line numbers.
- `folder`: where the kernel's first cell that names it begins. A relative one is made where it is not there; a later `%cd` is left alone.
- `formats`: further formats of what the cell shows: "e2b/chart", the data of a matplotlib figure; "e2b/data", the columns of a pandas frame.

What is no such thing is passed over.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

from IPython.core.formatters import BaseFormatter

from cellrun.kernel.figures import chart_of
from cellrun.kernel.frames import data_of

FORMATS: Final[Mapping[str, Callable[[Any], dict[str, Any] | None]]] = {"e2b/chart": chart_of, "e2b/data": data_of}


class Formatter(BaseFormatter):
    """Among IPython's formatters while it is wanted. It never fails what is shown."""

    describe: Callable[[Any], dict[str, Any] | None]

    def __call__(self, obj: Any) -> dict[str, Any] | None:
        try:
            return self.describe(obj)
        except Exception:  # of libraries in any version, and of objects of the user's
            return None

    def lookup(self, obj: Any) -> Any:
        """What the object says of itself comes first."""
        raise KeyError(type(obj))


class Asked:
    """Of one kernel."""

    def __init__(self) -> None:
        self._folder: str | None = None
        self._formatters: dict[str, Formatter] = {}

    def begin(self, wanted: Mapping[str, Any]) -> None:
        """Before the cell. Raises OSError where the folder cannot be entered; then the next cell tries again."""
        folder = wanted.get("folder")
        if not isinstance(folder, str) or folder == self._folder:
            return
        if not os.path.isabs(folder):
            os.makedirs(folder, exist_ok=True)
        os.chdir(folder)
        self._folder = folder

    @contextmanager
    def granted(self, wanted: Mapping[str, Any], shell: Any) -> Iterator[None]:
        """While the cell runs."""
        variables, formats = wanted.get("environment"), wanted.get("formats")
        with (
            _variables(variables if isinstance(variables, Mapping) else {}),
            self._among(shell.display_formatter.formatters, formats if isinstance(formats, list) else []),
        ):
            yield

    @contextmanager
    def _among(self, formatters: dict[str, Any], wanted: list[Any]) -> Iterator[None]:
        added = {name: self._formatter(name) for name in FORMATS if name in wanted and name not in formatters}
        formatters.update(added)
        try:
            yield
        finally:
            for name, formatter in added.items():
                if formatters.get(name) is formatter:
                    del formatters[name]

    def _formatter(self, name: str) -> Formatter:
        if name not in self._formatters:
            formatter = self._formatters[name] = Formatter(format_type=name)
            formatter.describe = FORMATS[name]
        return self._formatters[name]


@contextmanager
def _variables(wanted: Mapping[Any, Any]) -> Iterator[None]:
    """What the cell itself does to these variables is undone at its end, too."""
    environ = os.environ  # a cell may put another in its place
    before: dict[str, str | None] = {}
    for name, value in wanted.items():
        with contextlib.suppress(ValueError, TypeError, OSError):  # the system takes no such name or value
            old = environ.get(name)
            environ[name] = value
            before[name] = old
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                environ.pop(name, None)
            else:
                environ[name] = value
