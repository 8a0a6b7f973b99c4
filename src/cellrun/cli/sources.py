"""What the command is given to run, as cells."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import nbformat

# The marker of the percent format, as editors write it: `# %%`, `# %% title`, `#%%`; with `[markdown]`
# or `[raw]` the cell is no code.
_MARKER: Final = re.compile(r"^#\s*%%(.*)$")


class SourceError(Exception):
    """What was named cannot be read as code; the text says why."""


@dataclass(frozen=True)
class Source:
    """The cells to run, in order; `notebook` is the one they came from, `stem` names saved pictures."""

    cells: tuple[str, ...]
    stem: str
    notebook: nbformat.NotebookNode | None = None
    from_stdin: bool = False

    @property
    def language(self) -> str:
        """The notebook's, in lower case; "" where nothing says."""
        if self.notebook is None:
            return ""
        metadata = self.notebook.metadata
        named = metadata.get("kernelspec", {}).get("language") or metadata.get("language_info", {}).get("name") or ""
        return str(named).lower()


def read_source(file: str | None, code: str | None) -> Source:
    """From `-c CODE`, `-` (standard input), a notebook or a file. Raises SourceError."""
    if code is not None:
        return Source((code,), "cellrun")
    if file == "-":
        return Source((sys.stdin.read(),), "cellrun", from_stdin=True)
    assert file is not None
    path = Path(file)
    try:
        text = path.read_text("utf-8")
    except UnicodeDecodeError:
        raise SourceError(f"{file} is not text in UTF-8") from None
    except OSError as error:
        raise SourceError(f"{file} cannot be read: {error.strerror}") from None
    if path.suffix == ".ipynb":
        return _notebook(text, path)
    return Source(split_cells(text), path.stem)


def split_cells(text: str) -> tuple[str, ...]:
    """The code cells of a script with `# %%` markers; without any, the whole is one cell.

    >>> split_cells("a\\n# %% two\\nb\\n# %% [markdown]\\n# words")
    ('a\\n', '# %% two\\nb\\n')
    """
    cells: list[list[str]] = [[]]
    is_code = [True]
    for line in text.splitlines(keepends=True):
        marker = _MARKER.match(line.rstrip("\r\n"))
        if marker is not None:
            cells.append([])
            is_code.append("[markdown]" not in marker[1] and "[raw]" not in marker[1])
        cells[-1].append(line)
    return tuple("".join(cell) for cell, code in zip(cells, is_code, strict=True) if code and "".join(cell).strip())


def _notebook(text: str, path: Path) -> Source:
    import nbformat

    try:
        notebook = nbformat.reads(text, as_version=4)
        cells = tuple(cell.source for cell in notebook.cells if cell.cell_type == "code")
    except Exception as error:  # nbformat raises of many kinds, from jsonschema's to KeyError
        raise SourceError(f"{path} is not a notebook: {type(error).__name__}") from None
    return Source(cells, path.stem, notebook)
