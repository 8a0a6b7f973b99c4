"""What cells show: pictures, tables, mathematics, drawings, colours, bars."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, expect

from tests.page.opening import Opened, context_of
from tests.service.running import Service

SHOW = "from IPython.display import *\n"


@pytest.fixture
def opened(tab: Opened) -> Iterator[Opened]:
    """The tests share a tab: what they show has nothing to do with each other."""
    yield tab
    tab.stayed_at_home()


def bundle(mime: str, value: object) -> str:
    return f"{SHOW}import json\ndisplay({{{mime!r}: json.loads({json.dumps(value)!r})}}, raw=True)"


def test_a_plot_is_a_picture(opened: Opened) -> None:
    place = opened.run("import matplotlib.pyplot as plt\nplt.plot([1, 3, 2])\nplt.show()")
    picture = place.locator(".bundle img")
    expect(picture).to_be_visible()
    assert picture.evaluate("image => image.decode().then(() => image.naturalWidth)") > 200


def test_a_large_picture_comes_by_reference(opened: Opened) -> None:
    code = "import numpy as np, matplotlib.pyplot as plt\nplt.imshow(np.random.rand(300, 300), interpolation='none')\nplt.gcf().set_dpi(200)"
    place = opened.run(code)
    picture = place.locator(".bundle img")
    expect(picture).to_be_visible()
    assert picture.evaluate("image => image.decode().then(() => image.naturalWidth)") > 200
    assert any("/v1/blobs/" in url for url in opened.requests)


def test_a_table_is_a_table(opened: Opened) -> None:
    place = opened.run("import pandas as pd\npd.DataFrame({'a': [1, 2], 'b': ['x', '<i>y</i>']})")
    frame = opened.frame(place)
    expect(frame.get_by_role("columnheader", name="b")).to_be_visible()
    expect(frame.get_by_role("cell", name="<i>y</i>")).to_be_visible()
    # The frame has told how high it is, and the page has given it that.
    opened.eventually(lambda: (place.locator(".frame").bounding_box() or {"height": 0})["height"] > 60)


def test_markdown_with_mathematics(opened: Opened) -> None:
    text = "# Title\n\nSome **bold** and $e^{i\\pi} = -1$.\n\n$$\\int_0^1 x\\,dx$$\n\n| a | b |\n|---|---|\n| 1 | 2 |\n"
    frame = opened.frame(opened.run(f"{SHOW}Markdown({text!r})"))
    expect(frame.get_by_role("heading", name="Title")).to_be_visible()
    expect(frame.locator("strong")).to_have_text("bold")
    expect(frame.locator(".katex")).to_have_count(2)
    expect(frame.locator(".katex-display")).to_have_count(1)
    expect(frame.get_by_role("cell", name="2")).to_be_visible()
    # The fonts are there, though nothing can be loaded.
    assert frame.locator("body").evaluate("() => document.fonts.ready.then(f => f.check('16px KaTeX_Math'))")


def test_latex(opened: Opened) -> None:
    frame = opened.frame(opened.run(SHOW + "Latex(r'$\\frac{a}{b}$')"))
    expect(frame.locator(".katex-display .mfrac")).to_be_visible()
    frame = opened.frame(opened.run(SHOW + "Math(r'\\sqrt{2}')"))
    expect(frame.locator(".katex .sqrt")).to_be_visible()


def test_svg(opened: Opened) -> None:
    svg = '<svg xmlns="http://www.w3.org/2000/svg" width="80" height="40"><circle cx="20" cy="20" r="15"/></svg>'
    frame = opened.frame(opened.run(f"{SHOW}SVG({svg!r})"))
    expect(frame.locator("svg circle")).to_be_visible()


def test_html_with_a_script(opened: Opened) -> None:
    html = "<p id='p'>before</p><script>document.getElementById('p').textContent = 'after'</script>"
    expect(opened.frame(opened.run(f"{SHOW}HTML({html!r})")).locator("#p")).to_have_text("after")
    html = "<button onclick='this.textContent = event.type'>b</button><div></div><script>document.currentScript.previousElementSibling.innerHTML = '<i onclick=\"this.title=1\">x</i>'</script>"
    frame = opened.frame(opened.run(f"{SHOW}HTML({html!r})"))
    frame.locator("button").click()
    expect(frame.locator("button")).to_have_text("click")
    frame.locator("i").click()
    expect(frame.locator("i")).to_have_attribute("title", "1")
    frame = opened.frame(opened.run(SHOW + "Javascript(\"element.append('by script')\")"))
    expect(frame.locator("body")).to_contain_text("by script")
    opened.tolerated = (
        "unsafe-hashes"  # Chromium tells, later, of the handler that a script wrote, and it was set all the same
    )


def test_plotly(opened: Opened) -> None:
    figure = {"data": [{"type": "bar", "x": ["a", "b"], "y": [1, 3]}], "layout": {"title": {"text": "Bars"}}}
    frame = opened.frame(opened.run(bundle("application/vnd.plotly.v1+json", figure)))
    expect(frame.locator(".barlayer .point")).to_have_count(2)
    expect(frame.locator(".gtitle")).to_have_text("Bars")


def test_vega_lite(opened: Opened) -> None:
    spec = {
        "$schema": "https://vega.github.io/schema/vega-lite/v6.json",
        "data": {"values": [{"a": "A", "b": 28}, {"a": "B", "b": 55}]},
        "mark": "bar",
        "encoding": {"x": {"field": "a", "type": "nominal"}, "y": {"field": "b", "type": "quantitative"}},
    }
    frame = opened.frame(opened.run(bundle("application/vnd.vegalite.v6+json", spec)))
    expect(frame.locator(".mark-rect path")).to_have_count(2)
    expect(frame.locator("svg.marks")).to_contain_text("B")


def test_vega(opened: Opened) -> None:
    spec = {
        "$schema": "https://vega.github.io/schema/vega/v6.json",
        "width": 100,
        "height": 50,
        "marks": [{"type": "rect", "encode": {"enter": {"width": {"value": 50}, "height": {"value": 20}}}}],
    }
    frame = opened.frame(opened.run(bundle("application/vnd.vega.v6+json", spec)))
    expect(frame.locator(".mark-rect path")).to_be_visible()


def test_what_cannot_be_drawn_says_so(opened: Opened) -> None:
    frame = opened.frame(opened.run(bundle("application/vnd.vegalite.v6+json", {"mark": 7})))
    expect(frame.locator(".failed")).to_contain_text("could not be drawn")


def test_colours_of_the_terminal(opened: Opened) -> None:
    place = opened.run(r"print('\x1b[31mred\x1b[0m \x1b[1;38;5;208morange\x1b[0m \x1b[38;2;1;2;3mown\x1b[0m plain')")
    output = place.locator("pre.stdout")
    expect(output).to_have_text("red orange own plain\n")
    expect(output.locator(".ansi-red-fg")).to_have_text("red")
    expect(output.locator(".ansi-bold")).to_have_css("color", "rgb(255, 135, 0)")
    expect(output.get_by_text("own")).to_have_css("color", "rgb(1, 2, 3)")
    error = opened.run("1 / 0", "error").locator("pre.error")
    expect(error).to_contain_text("ZeroDivisionError: division by zero")
    assert error.locator("[class^='ansi-']").count() > 0


def test_a_progress_bar_stays_on_its_line(opened: Opened) -> None:
    bars = r"""
