"""The OpenAPI tool server, asked as Open WebUI does: by its document, with the chat's id in a header."""

from __future__ import annotations

import asyncio
import base64
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import aiohttp
import pytest
from openapi_spec_validator import validate
from PIL import Image

from tests.service.running import Service, answer, client, problem
from tests.support.waiting import HANG

OPERATIONS = ["run_code", "get_run", "interrupt", "restart", "list_files", "read_file", "write_file"]


@dataclass
class Shared:
    """A service with keys of two tenants."""

    service: Service
    ann: str
    bob: str


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shared]:
    service = Service(tmp_path_factory.mktemp("tools"), variables={"CELLRUN_INTERFACES": "tools"})
    ann, bob = service.add_key("ann"), service.add_key("bob")
    service.start()
    yield Shared(service, ann, bob)
    service.end()
    log = service.log_text()
    assert '"level": "error"' not in log
    assert '"tenant": "ann"' in log
    assert ann not in log


async def ask(http: aiohttp.ClientSession, operation: str, chat: str | None = "chat", **body: Any) -> Any:
    headers = {} if chat is None else {"X-OpenWebUI-Chat-Id": chat}
    return await answer(http, "POST", f"/tools/{operation}", json=body, headers=headers)


async def run(http: aiohttp.ClientSession, code: str, chat: str | None = "chat") -> str:
    (told, *_) = await ask(http, "run_code", chat, code=code)
    found: str = told["text"]
    return found


async def test_the_document_is_valid_small_and_says_what_the_kernels_do(shared: Shared) -> None:
    async with client(shared.service) as http:
        document = await answer(http, "GET", "/tools/openapi.json")
        main = await answer(http, "GET", "/openapi.json")
    validate(document)
    assert not any("tools" in path for path in main["paths"])
    assert len(json.dumps(document)) < 8_000
    operations = {one["operationId"]: one for path in document["paths"].values() for one in path.values()}
    assert list(operations) == OPERATIONS
    assert document["servers"] == [{"url": "/tools"}]
    told = operations["run_code"]["description"]
    for promise in ("Python", "Variables, imports and files stay", "5 minutes", "up to 60 minutes", "no network"):
        assert promise in told
    schemas = document["components"]["schemas"]
    assert schemas["RunCodeBody"]["properties"]["timeout"].keys() == {"type", "exclusiveMinimum", "description"}
    assert schemas["RunCodeBody"]["required"] == ["code"]


async def test_a_chat_keeps_its_variables_and_another_has_its_own(shared: Shared) -> None:
    async with client(shared.service, shared.ann) as http:
        assert await run(http, "x = 1; print('\\x1b[31mred\\x1b[0m'); x") == "red\n1"
        assert await run(http, "x") == "1"
        assert "NameError" in await run(http, "x", "another")
        of_no_chat = await run(http, "x", None)
        assert "NameError" in of_no_chat
        assert of_no_chat.endswith("nothing stays for later calls]")
        session = {"X-Session-Id": "chat", "X-OpenWebUI-Chat-Id": "another"}
        (told,) = await answer(http, "POST", "/tools/run_code", json={"code": "x"}, headers=session)
        assert told.keys() == {"text", "status", "run_id", "seconds"}
        assert told["text"] == "1"
        assert "fresh" in await ask(http, "restart")
        assert "NameError" in await run(http, "x")


