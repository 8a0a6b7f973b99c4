"""An axis of matplotlib's: what its places stand for, and what is written at them."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, Final

from cellrun.kernel.plain import Plain

_FIXED: Final = ("StrCategoryLocator", "FixedLocator")
_LONG: Final = ("Week", "MonthEnd", "QuarterEnd", "YearEnd")
_NEAR: Final = 1e-6


class Axis:
    """Asked of matplotlib once: it makes the texts of an axis anew each time."""

    def __init__(self, axis: Any, plain: Plain) -> None:
        self._axis = axis
        self._plain = plain
        # get_converter() is of matplotlib 3.10.
        self._converter = type(axis.get_converter() if hasattr(axis, "get_converter") else axis.converter).__name__
        #: pandas numbers the days, or whatever its index counts.
        self.periods: Final = "Period" in self._converter and hasattr(axis, "freq")
        self.dates: Final = "Date" in self._converter or self.periods
        # Which day of a longer one was meant, its first or its last, pandas has not kept.
        self._long = self.periods and type(self._period(0).freq).__name__ in _LONG
        mapping = getattr(axis.get_units(), "_mapping", None)
        named = {float(place): str(name) for name, place in mapping.items()} if isinstance(mapping, Mapping) else {}
        self._categories = named if "Category" in self._converter else {}

    def place(self, place: Any) -> Any:
        """A date, the name of a longer period, or the number."""
        if self.periods:
            period = self._period(round(float(place)))
            return self._plain.one(str(period) if self._long else period.to_timestamp())
        if self.dates:
            from matplotlib.dates import num2date

            return self._plain.one(num2date(place))
        return self._plain.one(float(place))

    def _period(self, number: int) -> Any:
        from pandas import Period  # type: ignore[import-untyped]

        return Period(ordinal=number, freq=self._axis.freq)

    def many(self, places: Any) -> list[Any]:
        """Dates, names, or the numbers. Raises TooLargeError, before anything is made."""
        if self.dates:
            self._plain.reserve(len(places))
            return [self.place(place) for place in places]
        numbers = self._plain.many(places)
        if not self._categories:
            return numbers
        return [self._plain.text(self._categories[one]) if one in self._categories else one for one in numbers]

    def ticks(self) -> tuple[list[Any], list[str], str]:
        """Their places, what is written at them, and the scale, as the SDK names it."""
        places, labels = self._axis.get_ticklocs(), [label.get_text() for label in self._axis.get_ticklabels()]
        self._plain.reserve(len(labels))
        told = [self.place(place) for place in places], [self._plain.text(label) for label in labels]
        return *told, self._scale([float(place) for place in places], labels)

    def _scale(self, places: list[float], labels: list[str]) -> str:
        if self.dates:
            return "categorical" if self._long else "datetime"
        scale = str(self._axis.get_scale())
        if scale != "linear" or "Category" in self._converter:
            return "categorical" if scale == "linear" else scale
        counted = bool(places) and places == [float(number) for number in range(len(places))]
        return "categorical" if counted and not any(map(_is_number, labels)) else "linear"

    def names(self, groups: Sequence[Sequence[float]]) -> list[list[str]]:
        """What is written at these places, or the places themselves. Two places of one group have not the same name."""
        written = [self._written(), _Names([*self._categories.items()])]
        if all(len(group) == 1 for group in groups) and len(written[0].places) > 1:
            # Drawn one by one, they are a group all the same if nothing sets some of them apart.
            alone = [group[0] for group in groups]
            steps = [after - before for before, after in pairwise(sorted({*alone}))]
            if len(steps) > 1 and max(steps) - min(steps) <= _NEAR * max(steps):
                return [[name] for name in self._of_group(alone, written)]
        return [self._of_group(group, written) for group in groups]

    def _of_group(self, group: Sequence[float], written: list[_Names]) -> list[str]:
        ticks, categories = (names.of(group) for names in written)
        return [
            self._plain.text(tick or category) if tick or category else self._number(place)
            for place, tick, category in zip(group, ticks, categories, strict=True)
        ]

    def _number(self, place: float) -> str:
        return str(self.place(place)) if self.dates else f"{place:.12g}"

    def _written(self) -> _Names:
        if type(self._axis.get_major_locator()).__name__ not in _FIXED:
            return _Names([])
        texts = [label.get_text() for label in self._axis.get_ticklabels()]
        return _Names([*zip(map(float, self._axis.get_ticklocs()), texts, strict=True)])


class _Names:
    """Texts at their places."""

    def __init__(self, written: Sequence[tuple[float, str]]) -> None:
        ordered = sorted(written)
        self.places = [place for place, _ in ordered]
        self._texts = [text for _, text in ordered]
        self._step = min((after - before for before, after in pairwise(self.places) if after > before), default=1.0)
        self._near = self._step * _NEAR

    def of(self, group: Sequence[float]) -> list[str]:
        """That of the nearest place, if it is as near as only one of the group can be; else ""."""
        if not self.places:
            return [""] * len(group)
        ordered = self._apart(group)
        shifts = [place - tick for place, tick in zip(ordered, self.places, strict=False)]
        beside = len(ordered) == len(self.places) > 1 and max(shifts) - min(shifts) <= self._near
        if beside and abs(shifts[0]) < self._step:  # one for each name: bars of one of several groups
            shift, reach = shifts[0], self._near
        else:
            gap = min((after - before for before, after in pairwise(ordered)), default=math.inf)
            shift, reach = 0.0, min(self._step, gap) / 2
        found = [self._nearest(place - shift) for place in group]
        away = [abs(self.places[index] + shift - place) for index, place in zip(found, group, strict=True)]
        least: dict[int, float] = {}
        for index, distance in zip(found, away, strict=True):
            if distance < least.get(index, math.inf):  # a place can be nan
                least[index] = distance
        return [
            self._texts[index] if distance <= min(least.get(index, 0.0), reach) + self._near else ""
            for index, distance in zip(found, away, strict=True)
        ]

    def _apart(self, group: Sequence[float]) -> list[float]:
        """In order, each place once."""
        apart: list[float] = []
        for place in sorted(place for place in group if math.isfinite(place)):
            if not apart or place - apart[-1] > self._near:
                apart.append(place)
        return apart

    def _nearest(self, place: float) -> int:
        """The lower one of two."""
        after = bisect_left(self.places, place)
        if after == len(self.places):
            return after - 1
        before = max(after - 1, 0)
        return before if place - self.places[before] <= self.places[after] - place + self._near else after


def _is_number(text: str) -> bool:
    try:
        float(text.replace("\N{MINUS SIGN}", "-"))
    except ValueError:
        return not text
    return True
