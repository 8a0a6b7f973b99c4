"""The client of the `mcp` package, over both transports and in both revisions."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import httpx2
from mcp import StdioServerParameters
from mcp.client import Client
from mcp.client.streamable_http import streamable_http_client
from mcp_types import CallToolResult, ImageContent, TextContent

from tests.support.waiting import HANG, PROCESS

REVISIONS: Final = {"2026-07-28": "2026-07-28", "2025-11-25": "legacy"}
"""What the client is told for each revision."""


def environment(home: Path) -> dict[str, str]:
    home.mkdir(parents=True, exist_ok=True)
    return {**os.environ, "HOME": str(home), "CELLRUN_CONFIG": str(home / "none.toml")}


@asynccontextmanager
async def over_stdio(folder: Path, revision: str, *flags: str) -> AsyncIterator[Client]:
    """A server that the client starts, with `folder` as its working folder."""
    (folder / "work").mkdir(parents=True, exist_ok=True)
    command = StdioServerParameters(
        command=sys.executable,
        args=["-m", "cellrun", "mcp", *flags],
        env=environment(folder / "home"),
        cwd=folder / "work",
    )
    async with Client(command, mode=REVISIONS[revision]) as client:
        assert client.session.protocol_version == revision
        yield client


@asynccontextmanager
async def over_http(
    url: str, revision: str, *, key: str | None = None, headers: dict[str, str] | None = None
) -> AsyncIterator[Client]:
    sent = dict(headers or {}) | ({} if key is None else {"Authorization": f"Bearer {key}"})
    async with (
        httpx2.AsyncClient(headers=sent, timeout=PROCESS) as http,
        Client(streamable_http_client(f"{url}/mcp", http_client=http), mode=REVISIONS[revision]) as client,
    ):
        assert client.session.protocol_version == revision
        yield client


async def call(client: Client, name: str, **arguments: Any) -> CallToolResult:
    """An answer that is not a failure of the tool."""
    result = await client.call_tool(name, arguments)
    assert isinstance(result, CallToolResult)
    assert not result.is_error, result
    return result


async def refused(client: Client, name: str, **arguments: Any) -> str:
    """What the tool says of why it did nothing."""
    result = await client.call_tool(name, arguments)
    assert isinstance(result, CallToolResult)
    assert result.is_error, result
    return text(result)


async def run(client: Client, code: str, **arguments: Any) -> str:
    return text(await call(client, "run_code", code=code, **arguments))


async def stopped(client: Client, **arguments: Any) -> CallToolResult:
    """The answer of a run that is interrupted. The tool waits 3 s for its end, which a busy machine does not always keep: then it is
    come back to."""
    ended = await call(client, "interrupt", **arguments)
    if told(ended).get("status") == "running":
        ended = await call(client, "get_run", run_id=told(ended)["run_id"], wait=HANG)
    return ended


def text(result: CallToolResult) -> str:
    (block,) = (block for block in result.content if isinstance(block, TextContent))
    return block.text


def pictures(result: CallToolResult) -> list[ImageContent]:
    return [block for block in result.content if isinstance(block, ImageContent)]


def told(result: CallToolResult) -> dict[str, Any]:
    """What is for programs; it must be little."""
    found: dict[str, Any] = result.structured_content or {}
    assert len(json.dumps(found)) < 400
    return found