async def test_pictures_are_data_urls_each_by_itself(shared: Shared) -> None:
    code = "from PIL import Image\nfrom IPython.display import display\nfor c in ('red', 'blue'): display(Image.new('RGB', (9, 9), c))"
    async with client(shared.service, shared.ann) as http:
        told, first, red, second, blue = await ask(http, "run_code", code=code)
        assert (told["status"], first, second) == ("ok", "picture 1:", "picture 2:")
        assert "base64" not in told["text"]
        colors = []
        for url in (red, blue):
            head, _, data = url.partition(",")
            assert head == "data:image/png;base64"
            colors.append(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB").getpixel((0, 0)))
        assert colors == [(255, 0, 0), (0, 0, 255)]
        (made,) = await ask(http, "run_code", code="Image.new('RGB', (9, 9)).save('made.png')")
        assert made["files"] == ["made.png"]
        whole = await ask(http, "read_file", path="made.png")
        assert whole.startswith("data:image/png;base64,")


async def test_files_go_in_and_out(shared: Shared) -> None:
    async with client(shared.service, shared.ann) as http:
        assert (
            await ask(http, "write_file", "files", path="in/a.csv", content="a,b\n1,2\n")
            == "in/a.csv: 8 bytes written."
        )
        assert await run(http, "open('in/a.csv').read()", "files") == "'a,b\\n1,2\\n'"
        assert await ask(http, "list_files", "files") == "in/"
        assert await ask(http, "read_file", "files", path="in/a.csv") == "a,b\n1,2\n"
        chat = {"X-Session-Id": "files"}
        for path, code, status in (
            ("none", "not_found", 404),
            ("in", "bad_request", 400),
            ("../x", "bad_request", 400),
        ):
            await problem(http, "POST", "/tools/read_file", code, status, json={"path": path}, headers=chat)
        told, _ = await problem(http, "POST", "/tools/list_files", "bad_request", 400, json={})
        assert "a header X-Session-Id" in told["detail"]
        await problem(http, "POST", "/tools/run_code", "bad_request", 400, json={"kode": "1"})
        await problem(
            http, "POST", "/tools/run_code", "bad_request", 400, data=b"{", headers={"Content-Type": "application/json"}
        )
        await problem(http, "POST", "/tools/none", "not_found", 404, json={})
        await problem(http, "GET", "/tools/run_code", "method_not_allowed", 405)


async def test_bytes_come_in_parts_that_say_where_they_belong(shared: Shared) -> None:
    async with client(shared.service, shared.ann) as http:
        await run(http, "data = bytes(range(256)) * 2_800; _ = open('all.bin', 'wb').write(data)", "bytes")
        found, offset = b"", 0
        while True:
            part = await ask(http, "read_file", "bytes", path="all.bin", encoding="base64", offset=offset)
            assert (part["offset"], part["size"]) == (offset, 716_800)
            if not part["bytes"]:
                break
            found += base64.b64decode(part["base64"], validate=True)
            offset += part["bytes"]
        assert found == bytes(range(256)) * 2_800


async def test_a_picture_of_noise_that_is_left_out_can_be_read_from_a_file(shared: Shared) -> None:
    code = "import os\nfrom PIL import Image\nImage.frombytes('RGB', (1_500, 1_500), os.urandom(6_750_000)).save('noise.bmp')"
    async with client(shared.service, shared.ann) as http:
        await run(http, code, "noise")
        url = await ask(http, "read_file", "noise", path="noise.bmp")
        assert url.startswith("data:image/jpeg;base64,")


async def test_half_a_surrogate_pair_is_refused_before_anything_is_run(shared: Shared) -> None:
    async with client(shared.service, shared.ann) as http:
        told, _ = await problem(
            http,
            "POST",
            "/tools/run_code",
            "bad_request",
            400,
            data=b'{"code": "print(1) # \\ud800"}',
            headers={"Content-Type": "application/json"},
        )
        assert "half a surrogate pair is no text" in told["detail"]


async def test_a_flood_is_cut_and_can_be_read_on(shared: Shared) -> None:
    async with client(shared.service, shared.ann) as http:
        (told,) = await ask(http, "run_code", "flood", code="for i in range(100_000): print(i)")
        assert len(told["text"]) < 20_400
        assert told["text"].endswith("99999")
        head, _, rest = told["text"].partition("\n[… ")
        assert f"with run_id='{told['run_id']}' and offset={len(head)} gives more …]" in rest
        (later,) = await ask(http, "get_run", "flood", run_id=told["run_id"], offset=100_000)
        assert later["text"].startswith("".join(f"{i}\n" for i in range(100_000))[100_000:110_000])


async def test_a_run_can_be_stopped_from_beside_and_ends_with_whoever_started_it(shared: Shared) -> None:
    async with client(shared.service, shared.ann) as http:
        asking = asyncio.create_task(ask(http, "run_code", "stop", code="print('begun', flush=True)\nwhile True: pass"))
        await _running(http, "stop")
        (told,) = await ask(http, "interrupt", "stop")
        if told["status"] == "running":  # the tool waits 3 s for its end
            (told,) = await ask(http, "get_run", "stop", run_id=told["run_id"])
        assert told["status"] == "interrupted"
        (same,) = await asking
        assert same["run_id"] == told["run_id"]

        asking = asyncio.create_task(ask(http, "run_code", "gone", code="print('begun', flush=True)\nwhile True: pass"))
        run_id = await _running(http, "gone")
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        (told,) = await ask(http, "get_run", "gone", run_id=run_id)
        assert told["status"] == "interrupted"


async def _running(http: aiohttp.ClientSession, session: str) -> str:
    """Its run, as soon as it has printed."""
    async with asyncio.timeout(HANG):
        while True:
            async with http.get(f"/v1/sessions/{session}") as response:
                for one in (await response.json()).get("runs", []):
                    if one["status"] == "running" and one["last"] > 1:  # the first one tells that it was begun
                        return str(one["execution_id"])
            await asyncio.sleep(0.05)


async def test_no_operation_reaches_another_tenant(shared: Shared) -> None:
    async with client(shared.service, shared.ann) as ann, client(shared.service, shared.bob) as bob:
        (told,) = await ask(ann, "run_code", code="secret = 'of ann'; open('secret.txt', 'w').write(secret)")
        assert "NameError" in await run(bob, "secret")
        assert "secret.txt" not in await ask(bob, "list_files")
        chat, run_id = {"X-Session-Id": "chat"}, {"run_id": told["run_id"]}
        await problem(bob, "POST", "/tools/read_file", "not_found", 404, json={"path": "secret.txt"}, headers=chat)
        for operation in ("get_run", "interrupt"):
            await problem(bob, "POST", f"/tools/{operation}", "not_found", 404, json=run_id, headers=chat)
        await ask(bob, "write_file", path="secret.txt", content="of bob")
        await ask(bob, "restart")
        assert await run(ann, "secret + open('secret.txt').read()") == "'of annof ann'"


@pytest.mark.parametrize("operation", OPERATIONS)
async def test_nothing_is_done_without_a_key(shared: Shared, operation: str) -> None:
    body = {"code": "1", "path": "a", "content": "", "run_id": "a"}
    for key in (None, "cr_000000000000_" + "x" * 43):
        async with client(shared.service, key) as http:
            path = f"/tools/{operation}"
            _, headers = await problem(
                http, "POST", path, "unauthenticated", 401, json=body, headers={"X-Session-Id": "c"}
            )
            assert headers["www-authenticate"] == "Bearer"
            json_of = {"Content-Type": "application/json"}
            await problem(http, "POST", path, "unauthenticated", 401, data=b"{", headers=json_of)  # before it is read


@pytest.mark.wide
async def test_pages_of_other_sites_may_call_it_with_a_key(shared: Shared) -> None:
    page = {"Origin": "http://chat.example"}
    asking = {
        **page,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization,x-session-id",
    }
    async with client(shared.service, shared.ann) as http:
        async with http.options("/tools/run_code", headers=asking) as response:
            assert response.status == 200
            assert "x-session-id" in response.headers["Access-Control-Allow-Headers"]
            assert "Access-Control-Allow-Credentials" not in response.headers
        async with http.post("/tools/run_code", json={"code": "1"}, headers=page) as response:
            assert (response.status, response.headers["Access-Control-Allow-Origin"]) == (200, "*")
        async with http.get("/tools/openapi.json", headers=page) as response:
            assert response.headers["Access-Control-Allow-Origin"] == "*"
        # Our own API stays as it is: no page of another site reads from it.
        async with http.get("/v1/sessions", headers=page) as response:
            assert "Access-Control-Allow-Origin" not in response.headers
        await problem(http, "POST", "/mcp", "not_found", 404, json={})  # is left out here
