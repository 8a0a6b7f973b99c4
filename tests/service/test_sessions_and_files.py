"""Sessions and the files in their folders."""

from __future__ import annotations

import asyncio
import io
from pathlib import Path
from typing import Any

import aiohttp
import nbformat
import pytest
from yarl import URL

from tests.service.running import Service, answer, begin, client, problem, run, until, watch
from tests.support.waiting import HANG

Http = aiohttp.ClientSession
FLAGS = (
    "--allow",
    "file_size=1GB",
    "--preload",
    "wave, fractions",
)  # more than the service gives out; what few programs load


async def test_a_session_is_made_found_listed_and_ended(http: Http) -> None:
    made = await answer(http, "PUT", "/v1/sessions/chat-1")
    assert (made["id"], made["state"], made["containment"]) == ("chat-1", "new", None)
    assert await answer(http, "PUT", "/v1/sessions/chat-1") == made
    ids = [(await run(http, "chat-1", code))["execution_id"] for code in ("x = 1", "1/0")]
    found = await answer(http, "GET", "/v1/sessions/chat-1")
    assert [(each["execution_id"], each["status"]) for each in found["runs"]] == [(ids[1], "error"), (ids[0], "ok")]
    assert [each["code"] for each in found["runs"]] == ["1/0", "x = 1"]
    short = await answer(http, "GET", "/v1/sessions/chat-1?code=false")
    assert [(each["execution_id"], each["code"]) for each in short["runs"]] == [(id, None) for id in reversed(ids)]
    assert (found["state"], found["created"]) == ("idle", made["created"])
    assert found["containment"]
    assert "chat-1" in [each["id"] for each in (await answer(http, "GET", "/v1/sessions"))["sessions"]]

    await answer(http, "DELETE", "/v1/sessions/chat-1", status=204)
    for method in ("GET", "DELETE"):
        await problem(http, method, "/v1/sessions/chat-1", "not_found", 404)
    assert (await answer(http, "GET", f"/v1/runs/{ids[0]}"))["status"] == "ok"
    fresh = await run(http, "chat-1", "'x' in globals()")
    assert (fresh["text"], fresh["restarted"]) == ("False", None)


async def test_a_session_that_must_be_there_is_not_made(http: Http) -> None:
    there: Any = {"headers": {"If-Match": "*"}}
    where = "/v1/sessions/must-be-there"
    requests: list[tuple[str, str, Any]] = [
        ("PUT", where, {}),
        ("POST", f"{where}/runs", {"json": {"code": "6 * 7"}}),
        ("PUT", f"{where}/files/f", {"data": b"1"}),
    ]
    for method, path, request in requests:
        await problem(http, method, path, "not_found", 404, **request, **there)
        await problem(http, method, path, "bad_request", 400, **request, headers={"If-Match": '"other"'})
    await problem(http, "GET", where, "not_found", 404)
    key = {"Idempotency-Key": "of-one-that-was-there"}
    ran = await answer(http, "POST", f"{where}/runs", json={"code": "6 * 7"}, headers=key)
    for (method, path, request), status in zip(requests, (200, 200, 204), strict=True):
        await answer(http, method, path, status=status, **request, **there)
    await answer(http, "DELETE", where, status=204)
    again = await answer(http, "POST", f"{where}/runs", json={"code": "6 * 7"}, headers=key | there["headers"])
    assert again == ran


async def test_kernels_have_the_modules_that_the_operator_names(http: Http) -> None:
    """The first kernels are made before they are loaded."""
    code = "import sys; {'wave', 'fractions'} <= set(sys.modules)"
    async with asyncio.timeout(HANG):
        while (await answer(http, "POST", "/v1/run", json={"code": code}))["text"] != "True":
            pass


@pytest.mark.parametrize("name", ["-a", ".a", "a b", "é", "a" * 129, "a%0ab", "%00"])
async def test_a_name_that_is_none_is_refused_and_nothing_is_made(http: Http, name: str) -> None:
    where = URL(f"/v1/sessions/{name}", encoded=True) if "%" in name else f"/v1/sessions/{name}"
    await problem(http, "PUT", str(where), "bad_request", 400)
    await problem(http, "POST", f"{where}/runs", "bad_request", 400, json={"code": "1"})


