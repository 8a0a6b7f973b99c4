"""Runs on the page: started, watched, asked, stopped, come back to."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, expect

from tests.page.opening import PATIENCE, Opened, context_of
from tests.page.proxy import Proxy
from tests.service.running import Service

COUNTING = "import time\nfor i in range(150):\n    print('line', i, flush=True)\n    time.sleep(0.01)"
# It goes on when the file `go` is there: so it has not come to its end before that, however long all else takes.
WAITING = (
    "import os, time\nfor i in range(150):\n    print('line', i, flush=True)\n    time.sleep(0.01)\n"
    "    while i == 50 and not os.path.exists('go'): time.sleep(0.01)"
)
COUNTED = "".join(f"line {i}\n" for i in range(150))


def test_a_cell_runs_and_its_variables_stay(opened: Opened) -> None:
    assert opened.text(opened.run("x = 6\nprint('six', x)")) == "six 6\n"
    place = opened.run("x * 7")
    expect(place.locator(".bundle pre")).to_have_text("42")
    expect(place.locator(".number")).to_have_text("[2]")
    expect(place.locator(".code")).to_contain_text("x * 7")
    expect(place.locator(".time")).to_have_text(re.compile(r"^(< )?\d+\.\d s$"))
    expect(opened.editor).to_be_focused()
    expect(opened.page.locator("#announcement")).to_contain_text("Done")


def test_output_arrives_while_the_cell_runs(opened: Opened) -> None:
    code = "import os, time\nprint('before')\nwhile not os.path.exists('go'):\n    time.sleep(0.01)\nprint('after')"
    place = opened.start(code)
    expect(place.locator("pre.stdout")).to_have_text("before\n", timeout=PATIENCE)
    expect(place).to_have_attribute("data-state", "running")
    expect(place.locator(".time")).to_have_text(re.compile(r"\d s"))
    opened.file("go", b"")
    opened.until(place, "ok")
    assert opened.text(place) == "before\nafter\n"


def test_a_run_that_waits_says_its_place_in_the_line(opened: Opened) -> None:
    first = opened.start("import os, time\nwhile not os.path.exists('go'):\n    time.sleep(0.01)")
    opened.until(first, "running")
    second, third = opened.start("print('second')"), opened.start("print('third')")
    expect(second.locator(".state")).to_have_text("Next in line")
    expect(third.locator(".state")).to_have_text("Number 2 in line")
    opened.file("go", b"")
    opened.until(third, "ok")
    assert opened.text(second) == "second\n"


def test_input_is_asked_for_and_sent(opened: Opened) -> None:
    place = opened.start("name = input('Your name? ')\nprint('hello', name)")
    field = place.get_by_label("Your name?")
    expect(field).to_be_focused(timeout=PATIENCE)
    opened.page.keyboard.type("<b>Ada</b>")
    opened.page.keyboard.press("Enter")
    opened.until(place, "ok")
    assert opened.text(place) == "hello <b>Ada</b>\n"
    expect(place.locator(".answered")).to_have_text("Your name? <b>Ada</b>")
    expect(opened.editor).to_be_focused()


@pytest.mark.wide
def test_a_password_is_not_shown(opened: Opened) -> None:
    place = opened.start("import getpass\nword = getpass.getpass('Password: ')\nprint(len(word))")
    field = place.get_by_label("Password:")
    expect(field).to_be_focused(timeout=PATIENCE)
    expect(field).to_have_attribute("type", "password")
    opened.page.keyboard.type("secret-7")
    opened.page.keyboard.press("Enter")
    opened.until(place, "ok")
    assert opened.text(place) == "8\n"
    assert "secret-7" not in opened.page.locator("body").inner_text()


def test_the_stop_button_interrupts(opened: Opened) -> None:
    stop = opened.page.get_by_role("button", name="Stop")
    expect(stop).to_be_disabled()
    place = opened.start("import time\nprint('sleeps')\ntime.sleep(600)")
    expect(place.locator("pre.stdout")).to_have_text("sleeps\n", timeout=PATIENCE)
    stop.click()
    opened.until(place, "interrupted")
    expect(place.locator("pre.error")).to_contain_text("KeyboardInterrupt")
    expect(stop).to_be_disabled()
    place = opened.start("time.sleep(600)")
    opened.until(place, "running")
    opened.page.keyboard.press("Control+.")
    opened.until(place, "interrupted")


def test_a_reload_in_the_middle_of_a_run_goes_on_with_it(opened: Opened) -> None:
    place = opened.start(WAITING)
    expect(place.locator("pre.stdout")).to_contain_text("line 20\n", timeout=PATIENCE)
    opened.page.reload()
    place = opened.runs.first
    expect(place).to_have_attribute("data-state", "running")
    opened.file("go", b"")
    opened.until(place, "ok")
    assert opened.text(place) == COUNTED
    expect(place.locator(".code")).to_contain_text("import os, time")
    expect(opened.runs).to_have_count(1)
    opened.page.reload()
    opened.until(opened.runs.first, "ok")
    assert opened.text(opened.runs.first) == COUNTED


@pytest.mark.wide
def test_a_reload_finds_the_question_that_is_open(opened: Opened) -> None:
    opened.until(opened.start("print('a', input('one? '), input('two? '))"), "asking")
    expect(opened.page.get_by_label("one?")).to_be_focused()
    opened.page.keyboard.type("1")
    opened.page.keyboard.press("Enter")
    expect(opened.page.get_by_label("two?")).to_be_focused()
    opened.page.reload()
    opened.page.get_by_label("two?").fill("2")
    opened.page.keyboard.press("Enter")
    opened.until(opened.runs.first, "ok")
    assert opened.text(opened.runs.first) == "a 1 2\n"


def test_a_broken_connection_is_made_again_and_nothing_is_lost(service: Service, context: BrowserContext) -> None:
    with Proxy(service.url) as proxy:
        opened = Opened.new(service, context, at=proxy.url)
        place = opened.start(WAITING)
        expect(place.locator("pre.stdout")).to_contain_text("line 10\n", timeout=PATIENCE)
        proxy.refuse()
        proxy.reset()
        expect(place.locator(".broken")).to_be_visible()
        opened.file("go", b"")
        proxy.accept()
        opened.until(place, "ok")
        assert opened.text(place) == COUNTED
        expect(place.locator(".broken")).to_be_hidden()
        assert proxy.connections > 1
        context.close()


@pytest.mark.wide
def test_another_tab_sees_the_same_run(opened: Opened, service: Service, context: BrowserContext) -> None:
    place = opened.start(COUNTING)
    expect(place.locator("pre.stdout")).to_contain_text("line 5\n", timeout=PATIENCE)
    other = Opened.new(service, context, opened.session)
    other.until(other.runs.first, "ok")
    opened.until(place, "ok")
    assert opened.text(place) == other.text(other.runs.first) == COUNTED
    other.stayed_at_home()


def test_a_flood_of_lines_stays_bounded_and_says_what_is_missing(opened: Opened) -> None:
    place = opened.run("for i in range(100_000):\n    print('line', i)")
    output = place.locator("pre.stdout")
    expect(output).to_contain_text("line 99999\n")
    text = opened.text(place)
    assert text.startswith("line 0\nline 1\n")
    # 100 000 lines and the empty one after the last; of the last ones 1600 are kept.
    assert "… 98,001 lines are not shown here" in text
    assert output.locator("> span > span").count() == 2_000


@pytest.mark.wide
def test_a_line_without_end_is_cut(opened: Opened) -> None:
    place = opened.run("print('x' * 3_000_000)")
    expect(place.locator("pre.stdout")).to_contain_text("characters of this line are not shown")
    assert len(opened.text(place)) < 11_000


def test_the_keyboard_alone_is_enough(opened: Opened) -> None:
    opened.run("print(1)")
    opened.page.keyboard.press("Alt+ArrowUp")
    expect(opened.editor).to_have_text("print(1)")
    opened.page.keyboard.press("Escape")
    opened.page.keyboard.press("Tab")
    expect(opened.page.get_by_role("button", name="Run")).to_be_focused()
    opened.page.keyboard.press("Enter")
    expect(opened.runs).to_have_count(2)
    opened.until(opened.runs.last, "ok")


@pytest.mark.wide
def test_more_runs_than_a_browser_has_connections(opened: Opened) -> None:
    """Six for a host: the one that asks has to get its answer, and another tab has to load."""
    asking = opened.start("print('hello', input('who? '))")
    opened.until(asking, "asking")
    rest = [opened.start(f"print({number})") for number in range(7)]
    expect(rest[0].locator(".state")).to_have_text("Next in line")
    other = Opened.new(opened.service, opened.context)
    expect(other.page.locator("#empty")).to_be_visible()
    other.page.close()
    asking.get_by_label("who?").fill("me")
    opened.page.keyboard.press("Enter")
    opened.until(asking, "ok")
    for number, place in enumerate(rest):
        opened.until(place, "ok")
        assert opened.text(place) == f"{number}\n"


@pytest.mark.wide
def test_who_does_not_look_takes_no_connection_and_misses_nothing(opened: Opened) -> None:
    place = opened.start(COUNTING)
    expect(place.locator("pre.stdout")).to_contain_text("line 5\n", timeout=PATIENCE)
    look = "hidden => { Object.defineProperty(document, 'hidden', {value: hidden, configurable: true}); document.dispatchEvent(new Event('visibilitychange')) }"
    opened.page.evaluate(look, True)
    last = opened.text(place)
    opened.page.wait_for_timeout(400)  # in which 40 lines would come
    assert opened.text(place) == last
    opened.page.evaluate(look, False)
    opened.until(place, "ok")
    assert opened.text(place) == COUNTED


@pytest.mark.wide
def test_a_long_stream_stays_at_its_end_unless_it_is_scrolled(opened: Opened) -> None:
    place = opened.run("for i in range(300): print('line', i)")
    stream = place.locator("pre.stdout")
    opened.text(place)
    below = "e => Math.round(e.scrollHeight - e.scrollTop - e.clientHeight)"
    assert stream.evaluate(below) < 3
    place = opened.start("for i in range(300): print('line', i)\ninput('on? ')\nprint('more')")
    opened.until(place, "asking")
    expect(place.get_by_label("on?")).to_be_focused()
    opened.text(place)
    place.locator("pre.stdout").evaluate("e => { e.scrollTop = 10 }")
    opened.page.keyboard.press("Enter")
    opened.until(place, "ok")
    opened.text(place)
    assert place.locator("pre.stdout").first.evaluate("e => e.scrollTop") == 10


@pytest.mark.wide
def test_coloured_text_written_over_and_over_does_not_hold_up_the_page(opened: Opened) -> None:
    code = r"""row = '\x1b[31mx\x1b[32my' * 5000
