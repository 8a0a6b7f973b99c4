"""Names that stand in a legend alone: `legend(["a", "b"])` gives them to what is drawn without one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from typing import Any


class Legend:
    """Of one pair of axes. Its handles are copies, with the label and the colours of what they stand for. That is what they are known by;
    where two things or two handles are alike, neither gets a name."""

    def __init__(self, ax: Any) -> None:
        legend = ax.get_legend()
        handles, texts = ([], []) if legend is None else (legend.legend_handles, legend.get_texts())
        looks = [_look(handle) for handle in handles]
        self._names = {
            look: text.get_text()
            for look, text in zip(looks, texts, strict=False)
            if look is not None and looks.count(look) == 1
        }
        self._drawn = Counter(_look_of_all(one) for one in _drawn(ax)) if self._names else Counter[Hashable]()

    def name(self, *drawn: Any) -> str:
        """Of what consists of these; "" where it is not certain."""
        look = _look_of_all(drawn)
        return self._names.get(look, "") if self._drawn[look] == 1 else ""


def _drawn(ax: Any) -> list[Sequence[Any]]:
    bars = [one.patches for one in ax.containers if hasattr(one, "patches")]
    of_bars = {id(patch) for patches in bars for patch in patches}
    alone = [*ax.lines, *ax.collections, *(patch for patch in ax.patches if id(patch) not in of_bars)]
    return [*bars, *([one] for one in alone)]


def _look_of_all(drawn: Sequence[Any]) -> Hashable:
    looks = {_look(one) for one in drawn}
    return looks.pop() if len(looks) == 1 else None


def _look(artist: Any) -> Hashable:
    from matplotlib import collections, colors, lines, patches

    label = artist.get_label()
    if isinstance(artist, lines.Line2D):
        return "line", label, colors.to_rgba(artist.get_color()), artist.get_linestyle(), str(artist.get_marker())
    if isinstance(artist, patches.Patch):
        return "patch", label, artist.get_facecolor(), artist.get_hatch()
    if isinstance(artist, collections.PathCollection):
        faces = {colors.to_rgba(face) for face in colors.to_rgba_array(artist.get_facecolor())}
        return ("cloud", label, faces.pop()) if len(faces) == 1 else None
    return None