async def test_ending_a_session_ends_what_runs_and_what_waits(http: Http) -> None:
    first = await begin(http, "ends", "import time; print('on', flush=True); time.sleep(60)")
    second = await begin(http, "ends", "1")
    await watch(http, first, upto=2)
    assert (await answer(http, "GET", "/v1/sessions/ends"))["state"] == "running"
    await answer(http, "DELETE", "/v1/sessions/ends", status=204)
    for id in (first, second):
        assert (await until(http, id, "interrupted"))["reason"] == "the session was closed"


@pytest.mark.wide
async def test_a_session_that_is_ended_while_a_run_begins_leaves_no_kernel(own_service: Service) -> None:
    own_service.variables["CELLRUN_MAX_KERNELS"] = "1"  # one that is left is missing
    service = own_service.start()

    async def ended(http: Http, session: str) -> None:
        async with asyncio.timeout(HANG):
            while True:
                async with http.delete(f"/v1/sessions/{session}") as response:
                    if response.status == 204:
                        return

    async with client(service) as http:
        await answer(http, "POST", "/v1/run", json={"code": "1"})
        for session in ("a", "b", "c", "d", "e"):
            starting = asyncio.create_task(run_or_refused(http, session))
            await ended(http, session)
            await starting
            async with asyncio.timeout(HANG):
                assert (await answer(http, "POST", "/v1/run", json={"code": "1"}))["text"] == "1"


async def run_or_refused(http: Http, session: str) -> None:
    request: Any = {"json": {"code": "1"}, "headers": {"Idempotency-Key": session}}
    async with http.post(f"/v1/sessions/{session}/runs", **request) as response:
        assert response.status in (200, 404, 409), await response.text()


async def test_a_restart_takes_the_variables_and_leaves_the_files(http: Http) -> None:
    await run(http, "fresh", "x = 1; open('kept.txt', 'w').write('here')")
    running = await begin(http, "fresh", "import time; print('on', flush=True); time.sleep(60)")
    await watch(http, running, upto=2)
    await answer(http, "POST", "/v1/sessions/fresh/restart")
    assert (await until(http, running, "interrupted"))["reason"] == "the kernel was restarted"
    after = await run(http, "fresh", "'x' in globals(), open('kept.txt').read()")
    assert (after["text"], bool(after["restarted"])) == ("(False, 'here')", True)
    await problem(http, "POST", "/v1/sessions/none-such/restart", "not_found", 404)


async def test_what_was_run_comes_as_a_valid_notebook(http: Http) -> None:
    await run(http, "book", "x = 2; print('a')")
    await run(http, "book", "x * 21")
    await run(http, "book", "1/0")
    await run(http, "book", "from IPython.display import HTML, display; display(HTML('<b>é</b>'))")
    async with http.get("/v1/sessions/book/notebook") as response:
        assert response.content_type == "application/x-ipynb+json"
        assert "attachment" in response.headers["Content-Disposition"]
        notebook = nbformat.reads(await response.text(), as_version=4)
    nbformat.validate(notebook)
    assert [(cell.source, cell.execution_count) for cell in notebook.cells][1] == ("x * 21", 2)
    assert [output.output_type for cell in notebook.cells for output in cell.outputs] == [
        "stream",
        "execute_result",
        "error",
        "display_data",
    ]
    await problem(http, "GET", "/v1/sessions/none-such/notebook", "not_found", 404)


# -- files -------------------------------------------------------------------------------------------


async def test_a_file_goes_in_the_code_reads_it_and_what_the_code_wrote_comes_out(http: Http) -> None:
    data = bytes(range(256)) * 5_000
    await answer(http, "PUT", "/v1/sessions/f/files/in/data é.bin", status=204, data=io.BytesIO(data))
    code = "d = open('in/data é.bin', 'rb').read(); open('out.bin', 'wb').write(d[::-1])"
    assert (await run(http, "f", code))["files"] == ["out.bin"]
    async with http.get("/v1/sessions/f/files/out.bin") as response:
        assert await response.read() == data[::-1]
    top = (await answer(http, "GET", "/v1/sessions/f/files"))["files"]
    assert [(each["path"], each["size"], each["is_dir"]) for each in top if not each["is_dir"]] == [
        ("out.bin", len(data), False)
    ]
    inner = (await answer(http, "GET", "/v1/sessions/f/files", params={"path": "in"}))["files"]
    assert [(each["path"], each["size"]) for each in inner] == [("in/data é.bin", len(data))]
    await answer(http, "DELETE", "/v1/sessions/f/files/in/data é.bin", status=204)
    await answer(http, "DELETE", "/v1/sessions/f/files/in", status=204)
    assert (await run(http, "f", "import os; sorted(os.listdir())"))["text"] == "['out.bin']"
    for method in ("GET", "DELETE"):
        await problem(http, method, "/v1/sessions/f/files/in/data é.bin", "not_found", 404)


