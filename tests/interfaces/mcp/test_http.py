"""The service's MCP address: chats, connections, tenants, keys, pages of other sites."""

from __future__ import annotations

import asyncio
import base64
import io
import itertools
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from mcp import MCPError

from tests.interfaces.mcp.asking import REVISIONS, call, over_http, pictures, refused, run, stopped, text, told
from tests.service.running import TIME_LIMITS, Service, answer, client, problem
from tests.support.waiting import HANG

both = pytest.mark.parametrize("revision", REVISIONS)
newest = pytest.mark.parametrize(
    "revision", [each if each == "2026-07-28" else pytest.param(each, marks=pytest.mark.wide) for each in REVISIONS]
)
"""The other one by `make soak`: it takes long."""
JSON = {"Accept": "application/json, text/event-stream", "Content-Type": "application/json"}


@dataclass
class Shared:
    """A service with keys of three tenants."""

    service: Service
    ann: str
    bob: str
    eve: str

    @property
    def url(self) -> str:
        return self.service.url


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shared]:
    service = Service(tmp_path_factory.mktemp("mcp"), variables={"CELLRUN_INTERFACES": "mcp"})
    ann, bob, eve = (service.add_key(tenant) for tenant in ("ann", "bob", "eve"))
    service.start()
    yield Shared(service, ann, bob, eve)
    service.end()
    log = service.log_text()
    assert '"level": "error"' not in log
    assert ann not in log


async def runs_of(shared: Shared, session: str) -> list[dict[str, Any]]:
    async with client(shared.service, shared.ann) as http:
        found: list[dict[str, Any]] = (await answer(http, "GET", f"/v1/sessions/{session}"))["runs"]
        return found


@both
async def test_a_chat_keeps_its_variables_from_connection_to_connection(shared: Shared, revision: str) -> None:
    headers = {"X-Session-Id": f"chat-{revision}", "X-OpenWebUI-Chat-Id": "of less account"}
    async with over_http(shared.url, revision, key=shared.ann, headers=headers) as mcp:
        tools = (await mcp.list_tools()).tools
        assert all("session" not in tool.input_schema["properties"] for tool in tools)
        assert "up to 60 minutes" in (tools[0].description or "")
        assert await run(mcp, "x = 'kept'; x") == "'kept'"
        await call(mcp, "write_file", path="a.txt", content="a")
    async with over_http(shared.url, revision, key=shared.ann, headers=headers) as mcp:
        assert await run(mcp, "x") == "'kept'"
        assert text(await call(mcp, "list_files")) == "a.txt\t1 bytes"
        # A name that a model thinks of is one of this chat's: it must not lead into another chat.
        assert "NameError" in await run(mcp, "x", session="chat-other")
    async with over_http(shared.url, revision, key=shared.ann, headers={"X-OpenWebUI-Chat-Id": "chat-other"}) as mcp:
        assert "NameError" in await run(mcp, "x")


async def test_a_connection_has_a_session_of_its_own_that_ends_with_it(shared: Shared) -> None:
    async with over_http(shared.url, "2025-11-25", key=shared.ann) as mcp:
        await run(mcp, "x = 1")
        assert await run(mcp, "x") == "1"
        assert "NameError" in await run(mcp, "x", session="named")
        async with client(shared.service, shared.ann) as http:
            (own,) = [
                one["id"] for one in (await answer(http, "GET", "/v1/sessions"))["sessions"] if "mcp:" in one["id"]
            ]
    async with client(shared.service, shared.ann) as http:
        await problem(http, "GET", f"/v1/sessions/{own}", "not_found", 404)


