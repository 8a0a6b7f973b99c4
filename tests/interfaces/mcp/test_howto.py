"""What docs/howto/mcp.md and open-webui.md tell a user to paste works when it is pasted."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import httpx2
import pytest
from mcp import StdioServerParameters
from mcp.client import Client
from mcp.client.streamable_http import streamable_http_client

from tests.interfaces.mcp.asking import call, environment, over_http, over_stdio, run
from tests.service.running import Service, answer, client
from tests.support.waiting import PROCESS

HOWTO: Final = Path(__file__).parents[3] / "docs" / "howto"


def json_blocks(page: str) -> list[dict[str, Any]]:
    text = (HOWTO / page).read_text("utf-8")
    return [json.loads(block) for block in re.findall(r"^ *```json\n(.*?)^ *```$", text, re.MULTILINE | re.DOTALL)]


@pytest.fixture(scope="module")
def keyed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Service, str]]:
    service = Service(tmp_path_factory.mktemp("service"), variables={"CELLRUN_INTERFACES": "mcp,tools"})
    key = service.add_key("ann")
    service.start()
    yield service, key
    service.end()


async def test_each_configuration_starts_or_finds_a_server_that_runs_code(
    keyed: tuple[Service, str], tmp_path: Path
) -> None:
    service, key = keyed
    found = [
        entry for block in json_blocks("mcp.md") for entry in (block.get("mcpServers") or block["servers"]).values()
    ]
    assert [("command" in entry, "headers" in entry) for entry in found] == [
        (True, False),
        (True, False),
        (False, False),
        (False, True),
    ]
    for entry in found[1:]:  # the first two are the same to us
        if "command" in entry:
            path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
            env = environment(tmp_path / "home") | {"PATH": path}
            command = StdioServerParameters(command=entry["command"], args=entry["args"], env=env, cwd=tmp_path)
            async with Client(command) as mcp:
                assert await run(mcp, "6 * 7") == "42"
            continue
        headers = {name: value.replace("KEY", key) for name, value in entry.get("headers", {}).items()}
        url = entry["url"].replace("http://localhost:8080", service.url)
        sent = headers or {"Authorization": f"Bearer {key}"}
        async with (
            httpx2.AsyncClient(headers=sent, timeout=PROCESS) as http,
            Client(streamable_http_client(url, http_client=http)) as mcp,
        ):
            assert await run(mcp, "6 * 7") == "42"
    async with client(service, key) as ours:
        assert "notes" in [one["id"] for one in (await answer(ours, "GET", "/v1/sessions"))["sessions"]]


async def test_the_headers_for_open_webui_keep_chats_apart(keyed: tuple[Service, str]) -> None:
    service, key = keyed
    (headers,) = json_blocks("open-webui.md")
    said = []
    for chat in ("6f1c6c0e-6a4e-4c63-9f3d-6c8d2f6f3b11", "local:Zk3", "6f1c6c0e-6a4e-4c63-9f3d-6c8d2f6f3b11"):
        sent = {name: value.replace("{{CHAT_ID}}", chat) for name, value in headers.items()}
        async with over_http(service.url, "2025-11-25", key=key, headers=sent) as mcp:
            said.append(await run(mcp, "x = globals().get('x', 0) + 1; x"))
    assert said == ["1", "1", "2"]
    # By OpenAPI the same chat has the same session. Its address is asked for the document before there is any chat.
    async with client(service, key) as http:
        document = await answer(http, "GET", "/tools/openapi.json")
        (path,) = [path for path, item in document["paths"].items() if item["post"]["operationId"] == "run_code"]
        (told,) = await answer(
            http, "POST", f"/tools{path}", json={"code": "x"}, headers={"X-OpenWebUI-Chat-Id": "local:Zk3"}
        )
        assert told["text"] == "1"


@pytest.mark.wide
async def test_a_service_can_be_behind_standard_input_and_output(keyed: tuple[Service, str], tmp_path: Path) -> None:
    service, key = keyed
    (tmp_path / "key").write_text(key)
    flags = ("--server", service.url.replace("http", "cellrun"), "--token-file", str(tmp_path / "key"))
    async with over_stdio(tmp_path, "2026-07-28", *flags) as mcp:
        (described, *_) = (tool.description or "" for tool in (await mcp.list_tools()).tools)
        assert "Python" not in described
        assert "network" not in described
        await run(mcp, "x = 1")
        assert await run(mcp, "x") == "1"
        await call(mcp, "write_file", path="a.txt", content="a")
        assert await run(mcp, "open('a.txt').read()") == "'a'"
