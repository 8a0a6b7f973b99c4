"""Text as a terminal would leave it on the screen: no ANSI sequences, progress bars collapsed."""

from __future__ import annotations

import re
from typing import Final

# ECMA-48: CSI (parameters, intermediates, final byte), OSC up to BEL or ST, other strings (DCS, SOS,
# PM, APC) up to ST, the two- or three-character escapes, and an escape alone. A sequence that is cut off
# at the end of the text is taken too.
_ESCAPE: Final = re.compile(
    r"\x1b(?:"
    r"\[(?P<params>[0-?]*)[ -/]*(?P<final>[@-~]|\Z)"
    r"|\][^\x07\x1b]*(?:\x07|\x1b\\|\Z)"
    r"|[PX^_][^\x1b]*(?:\x1b\\|\Z)"
    r"|[ -/]+[0-~]?"
    r"|[0-~]"
    r"|)"
)
_CONTROL: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")
_MOVES: Final = re.compile(r"\x1b\[[0-9]*[ABEF]")


def strip_ansi(text: str) -> str:
    r"""Without escape sequences; carriage returns and other characters stay.

    >>> strip_ansi("\x1b[1;31mred\x1b[0m")
    'red'
    """
    return _ESCAPE.sub("", text) if "\x1b" in text else text


def render(text: str) -> str:
    r"""What a terminal shows in the end. Understood are carriage return, backspace, erase in line and
    the cursor moves up and down; colours and everything else are taken out.

    >>> render("10%\r50%\r100%\ndone")
    '100%\ndone'
    """
    if _CONTROL.search(text) is None:
        return text
    if _MOVES.search(text) is not None:
        return _Screen(text).text()
    text = text.replace("\r\n", "\n")
    return "\n".join(line if _CONTROL.search(line) is None else _Screen(line).text() for line in text.split("\n"))


class _Screen:
    """Lines of characters and a cursor. No width: lines are as long as they are."""

    def __init__(self, text: str) -> None:
        self.lines: list[list[str]] = [[]]
        self.row = 0
        self.column = 0
        # Blanks that cursor moves may add: a few bytes may not fill memory.
        self._blanks = 4096 + len(text)
        position = 0
        while position < len(text):
            character = text[position]
            if character == "\x1b":
                match = _ESCAPE.match(text, position)
                assert match is not None  # the pattern's last branch takes a bare escape
                self._escape(match["final"], match["params"])
                position = max(match.end(), position + 1)
                continue
            self._put(character)
            position += 1

    def text(self) -> str:
        return "\n".join("".join(line) for line in self.lines)

    def _put(self, character: str) -> None:
        if character == "\n":
            self._go(self.row + 1)
            self.column = 0
        elif character == "\r":
            self.column = 0
        elif character == "\b":
            self.column = max(0, self.column - 1)
        elif character == "\t" or (character >= " " and character != "\x7f"):
            line = self.lines[self.row]
            if self.column < len(line):
                line[self.column] = character
            else:
                self.column = len(line) + self._allowed(self.column - len(line))
                line.extend(" " * (self.column - len(line)))
                line.append(character)
            self.column += 1

    def _allowed(self, blanks: int) -> int:
        blanks = min(blanks, self._blanks)
        self._blanks -= blanks
        return blanks

    def _go(self, row: int) -> None:
        self.row = max(0, row)
        while self.row >= len(self.lines):
            self.lines.append([])

    def _escape(self, final: str | None, params: str | None) -> None:
        # A hostile count may not make us allocate: more lines than any progress display has.
        number = min(int(params), 1000) if params and params.isdigit() and len(params) < 6 else None
        if final == "K":
            line = self.lines[self.row]
            if number == 1:
                count = self._allowed(min(self.column, len(line)))
                line[:count] = " " * count
            else:
                del line[0 if number == 2 else self.column :]
        elif final in ("A", "F"):
            self._go(self.row - (number or 1))
        elif final in ("B", "E"):
            self._go(min(self.row + (number or 1), len(self.lines) - 1))
        if final in ("E", "F"):
            self.column = 0