async def test_without_a_chat_or_a_connection_nothing_stays_unless_a_session_is_named(shared: Shared) -> None:
    async with over_http(shared.url, "2026-07-28", key=shared.ann) as mcp:
        tools = {tool.name: tool for tool in (await mcp.list_tools()).tools}
        assert "without, nothing stays" in (tools["run_code"].description or "")
        assert "session" in tools["write_file"].input_schema["required"]
        await run(mcp, "x = 1")
        assert "NameError" in await run(mcp, "x")
        await run(mcp, "x = 1", session="by-name")
        assert await run(mcp, "x", session="by-name") == "1"
        assert "name the session" in await refused(mcp, "read_file", path="a")
        assert "a session is named with" in await refused(mcp, "run_code", code="1", session="{{CHAT_ID}}")
    async with over_http(shared.url, "2025-11-25", key=shared.ann) as mcp:
        assert await run(mcp, "x", session="by-name") == "1"


@newest
async def test_a_long_run_tells_how_it_goes_a_picture_comes_and_a_flood_is_cut(shared: Shared, revision: str) -> None:
    seen: list[tuple[float, str]] = []
    heard = asyncio.Event()

    async def on_progress(progress: float, total: float | None, message: str | None) -> None:
        seen.append((progress, message or ""))
        heard.set()

    headers = {"X-Session-Id": f"long-{revision}"}
    async with over_http(shared.url, revision, key=shared.ann, headers=headers) as mcp:
        code = "import os, time\nprint('step', 0, flush=True)\nwhile not os.path.exists('heard'): time.sleep(0.02)"
        calling = asyncio.create_task(mcp.call_tool("run_code", {"code": code}, progress_callback=on_progress))
        async with asyncio.timeout(HANG):
            await heard.wait()
        await call(mcp, "write_file", path="heard", content="")
        result = await calling
        run_id = told(result)["run_id"]
        assert re.fullmatch(rf"run {run_id}(: step 0)?", seen[0][1])  # as the kernel has printed by then, or not
        # How many there are is the machine's matter: how far apart they are is ours.
        assert all(later - earlier > 2.9 for earlier, later in itertools.pairwise([0.0, *(after for after, _ in seen)]))
        flood = await call(
            mcp, "run_code", code="import itertools\nprint('first')\nfor i in itertools.count(): print(i)", wait=1
        )
        assert told(flood)["status"] == "running"
        async with asyncio.timeout(HANG):
            while told(flood).get("cut", 0) <= 100_000:
                flood = await call(mcp, "get_run", wait=0.1)
        assert told(flood)["status"] == "running"
        assert text(flood).startswith("first\n0\n1\n")
        assert re.search(r"\n\d+\n\[still running", text(flood))
        assert len(text(flood)) < 20_500
        ended = await stopped(mcp)
        assert told(ended)["status"] == "interrupted"
        assert told(ended)["cut"] > 100_000
        showing = f"from IPython.display import Image, display\ndisplay(Image(data={base64.b64decode(PIXEL)!r}))"
        (picture,) = pictures(await call(mcp, "run_code", code=showing))
        assert picture.data == PIXEL
        for limit in TIME_LIMITS:
            code = "print('part', flush=True)\nimport time; time.sleep(300)"
            limited = await call(mcp, "run_code", code=code, timeout=limit)
            assert told(limited)["status"] == "timeout"
            if "part" in text(limited):
                break
        assert text(limited).startswith("part\n")
        assert "name a shorter `timeout`" in await refused(mcp, "run_code", code="1", timeout=9_999)


PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="


@both
async def test_a_call_that_is_cancelled_interrupts_its_run(shared: Shared, revision: str) -> None:
    """With 2025-11-25 by a notification, with 2026-07-28 by the end of the answer's stream: the client does what its revision says."""
    session = f"cancelled-{revision}"
    async with over_http(shared.url, revision, key=shared.ann, headers={"X-Session-Id": session}) as mcp:
        await run(mcp, "import time")
        calling = asyncio.create_task(mcp.call_tool("run_code", {"code": "print('begun', flush=True); time.sleep(50)"}))
        async with asyncio.timeout(HANG):
            while "begun" not in text(await call(mcp, "get_run", wait=0)):
                await asyncio.sleep(0.05)
        calling.cancel()
        await asyncio.gather(calling, return_exceptions=True)
        ended = await call(mcp, "get_run")
        assert told(ended)["status"] == "interrupted"
        assert "the client cancelled the call" in text(ended)
    assert (await runs_of(shared, session))[0]["status"] == "interrupted"


