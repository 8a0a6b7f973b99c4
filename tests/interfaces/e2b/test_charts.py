"""Figures as data, frames as data; and nothing of it for those who do not ask."""

from __future__ import annotations

from typing import Any

import pytest
from e2b_code_interpreter import Sandbox
from e2b_code_interpreter.charts import (
    BarChart,
    BoxAndWhiskerChart,
    Chart,
    ChartType,
    LineChart,
    PieChart,
    ScaleType,
    ScatterChart,
    SuperChart,
)

from tests.service.running import Service, client, run

_BEGIN = "import datetime, warnings\nimport matplotlib.pyplot as plt\nimport numpy as np\nimport pandas as pd\n"


def drawn(sandbox: Sandbox, code: str) -> Any:
    """The chart of the one figure that the code draws; its picture is there, too."""
    execution = sandbox.run_code(_BEGIN + code + "\nplt.show()")
    assert execution.error is None, execution.error
    assert execution.logs.stderr == []
    (result,) = [one for one in execution.results if one.png]
    assert set(result.formats()) <= {"text", "png", "chart"}
    return result.chart if "chart" in result.formats() else None


def test_a_line_chart(sandbox: Sandbox) -> None:
    chart = drawn(
        sandbox,
        "plt.plot([1, 2, 3], [4.0, np.nan, 6.0], label='speed')\nplt.plot([1, 3], [1, 1])\nplt.axhline(2)\nplt.grid()\n"
        "plt.title('A title')\nplt.xlabel('Time (s)')\nplt.ylabel('Way [m]')",
    )
    assert isinstance(chart, LineChart)
    assert (chart.title, chart.x_label, chart.x_unit, chart.y_label, chart.y_unit) == (
        "A title",
        "Time (s)",
        "s",
        "Way [m]",
        "m",
    )
    speed, other = chart.elements
    assert (speed.label, speed.points) == ("speed", [(1, 4.0), (2, None), (3, 6.0)])
    assert other.points == [(1, 1), (3, 1)]
    assert (chart.x_scale, chart.y_scale) == (ScaleType.LINEAR, ScaleType.LINEAR)
    assert len(chart.x_ticks) == len(chart.x_tick_labels) > 2


def test_scales_of_times_and_names_and_logarithms(sandbox: Sandbox) -> None:
    days = drawn(sandbox, "plt.plot([datetime.date(2024, 2, 28), datetime.date(2024, 3, 1)], ['low', 'high'])")
    assert (days.x_scale, days.y_scale) == (ScaleType.DATETIME, ScaleType.CATEGORICAL)
    assert days.elements[0].points == [("2024-02-28", "low"), ("2024-03-01", "high")]
    assert days.y_tick_labels == ["low", "high"]
    series = drawn(
        sandbox, "pd.Series([1, 10, 100], pd.date_range('2024-01-01', periods=3), name='of pandas').plot(logy=True)"
    )
    assert (series.x_scale, series.y_scale) == (ScaleType.DATETIME, ScaleType.LOG)
    assert [x[:10] for x, _ in series.elements[0].points] == ["2024-01-01", "2024-01-02", "2024-01-03"]


def test_a_scatter_chart(sandbox: Sandbox) -> None:
    chart = drawn(sandbox, "plt.scatter([1, 2], [3, 4.5], c=[0, 1], label='dots')\nplt.colorbar()")
    assert isinstance(chart, ScatterChart)
    assert [(one.label, one.points) for one in chart.elements] == [("dots", [(1, 3), (2, 4.5)])]


def test_bar_charts_with_groups_and_lying_down(sandbox: Sandbox) -> None:
    chart = drawn(sandbox, "pd.DataFrame({'u': [1, 2], 'v': [3, 4]}, index=['p', 'q']).plot.bar(yerr=0.1)")
    assert isinstance(chart, BarChart)
    told = [(bar.group, bar.label, bar.value) for bar in chart.elements]
    assert told == [("u", "p", 1), ("u", "q", 2), ("v", "p", 3), ("v", "q", 4)]
    lying = drawn(sandbox, "plt.barh(['a', 'b'], [5, 6])\nplt.ylabel('who')\nplt.xlabel('how many')")
    assert [(bar.label, bar.value) for bar in lying.elements] == [("a", 5), ("b", 6)]
    assert (lying.x_label, lying.y_label) == ("who", "how many")


