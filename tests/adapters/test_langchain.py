"""Tools of LangChain, called as its agents call them."""

from __future__ import annotations

import asyncio
import base64
from typing import Any

import pytest
from langchain_core.messages import ToolCall, ToolMessage
from langchain_core.tools import BaseTool
from langchain_core.utils.function_calling import convert_to_openai_tool

from cellrun.adapters.langchain import CellrunToolkit

PLOT = "from PIL import Image; Image.new('RGB', (8, 8))"


def tools_of(toolkit: CellrunToolkit) -> dict[str, BaseTool]:
    return {tool.name: tool for tool in toolkit.get_tools()}


def calling(name: str, **arguments: Any) -> ToolCall:
    return ToolCall(name=name, args=arguments, id="call-1", type="tool_call")


async def test_calls_share_one_kernel() -> None:
    async with CellrunToolkit() as toolkit:
        run = tools_of(toolkit)["run_code"]
        await run.ainvoke({"code": "x = 6"})
        message = await run.ainvoke(calling("run_code", code="x * 7"))
        assert isinstance(message, ToolMessage)
        assert (message.content, message.status, message.tool_call_id) == ("42", "success", "call-1")
        assert message.artifact["status"] == "ok"
        assert await run.ainvoke({"code": "x"}) == "6"


def test_blocking_calls_work() -> None:
    with CellrunToolkit() as toolkit:
        tools = tools_of(toolkit)
        tools["write_file"].invoke({"path": "a.txt", "content": "hello"})
        assert tools["run_code"].invoke({"code": "open('a.txt').read()"}) == "'hello'"


async def test_blocking_calls_work_within_an_event_loop_too() -> None:
    with CellrunToolkit(only=["run_code"]) as toolkit:
        (run,) = toolkit.get_tools()
        assert run.invoke({"code": "1 + 1"}) == "2"


async def test_a_picture_is_an_image_block() -> None:
    async with CellrunToolkit() as toolkit:
        message = await tools_of(toolkit)["run_code"].ainvoke(calling("run_code", code=PLOT))
        text, picture = message.content_blocks
        assert text["type"] == "text"
        assert (picture["type"], picture["mime_type"]) == ("image", "image/png")
        assert base64.b64decode(picture["base64"])[:4] == b"\x89PNG"


async def test_a_tool_that_could_not_work_says_so_with_its_status() -> None:
    async with CellrunToolkit() as toolkit:
        message = await tools_of(toolkit)["read_file"].ainvoke(calling("read_file", path="none.txt"))
        assert (message.status, message.content) == ("error", "there is no 'none.txt'")
        failed = await tools_of(toolkit)["run_code"].ainvoke(calling("run_code", code="1/0"))
        assert failed.status == "success"
        assert "ZeroDivisionError" in failed.content


async def test_models_are_given_the_schemas() -> None:
    toolkit = CellrunToolkit()
    offered = {tool["function"]["name"]: tool["function"] for tool in map(convert_to_openai_tool, toolkit.get_tools())}
    assert set(offered) >= {"run_code", "read_file", "write_file", "list_files", "restart", "interrupt", "get_run"}
    assert offered["run_code"]["parameters"]["required"] == ["code"]
    assert "Jupyter kernel" in offered["run_code"]["description"]


async def test_a_cancelled_call_leaves_the_kernel_free() -> None:
    async with CellrunToolkit() as toolkit:
        run = tools_of(toolkit)["run_code"]
        await run.ainvoke({"code": "1"})
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await run.ainvoke({"code": "import time; time.sleep(60)"})
        assert await run.ainvoke({"code": "2"}) == "2"
