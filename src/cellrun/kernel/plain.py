"""Values of numpy, pandas and matplotlib as JSON, no more of them than is good."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, Final

_VALUES: Final = 200_000
_TEXT: Final = 4 * 2**20


class TooLargeError(Exception):
    """There is more of it than is sent."""


class Plain:
    """Makes values plain, and counts them: one for each thing that is described."""

    def __init__(self, values: int = _VALUES, text: int = _TEXT) -> None:
        self._values = values
        self._text = text

    def reserve(self, number: int) -> None:
        """Before that many values are taken. Raises TooLargeError."""
        self._values -= number
        if self._values < 0:
            raise TooLargeError

    def many(self, values: Any) -> list[Any]:
        """Of a sequence or array. Raises TooLargeError, before anything is copied."""
        self.reserve(len(values))
        if type(values).__module__ == "numpy" and values.dtype.kind == "M":  # of nanoseconds, tolist() makes integers
            values = values.astype("datetime64[us]")
        listed: Iterable[Any] = values.tolist() if hasattr(values, "tolist") else values
        return [self.one(value) for value in listed]

    def one(self, value: Any) -> Any:
        """None, a bool, a finite number, or text. Raises TooLargeError where there is too much text."""
        if value is None or isinstance(value, bool):
            return value
        if type(value).__module__ == "numpy" and hasattr(value, "item"):
            value = value.item()
        if isinstance(value, int):
            return int(value)
        if isinstance(value, float):
            return float(value) if math.isfinite(value) else None
        if type(value).__name__ in ("NAType", "NaTType"):  # of pandas; they compare with nothing
            return None
        if isinstance(value, str):
            return self.text(str(value))
        isoformat = getattr(value, "isoformat", None)
        return self.text(str(isoformat() if callable(isoformat) else value))

    def text(self, text: str) -> str:
        self._text -= len(text)
        if self._text < 0:
            raise TooLargeError
        return text
