"""The data of a matplotlib figure, spelled as clients of E2B know it: `type`, `title`, `elements` and what a type has besides."""

from __future__ import annotations

import re
import sys
import warnings
from itertools import pairwise
from typing import Any, Final

from cellrun.kernel.boxes import boxes_of
from cellrun.kernel.plain import Plain

_UNIT: Final = re.compile(r"(?:^|\s)[(\[]([^()\[\]]+)[)\]]")
_FIXED: Final = ("StrCategoryLocator", "FixedLocator")


def chart_of(thing: Any) -> dict[str, Any] | None:
    """None for what is no figure, and for one with nothing in it. More than one pair of axes are a "superchart". What is neither line,
    scatter, bar, pie nor box_and_whisker is "unknown", without elements. Raises whatever matplotlib does, and TooLargeError."""
    figure = sys.modules.get("matplotlib.figure")
    if figure is None or not isinstance(thing, figure.Figure):
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return _figure(thing)


def _figure(figure: Any) -> dict[str, Any] | None:
    plain = Plain()
    # A colour bar is a legend, though matplotlib gives it axes.
    drawn = [ax for ax in figure.get_axes() if ax.get_visible() and ax.has_data() and not hasattr(ax, "_colorbar")]
    plain.reserve(len(drawn))
    charts = [_Axes(ax, plain).chart() for ax in drawn]
    title = plain.text(figure.get_suptitle()) or None
    if not charts:
        return None
    if len(charts) == 1:
        return {**charts[0], "title": charts[0]["title"] or title}
    return {"type": "superchart", "title": title, "elements": charts}


