"""What output may try from within its frame besides reaching others: to listen to the keyboard, to keep the page busy, to connect."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Locator, Playwright, expect

from tests.page.opening import ARGUMENTS, PATIENCE, Opened, chromium, context_of
from tests.service.running import Service
from tests.support.waiting import HANG

pytestmark = pytest.mark.wide

SHOW = "from IPython.display import HTML, display\n"


def html(opened: Opened, text: str) -> Locator:
    return opened.run(f"{SHOW}HTML({text!r})")


@contextmanager
def listening() -> Iterator[tuple[int, threading.Event]]:
    """A port, and whether somebody has connected to it."""
    heard = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:

        def listen() -> None:
            try:
                while True:
                    server.accept()[0].close()
                    heard.set()
            except OSError:
                return

        thread = threading.Thread(target=listen)
        thread.start()
        yield server.getsockname()[1], heard
        server.shutdown(socket.SHUT_RDWR)
    thread.join(HANG)


PRECONNECT = """<p id='report'>ready</p><link rel=preconnect href='http://127.0.0.1:{0}/'>
<script>
const link = document.createElement('link'); link.rel = 'preconnect'; link.href = 'http://127.0.0.1:{1}/'; document.head.append(link);
const frame = document.createElement('iframe');
frame.srcdoc = "<link rel=preconnect href='http://127.0.0.1:{2}/'>";
frame.onload = () => {{ document.getElementById('report').textContent = 'tried' }};
document.body.append(frame);
</script>"""


def test_output_cannot_connect_ahead(service: Service, playwright: Playwright, tmp_path: Path) -> None:
    """`<link rel=preconnect>` asks no policy of content. Tests usually switch it off with all that Chromium does by itself: so this
    one has a browser of its own. On a page without our headers all three arrive."""
    switch = "--disable-background-networking"
    context = playwright.chromium.launch_persistent_context(
        tmp_path,
        executable_path=chromium(),
        args=[each for each in ARGUMENTS if each != switch],
        ignore_default_args=[switch],
        timeout=PATIENCE,
    )
    context.set_default_timeout(PATIENCE)
    with listening() as careless, listening() as static, listening() as script, listening() as nested:
        page = context.new_page()
        page.goto(service.url + "/healthz")  # which has no such header
        page.evaluate(
            "port => { const link = document.createElement('link'); link.rel = 'preconnect';"
            " link.href = `http://127.0.0.1:${port}/`; document.head.append(link) }",
            careless[0],
        )
        assert careless[1].wait(HANG), "the attack does not work at all: this test would see nothing"
        opened = Opened.new(service, context)
        frame = opened.frame(html(opened, PRECONNECT.format(static[0], script[0], nested[0])))
        expect(frame.locator("#report")).to_have_text("tried")
        # As long as it took on the page that it reached, many times over.
        assert not any(heard.wait(0.7) for _, heard in (static, script, nested))
        # The page itself reaches its service, and the frame its pictures.
        assert opened.text(opened.run("print('works')")) == "works\n"
    context.close()


def test_over_ipv6_output_is_drawn_too(tmp_path: Path, browser: Browser) -> None:
    service = Service(tmp_path / "ipv6", flags=("--host", "::1")).start()
    context = context_of(browser)
    opened = Opened.new(service, context)
    assert opened.url.startswith("http://[::1]:")
    place = html(opened, "<p>drawn</p>")
    expect(opened.frame(place).locator("p")).to_have_text("drawn")
    context.close()
    service.end()


def test_a_frame_cannot_take_what_is_typed(opened: Opened) -> None:
    thief = (
        "<input id=i><script>setInterval(() => { window.focus(); document.getElementById('i').focus() }, 5)</script>"
    )
    place = html(opened, thief)
    expect(place.locator(".frame .note")).to_contain_text("took the keyboard")
    expect(opened.editor).to_be_focused()
    opened.page.keyboard.type("what I write")
    expect(opened.editor).to_have_text("what I write")


def test_who_clicks_on_output_goes_into_it_and_comes_back(opened: Opened) -> None:
    place = html(opened, "<input id=i>")
    field = place.locator("iframe").content_frame.locator("#i")
    expect(field).to_be_visible()
    place.locator(".frame").dispatch_event("pointerdown")
    field.click()
    opened.page.keyboard.type("in it")
    expect(field).to_have_value("in it")
    opened.editor.click()
    opened.page.keyboard.type("written")
    expect(opened.editor).to_have_text("written")
    # By the keyboard too.
    place.locator(".frame").focus()
    opened.page.keyboard.press("Tab")
    expect(place.locator("iframe")).to_be_focused()


def test_a_frame_that_floods_the_page_is_stopped(opened: Opened) -> None:
    flood = "<p>flood</p><script>let i = 0; const go = () => { for (let n = 0; n < 300; n++) parent.postMessage(i++ % 900, '*'); setTimeout(go) }; go()</script>"
    place = html(opened, flood)
    expect(place.locator(".frame .note")).to_contain_text("sent messages without end")
    expect(place.locator("iframe")).to_have_count(0)
    assert opened.text(opened.run("print('works')")) == "works\n"
    with opened.page.expect_event("frameattached"):  # it floods again, and is soon gone
        place.get_by_role("button", name="Show again").click()


def test_a_script_without_end_is_told_and_other_frames_come_back(opened: Opened) -> None:
    endless = html(opened, "<script>while (true);</script>")
    other = html(opened, "<p>well</p>")
    for place in (endless, other):
        expect(place.locator(".frame .note")).to_contain_text("does not answer")
    other.get_by_role("button", name="Show again").click()
    expect(opened.frame(other).locator("p")).to_have_text("well")
    expect(endless.locator("iframe")).to_have_count(0)


def test_scripts_of_one_output_see_each_other_and_their_document_loads(opened: Opened) -> None:
    text = """<p id=a></p><p id=b></p><p id=c></p><script>const K = 5; let L = 6; class M { n() { return K } }</script>
<script>L += 1; document.getElementById('a').textContent = K + L + new M().n(); document.write('<i>written</i>');
document.addEventListener('DOMContentLoaded', () => { document.getElementById('b').textContent = 'ready' });
window.onload = () => { document.getElementById('c').textContent = 'loaded' }</script>"""
    frame = opened.frame(html(opened, text))
    expect(frame.locator("#a")).to_have_text("17")
    expect(frame.locator("#b")).to_have_text("ready")
    expect(frame.locator("#c")).to_have_text("loaded")
    expect(frame.locator("i")).to_have_text("written")


def test_what_is_as_high_as_its_window_does_not_grow(opened: Opened) -> None:
    place = html(opened, "<div style='height:100vh'>x</div>")
    expect(opened.frame(place).get_by_text("x", exact=True)).to_be_visible()
    opened.run("print('meanwhile')")
    assert place.locator(".frame").bounding_box()["height"] < 200  # type: ignore[index]
