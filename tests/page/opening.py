"""The page in a real Chromium, as somebody who sits before it uses it."""

from __future__ import annotations

import itertools
import re
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Frame, FrameLocator, Locator, Page, expect

from tests.service.running import Service
from tests.support.waiting import HANG

PATIENCE: Final = 60_000
"""Milliseconds, for what a browser and a kernel do beside other tests. No test waits for it to be over."""
PRELOAD: Final = "numpy,pandas,matplotlib.pyplot"
"""Modules that cells of the tests import."""
# What Chromium does by itself over the network is none of the page's doing.
ARGUMENTS: Final = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
_numbers = itertools.count(1)


def chromium() -> str:
    """Where it is; the tests need it."""
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    assert found is not None, "these tests need Chromium: apt-get install chromium (scripts/system-packages)"
    return found


@dataclass
class Opened:
    """One tab with the page. What it asked for and what went wrong in it is kept."""

    service: Service
    context: BrowserContext
    session: str
    page: Page
    url: str
    requests: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    tolerated: str = ""  # part of an error that a test brings about

    @classmethod
    def new(
        cls, service: Service, context: BrowserContext, session: str | None = None, *, at: str | None = None
    ) -> Opened:
        """`at`: by which address the service is reached, where that is not its own."""
        session = session or f"page-{next(_numbers)}"
        opened = cls(service, context, session, context.new_page(), at or service.url)
        opened.page.on("request", lambda request: opened.requests.append(request.url))
        opened.page.on("pageerror", lambda error: opened.errors.append(str(error)))
        opened.page.on("console", opened._said)
        opened.page.goto(opened.address)
        return opened

    def _said(self, message: ConsoleMessage) -> None:
        if message.type == "error":
            self.errors.append(message.text)

    @property
    def address(self) -> str:
        return f"{self.url}/#{self.session}"

    @property
    def editor(self) -> Locator:
        return self.page.locator(".cm-content")

    @property
    def runs(self) -> Locator:
        return self.page.locator(".run")

    def start(self, code: str) -> Locator:
        """Writes the cell and runs it with the keyboard; gives its place on the page."""
        number = self.runs.count()
        self.editor.focus()
        self.page.keyboard.insert_text(code)
        self.page.keyboard.press("Shift+Enter")
        expect(self.runs).to_have_count(number + 1)
        return self.runs.nth(number)

    def run(self, code: str, status: str = "ok") -> Locator:
        """To its end."""
        place = self.start(code)
        self.until(place, status)
        return place

    def until(self, place: Locator, status: str) -> None:
        expect(place).to_have_attribute("data-state", status, timeout=PATIENCE)

    def frame(self, place: Locator) -> FrameLocator:
        """The sandboxed frame that shows the run's last rich output, gone into as with a click."""
        place.locator(".frame").last.dispatch_event("pointerdown")
        return place.locator(".frame iframe").last.content_frame

    def inside(self, place: Locator) -> Frame:
        handle = place.locator(".frame iframe").last.element_handle()
        assert handle is not None
        found = handle.content_frame()
        assert found is not None
        return found

    def text(self, place: Locator, stream: str = "stdout") -> str:
        # What came last is drawn with the next frame.
        self.page.evaluate("() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
        return "".join(place.locator(f"pre.{stream}").all_text_contents())

    def file(self, name: str, content: bytes) -> None:
        """Put there by another than the page."""
        path = f"{self.service.url}/v1/sessions/{self.session}/files/{name}"
        assert self.context.request.put(path, data=content, timeout=PATIENCE).status == 204

    def eventually(self, condition: Callable[[], object]) -> None:
        """Until it holds, while the page goes on."""
        deadline = time.monotonic() + HANG
        while not condition():
            assert time.monotonic() < deadline, f"not within {HANG} s: {condition}"
            self.page.wait_for_timeout(20)

    def stayed_at_home(self) -> None:
        """No request went to another host, none has failed on a policy."""
        # What the page has made itself comes from no host.
        others = [url for url in self.requests if not re.match(rf"{re.escape(self.url)}/|blob:|data:", url)]
        assert others == []
        assert [text for text in self.errors if not self.tolerated or self.tolerated not in text] == []


def context_of(browser: Browser, **options: object) -> BrowserContext:
    context = browser.new_context(**{"viewport": {"width": 1200, "height": 800}, **options})  # type: ignore[arg-type]
    context.set_default_timeout(PATIENCE)
    return context