class _Axes:
    """One pair of axes, and what is drawn on them."""

    def __init__(self, ax: Any, plain: Plain) -> None:
        from matplotlib import collections, container, patches

        self._ax = ax
        self._plain = plain
        self._bars: list[Any] = [one for one in ax.containers if isinstance(one, container.BarContainer)]
        self._errors: list[Any] = [one for one in ax.containers if isinstance(one, container.ErrorbarContainer)]
        caps = {id(cap) for one in self._errors for cap in one.lines[1]}
        strokes = {id(stroke) for one in self._errors for stroke in one.lines[2]}
        # A line at a place in the frame (axhline, a grid's) is no data.
        self._lines = [
            line
            for line in ax.lines
            if id(line) not in caps and all(line.get_transform().contains_branch_seperately(ax.transData))
        ]
        found = [one for one in ax.collections if id(one) not in strokes]
        self._clouds: list[Any] = [one for one in found if isinstance(one, collections.PathCollection)]
        bands = [one for one in found if isinstance(one, collections.PolyCollection)]
        of_bars = {id(patch) for one in self._bars for patch in one.patches}
        self._patches = [patch for patch in ax.patches if id(patch) not in of_bars]
        self._wedges: list[Any] = [patch for patch in self._patches if isinstance(patch, patches.Wedge)]
        self._other = ax.name != "rectilinear" or bool(ax.images) or len(found) > len(self._clouds) + len(bands)

    def chart(self) -> dict[str, Any]:
        chart = None if self._other else self._known()
        return chart or {"type": "unknown", "title": self._title(), "elements": []}

    def _known(self) -> dict[str, Any] | None:
        lines, clouds, bars, patches = self._lines, self._clouds, self._bars, self._patches
        if self._wedges:
            whole = len(self._wedges) == len(patches) and not (lines or clouds or bars)
            return self._pie() if whole else None
        if not clouds and not bars and lines and (chart := self._boxes()) is not None:
            return chart
        if patches:
            return None
        if bars and not clouds:
            return self._bar()
        if clouds and not lines and not bars:
            return {"type": "scatter", **self._planar(), "elements": [*map(self._cloud, range(len(clouds)))]}
        if lines and not clouds:
            return {"type": "line", **self._planar(), "elements": [*map(self._line, range(len(lines)))]}
        return None

    # -- what all have ---------------------------------------------------------------------------

    def _title(self) -> str | None:
        return next(
            (self._plain.text(text) for place in ("center", "left", "right") if (text := self._ax.get_title(place))),
            None,
        )

    def _labels(self, *, swapped: bool = False) -> dict[str, Any]:
        """`swapped`: the categories are on the y axis; x stands for them all the same."""
        told: dict[str, Any] = {"title": self._title()}
        texts = [self._ax.get_xlabel(), self._ax.get_ylabel()]
        for name, text in zip("xy", reversed(texts) if swapped else texts, strict=True):
            unit = _UNIT.search(text)
            told[f"{name}_label"] = self._plain.text(text) or None
            told[f"{name}_unit"] = None if unit is None else unit[1]
        return told

    def _planar(self) -> dict[str, Any]:
        told = self._labels()
        for name, axis in (("x", self._ax.xaxis), ("y", self._ax.yaxis)):
            places, labels = axis.get_ticklocs(), [label.get_text() for label in axis.get_ticklabels()]
            self._plain.reserve(len(labels))
            told[f"{name}_ticks"] = [self._place(axis, place) for place in places]
            told[f"{name}_tick_labels"] = [self._plain.text(label) for label in labels]
            told[f"{name}_scale"] = _scale(axis, [float(place) for place in places], labels)
        return told

    def _place(self, axis: Any, place: Any) -> Any:
        if _is_periods(axis):
            from pandas import Period  # type: ignore[import-untyped]

            return self._plain.one(Period(ordinal=round(float(place)), freq=axis.freq).to_timestamp())
        if _is_dates(axis):
            from matplotlib.dates import num2date

            return self._plain.one(num2date(place))
        return self._plain.one(float(place))

    # -- of each type ----------------------------------------------------------------------------

    def _line(self, number: int) -> dict[str, Any]:
        line = self._lines[number]
        named = [one.get_label() for one in self._errors if one.lines[0] is line] or [line.get_label()]
        if _is_periods(self._ax.xaxis):
            places = line.get_xdata(orig=False)
            self._plain.reserve(len(places))
            xs = [self._place(self._ax.xaxis, place) for place in places]
        else:
            xs = self._plain.many(line.get_xdata())
        points = [list(point) for point in zip(xs, self._plain.many(line.get_ydata()), strict=True)]
        return {"label": self._label(named[0], "Line", number), "points": points}

    def _cloud(self, number: int) -> dict[str, Any]:
        cloud = self._clouds[number]
        offsets = cloud.get_offsets()
        self._plain.reserve(len(offsets))
        axes = self._ax.xaxis, self._ax.yaxis
        columns = [
            [self._place(axis, place) for place in offsets[:, index]]
            if _is_dates(axis)
            else self._plain.many(offsets[:, index])
            for index, axis in enumerate(axes)
        ]
        return {
            "label": self._label(cloud.get_label(), "Points", number),
            "points": [list(point) for point in zip(*columns, strict=True)],
        }

    def _bar(self) -> dict[str, Any] | None:
        flat = self._bars[0].orientation == "horizontal"
        # What stands across the bars are their errors.
        if any(len({*(line.get_ydata() if flat else line.get_xdata())}) > 1 for line in self._lines):
            return None
        axis = self._ax.yaxis if flat else self._ax.xaxis
        elements = []
        for number, bars in enumerate(self._bars):
            self._plain.reserve(2 * len(bars.patches))
            group = self._label(bars.get_label(), "Group", number)
            for bar in bars.patches:
                begin, width, value = (
                    (bar.get_y(), bar.get_height(), bar.get_width())
                    if flat
                    else (bar.get_x(), bar.get_width(), bar.get_height())
                )
                label = self._at(axis, begin + width / 2)
                elements.append({"label": label, "value": self._plain.one(value), "group": group})
        return {"type": "bar", **self._labels(swapped=flat), "elements": elements}

    def _at(self, axis: Any, place: float) -> str:
        """What is written on the axis at this place, or the place itself."""
        if type(axis.get_major_locator()).__name__ in _FIXED:
            written = [*zip(axis.get_ticklocs(), axis.get_ticklabels(), strict=True)]
            steps = sorted(tick for tick, _ in written)
            reach = min((after - before for before, after in pairwise(steps)), default=1.0) / 2
            near = min(written, key=lambda one: abs(one[0] - place), default=None)
            if near is not None and abs(near[0] - place) <= reach and near[1].get_text():
                return self._plain.text(near[1].get_text())
        return str(self._place(axis, place)) if _is_dates(axis) else f"{place:g}"

    def _pie(self) -> dict[str, Any]:
        elements = []
        for wedge in self._wedges:
            self._plain.reserve(2)
            label = str(wedge.get_label())
            angle, radius = abs(round(float(wedge.theta2 - wedge.theta1), 4)), float(wedge.r)
            label = "" if label.startswith("_") else self._plain.text(label)
            elements.append({"label": label, "angle": angle, "radius": radius})
        return {"type": "pie", "title": self._title(), "elements": elements}

    def _boxes(self) -> dict[str, Any] | None:
        for flat in (False, True):
            boxes = boxes_of(self._lines, self._patches, flat=flat)
            if boxes:
                axis = self._ax.yaxis if flat else self._ax.xaxis
                elements = []
                for box in boxes:
                    told = {name: self._plain.one(value) for name, value in box.numbers.items()}
                    outliers = self._plain.many(box.outliers)
                    elements.append({"label": self._at(axis, box.place), **told, "outliers": outliers})
                return {"type": "box_and_whisker", **self._labels(swapped=flat), "elements": elements}
        return None

    def _label(self, label: Any, kind: str, number: int) -> str:
        """Names that begin with _ are matplotlib's own."""
        text = str(label)
        return f"{kind} {number}" if not text or text.startswith("_") else self._plain.text(text)


def _is_dates(axis: Any) -> bool:
    return "Date" in _converter(axis) or _is_periods(axis)


def _is_periods(axis: Any) -> bool:
    """pandas numbers the days, or whatever its index counts."""
    return "Period" in _converter(axis) and hasattr(axis, "freq")


def _converter(axis: Any) -> str:
    # get_converter() is of matplotlib 3.10.
    return type(axis.get_converter() if hasattr(axis, "get_converter") else axis.converter).__name__


def _scale(axis: Any, places: list[float], labels: list[str]) -> str:
    if _is_dates(axis):
        return "datetime"
    scale = str(axis.get_scale())
    if scale != "linear" or "Category" in _converter(axis):
        return "categorical" if scale == "linear" else scale
    counted = bool(places) and places == [float(number) for number in range(len(places))]
    return "categorical" if counted and not any(map(_is_number, labels)) else "linear"


def _is_number(text: str) -> bool:
    try:
        float(text.replace("\N{MINUS SIGN}", "-"))
    except ValueError:
        return not text
    return True
