"""The tools over MCP, for clients of both revisions that are in use: 2025-11-25 (a handshake, a session) and 2026-07-28 (neither)."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any, Final

from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel import Server
from mcp.shared.exceptions import MCPError
from mcp_types import (
    INVALID_PARAMS,
    CallToolRequestParams,
    CallToolResult,
    ContentBlock,
    ImageContent,
    ListToolsResult,
    PaginatedRequestParams,
    TextContent,
    Tool,
    ToolAnnotations,
)

from cellrun.service import tool_calls
from cellrun.service.describe import Place
from cellrun.service.tool_backend import Answer, Promises, Tell, ToolBackend

_WAIT: Final = 50.0
"""Seconds that a call without progress waits: many clients give a call up after 60."""

Asking = ServerRequestContext[Any, Any]
Whose = Callable[[Asking], tuple[ToolBackend, Place]]
"""Whose sessions a request is for, and which of them where it names none."""


def make_server(whose: Whose, *, version: str) -> Server[Any]:
    async def on_list_tools(context: Asking, params: PaginatedRequestParams | None) -> ListToolsResult:
        backend, place = whose(context)
        promises = backend.promises
        return ListToolsResult(tools=[_as_tool(tool, promises) for tool in tool_calls.tools(promises, place)])

    async def on_call_tool(context: Asking, params: CallToolRequestParams) -> CallToolResult:
        backend, place = whose(context)
        if params.name not in tool_calls.ARGUMENTS:
            raise MCPError(code=INVALID_PARAMS, message=f"there is no tool {params.name[:100]!r}")
        tell = _teller(context)
        # A client that asked for progress knows that the call is alive: it is answered when the run has ended.
        wait = _WAIT if tell is None else None
        answer = await tool_calls.call(backend, place, params.name, params.arguments or {}, wait=wait, tell=tell)
        return _as_result(answer)

    return Server(
        "cellrun",
        version=version,
        title="cellrun",
        description="Runs code in Jupyter kernels.",
        on_list_tools=on_list_tools,
        on_call_tool=on_call_tool,
    )


def _as_tool(tool: tool_calls.Tool, promises: Promises) -> Tool:
    reads = tool.name in tool_calls.READS
    return Tool(
        name=tool.name,
        description=tool.description,
        input_schema=tool.schema,
        annotations=ToolAnnotations(
            read_only_hint=reads,
            destructive_hint=not reads,
            open_world_hint=tool.name == "run_code" and not promises.offline,
        ),
    )


def _teller(context: Asking) -> Tell | None:
    if context.meta is None or context.meta.get("progress_token") is None:
        return None

    async def tell(seconds: float, line: str) -> None:
        await context.session.report_progress(round(seconds, 1), None, line)

    return tell


def _as_result(answer: Answer) -> CallToolResult:
    content: list[ContentBlock] = [TextContent(text=answer.text)]
    content += [
        ImageContent(data=base64.b64encode(image.data).decode("ascii"), mime_type=image.mime) for image in answer.images
    ]
    return CallToolResult(content=content, structured_content=answer.told or None, is_error=answer.failed)
