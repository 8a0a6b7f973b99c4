"""Box plots, of which matplotlib keeps nothing but strokes: found again by where these are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

_NEAR: Final = 1e-6


@dataclass(frozen=True)
class Box:
    """`place`: where its middle is, across the values."""

    place: float
    numbers: dict[str, float]
    outliers: list[float]


@dataclass(frozen=True)
class _Stroke:
    """A line's points: `across` and `along` the values."""

    across: list[float]
    along: list[float]

    @property
    def closed(self) -> bool:
        return len(self.across) >= 5 and (self.across[0], self.along[0]) == (self.across[-1], self.along[-1])


def boxes_of(lines: Sequence[Any], patches: Sequence[Any], *, flat: bool) -> list[Box]:
    """The boxes that these lines and patches are; none if there is anything among them that has no whiskers and no median. `flat`: the
    values go along the x axis."""
    dotted = [line.get_linestyle() in ("None", "", " ") for line in lines]
    try:
        # Outlines have five points, or eleven with a notch; the other strokes two.
        strokes = [
            _stroke(line.get_xdata(orig=False), line.get_ydata(orig=False), flat)
            for line, dots in zip(lines, dotted, strict=True)
            if not dots and len(line.get_xdata(orig=False)) in (2, 5, 11)
        ]
        outlines = [stroke for stroke in strokes if stroke.closed]
        for patch in patches:
            vertices = patch.get_path().vertices
            outlines.append(_stroke(vertices[:, 0], vertices[:, 1], flat))
    except (TypeError, ValueError, AttributeError):
        return []
    pairs = [stroke for stroke in strokes if len(stroke.across) == 2]
    found: dict[float, Box] = {}
    for outline in outlines:
        box = _box(outline, pairs)
        if box is None:
            return []
        found[round(box.place, 9)] = box  # drawn twice, it is one
    if found:
        dots = [line for line, dots in zip(lines, dotted, strict=True) if dots]
        _add_outliers([_stroke(line.get_xdata(orig=False), line.get_ydata(orig=False), flat) for line in dots], found)
    return [*found.values()]


def _add_outliers(dots: list[_Stroke], boxes: dict[float, Box]) -> None:
    """Of the marks at a place the last are the outliers: the mean is drawn before them, and is within the whiskers where there are none."""
    marks: dict[float, list[float]] = {}
    for dot in dots:
        if dot.across:
            marks[min(boxes, key=lambda place: abs(place - dot.across[0]))] = dot.along
    for place, values in marks.items():
        numbers = boxes[place].numbers
        boxes[place].outliers.extend(value for value in values if not numbers["min"] <= value <= numbers["max"])


def _stroke(xs: Any, ys: Any, flat: bool) -> _Stroke:
    points = [float(x) for x in xs], [float(y) for y in ys]
    return _Stroke(*reversed(points)) if flat else _Stroke(*points)


def _box(outline: _Stroke, strokes: list[_Stroke]) -> Box | None:
    left, right = min(outline.across), max(outline.across)
    near = (right - left) * _NEAR
    place = (left + right) / 2
    # Each whisker begins at its quartile; the lower one is drawn first (Axes.bxp).
    whiskers = [one.along for one in strokes if all(abs(across - place) <= near for across in one.across)]
    if len(whiskers) < 2 or right <= left:
        return None
    (first, low), (third, high) = whiskers[:2]
    level = [one for one in strokes if one.along[0] == one.along[1] and first <= one.along[0] <= third]
    inside = [one for one in level if min(one.across) >= left - near and max(one.across) <= right + near]
    # It is as wide as the box; caps, which can be within it, are not.
    median = max(inside, key=lambda one: max(one.across) - min(one.across), default=None)
    if median is None or not low <= first <= third <= high:
        return None
    numbers = {"min": low, "first_quartile": first, "median": median.along[0], "third_quartile": third, "max": high}
    return Box(place, numbers, [])