async def test_a_client_that_goes_away_can_come_back_for_the_result(shared: Shared) -> None:
    headers = {"X-Session-Id": "left"}
    async with over_http(shared.url, "2025-11-25", key=shared.ann, headers=headers) as mcp:
        await call(mcp, "run_code", code="import time; time.sleep(1.5); print('done')", wait=0)
    async with over_http(shared.url, "2026-07-28", key=shared.ann, headers=headers) as mcp:
        assert text(await call(mcp, "get_run")) == "done"


@both
async def test_tenants_know_nothing_of_each_other(shared: Shared, revision: str) -> None:
    headers = {"X-Session-Id": "same-name"}
    async with (
        over_http(shared.url, revision, key=shared.ann, headers=headers) as ann,
        over_http(shared.url, revision, key=shared.bob, headers=headers) as bob,
    ):
        of_ann = told(await call(ann, "run_code", code="secret = 'of ann'; open('secret.txt', 'w').write(secret)"))
        assert "NameError" in await run(bob, "secret")
        assert text(await call(bob, "list_files")) == "The folder is empty."
        assert "there is no 'secret.txt'" in await refused(bob, "read_file", path="secret.txt")
        assert "there is no run" in await refused(bob, "get_run", run_id=of_ann["run_id"])
        assert "there is no run" in await refused(bob, "interrupt", run_id=of_ann["run_id"])
        await call(bob, "restart")
        assert await run(ann, "secret") == "'of ann'"


INITIALIZE = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}},
}


@pytest.mark.wide
async def test_a_tenant_that_opens_connections_without_end_is_refused_more_and_others_are_not(shared: Shared) -> None:
    async with client(shared.service, shared.eve) as eve, client(shared.service, shared.bob) as bob:

        async def opened(http: aiohttp.ClientSession) -> tuple[int, str]:
            async with http.post("/mcp", json=INITIALIZE, headers=JSON) as response:
                return response.status, response.headers.get("Mcp-Session-Id", "")

        _, first = await opened(eve)
        for _ in range(999):
            assert (await opened(eve))[0] == 200
        told, _ = await problem(eve, "POST", "/mcp", "quota_exceeded", 429, json=INITIALIZE, headers=JSON)
        assert "1000 MCP connections" in told["detail"]
        assert (await opened(bob))[0] == 200
        async with eve.delete("/mcp", headers={**JSON, "Mcp-Session-Id": first}) as response:
            assert response.status == 200
        assert (await opened(eve))[0] == 200


async def test_what_a_connection_is_promised_is_as_long_as_it_lives(tmp_path: Path) -> None:
    variables = {"CELLRUN_INTERFACES": "mcp", "CELLRUN_IDLE_TIMEOUT": "28800"}
    service = Service(tmp_path, variables=variables).start()
    try:
        for headers, said in ({}, "Not used for 30 minutes"), ({"X-Session-Id": "chat"}, "Not used for 480 minutes"):
            async with over_http(service.url, "2025-11-25", headers=headers) as mcp:
                assert said in ((await mcp.list_tools()).tools[0].description or "")
    finally:
        service.end()


async def test_a_connection_is_of_no_use_to_another_tenant(shared: Shared) -> None:
    listing = {"jsonrpc": "2.0", "id": 2, "method": "tools/list", "params": {}}
    async with client(shared.service, shared.ann) as ann, client(shared.service, shared.bob) as bob:
        async with ann.post("/mcp", json=INITIALIZE, headers=JSON) as response:
            assert response.status == 200
            own = {**JSON, "Mcp-Session-Id": response.headers["Mcp-Session-Id"]}
        for ask in (
            bob.post("/mcp", json=listing, headers=own),
            bob.get("/mcp", headers=own),
            bob.delete("/mcp", headers=own),
        ):
            async with ask as response:
                assert response.status == 404
        async with ann.post("/mcp", json=listing, headers=own) as response:
            assert "run_code" in await response.text()