async def test_a_file_is_replaced_at_once_and_never_half(http: Http) -> None:
    where = "/v1/sessions/replaced/files/f"
    await answer(http, "PUT", where, status=204, data=b"old")

    async def broken() -> Any:
        yield b"new " * 100_000
        raise ConnectionResetError

    with pytest.raises((aiohttp.ClientError, ConnectionResetError)):
        await http.put(where, data=broken())
    async with http.get(where) as response:
        assert await response.read() == b"old"
    listed: list[str] = []
    async with asyncio.timeout(HANG):  # until the service has heard that the client is gone
        while listed != ["f"]:
            listed = [each["path"] for each in (await answer(http, "GET", "/v1/sessions/replaced/files"))["files"]]


async def test_a_download_is_something_to_save_and_never_a_page_of_the_service(http: Http) -> None:
    name = 'a";<b>é.html'
    await run(http, "pages", f"open({name!r}, 'w').write('<script>alert(1)</script>')")
    where = URL("/v1/sessions/pages/files/a%22;%3Cb%3E%C3%A9.html", encoded=True)
    async with http.get(where) as response:
        assert response.status == 200
        assert response.content_type == "application/octet-stream"
        assert response.headers["Content-Disposition"] == ("attachment; filename*=UTF-8''a%22%3B%3Cb%3E%C3%A9.html")
        assert response.headers["Content-Security-Policy"].startswith("sandbox")
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        assert response.headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize(
    ("asked", "part", "told"),
    [
        ("bytes=2-3", b"23", "bytes 2-3/10"),
        ("bytes=7-", b"789", "bytes 7-9/10"),
        ("bytes=-2", b"89", "bytes 8-9/10"),
        ("bytes=8-99", b"89", "bytes 8-9/10"),
        ("bytes=0-1,4-5", b"0123456789", None),
        ("lines=1-2", b"0123456789", None),
    ],
)
async def test_a_part_of_a_file_can_be_asked_for(http: Http, asked: str, part: bytes, told: str | None) -> None:
    where = "/v1/sessions/parts/files/digits"
    await answer(http, "PUT", where, status=204, data=b"0123456789")
    async with http.get(where, headers={"Range": asked}) as response:
        assert response.status == (200 if told is None else 206)
        assert await response.read() == part
        assert response.headers.get("Content-Range") == told
    _, headers = await problem(http, "GET", where, "range_not_satisfiable", 416, headers={"Range": "bytes=10-"})
    assert headers["content-range"] == "bytes */10"


async def test_a_large_file_is_sent_as_it_is_read_and_never_held(service: Service, http: Http) -> None:
    size = 200 * 2**20
    code = f"with open('large', 'wb') as f: f.truncate({size}); f.seek({size} - 5); f.write(b'at it')"
    assert (await run(http, "sent", code))["status"] == "ok"
    before = peak_memory(service.pid)
    where = "/v1/sessions/sent/files/large"
    async with http.get(where) as response:
        assert response.content_length == size
        read = 0
        async for piece in response.content.iter_any():
            read += len(piece)
        assert read == size
    async with http.get(where, headers={"Range": "bytes=-5"}) as response:
        assert await response.read() == b"at it"
    assert peak_memory(service.pid) - before < 50 * 2**20


