"""One browser and one service for these tests in a process.

They end with this package and not with the process: while Playwright's synchronous form is open no other event loop can run.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, BrowserContext, Playwright, expect, sync_playwright

from cellrun.service import page
from tests.page.opening import ARGUMENTS, PATIENCE, PRELOAD, Opened, chromium, context_of
from tests.service.running import Service

expect.set_options(timeout=PATIENCE)


@pytest.fixture(scope="package")
def playwright() -> Iterator[Playwright]:
    assert (page.FOLDER / "index.html").exists(), "the page is not built: run `make page`"
    with sync_playwright() as playwright:
        yield playwright


@pytest.fixture(scope="package")
def browser(playwright: Playwright) -> Iterator[Browser]:
    browser = playwright.chromium.launch(executable_path=chromium(), args=ARGUMENTS, timeout=PATIENCE)
    yield browser
    browser.close()


@pytest.fixture(scope="package")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Without keys, as it is by default."""
    service = Service(tmp_path_factory.mktemp("service"), variables={"CELLRUN_PRELOAD": PRELOAD}).start()
    yield service
    service.end()
    assert '"level": "error"' not in service.log_text()


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    context = context_of(browser)
    yield context
    context.close()


@pytest.fixture(scope="package")
def profile(browser: Browser) -> Iterator[BrowserContext]:
    """What the browser has loaded once it keeps."""
    context = context_of(browser)
    yield context
    context.close()


@pytest.fixture
def opened(service: Service, profile: BrowserContext) -> Iterator[Opened]:
    """A tab with the page and a session of its own; it must have stayed at home in the end."""
    opened = Opened.new(service, profile)
    yield opened
    opened.stayed_at_home()
    opened.page.close()


@pytest.fixture(scope="module")
def tab(service: Service, profile: BrowserContext) -> Iterator[Opened]:
    """One tab for a module, whose tests run one cell after the other in it."""
    opened = Opened.new(service, profile)
    yield opened
    opened.page.close()