def test_a_pie_chart(sandbox: Sandbox) -> None:
    chart = drawn(sandbox, "plt.pie([90, 10], labels=['no', 'yes'], autopct='%d', startangle=90)\nplt.title('Awake?')")
    assert isinstance(chart, PieChart)
    assert chart.title == "Awake?"
    assert [(one.label, one.angle, one.radius) for one in chart.elements] == [("no", 324, 1), ("yes", 36, 1)]


@pytest.mark.parametrize(
    "how",
    ["", "patch_artist=True, notch=True", "orientation='horizontal', showmeans=True", "notch=True", "capwidths=.3"],
)
def test_a_box_chart_however_it_is_drawn(sandbox: Sandbox, how: str) -> None:
    values = [20, 78, 85, 88, 90, 92]
    chart = drawn(sandbox, f"plt.boxplot([{values}, [1, 2, 3], [1, 2, 3, 100]], tick_labels=['A', 'B', 'C'], {how})")
    assert isinstance(chart, BoxAndWhiskerChart)
    first, second, third = chart.elements
    assert (first.label, first.min, first.max, first.outliers) == ("A", 78, 92, [20])
    assert (first.first_quartile, first.median, first.third_quartile) == (79.75, 86.5, 89.5)
    assert (second.label, second.min, second.median, second.max, second.outliers) == ("B", 1, 2, 3, [])
    # Its upper cap lies on the third quartile.
    assert (third.first_quartile, third.median, third.third_quartile, third.max) == (1.75, 2.5, 27.25, 27.25)
    assert third.outliers == [100]


def test_several_axes_are_several_charts(sandbox: Sandbox) -> None:
    chart = drawn(
        sandbox,
        "f, (a, b, c) = plt.subplots(1, 3)\nf.suptitle('All')\na.plot([1, 2])\nb.bar(['x'], [1])\nc.imshow(np.zeros((2, 2)))",
    )
    assert isinstance(chart, SuperChart)
    assert chart.title == "All"
    assert [one.type for one in chart.elements] == [ChartType.LINE, ChartType.BAR, ChartType.UNKNOWN]


def test_what_is_none_of_these_is_unknown(sandbox: Sandbox) -> None:
    for code in (
        "plt.imshow(np.zeros((2, 2)))\nplt.title('t')",
        "plt.subplot(projection='polar').plot([1, 2])\nplt.title('t')",
        "plt.plot([1, 2])\nplt.scatter([1], [2])\nplt.title('t')",
    ):
        chart = drawn(sandbox, code)
        assert type(chart) is Chart
        assert (chart.type, chart.title, chart.elements) == (ChartType.UNKNOWN, "t", [])


def test_a_figure_of_which_no_data_can_be_had_is_a_picture(sandbox: Sandbox) -> None:
    assert drawn(sandbox, "plt.plot(np.arange(200_001))") is None
    broken = "plt.plot([1, 2])\nplt.gcf().get_suptitle = None"
    assert drawn(sandbox, broken) is None
    assert drawn(sandbox, "plt.figure().add_subplot()") is None


def test_a_frame_has_its_columns_as_data(sandbox: Sandbox) -> None:
    code = "pd.DataFrame({'n': [1, 2], 'f': [0.5, None], 't': pd.to_datetime(['2024-01-01', None]), 's': ['a', None], 3: [{1}, True]})"
    (result,) = sandbox.run_code(_BEGIN + code).results
    assert {"text", "html", "data"} == set(result.formats())
    assert result.data == {
        "n": [1, 2],
        "f": [0.5, None],
        "t": ["2024-01-01T00:00:00", None],
        "s": ["a", None],
        "3": ["{1}", True],
    }
    (large,) = sandbox.run_code("pd.DataFrame(np.zeros((1_000_000, 2)))").results
    assert set(large.formats()) == {"text", "html"}


async def test_nobody_else_has_them(sandbox: Sandbox, service: Service) -> None:
    """The same kernel, asked by our own API."""
    code = _BEGIN + "plt.plot([1, 2]); plt.show(); pd.DataFrame({'a': [1]})"
    formats = {key for result in sandbox.run_code(code).results for key in result.formats()}
    assert {"chart", "data"} < formats
    async with client(service) as http:
        found = await run(http, "e2b", code)
    shown = {mime for output in found["outputs"] for mime in output["data"]}
    assert shown == {"text/plain", "image/png", "text/html"}
