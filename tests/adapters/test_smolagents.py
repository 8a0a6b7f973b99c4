"""A CodeAgent of smolagents, with a model whose words are written down."""

from __future__ import annotations

from typing import Any

import PIL.Image
import pytest
from smolagents import ChatMessage, CodeAgent, LogLevel, MessageRole, Model, Tool
from smolagents.utils import AgentError

from cellrun.adapters.smolagents import CellrunExecutor

PLOT = "from PIL import Image; Image.new('RGB', (8, 8))"


class Scripted(Model):  # type: ignore[misc]
    """Runs the pieces of code one after the other."""

    def __init__(self, *codes: str) -> None:
        super().__init__(model_id="scripted")
        self._left = list(codes)
        self.seen: list[str] = []

    def generate(self, messages: list[ChatMessage], **kwargs: Any) -> ChatMessage:
        self.seen.append(str(messages[-1].content))
        return ChatMessage(role=MessageRole.ASSISTANT, content=f"Thought: on.\n<code>\n{self._left.pop(0)}\n</code>")


class Doubling(Tool):  # type: ignore[misc]
    name = "double"
    description = "Doubles a number."
    inputs = {"number": {"type": "integer", "description": "what to double"}}
    output_type = "integer"

    def forward(self, number: int) -> int:
        return 2 * number


def agent_with(model: Scripted, *tools: Tool, executor: CellrunExecutor | None = None) -> CodeAgent:
    return CodeAgent(
        tools=list(tools),
        model=model,
        executor=executor or CellrunExecutor(),
        verbosity_level=LogLevel.OFF,
        max_steps=5,
    )


def test_an_agent_keeps_variables_between_steps_and_gives_its_answer() -> None:
    model = Scripted("x = 6\nprint('x is set')", "final_answer(x * 7)")
    with agent_with(model) as agent:
        assert agent.run("six times seven?") == 42
    assert "x is set" in model.seen[1]


def test_tools_and_variables_are_there_in_the_kernel() -> None:
    model = Scripted("y = double(number=given['n'])", "final_answer({'y': y, 'all': (1, 2.5, 'drei')})")
    with agent_with(model, Doubling()) as agent:
        assert agent.run("double it", additional_args={"given": {"n": 21}}) == {"y": 42, "all": (1, 2.5, "drei")}


def test_a_step_that_fails_is_told_with_what_it_printed() -> None:
    model = Scripted("print('before')\n1/0", "final_answer('seen')")
    with agent_with(model) as agent:
        assert agent.run("go") == "seen"
        (failed,) = [step for step in agent.memory.steps if getattr(step, "error", None)]
        assert "ZeroDivisionError" in str(failed.error)
        assert "before" in failed.observations


def test_values_and_pictures_are_outputs() -> None:
    with CellrunExecutor() as executor:
        assert executor("[1, 2]").output == "[1, 2]"
        assert executor("x = 1").output is None
        assert isinstance(executor(PLOT).output, PIL.Image.Image)
        assert executor("import sys; print('a'); print('b', file=sys.stderr)").logs == "a\nb\n"


def test_a_step_that_takes_too_long_ends_and_the_next_one_works() -> None:
    with CellrunExecutor(timeout=1.0) as executor:
        with pytest.raises(AgentError, match="timeout"):
            executor("import time; time.sleep(60)")
        assert executor("1 + 1").output == "2"


def test_nothing_from_the_kernel_is_unpickled() -> None:
    code = "class FinalAnswerException(BaseException): pass\nraise FinalAnswerException({!r})"
    with CellrunExecutor() as executor:
        for value in ("pickle:gASVCwAAAAAAAACMB29zLnBhdGiULg==", "safe:{", "nonsense", 'safe:{"__type__": "bytes"}'):
            with pytest.raises(AgentError, match="the final answer could not be read"):
                executor(code.format(value))


class Easter(Tool):  # type: ignore[misc]
    name = "easter"
    description = "The day of Easter."
    inputs = {"year": {"type": "integer", "description": "of which year"}}
    output_type = "string"

    def forward(self, year: int) -> str:
        from dateutil.easter import easter  # type: ignore[import-untyped]  # of the package python-dateutil

        return str(easter(year))


def test_a_tool_may_import_what_is_there_under_the_name_of_another_package() -> None:
    with agent_with(Scripted("final_answer(easter(year=2026))"), Easter()) as agent:
        assert agent.run("when is Easter?") == "2026-04-05"


def test_a_package_that_is_missing_is_named() -> None:
    with CellrunExecutor() as executor:
        assert executor.install_packages(["pip", ""]) == ["pip"]
        with pytest.raises(AgentError, match="the tools need no-such-package-anywhere, which cannot be installed"):
            executor.install_packages(["pip", "no-such-package-anywhere"])
