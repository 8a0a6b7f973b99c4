"""The page for agents does what it says, with models whose words are written down."""

from __future__ import annotations

import ast
import contextlib
import inspect
import io
import json
import re
from typing import Any

import agents
import pytest
from pydantic_ai import ModelMessage, ModelResponse, TextPart, ToolCallPart
from pydantic_ai.models.function import AgentInfo, FunctionModel

from tests.adapters import test_openai_agents, test_smolagents
from tests.docs.test_docs import DOCS, blocks, matches

PAGE = DOCS / "howto" / "agents.md"
BLOCKS = blocks(PAGE, "py")


def of_pydantic_ai() -> FunctionModel:
    def answer(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        if len(messages) == 1:
            return ModelResponse([ToolCallPart("run_code", {"code": "6 * 7"})])
        return ModelResponse([TextPart(f"It is {messages[-1].parts[-1].content}.")])  # type: ignore[union-attr]

    return FunctionModel(answer)


def of_openai() -> agents.Model:
    return test_openai_agents.Scripted(json.dumps({"code": "6 * 7"}), said="It is 42.")


def of_smolagents() -> Any:
    return test_smolagents.Scripted("final_answer(6 * 7)")


MODELS = {"pydantic_ai": of_pydantic_ai, "from agents": of_openai, "smolagents": of_smolagents}


@pytest.mark.parametrize(("line", "block"), BLOCKS[:-1], ids=[f"line {line}" for line, _ in BLOCKS[:-1]])
async def test_the_examples_run_and_print_what_they_say(line: int, block: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agents.run, "DEFAULT_AGENT_RUNNER", _Quiet())
    namespace: dict[str, Any] = {}
    for name, make in MODELS.items():
        if name in block:
            namespace["model"] = make()
    tree = compile("\n" * (line - 1) + block, str(PAGE), "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    with contextlib.redirect_stdout(io.StringIO()) as out:
        pending = eval(tree, namespace)
        if inspect.iscoroutine(pending):
            await pending
    expected = re.findall(r"# → (.*)$", block, re.MULTILINE)
    assert expected
    said = out.getvalue().strip().splitlines()[-len(expected) :]  # smolagents tells of the steps before
    assert matches("\n".join(said), "\n".join(expected))


def test_the_parameters_are_taken() -> None:
    exec(compile(BLOCKS[-1][1].replace("…", "secret"), str(PAGE), "exec"), {})


class _Quiet(agents.run.AgentRunner):
    """Without tracing, which would send what happens here to OpenAI."""

    async def run(self, *args: Any, **more: Any) -> Any:
        return await super().run(*args, **more | {"run_config": agents.RunConfig(tracing_disabled=True)})
