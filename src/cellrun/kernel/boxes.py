"""Box plots, of which matplotlib keeps nothing but strokes: found again by where these are, and by the order in which `Axes.bxp` draws
them. For each box: its outline (or a patch), the lower whisker, the upper one, two caps, the median, the mean, the outliers. All but
the whiskers and the median can be missing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
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
    """A line's points: `across` and `along` the values. `dotted`: marks, without a line."""

    across: list[float]
    along: list[float]
    dotted: bool = False

    @property
    def closed(self) -> bool:
        return len(self.across) >= 5 and (self.across[0], self.along[0]) == (self.across[-1], self.along[-1])

    def around(self, place: float) -> bool:
        """Is this its middle?"""
        left, right = min(self.across), max(self.across)
        return left < right and abs((left + right) / 2 - place) <= (right - left) * _NEAR

    def level(self, place: float) -> bool:
        """Does it cross this place at one value?"""
        return self._pair and self.along[0] == self.along[1] and self.around(place)

    def upright(self, place: float) -> bool:
        return self._pair and self.across == [place, place]

    @property
    def _pair(self) -> bool:
        return not self.dotted and len(self.across) == 2


@dataclass
class _Found:
    """What `boxes_of` has found so far."""

    boxes: list[Box] = field(default_factory=list)
    outlines: list[_Stroke | None] = field(default_factory=list)
    stray: int = 0


def boxes_of(lines: Sequence[Any], patches: Sequence[Any], *, flat: bool) -> list[Box] | None:
    """The boxes that these lines and patches are; [] if they are none. None if they look like boxes, but outlines are missing, or are there
    without whiskers and median. `flat`: the values go along the x axis."""
    if sum(len(line.get_xdata(orig=False)) == 2 for line in lines) < 3:  # before anything is made of many points
        return []
    try:
        strokes = [stroke for line in lines if (stroke := _of_line(line, flat)) is not None]
        found = _find(strokes)
        if not found.boxes:
            return []
        vertices = [patch.get_path().vertices for patch in patches]
        areas = [_stroke(points[:, 0], points[:, 1], flat) for points in vertices]
    except (TypeError, ValueError, AttributeError):
        return []
    areas = [area for area in areas if math.isfinite(area.along[0])]  # a box of no values has an outline at nan
    bare = [box for box, outline in zip(found.boxes, found.outlines, strict=True) if outline is None]
    fits = len(bare) == len(areas) and all(area.around(box.place) for box, area in zip(bare, areas, strict=True))
    return found.boxes if fits and not found.stray else None


def _of_line(line: Any, flat: bool) -> _Stroke | None:
    """Outlines have five points, or eleven with a notch; the other strokes two."""
    xs, ys = line.get_xdata(orig=False), line.get_ydata(orig=False)
    dotted = line.get_linestyle() in ("None", "", " ")
    return _stroke(xs, ys, flat, dotted) if dotted or len(xs) in (2, 5, 11) else None


def _stroke(xs: Any, ys: Any, flat: bool, dotted: bool = False) -> _Stroke:
    across, along = [float(x) for x in xs], [float(y) for y in ys]
    return _Stroke(along, across, dotted) if flat else _Stroke(across, along, dotted)


def _find(strokes: list[_Stroke]) -> _Found:
    found = _Found()
    outline: _Stroke | None = None
    at = 0
    while at < len(strokes):
        box, after = _box(strokes, at)
        if box is not None:
            if outline is not None and not outline.around(box.place):
                found.stray += 1
                outline = None
            found.boxes.append(box)
            found.outlines.append(outline)
            outline = None
        elif strokes[at].closed and not strokes[at].dotted:
            found.stray += outline is not None
            outline = strokes[at]
        at = after
    found.stray += outline is not None
    return found


def _box(strokes: list[_Stroke], at: int) -> tuple[Box | None, int]:
    """The one whose whiskers begin here, and where it ends."""
    if at + 2 >= len(strokes) or len(strokes[at].across) != 2:
        return None, at + 1
    place = strokes[at].across[0]
    if not (strokes[at].upright(place) and strokes[at + 1].upright(place)):
        return None, at + 1
    # Each whisker begins at its quartile.
    (first, low), (third, high) = strokes[at].along, strokes[at + 1].along
    begin = end = at + 2
    while end < len(strokes) and strokes[end].level(place):
        end += 1
    levels = [stroke.along[0] for stroke in strokes[begin:end]]
    if len(levels) > 2 and levels[:2] == [low, high]:
        levels = levels[2:]  # without the caps, which can be as wide as the median
    if not levels or not low <= first <= levels[0] <= third <= high:
        return None, at + 1
    # The outliers are drawn after the mean, and be there none of them.
    outliers: list[float] = []
    while end < len(strokes) and strokes[end].dotted and {*strokes[end].across} <= {place}:
        outliers = [value for value in strokes[end].along if not low <= value <= high]
        end += 1
    numbers = {"min": low, "first_quartile": first, "median": levels[0], "third_quartile": third, "max": high}
    return Box(place, numbers, outliers), end
