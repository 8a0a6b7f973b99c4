"""The columns of a pandas frame."""

from __future__ import annotations

import sys
from typing import Any

from cellrun.kernel.plain import Plain


def data_of(thing: Any) -> dict[str, Any] | None:
    """Lists of its values, by the names of its columns; None for what is no frame, and for one with two columns of one name. Times are ISO 8601, what is missing or no finite
    number is None, and what JSON does not know is its text. Raises TooLargeError."""
    pandas = sys.modules.get("pandas")
    if pandas is None or not isinstance(thing, pandas.DataFrame):
        return None
    names = [str(name) for name in thing.columns]
    if len({*names}) < len(names):  # 1 and "1" are two to pandas
        return None
    Plain().reserve(thing.size)  # before anything is made of it
    plain = Plain()
    return {plain.text(name): plain.many(thing.iloc[:, number]) for number, name in enumerate(names)}