for i in range(10): print(row, end='\r')
for i in range(20): print(row)
print('END')"""
    place = opened.run(code)
    expect(place.locator("pre.stdout")).to_contain_text("END")
    assert opened.page.locator("span").count() < 25_000
    assert "xyxyxy" in opened.text(place)
    opened.page.reload()
    opened.until(opened.runs.first, "ok")
    assert "END" in opened.text(opened.runs.first)


@pytest.mark.wide
def test_the_key_that_stops_interrupts_once(opened: Opened) -> None:
    code = "import time\ntimes = 0\nwhile times < 2:\n    try:\n        print('waits', flush=True)\n        time.sleep(1 if times else 600)\n        break\n    except KeyboardInterrupt:\n        times += 1\nprint(times)"
    place = opened.start(code)
    expect(place.locator("pre.stdout")).to_have_text("waits\n", timeout=PATIENCE)
    opened.editor.focus()
    opened.page.keyboard.press("Control+.")
    opened.until(place, "ok")
    assert opened.text(place) == "waits\nwaits\n1\n"
    assert len([url for url in opened.requests if url.endswith("/interrupt")]) == 1


@pytest.mark.wide
def test_a_run_that_was_not_sent_is_taken_back(service: Service, context: BrowserContext) -> None:
    with Proxy(service.url) as proxy:
        opened = Opened.new(service, context, at=proxy.url)
        opened.run("print('before')")
        proxy.refuse()
        proxy.reset()
        place = opened.start("print('not sent')")
        expect(place.locator(".broken")).to_contain_text("connection lost")
        opened.page.get_by_role("button", name="Stop").click()
        expect(opened.runs).to_have_count(1)
        expect(opened.editor).to_have_text("print('not sent')")
        proxy.accept()
        opened.page.keyboard.press("Shift+Enter")
        opened.until(opened.runs.nth(1), "ok")
        context.close()


@pytest.mark.wide
def test_a_quota_is_said(tmp_path: Path, browser: Browser) -> None:
    service = Service(tmp_path / "small", variables={"CELLRUN_QUOTA_SESSIONS": "1"}).start()
    context = context_of(browser)
    Opened.new(service, context).run("1")
    opened = Opened.new(service, context)
    place = opened.start("2")
    expect(place.locator(".broken")).to_contain_text("session")
    expect(place.locator(".broken")).not_to_contain_text("connection lost")
    context.close()
    service.end()


@pytest.mark.wide
def test_what_another_tab_ran_before_is_put_before(opened: Opened) -> None:
    """Also where this tab has heard of its own, later run first."""
    other = Opened.new(opened.service, opened.context, opened.session)
    other.run("print('theirs')")
    opened.editor.focus()
    opened.page.keyboard.insert_text("print('ours')")
    opened.page.keyboard.press("Shift+Enter")
    expect(opened.runs).to_have_count(2)
    expect(opened.runs.nth(0)).to_contain_text("theirs")
    expect(opened.runs.nth(1)).to_contain_text("ours")
    other.page.close()
