"""Sessions kept apart, restarts, files, the notebook, keys; and how the page is served."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Download, expect

from cellrun.service import page
from tests.page.opening import PATIENCE, Opened, context_of
from tests.service.running import Service


def content(download: Download) -> bytes:
    return Path(download.path()).read_bytes()


def test_sessions_are_kept_apart(opened: Opened) -> None:
    first = opened.session
    opened.run("x = 'of the first'")
    opened.page.get_by_role("button", name="New session").click()
    expect(opened.page.locator("#session-name")).not_to_have_text(first)
    expect(opened.runs).to_have_count(0)
    expect(opened.run("x", "error").locator("pre.error")).to_contain_text("NameError")
    opened.page.get_by_role("link", name=first).click()
    expect(opened.page.locator("#session-name")).to_have_text(first)
    expect(opened.runs).to_have_count(1)
    expect(opened.run("x").locator(".bundle pre")).to_have_text("'of the first'")
    assert opened.page.url == opened.address


@pytest.mark.wide
def test_another_tab_shows_what_was_run_with_its_code(opened: Opened, browser: Browser, service: Service) -> None:
    opened.run("for word in ('seen', 'elsewhere'): print(word)")
    context = context_of(browser)
    try:
        other = Opened.new(service, context, opened.session)
        other.until(other.runs.first, "ok")
        expect(other.runs.first).to_contain_text("for word in ('seen', 'elsewhere'): print(word)")
        assert other.text(other.runs.first) == "seen\nelsewhere\n"
        other.stayed_at_home()
    finally:
        context.close()


def test_a_session_is_ended(opened: Opened) -> None:
    opened.run("x = 1")
    opened.page.get_by_role("button", name=f"End the session {opened.session}").click()
    opened.page.get_by_role("button", name="Cancel").click()
    opened.page.get_by_role("button", name=f"End the session {opened.session}").click()
    opened.page.get_by_role("button", name="End it").click()
    expect(opened.page.get_by_role("link", name=re.compile(f"^{opened.session}$"))).to_have_count(0)
    expect(opened.runs).to_have_count(0)
    assert opened.context.request.get(f"{opened.url}/v1/sessions/{opened.session}").status == 404


def test_a_restart_is_told(opened: Opened) -> None:
    opened.run("x = 1")
    opened.page.get_by_role("button", name="Restart").click()
    opened.page.get_by_role("button", name="Restart it").click()
    expect(opened.page.locator("#notice")).to_contain_text("variables are gone")
    place = opened.run("print('x' in globals())")
    expect(place.get_by_role("note")).to_contain_text("the variables of earlier runs are gone")
    assert opened.text(place) == "False\n"
    opened.page.reload()
    expect(opened.runs.nth(1).get_by_role("note")).to_contain_text("the variables of earlier runs are gone")


def test_a_kernel_that_dies_is_told(opened: Opened) -> None:
    place = opened.run(
        "import os, time\nprint('last words', flush=True)\ntime.sleep(1)\nos.kill(os.getpid(), 9)", "kernel_died"
    )
    expect(place.locator(".state")).to_contain_text("The kernel died")
    expect(opened.run("1").get_by_role("note")).to_contain_text("variables of earlier runs are gone")


def test_files_are_uploaded_used_and_saved(opened: Opened) -> None:
    with opened.page.expect_file_chooser() as chooser:
        opened.page.get_by_role("button", name="Upload").click()
    chooser.value.set_files({"name": "data ä.csv", "mimeType": "text/csv", "buffer": b"a,b\n1,2\n"})
    expect(opened.page.get_by_role("button", name="data ä.csv", exact=True)).to_be_visible(timeout=PATIENCE)
    place = opened.run("text = open('data ä.csv').read()\nprint(text)\nopen('made.bin', 'wb').write(bytes(range(256)))")
    assert opened.text(place) == "a,b\n1,2\n\n"
    with opened.page.expect_download() as download:
        opened.page.get_by_role("button", name="made.bin", exact=True).click()
    assert download.value.suggested_filename == "made.bin"
    assert content(download.value) == bytes(range(256))
    opened.page.get_by_role("button", name="Remove made.bin").click()
    opened.page.get_by_role("button", name="Remove it").click()
    expect(opened.page.get_by_role("button", name="made.bin", exact=True)).to_have_count(0)


def test_files_are_dropped_in(opened: Opened) -> None:
    drop = """() => {
        const data = new DataTransfer();
        data.items.add(new File(['dropped'], 'dropped.txt'));
        const say = type => document.body.dispatchEvent(new DragEvent(type, {dataTransfer: data, bubbles: true, cancelable: true}));
        say('dragover');
        const shown = !document.getElementById('drop').hidden;
        say('drop');
        return shown;
    }"""
    assert opened.page.evaluate(drop) is True
    expect(opened.page.get_by_role("button", name="dropped.txt", exact=True)).to_be_visible(timeout=PATIENCE)
    assert opened.text(opened.run("print(open('dropped.txt').read())")) == "dropped\n"


@pytest.mark.wide
def test_what_is_written_stays_with_its_session(opened: Opened) -> None:
    opened.editor.focus()
    opened.page.keyboard.insert_text("a draft")
    opened.page.get_by_role("button", name="New session").click()
    expect(opened.editor).not_to_contain_text("a draft")
    opened.page.go_back()
    expect(opened.editor).to_have_text("a draft")
    opened.page.reload()
    expect(opened.editor).to_have_text("a draft")


@pytest.mark.wide
def test_folders_and_hostile_names_of_files(opened: Opened) -> None:
    names = [
        "<img src=x onerror=alert(1)>.txt",
        "a'b\"c.html",
        "javascript:alert(1)",
        "..%2f..%2fup",
        "#?&=.txt",
        "\u202egpj.exe",
    ]
    opened.run(f"import os\nos.mkdir('sub')\nfor name in {names!r}:\n    open('sub/' + name, 'w').write(name)")
    opened.page.get_by_role("button", name="sub/", exact=True).click()
    for name in names:
        saver = opened.page.locator("#file-list button.name").get_by_text(name, exact=True)
        with opened.page.expect_download() as download:
            saver.click()
        assert content(download.value).decode() == name
        assert "/" not in download.value.suggested_filename
    assert opened.page.locator("#file-list img").count() == 0
    opened.page.get_by_role("button", name="..", exact=True).click()
    expect(opened.page.get_by_role("button", name="sub/", exact=True)).to_be_visible()


@pytest.mark.wide
def test_the_session_is_saved_as_a_notebook(opened: Opened) -> None:
    opened.run("print('in the notebook')")
    with opened.page.expect_download() as download:
        opened.page.get_by_role("button", name="Notebook").click()
    assert download.value.suggested_filename == f"{opened.session}.ipynb"
    cells = json.loads(content(download.value))["cells"]
    assert [cell["source"] for cell in cells] == ["print('in the notebook')"]
    assert cells[0]["outputs"][0]["text"] == "in the notebook\n"


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[tuple[Service, str]]:
    """A service that wants a key, and one."""
    service = Service(tmp_path / "guarded")
    key = service.add_key("people")
    service.start()
    yield service, key
    service.end()


def test_a_key_is_asked_for_and_kept_in_the_tab_alone(guarded: tuple[Service, str], browser: Browser) -> None:
    service, key = guarded
    context: BrowserContext = context_of(browser)
    opened = Opened.new(service, context)
    dialog = opened.page.get_by_role("dialog", name="This service asks for a key")
    expect(dialog).to_be_visible()
    field = dialog.get_by_label("Key")
    expect(field).to_be_focused()
    expect(field).to_have_attribute("type", "password")
    # A browser closes it at the second one.
    for _ in range(3):
        opened.page.keyboard.press("Escape")
    expect(dialog).to_be_visible()
    field.fill("cellrun_wrong")
    opened.page.keyboard.press("Enter")
    expect(dialog.get_by_role("alert")).to_have_text("This key is not valid.")
    field.fill(key)
    opened.page.keyboard.press("Enter")
    expect(dialog).to_be_hidden()
    assert opened.text(opened.run("print('let in')")) == "let in\n"
    opened.run("open('f', 'w').write('of a tenant')")
    with opened.page.expect_download() as download:
        opened.page.get_by_role("button", name="f", exact=True).click()
    assert content(download.value) == b"of a tenant"
    opened.page.reload()
    expect(opened.runs).to_have_count(2)
    kept = (
        "() => JSON.stringify([{...localStorage}, document.cookie, location.href, document.documentElement.outerHTML])"
    )
    assert key not in opened.page.evaluate(kept)
    assert opened.page.evaluate("() => sessionStorage.getItem('cellrun-key')") == key
    assert not any(key in url for url in opened.requests)
    assert key not in service.log_text()
    other = Opened.new(service, context, opened.session)
    expect(other.page.get_by_role("dialog", name="This service asks for a key")).to_be_visible()
    opened.page.get_by_role("button", name="Forget the key").click()
    expect(dialog).to_be_visible()
    assert opened.page.evaluate("() => sessionStorage.getItem('cellrun-key')") is None
    context.close()


def test_the_page_is_served_with_its_policy(service: Service, context: BrowserContext) -> None:
    answer = context.request.get(service.url + "/")
    assert answer.status == 200
    policy = answer.headers["content-security-policy"].split("; ")
    assert {"default-src 'none'", "script-src 'self'", "connect-src 'self'", "frame-ancestors 'none'"} <= set(policy)
    assert "unsafe" not in answer.headers["content-security-policy"]
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.headers["x-content-type-options"] == "nosniff"
    again = context.request.get(service.url + "/").headers["content-security-policy"]
    assert again != answer.headers["content-security-policy"], "a nonce is used once"
    parts = re.findall(r'"(/page/[^"]+)"', answer.text())
    assert len(parts) == 3
    for path in parts:
        part = context.request.get(service.url + path)
        assert part.status == 200
        assert "immutable" in part.headers["cache-control"]
        assert part.headers["x-content-type-options"] == "nosniff"
    for path in ("/page/index.html", "/page/..%2fpage.py", "/page/page-000000000000.js", "/page/"):
        assert context.request.get(service.url + path).status == 404


def test_a_frame_opened_by_itself_is_sandboxed_too(service: Service, context: BrowserContext) -> None:
    frame = next(path.name for path in page.FOLDER.iterdir() if path.name.startswith("frame-"))
    tab = context.new_page()
    tab.goto(f"{service.url}/page/{frame}")
    assert tab.evaluate("() => window.origin") == "null"


@pytest.mark.wide
def test_the_service_works_without_the_page_and_says_so(tmp_path: Path, context: BrowserContext) -> None:
    code = (
        "import sys, pathlib; from cellrun.service import page; page.ASSETS.folder = pathlib.Path(sys.argv.pop(1));"
        "sys.argv[0] = 'cellrun'; from cellrun.cli import main; main()"
    )

    class Bare(Service):
        def command(self, *args: str) -> list[str]:
            python, _, _, *rest = super().command(*args)
            return [python, "-c", code, str(tmp_path), *rest]

    service = Bare(tmp_path / "bare").start()
    answer = context.request.get(service.url + "/")
    assert answer.status == 501
    assert "make page" in answer.text()
    assert context.request.post(service.url + "/v1/run", data={"code": "1"}).status == 200
    service.end()
