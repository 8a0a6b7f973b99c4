"""The data of a matplotlib figure, spelled as clients of E2B know it: `type`, `title`, `elements` and what a type has besides."""

from __future__ import annotations

import re
import sys
import warnings
from typing import Any, Final

from cellrun.kernel.axis import Axis
from cellrun.kernel.boxes import Box, boxes_of
from cellrun.kernel.legend import Legend
from cellrun.kernel.plain import Plain

_UNIT: Final = re.compile(r"(?:^|\s)[(\[]([^()\[\]]+)[)\]]")


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
        self._x, self._y = Axis(ax.xaxis, plain), Axis(ax.yaxis, plain)
        self._legend = Legend(ax)
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
        self._patches = [
            patch for patch in ax.patches if id(patch) not in of_bars and not isinstance(patch, patches.Shadow)
        ]
        self._wedges: list[Any] = [patch for patch in self._patches if isinstance(patch, patches.Wedge)]
        # Where a band has a name and no line has, it is the thing, and the lines are its edges.
        edges = not any(_is_name(str(line.get_label())) for line in self._lines)
        self._other = (
            ax.name != "rectilinear"
            or bool(ax.images)
            or len(found) > len(self._clouds) + len(bands)
            or (edges and any(_is_name(str(band.get_label())) for band in bands))
        )

    def chart(self) -> dict[str, Any]:
        chart = None if self._other else self._known()
        return chart or {"type": "unknown", "title": self._title(), "elements": []}

    def _known(self) -> dict[str, Any] | None:
        lines, clouds, bars, patches = self._lines, self._clouds, self._bars, self._patches
        if self._wedges:
            whole = len(self._wedges) == len(patches) and not (lines or clouds or bars)
            return self._pie() if whole else None
        if lines and not clouds and not bars:
            for flat in (False, True):
                boxes = boxes_of(lines, patches, flat=flat)
                if boxes is None:
                    return None
                if boxes:
                    return self._boxes(boxes, flat=flat)
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
        for name, axis in (("x", self._x), ("y", self._y)):
            told[f"{name}_ticks"], told[f"{name}_tick_labels"], told[f"{name}_scale"] = axis.ticks()
        return told

    # -- of each type ----------------------------------------------------------------------------

    def _line(self, number: int) -> dict[str, Any]:
        line = self._lines[number]
        named = [one.get_label() for one in self._errors if one.lines[0] is line] or [line.get_label()]
        xs = self._x.many(line.get_xdata(orig=False)) if self._x.periods else self._plain.many(line.get_xdata())
        points = [list(point) for point in zip(xs, self._plain.many(line.get_ydata()), strict=True)]
        return {"label": self._label(named[0], "Line", number, line), "points": points}

    def _cloud(self, number: int) -> dict[str, Any]:
        cloud = self._clouds[number]
        offsets = cloud.get_offsets()
        self._plain.reserve(len(offsets))
        xs, ys = self._x.many(offsets[:, 0]), self._y.many(offsets[:, 1])
        return {
            "label": self._label(cloud.get_label(), "Points", number, cloud),
            "points": [list(point) for point in zip(xs, ys, strict=True)],
        }

    def _bar(self) -> dict[str, Any] | None:
        flat = self._bars[0].orientation == "horizontal"
        # What stands across the bars are their errors.
        if any(len({*(line.get_ydata() if flat else line.get_xdata())}) > 1 for line in self._lines):
            return None
        self._plain.reserve(2 * sum(len(bars.patches) for bars in self._bars))
        groups = [
            [
                (bar.get_y() + bar.get_height() / 2, bar.get_width())
                if flat
                else (bar.get_x() + bar.get_width() / 2, bar.get_height())
                for bar in bars.patches
            ]
            for bars in self._bars
        ]
        names = (self._y if flat else self._x).names([[float(place) for place, _ in group] for group in groups])
        elements = []
        for number, bars in enumerate(self._bars):
            group = self._label(bars.get_label(), "Group", number, *bars.patches)
            for label, (_, value) in zip(names[number], groups[number], strict=True):
                elements.append({"label": label, "value": self._plain.one(value), "group": group})
        return {"type": "bar", **self._labels(swapped=flat), "elements": elements}

    def _pie(self) -> dict[str, Any]:
        elements = []
        for wedge in self._wedges:
            self._plain.reserve(2)
            label = str(wedge.get_label())
            label = label if _is_name(label) else self._legend.name(wedge)
            angle, radius = abs(round(float(wedge.theta2 - wedge.theta1), 4)), float(wedge.r)
            elements.append({"label": self._plain.text(label), "angle": angle, "radius": radius})
        return {"type": "pie", "title": self._title(), "elements": elements}

    def _boxes(self, boxes: list[Box], *, flat: bool) -> dict[str, Any]:
        names = (self._y if flat else self._x).names([[box.place] for box in boxes])
        elements = []
        for box, (label,) in zip(boxes, names, strict=True):
            told = {name: self._plain.one(value) for name, value in box.numbers.items()}
            elements.append({"label": label, **told, "outliers": self._plain.many(box.outliers)})
        return {"type": "box_and_whisker", **self._labels(swapped=flat), "elements": elements}

    def _label(self, label: Any, kind: str, number: int, *drawn: Any) -> str:
        """Its own, or the legend's, or one that we make."""
        text = str(label)
        text = text if _is_name(text) else self._legend.name(*drawn)
        return self._plain.text(text) if text else f"{kind} {number}"


def _is_name(label: str) -> bool:
    """Those that begin with _ are matplotlib's own."""
    return bool(label) and not label.startswith("_")