for i in range(0, 101, 25):
    print(f'\r{i:3}% ' + '#' * (i // 25), end='', flush=True)
print()
print('one\ntwo\x1b[1A\rONE\x1b[1B\r2\x1b[K')
"""
    assert opened.text(opened.run(bars)) == "100% ####\nONE\n2\n"


def test_displays_are_updated_and_cleared_in_place(opened: Opened) -> None:
    place = opened.run(SHOW + "h = display(HTML('<b>old</b>'), display_id='d')\nprint('text')")
    expect(opened.frame(place).locator("b")).to_have_text("old")
    opened.run("update_display(HTML('<b>new</b>'), display_id='d')")
    expect(opened.frame(place).locator("b")).to_have_text("new")
    place = opened.run(SHOW + "for i in range(5):\n    print('step', i)\n    clear_output(wait=True)\nprint('end')")
    assert opened.text(place) == "end\n"


def test_standard_error_stands_apart(opened: Opened) -> None:
    place = opened.run("import sys\nprint('out')\nprint('err', file=sys.stderr)")
    expect(place.locator("pre.stderr")).to_have_text("err\n")
    assert opened.text(place) == "out\n"


def test_help_is_shown(opened: Opened) -> None:
    expect(opened.run("len?").locator(".bundle pre")).to_contain_text("Return the number of items in a container")


@pytest.mark.wide
def test_many_frames_are_not_all_alive(opened: Opened) -> None:
    place = opened.run(SHOW + "for i in range(40):\n    display(HTML(f'<p style=\"height:400px\">{i}</p>'))")
    expect(place.locator(".frame")).to_have_count(40)
    place.locator(".frame").first.scroll_into_view_if_needed()
    expect(place.locator(".frame").first.locator("iframe").content_frame.locator("p")).to_have_text("0")
    expect(place.locator("iframe").nth(24)).to_have_count(0)  # at most 24


@pytest.mark.wide
def test_it_fits_a_phone(service: Service, browser: Browser) -> None:
    context = context_of(browser, viewport={"width": 360, "height": 740}, is_mobile=True, has_touch=True)
    opened = Opened.new(service, context)
    opened.run("print('word ' * 200)\nprint('x' * 3000)")
    opened.run("import pandas as pd\npd.DataFrame([[1.5] * 30])")
    root = opened.page.locator("html")
    assert root.evaluate("e => e.scrollWidth") == 360
    opened.page.get_by_role("button", name="Files").tap()
    expect(opened.page.get_by_role("button", name="Upload")).to_be_in_viewport()
    opened.page.keyboard.press("Escape")
    opened.page.get_by_role("button", name="Sessions").tap()
    expect(opened.page.get_by_role("link", name=opened.session)).to_be_in_viewport()
    assert root.evaluate("e => e.scrollWidth") == 360
    opened.stayed_at_home()
    context.close()


@pytest.mark.wide
def test_it_is_dark_where_dark_is_wanted(service: Service, browser: Browser) -> None:
    grounds = []
    for scheme in ("light", "dark"):
        context = context_of(browser, color_scheme=scheme)
        opened = Opened.new(service, context)
        place = opened.run(SHOW + "HTML('<p>text</p>')")
        ink = opened.frame(place).locator("p").evaluate("e => getComputedStyle(e).color")
        grounds.append((opened.page.locator("body").evaluate("e => getComputedStyle(e).backgroundColor"), ink))
        context.close()
    assert grounds == [("rgb(246, 247, 248)", "rgb(29, 35, 41)"), ("rgb(20, 24, 28)", "rgb(221, 227, 234)")]
