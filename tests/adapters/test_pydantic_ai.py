"""Agents of Pydantic AI, with a model whose words are written down."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from pydantic_ai import (
    Agent,
    BinaryContent,
    ModelMessage,
    ModelResponse,
    TextPart,
    ToolCallPart,
    ToolReturnPart,
    UnexpectedModelBehavior,
)
from pydantic_ai.models.function import AgentInfo, FunctionModel

from cellrun.adapters.pydantic_ai import CellrunToolset
from tests.support.waiting import PROCESS

PLOT = "from PIL import Image; Image.new('RGB', (8, 8))"


def model_that_runs(*codes: str, offered: Callable[[AgentInfo], None] = lambda info: None) -> FunctionModel:
    """It runs the pieces of code one after the other, and then says what the last one gave."""
    left = list(codes)

    def answer(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        offered(info)
        if left:
            return ModelResponse([ToolCallPart("run_code", {"code": left.pop(0)})])
        return ModelResponse([TextPart(str(returns(messages)[-1].content))])

    return FunctionModel(answer)


def returns(messages: list[ModelMessage]) -> list[ToolReturnPart]:
    return [part for message in messages for part in message.parts if isinstance(part, ToolReturnPart)]


async def test_an_agent_runs_code_in_one_kernel() -> None:
    agent = Agent(model_that_runs("x = 6", "x * 7"), toolsets=[CellrunToolset()])
    assert (await agent.run("six times seven?")).output == "42"


async def test_within_the_agents_block_variables_stay_between_its_runs() -> None:
    agent = Agent(model_that_runs("x = 1"), toolsets=[CellrunToolset()])
    async with agent:
        await agent.run("set x")
        with agent.override(model=model_that_runs("x + 1")):
            assert (await agent.run("and now?")).output == "2"
    with agent.override(model=model_that_runs("x + 1")):
        assert "NameError" in (await agent.run("still there?")).output


class Overlapping:
    """Of two runs the second one, which looks for what the first one left, begins and ends while that goes on."""

    def __init__(self) -> None:
        self._left = asyncio.Event()
        self._looked = asyncio.Event()

    async def first(self, messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        if len(messages) == 1:
            return ModelResponse([ToolCallPart("run_code", {"code": "secret = 'alice'; open('a.txt', 'w').close()"})])
        self._left.set()
        await self._looked.wait()
        return ModelResponse([TextPart("done")])

    async def second(self, messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        if len(messages) == 1:
            code = "import os; (globals().get('secret'), os.path.exists('a.txt'))"
            return ModelResponse([ToolCallPart("run_code", {"code": code})])
        return ModelResponse([TextPart(str(returns(messages)[-1].content))])

    async def seen(self, agent: Agent) -> str:
        async with asyncio.timeout(PROCESS), asyncio.TaskGroup() as group:
            group.create_task(agent.run("leave something", model=FunctionModel(self.first)))
            await self._left.wait()
            output = (await agent.run("what is there?", model=FunctionModel(self.second))).output
            self._looked.set()
        return output


async def test_runs_that_overlap_have_kernels_and_folders_of_their_own() -> None:
    assert await Overlapping().seen(Agent(toolsets=[CellrunToolset()])) == "(None, False)"
    assert (
        await Overlapping().seen(Agent(toolsets=[CellrunToolset(id="code").filtered(lambda context, tool: True)]))
        == "(None, False)"
    )


async def test_within_the_agents_block_runs_that_overlap_share_a_kernel() -> None:
    async with Agent(toolsets=[CellrunToolset()]) as agent:
        assert await Overlapping().seen(agent) == "('alice', True)"


@pytest.mark.usefixtures("loop_for_blocking_runs")
def test_blocking_runs_work() -> None:
    agent = Agent(model_that_runs("2 ** 10"), toolsets=[CellrunToolset()])
    assert agent.run_sync("?").output == "1024"
    with agent.override(model=model_that_runs("2 ** 11")):
        assert agent.run_sync("?").output == "2048"


async def test_a_picture_is_content_and_the_rest_is_metadata() -> None:
    agent = Agent(model_that_runs(PLOT), toolsets=[CellrunToolset()])
    (part,) = returns((await agent.run("plot")).all_messages())
    (picture,) = [item for item in part.content_items() if isinstance(item, BinaryContent)]
    assert (picture.media_type, picture.data[:4]) == ("image/png", b"\x89PNG")
    assert part.metadata["status"] == "ok"


async def test_the_model_is_told_what_was_wrong_with_a_call_and_may_try_again() -> None:
    asked: list[str] = []

    def answer(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        last = messages[-1].parts[-1]
        asked.append(str(getattr(last, "content", "")))
        if len(asked) == 1:
            return ModelResponse([ToolCallPart("run_code", {"source": "1"})])
        if len(asked) == 2:
            return ModelResponse([ToolCallPart("run_code", {"code": "1/0"})])
        return ModelResponse([TextPart(asked[-1])])

    agent = Agent(FunctionModel(answer), toolsets=[CellrunToolset()])
    output = (await agent.run("go")).output
    assert "code: Field required" in asked[1]
    assert "ZeroDivisionError: division by zero" in output


async def test_what_is_not_there_is_told_as_often_as_it_is_asked_for() -> None:
    def answer(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        told = [str(part.content) for part in returns(messages)]
        if len(told) < 3:
            return ModelResponse([ToolCallPart("read_file", {"path": f"none{len(told)}.txt"})])
        return ModelResponse([TextPart(" / ".join(told))])

    output = (await Agent(FunctionModel(answer), toolsets=[CellrunToolset()]).run("look")).output
    assert [f"there is no 'none{number}.txt'" in output for number in range(3)] == [True] * 3


async def test_wrong_arguments_are_retries_of_which_the_agent_sets_the_number() -> None:
    def answer(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        return ModelResponse([ToolCallPart("read_file", {"file": "a.txt"})])

    with pytest.raises(UnexpectedModelBehavior, match="max retries"):
        await Agent(FunctionModel(answer), toolsets=[CellrunToolset()], retries=2).run("look")


async def test_the_tools_are_described_as_they_are() -> None:
    seen: list[AgentInfo] = []
    agent = Agent(model_that_runs("1", offered=seen.append), toolsets=[CellrunToolset(only=["run_code"], id="code")])
    await agent.run("?")
    (tool,) = seen[0].function_tools
    assert tool.name == "run_code"
    assert "Jupyter kernel" in (tool.description or "")
    assert tool.parameters_json_schema["required"] == ["code"]


async def test_parameters_are_those_of_the_tools() -> None:
    with pytest.raises(ValueError, match="session_id= is for a cellrun service"):
        CellrunToolset(session_id="chat")