def peak_memory(pid: int) -> int:
    """Bytes that a process has had at most ("VmHWM", proc(5))."""
    (line,) = [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmHWM:")]
    return int(line.split()[1]) * 1024


ESCAPES = [
    "..%2f..%2fetc/passwd",
    "%2e%2e/%2e%2e/etc/passwd",
    "a/../../x",
    "%2fetc%2fpasswd",
    "/etc/passwd",
    "a%00b",
    "link",
    "folder-link/passwd",
    "link-to-service",
]


@pytest.mark.parametrize("path", ESCAPES)
async def test_a_path_or_a_link_that_leads_out_gives_nothing_and_takes_nothing(http: Http, path: str) -> None:
    with open("/etc/passwd", "rb") as file:
        before = file.read()
    targets = {"link": "/etc/passwd", "folder-link": "/etc", "link-to-service": ".."}
    made = await run(
        http, "escapes", f"import os\nfor n, t in {targets}.items(): os.path.lexists(n) or os.symlink(t, n)"
    )
    assert made["status"] == "ok"
    where = URL(f"/v1/sessions/escapes/files/{path}", encoded=True)
    # A link itself may be replaced and removed; what it leads to may not.
    changed = (204,) if path in targets else ()
    for method, allowed in (("GET", ()), ("PUT", changed), ("DELETE", changed)):
        async with http.request(method, where, data=b"owned" if method == "PUT" else None) as response:
            assert response.status in (400, 404, 409, *allowed), await response.text()
            assert b"root:" not in await response.read()
    with open("/etc/passwd", "rb") as file:
        assert file.read() == before


@pytest.mark.parametrize("path", ["..", "../..", "/", "/etc", "a/../..", "folder-link"])
async def test_a_folder_outside_is_not_listed(http: Http, path: str) -> None:
    await run(http, "listed", "import os; os.path.lexists('folder-link') or os.symlink('/etc', 'folder-link')")
    async with http.get("/v1/sessions/listed/files", params={"path": path}) as response:
        told = await response.text()
        assert response.status in (400, 404, 409), told
        assert "passwd" not in told


async def test_a_file_that_is_too_large_is_refused_before_it_is_sent(service: Service, http: Http) -> None:
    await run(http, "large", "1")
    port = int(service.url.rpartition(":")[2])
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    head = f"PUT /v1/sessions/large/files/f HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {2**40}\r\n\r\n"
    writer.write(head.encode())
    async with asyncio.timeout(HANG):
        status = await reader.readline()
    writer.close()
    assert b" 413 " in status
    assert (await answer(http, "GET", "/v1/sessions/large/files"))["files"] == []


async def test_a_file_that_is_too_large_to_be_read_is_told_as_one_that_is_too_large_to_be_sent(http: Http) -> None:
    result = await run(http, "sparse", "open('sparse', 'wb').truncate(257 * 2**20)")
    assert result["status"] == "ok", result["text"]
    where = "/v1/sessions/sparse/files/sparse"
    await problem(http, "GET", where, "too_large", 413)
    async with http.get(where, headers={"Range": f"bytes={256 * 2**20}-"}) as response:
        assert (response.status, len(await response.read())) == (206, 2**20)


async def test_an_address_with_control_characters_is_refused(http: Http) -> None:
    """A line break at its end would be passed over by the router: `f%0a` would be the file `f`."""
    await run(http, "breaks", "open('f', 'w').close()")
    for path in ("f%0a", "a%0ab", "%00"):
        for method in ("GET", "DELETE"):
            async with http.request(method, URL(f"/v1/sessions/breaks/files/{path}", encoded=True)) as response:
                assert (response.status, (await response.json())["code"]) == (400, "bad_request")
    async with http.get("/v1/sessions/breaks/files/f") as response:
        assert response.status == 200


async def test_what_a_file_call_cannot_do_is_told(http: Http) -> None:
    await run(http, "told", "import os; os.makedirs('d/e'); os.mkfifo('pipe')")
    await problem(http, "GET", "/v1/sessions/told/files/d", "conflict", 409)
    await problem(http, "DELETE", "/v1/sessions/told/files/d", "conflict", 409)
    await problem(http, "GET", "/v1/sessions/told/files/pipe", "conflict", 409)
    await problem(http, "GET", "/v1/sessions/told/files", "not_found", 404, params={"path": "none"})
    await problem(http, "GET", "/v1/sessions/none-such/files", "not_found", 404)
    await problem(http, "GET", "/v1/sessions/none-such/files/f", "not_found", 404)