@pytest.mark.parametrize("path", ["/mcp", "/mcp/"])
@pytest.mark.parametrize("method", ["POST", "GET", "DELETE"])
async def test_nothing_is_answered_without_a_key(shared: Shared, method: str, path: str) -> None:
    listing = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {}}
    for key in (None, "cr_000000000000_" + "x" * 43):
        async with client(shared.service, key) as http:
            _, headers = await problem(http, method, path, "unauthenticated", 401, json=listing, headers=JSON)
            assert headers["www-authenticate"] == "Bearer"
            assert "access-control-allow-origin" not in headers


async def test_the_client_says_that_its_key_is_not_known(shared: Shared) -> None:
    with pytest.raises(ExceptionGroup) as raised:
        async with over_http(shared.url, "2025-11-25", key="cr_000000000000_" + "x" * 43):
            pass
    assert raised.group_contains(MCPError, match="") or raised.group_contains(Exception, match="401")


@pytest.mark.wide
async def test_pages_of_other_sites_may_call_it_with_a_key_and_not_without_keys(shared: Shared, tmp_path: Path) -> None:
    asking = {
        "Origin": "http://chat.example",
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization,content-type,mcp-protocol-version",
    }
    async with client(shared.service) as http, http.options("/mcp", headers=asking) as response:
        assert response.status == 200
        assert response.headers["Access-Control-Allow-Origin"] == "*"
        assert "mcp-protocol-version" in response.headers["Access-Control-Allow-Headers"]
        assert "Access-Control-Allow-Credentials" not in response.headers
    async with client(shared.service) as http:
        async with http.post("/mcp", json={}, headers={**JSON, "Origin": "http://chat.example"}) as response:
            assert (response.status, response.headers["Access-Control-Allow-Origin"]) == (401, "*")
    alone = Service(tmp_path / "alone", variables={"CELLRUN_INTERFACES": "mcp,tools"}).start()
    try:
        async with client(alone) as http:
            await problem(http, "OPTIONS", "/mcp", "forbidden_host", 403, headers=asking)
            headers = {**JSON, "Origin": "http://chat.example"}
            await problem(http, "POST", "/mcp", "forbidden_host", 403, json={}, headers=headers)
            await problem(
                http, "POST", "/mcp", "forbidden_host", 403, json={}, headers={**JSON, "Host": "evil.example"}
            )
            for method, path in (
                ("POST", "/tools/run_code"),
                ("GET", "/tools/openapi.json"),
                ("OPTIONS", "/tools/run_code"),
            ):
                await problem(http, method, path, "forbidden_host", 403, headers=asking)
                await problem(http, method, path, "forbidden_host", 403, headers={"Host": "evil.example"})
            assert "6 * 7 = 42" in str(
                await answer(http, "POST", "/tools/run_code", json={"code": "print('6 * 7 =', 6 * 7)"})
            )
        async with over_http(alone.url, "2026-07-28") as mcp:
            assert await run(mcp, "6 * 7") == "42"
    finally:
        alone.end()


async def test_what_is_no_mcp_is_refused(shared: Shared) -> None:
    async with client(shared.service, shared.ann) as http:
        await problem(http, "POST", "/tools/run_code", "not_found", 404, json={"code": "1"})  # is left out here
        for body, status in ((b"{", 400), (b"[]", 400), (json.dumps({"a": 1}).encode(), 400)):
            for version in ("2025-11-25", "2026-07-28", "1999-01-01"):
                headers = {**JSON, "MCP-Protocol-Version": version}
                async with http.post("/mcp", data=body, headers=headers) as response:
                    assert response.status == status, (body, version)
        async with http.post("/mcp", data=io.BytesIO(b"x" * (17 * 2**20)), headers=JSON) as response:
            assert response.status == 413
