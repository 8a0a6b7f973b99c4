"""Agents of OpenAI's SDK, with a model whose words are written down."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from agents import Agent, Model, ModelResponse, RunConfig, Runner, Tool, Usage
from agents.items import TResponseStreamEvent
from openai.types.responses import (
    ResponseFunctionToolCall,
    ResponseOutputItem,
    ResponseOutputMessage,
    ResponseOutputText,
)

from cellrun.adapters.openai_agents import CellrunTools

PLOT = "from PIL import Image; Image.new('RGB', (8, 8))"
QUIET = RunConfig(tracing_disabled=True)  # tracing would send what happens here to OpenAI


class Scripted(Model):
    """Runs the pieces of code one after the other, and then says its last word."""

    def __init__(self, *arguments: str, said: str = "done") -> None:
        self._left = list(arguments)
        self._said = said
        self.offered: list[Tool] = []

    async def get_response(self, *args: Any, **more: Any) -> ModelResponse:
        self.offered = more["tools"]
        item: ResponseOutputItem
        if self._left:
            item = ResponseFunctionToolCall(
                call_id=f"call-{len(self._left)}", name="run_code", arguments=self._left.pop(0), type="function_call"
            )
        else:
            text = ResponseOutputText(text=self._said, type="output_text", annotations=[])
            item = ResponseOutputMessage(id="m", content=[text], role="assistant", status="completed", type="message")
        return ModelResponse(output=[item], usage=Usage(), response_id=None)

    def stream_response(self, *args: Any, **more: Any) -> AsyncIterator[TResponseStreamEvent]:
        raise NotImplementedError


def running(*codes: str) -> Scripted:
    return Scripted(*(json.dumps({"code": code}) for code in codes))


async def outputs(model: Scripted, tools: CellrunTools) -> list[Any]:
    agent = Agent(name="coder", model=model, tools=list(tools.function_tools()))
    result = await Runner.run(agent, "go", run_config=QUIET)
    assert result.final_output == "done"
    return [item.output for item in result.new_items if item.type == "tool_call_output_item"]


async def test_an_agent_runs_code_in_one_kernel() -> None:
    async with CellrunTools() as tools:
        assert (await outputs(running("x = 6", "x * 7"), tools))[1] == "42"
        assert (await outputs(running("x"), tools)) == ["6"]


@pytest.mark.usefixtures("loop_for_blocking_runs")
def test_blocking_runs_work() -> None:
    with CellrunTools(only=["run_code"]) as tools:
        agent = Agent(name="coder", model=running("print(40 + 2)"), tools=list(tools.function_tools()))
        assert Runner.run_sync(agent, "go", run_config=QUIET).final_output == "done"


async def test_a_picture_is_an_image_of_the_output() -> None:
    async with CellrunTools() as tools:
        ((text, picture),) = await outputs(running(PLOT), tools)
        assert (text.type, picture.type) == ("text", "image")
        assert picture.image_url.startswith("data:image/png;base64,iVBOR")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ('{"code": "1/0"}', "ZeroDivisionError"),
        ("{", "no JSON object"),
        ("[]", "no JSON object"),
        ("{}", "code: Field required"),
    ],
)
async def test_the_model_is_told_what_was_wrong(arguments: str, said: str) -> None:
    async with CellrunTools() as tools:
        (output,) = await outputs(Scripted(arguments), tools)
        assert said in output


async def test_the_model_is_offered_the_tools_as_they_are() -> None:
    model = running("1")
    async with CellrunTools(only=["run_code", "list_files"]) as tools:
        await outputs(model, tools)
    assert [tool.name for tool in model.offered] == ["run_code", "list_files"]
