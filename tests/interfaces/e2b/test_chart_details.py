"""Figures and frames as data, read in this process: what is drawn in ways that mislead."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd  # type: ignore[import-untyped]
import pytest
from e2b_code_interpreter.charts import _deserialize_chart
from matplotlib.axis import XAxis
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from cellrun.kernel.figures import chart_of
from cellrun.kernel.frames import data_of


def told(draw: Callable[[Any], object]) -> dict[str, Any]:
    """The chart of what is drawn on one pair of axes. The SDK can read it."""
    figure = Figure()
    draw(figure.add_subplot())
    chart = chart_of(figure)
    assert chart is not None
    assert _deserialize_chart(chart) is not None
    return chart


def labels(draw: Callable[[Any], object]) -> list[str]:
    return [element["label"] for element in told(draw)["elements"]]


# -- bars, and what is written below them --------------------------------------------------------


def many_bars(ax: Any) -> None:
    pd.Series(range(60)).plot.bar(ax=ax)


def many_boxes(ax: Any) -> None:
    ax.boxplot([[1, 2, 3]] * 60)


@pytest.mark.parametrize("draw", [many_bars, many_boxes])
def test_what_is_written_on_an_axis_is_asked_for_once(
    monkeypatch: pytest.MonkeyPatch, draw: Callable[[Any], object]
) -> None:
    asked: list[str] = []
    ask = XAxis.get_ticklabels

    def counted(self: Any, *args: Any, **more: Any) -> Any:
        asked.append("labels")
        return ask(self, *args, **more)

    monkeypatch.setattr(XAxis, "get_ticklabels", counted)
    figure = Figure()
    draw(figure.add_subplot())
    asked.clear()
    chart = chart_of(figure)
    assert chart is not None
    assert len(chart["elements"]) == 60
    assert asked == ["labels"]


def sparse(ax: Any) -> None:
    ax.bar(range(6), [1] * 6)
    ax.set_xticks([0, 3], ["zero", "three"])


def sparse_one_by_one(ax: Any) -> None:
    for place in range(6):
        ax.bar(place, 1)
    ax.set_xticks([0, 3], ["zero", "three"])


@pytest.mark.parametrize("draw", [sparse, sparse_one_by_one])
def test_a_bar_without_a_tick_has_not_its_neighbour_s_name(draw: Callable[[Any], object]) -> None:
    assert labels(draw) == ["zero", "1", "2", "three", "4", "5"]


def test_bars_have_their_names_where_few_are_written() -> None:
    names = list("abcdefg")

    def some(ax: Any) -> None:
        ax.bar(names, range(7))
        ax.set_xticks(ax.get_xticks()[::5])

    def none(ax: Any) -> None:
        ax.bar(names, range(7))
        ax.set_xticks([])

    def others(ax: Any) -> None:
        ax.barh(names, range(7))
        ax.set_yticks(range(7), [name.upper() for name in names])

    for draw, expected in ((some, names), (none, names), (others, list("ABCDEFG"))):
        assert labels(draw) == expected, draw.__name__


@pytest.mark.parametrize("ticks", ["left", "middle"])
@pytest.mark.parametrize("groups", [2, 3, 4])
def test_each_group_of_bars_has_the_names_however_far_beside_them(groups: int, ticks: str) -> None:
    def draw(ax: Any) -> None:
        places, width = np.arange(3), 1 / (groups + 1)
        for group in range(groups):
            ax.bar(places + group * width, [1, 2, 3], width)
        ax.set_xticks(places + (0 if ticks == "left" else width * (groups - 1) / 2), ["G1", "G2", "G3"])

    def four(ax: Any) -> None:
        for group in range(4):
            ax.bar(np.arange(2) + group * 0.25, [1, 2], 0.25)
        ax.set_xticks(range(2), ["G1", "G2"])

    assert labels(draw) == ["G1", "G2", "G3"] * groups
    assert labels(four) == ["G1", "G2"] * 4


def test_bars_at_one_place_and_in_one_row_share_their_name() -> None:
    assert labels(lambda ax: ax.bar(["a", "a", "b"], [1, 2, 3])) == ["a", "a", "b"]
    row = pd.DataFrame({"u": [1], "v": [2], "w": [3], "x": [4]}, index=["p"])
    assert labels(lambda ax: row.plot.bar(ax=ax)) == ["p"] * 4


def test_a_bar_that_is_nowhere_is_told() -> None:
    def draw(ax: Any) -> None:
        ax.bar([np.nan, 0.0, 1.0], [1, 2, 3])
        ax.set_xticks([0, 1], ["p", "q"])

    assert labels(draw) == ["nan", "p", "q"]


def test_bars_far_from_the_names_have_none_of_them() -> None:
    def draw(ax: Any) -> None:
        ax.bar([0, 1], [1, 2])
        ax.set_xticks([1.75, 2.75], ["p", "q"])

    assert labels(draw) == ["0", "1"]


def test_numbers_keep_their_digits() -> None:
    assert labels(lambda ax: ax.bar([1234567, 1234568.5], [1, 2])) == ["1234567", "1234568.5"]
    assert labels(lambda ax: ax.bar([0.1 + 0.2], [1])) == ["0.3"]


def test_points_over_names_have_the_names() -> None:
    (cloud,) = told(lambda ax: ax.scatter(["a", "b", "a"], [1, 2, 3]))["elements"]
    assert cloud["points"] == [["a", 1], ["b", 2], ["a", 3]]

    def beside(ax: Any) -> None:
        ax.scatter(["a", "b"], [1, 2])
        ax.scatter([0.25, 1], [1, 2])

    assert told(beside)["elements"][1]["points"] == [[0.25, 1], ["b", 2]]


# -- periods of pandas ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("step", "expected", "scale"),
    [
        ("W", ["2024-01-01/2024-01-07", "2024-01-08/2024-01-14"], "categorical"),
        ("ME", ["2024-01", "2024-02"], "categorical"),
        ("QE", ["2024Q1", "2024Q2"], "categorical"),
        ("YE", ["2024", "2025"], "categorical"),
        ("D", ["2024-01-01T00:00:00", "2024-01-02T00:00:00"], "datetime"),
        ("7D", ["2024-01-01T00:00:00", "2024-01-08T00:00:00"], "datetime"),
        ("h", ["2024-01-01T00:00:00", "2024-01-01T01:00:00"], "datetime"),
    ],
)
def test_what_is_longer_than_a_day_has_its_name_and_no_wrong_date(step: str, expected: list[str], scale: str) -> None:
    series = pd.Series([1, 2], pd.date_range("2024-01-01", periods=2, freq=step))
    chart = told(lambda ax: series.plot(ax=ax))
    assert [place for place, _ in chart["elements"][0]["points"]] == expected
    assert chart["x_scale"] == scale
    assert chart["x_ticks"][0] == expected[0]


# -- box plots -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "how",
    [
        {"notch": True},
        {"notch": True, "patch_artist": True},
        {"capwidths": 0.3},
        {"capwidths": 0.4},
        {"showcaps": False},
        {"meanline": True, "showmeans": True},
        {"meanline": True, "showmeans": True, "showcaps": False},
        {"showmeans": True, "notch": True, "orientation": "horizontal"},
    ],
)
def test_a_median_is_no_cap_and_no_mean(how: dict[str, Any]) -> None:
    boxes = told(lambda ax: ax.boxplot([[1, 2, 3, 100], [1, 2, 3, 9], [3, 3, 3]], **how))["elements"]
    assert [box["median"] for box in boxes] == [2.5, 2.5, 3]
    assert [box["max"] for box in boxes] == [27.25, 4.5, 3]
    assert [box["outliers"] for box in boxes] == [[100], [9], []]


def test_two_boxes_at_one_place_are_two() -> None:
    def draw(ax: Any) -> None:
        ax.boxplot([[1, 2, 3, 50]], positions=[1])
        ax.boxplot([[10, 20, 30]], positions=[1], patch_artist=True)

    first, second = told(draw)["elements"]
    assert (first["median"], first["outliers"]) == (2.5, [50])
    assert (second["median"], second["outliers"]) == (20, [])


def test_boxes_that_cannot_be_told_whole_are_unknown() -> None:
    def one_without(ax: Any) -> None:
        ax.boxplot([[1, 2, 3]], positions=[1])
        ax.boxplot([[1, 2, 3]], positions=[2], showbox=False)

    def and_a_span(ax: Any) -> None:
        ax.boxplot([[1, 2, 3]])
        ax.axvspan(0, 1)

    def and_a_square(ax: Any) -> None:
        ax.boxplot([[1, 2, 3]])
        ax.plot([0, 1, 1, 0, 0], [0, 0, 1, 1, 0])

    def without(ax: Any) -> None:
        ax.boxplot([[1, 2, 3, 100], [4, 5, 6]], showbox=False)

    def lying_without(ax: Any) -> None:
        ax.boxplot([[1, 2, 3, 100]], showbox=False, showcaps=False, orientation="horizontal")

    for draw in (one_without, and_a_span, and_a_square, without, lying_without):
        assert told(draw)["type"] == "unknown", draw.__name__


def test_lines_that_cross_are_lines() -> None:
    def draw(ax: Any) -> None:
        ax.plot([1, 1], [0, 1])
        ax.plot([1, 1], [1, 2])
        ax.plot([0, 5], [1, 1])

    assert told(draw)["type"] == "line"


def test_a_box_of_no_values_is_left_out() -> None:
    (box,) = told(lambda ax: ax.boxplot([[], [1, 2, 3]], patch_artist=True))["elements"]
    assert (box["label"], box["median"]) == ("2", 2)


# -- pies, areas, legends, frames ----------------------------------------------------------------


def test_a_shadow_is_no_piece_of_a_pie() -> None:
    chart = told(lambda ax: ax.pie([30, 70], labels=["x", "y"], shadow=True))
    assert [(one["label"], one["angle"]) for one in chart["elements"]] == [("x", 108), ("y", 252)]


def test_an_area_is_unknown_and_a_band_around_a_line_is_not() -> None:
    frame = pd.DataFrame({"u": [1, 2], "v": [3, 4]})
    assert told(lambda ax: frame.plot.area(ax=ax))["type"] == "unknown"

    def band(ax: Any) -> None:
        ax.plot([1, 2], label="mean")
        ax.fill_between([0, 1], [0, 1], [2, 3], label="95 %")

    assert told(band)["type"] == "line"


def test_a_legend_names_what_has_no_name() -> None:
    def lines(ax: Any) -> None:
        ax.plot([1, 2], "k")
        ax.plot([3, 4], "k")
        ax.legend(["a", "b"])

    def bars(ax: Any) -> None:
        ax.bar(["p", "q"], [1, 2])
        ax.bar(["p", "q"], [1, 2], bottom=[1, 2])
        ax.legend(["a", "b"])

    def turned(ax: Any) -> None:
        first, second = ax.plot([1, 2], "k"), ax.plot([3, 4], "k")
        ax.legend([second[0], first[0]], ["b", "a"])

    def pie(ax: Any) -> None:
        ax.pie([1, 2])
        ax.legend(["a", "b"])

    def clouds(ax: Any) -> None:
        ax.scatter([1], [2])
        ax.scatter([1], [3])
        ax.legend(["a", "b"])

    assert [labels(draw) for draw in (lines, turned, pie, clouds)] == [["a", "b"]] * 4
    assert [bar["group"] for bar in told(bars)["elements"]] == ["a", "a", "b", "b"]


def test_a_legend_names_nothing_where_it_is_not_certain() -> None:
    def of_a_limit(ax: Any) -> None:
        ax.plot([1, 2])
        ax.axhline(2, color="C0", label="limit")
        ax.legend()

    def of_colours(ax: Any) -> None:
        ax.bar(["p", "q"], [1, 2], color=["r", "g"])
        ax.legend([Patch(color="r"), Patch(color="g")], ["loss", "gain"])

    def of_one_colour(ax: Any) -> None:
        ax.pie([1, 2], colors=["r", "r"])
        ax.legend(["a", "b"])

    def beside_a_name(ax: Any) -> None:
        ax.plot([1, 2], label="own")
        ax.legend(["other"])

    assert labels(of_a_limit) == ["Line 0"]
    assert {bar["group"] for bar in told(of_colours)["elements"]} == {"Group 0"}
    assert labels(of_one_colour) == ["", ""]
    assert labels(beside_a_name) == ["own"]


@pytest.mark.parametrize("names", [["a", "a"], [1, "1"]])
def test_a_frame_with_two_columns_of_one_name_is_a_table_alone(names: list[Any]) -> None:
    assert data_of(pd.DataFrame([[1, 2]], columns=names)) is None
    assert data_of(pd.DataFrame([[1, 2]], columns=["a", "b"])) == {"a": [1], "b": [2]}
