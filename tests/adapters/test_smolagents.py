"""A CodeAgent of smolagents, with a model whose words are written down."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import PIL.Image
import pytest
from smolagents import ChatMessage, CodeAgent, LogLevel, MessageRole, Model, Tool, ToolCallingAgent
from smolagents.utils import AgentError

from cellrun import Result, SessionLost, Unsupported
from cellrun.adapters.smolagents import CellrunExecutor
from tests.support.waiting import SLACK

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
    with CellrunExecutor(timeout=SLACK) as executor:
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


GONE = "the kernel was restarted and its variables are gone"
DIES = "import os; os._exit(3)"


def test_the_agents_tools_and_variables_are_there_again_after_a_kernel_has_died() -> None:
    model = Scripted(
        "x = double(number=given)", DIES, "print(double(number=given), 'x' in globals())", "final_answer(2)"
    )
    with agent_with(model, Doubling()) as agent:
        assert agent.run("go", additional_args={"given": 21}) == 2
    assert "kernel_died" in model.seen[2]
    assert "42 False" in model.seen[3]
    assert model.seen[3].count(GONE) == 1


@pytest.mark.parametrize(
    "ends",
    [
        "exit()",
        "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\nwhile True: pass",
        "import os, threading; threading.Thread(target=os._exit, args=(3,)).start()",
    ],
    ids=["asked", "killed", "between"],
)
def test_however_a_kernel_ends_the_next_step_can_answer(ends: str) -> None:
    model = Scripted(ends, "final_answer('here')")
    with agent_with(model, executor=CellrunExecutor(timeout=SLACK)) as agent:
        assert agent.run("go") == "here"


def test_a_kernel_that_ends_between_two_runs_of_an_agent_is_told_in_the_second() -> None:
    model = Scripted("final_answer(1)", "print(double(number=4))", "final_answer(double(number=2))")
    with agent_with(model, Doubling()) as agent:
        agent.run("once")
        with pytest.raises(AgentError):
            agent.python_executor(DIES)
        assert agent.run("twice", reset=False) == 4
    assert GONE in model.seen[2]


def test_an_agent_that_runs_again_answers_again() -> None:
    model = Scripted("x = 1", "final_answer(x)", "final_answer(x + 1)", "final_answer({'x': x + 2})")
    with agent_with(model) as agent:
        assert agent.run("one") == 1
        assert agent.run("two", reset=False) == 2
        assert agent.run("three", reset=False) == {"x": 3}


def test_a_kernel_that_ends_just_before_a_step_is_told_and_the_next_step_has_the_tools() -> None:
    class Unlucky(CellrunExecutor):
        unlucky = True

        def _prepare(self) -> None:
            super()._prepare()
            if self.unlucky:
                self._session.restart()
            self.unlucky = False

    model = Scripted("print(double(number=2))", "final_answer(double(number=2))")
    with agent_with(model, Doubling(), executor=Unlucky()) as agent:
        assert agent.run("go") == 4
        (failed,) = [step for step in agent.memory.steps if getattr(step, "error", None)]
    assert "NameError: name 'double' is not defined" in str(failed.error)
    assert "the agent's tools were not there in this step; they are in the next one" in failed.observations


def test_a_new_kernel_that_does_not_take_the_tools_is_told_and_tried_again() -> None:
    class Full(CellrunExecutor):
        full = False

        def _run(self, code: str) -> Result:
            return super()._run("raise OSError('no room')" if self.full and code else code)

    with Full() as executor:
        executor.send_variables({"x": 1})
        with pytest.raises(AgentError):
            executor(DIES)
        executor.full = True
        with pytest.raises(AgentError, match=r"a new kernel did not take the agent's variables: (.|\n)*no room"):
            executor("x")
        executor.full = False
        output = executor("x")
        assert (output.output, GONE in output.logs) == ("1", True)


@pytest.mark.parametrize("name", [None, "chat-9"])
def test_a_session_that_the_service_has_ended_is_told_and_a_fresh_one_has_the_tools(
    address: str, end_sessions: Callable[[], None], name: str | None
) -> None:
    class Ending(Scripted):
        def generate(self, messages: list[ChatMessage], **kwargs: Any) -> ChatMessage:
            if len(self.seen) == 1:
                end_sessions()
            return super().generate(messages, **kwargs)

    model = Ending(
        "x = 1", "print(double(number=2), 'x' in globals())", "final_answer(2)", "final_answer(double(number=3))"
    )
    with agent_with(model, Doubling(), executor=CellrunExecutor(address, session_id=name)) as agent:
        assert agent.run("go") == 2
        assert "4 False" in model.seen[2]
        assert model.seen[2].count(GONE) == 1
        end_sessions()
        assert agent.run("and on", reset=False) == 6


def test_after_the_cleanup_a_step_is_an_error() -> None:
    executor = CellrunExecutor()
    executor.cleanup()
    with pytest.raises(SessionLost):
        executor("1")


def test_what_is_missing_is_found_after_a_death_and_beside_warnings() -> None:
    noisy = "import sys\nclass Noisy:\n def find_spec(*_): print('careful', file=sys.stderr); print('so')\n"
    with CellrunExecutor() as executor:
        with pytest.raises(AgentError):
            executor(DIES)
        assert executor.install_packages(["pip"]) == ["pip"]
        executor(f"{noisy}sys.meta_path.insert(0, Noisy())")
        with pytest.raises(AgentError, match="the tools need no-such-package-anywhere, which cannot be installed"):
            executor.install_packages(["no-such-package-anywhere"])


def test_a_kernel_that_does_not_say_what_is_missing_is_an_error_that_is_told() -> None:
    with CellrunExecutor() as executor:
        for spoiled in ("lambda found: '5'", "lambda found: 'nonsense'", "lambda found: 1/0"):
            executor(f"import json; json.dumps = {spoiled}")
            with pytest.raises(AgentError, match="the kernel did not say which packages it has"):
                executor.install_packages(["pip"])


def test_managed_agents_cannot_go_into_a_kernel() -> None:
    model = Scripted("final_answer(1)")
    other = ToolCallingAgent(tools=[], model=model, name="searcher", description="searches")
    with CodeAgent(
        tools=[], model=model, managed_agents=[other], executor=CellrunExecutor(), verbosity_level=LogLevel.OFF
    ) as agent:
        with pytest.raises(Unsupported, match=r"managed agents cannot go into a kernel.*: searcher; give"):
            agent.run("go")
