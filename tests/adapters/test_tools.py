"""What the adapters share: one kernel for an agent, from any thread and any event loop."""

from __future__ import annotations

import asyncio
import inspect
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from cellrun import CellrunService, LocalKernels
from cellrun.adapters import langchain, openai_agents, pydantic_ai, smolagents
from cellrun.adapters.tools import CodeTools
from tests.support.waiting import HANG, PROCESS, SLACK, eventually

PID = "import os; print(os.getpid())"


def exists(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


async def test_variables_stay_whatever_loop_or_thread_calls() -> None:
    async with CodeTools() as tools:
        await tools.call("run_code", {"code": "x = 41"})
        answers = []
        thread = threading.Thread(
            target=lambda: answers.append(asyncio.run(tools.call("run_code", {"code": "x += 1; x"})))
        )
        thread.start()
        await asyncio.to_thread(thread.join, PROCESS)
        assert answers[0].text == "42"
        assert (await asyncio.to_thread(tools.call_blocking, "run_code", {"code": "x"})).text == "42"


async def test_a_closed_one_ends_its_kernel_and_begins_anew() -> None:
    tools = CodeTools(LocalKernels(sandbox="none"))
    async with tools:
        pid = int((await tools.call("run_code", {"code": PID})).text)
        assert exists(pid)
    await eventually(lambda: not exists(pid))
    async with tools:
        assert "NameError" not in (await tools.call("run_code", {"code": PID})).text


async def test_a_cancelled_call_interrupts_its_run() -> None:
    async with CodeTools() as tools:
        await tools.call("run_code", {"code": "1"})
        began = time.monotonic()
        calling = asyncio.create_task(tools.call("run_code", {"code": "import time; time.sleep(60)"}))
        await eventually(lambda: bool(tools._backend and len(tools._backend._runs) == 2))
        calling.cancel()
        with pytest.raises(asyncio.CancelledError):
            await calling
        assert (await tools.call("run_code", {"code": "'free again'"})).text == "'free again'"
        assert time.monotonic() - began < HANG


async def test_a_run_that_takes_too_long_gives_what_it_printed() -> None:
    async with CodeTools(timeout=SLACK) as tools:
        answer = await tools.call("run_code", {"code": "print('so far')\nimport time; time.sleep(60)"})
        assert answer.text.startswith("so far\n")
        assert answer.told["status"] == "timeout"


async def test_no_more_runs_wait_than_anybody_will_come_back_to() -> None:
    async with CodeTools() as tools:
        await tools.call("run_code", {"code": "import time; time.sleep(600)", "wait": 0})
        refused = [await tools.call("run_code", {"code": "1", "wait": 0}) for _ in range(64)]
        assert [answer.failed for answer in refused] == [False] * 63 + [True]
        assert "64 runs go on or wait" in refused[-1].text


async def test_what_is_wrong_with_a_call_is_told_to_the_model() -> None:
    async with CodeTools() as tools:
        for name, arguments, said in (
            ("run_code", {}, "code: Field required"),
            ("run_code", {"code": "1", "time": 3}, "time: Extra inputs are not permitted"),
            ("read_file", {"path": "none.txt"}, "there is no 'none.txt'"),
            ("get_run", {"run_id": "none"}, "there is no run 'none'"),
        ):
            answer = await tools.call(name, arguments)
            assert (answer.failed, said in answer.text) == (True, True), answer.text


async def test_a_session_that_cannot_be_named_so_is_told_to_the_model() -> None:
    async with CodeTools("cellrun://127.0.0.1:9", session_id="base") as tools:
        answer = await tools.call("run_code", {"code": "1", "session": "mein Test"})
        assert (answer.failed, "here a session is named with up to 123 letters" in answer.text) == (True, True)


async def test_files_go_in_and_out() -> None:
    async with CodeTools() as tools:
        await tools.call("write_file", {"path": "data/in.csv", "content": "a,b\n1,2\n"})
        answer = await tools.call("run_code", {"code": "open('out.txt', 'w').write(open('data/in.csv').read() * 2)"})
        assert answer.told["files"] == ["out.txt"]
        assert (await tools.call("read_file", {"path": "out.txt"})).text == "a,b\n1,2\na,b\n1,2\n"
        assert "out.txt\t16 bytes" in (await tools.call("list_files", {})).text


def test_only_the_tools_that_are_wanted_are_offered() -> None:
    assert [tool.name for tool in CodeTools(only=["run_code"]).tools] == ["run_code"]
    described = {tool.name: tool.description for tool in CodeTools().tools}
    assert "no network" in described["run_code"]
    assert "no network" not in CodeTools("http://127.0.0.1:8888/", only=["run_code"]).tools[0].description


def test_the_token_of_an_address_is_not_shown() -> None:
    tools = CodeTools("http://127.0.0.1:8888/?token=secret")
    assert repr(tools) == "<CodeTools on http://127.0.0.1:8888/, idle>"


def test_parameters_that_do_not_go_together_are_named() -> None:
    with pytest.raises(ValueError, match="key= is for a cellrun service"):
        CodeTools(key="k")
    with pytest.raises(ValueError, match="session_id= is for a cellrun service"):
        CodeTools("http://127.0.0.1:8888/", session_id="s")
    with pytest.raises(ValueError, match="the address of the Jupyter server must begin with http"):
        CodeTools("localhost:8888")
    with pytest.raises(ValueError, match="a user name, password or key; pass key="):
        CodeTools("cellrun://key@localhost")
    for name in ("bad name/", "", "-first", "x" * 129):
        with pytest.raises(ValueError, match="a session is named with up to 128 letters, digits and"):
            CodeTools("cellrun://localhost", session_id=name)
    with pytest.raises(ValueError, match="timeout must be zero or more seconds, not -1"):
        CodeTools(timeout=-1)
    with pytest.raises(ValueError, match="the key holds a line break"):
        CodeTools("cellrun://localhost", key="k\n")
    with pytest.raises(ValueError, match="there is no tool 'run'; there are: run_code, "):
        CodeTools(only=["run"])


def test_those_that_the_service_takes_are_taken() -> None:
    for name in ("x" * 128, "0", "a.b_c~d:e@f-g"):
        CodeTools("cellrun://localhost", key="k", session_id=name)
    CodeTools(CellrunService("cellrun://localhost"), session_id="chat", timeout=None)


@pytest.mark.parametrize(
    "adapter",
    [pydantic_ai.CellrunToolset, langchain.CellrunToolkit, openai_agents.CellrunTools, smolagents.CellrunExecutor],
)
def test_a_run_has_a_time_limit_unless_it_is_taken_away(adapter: Any) -> None:
    assert inspect.signature(adapter).parameters["timeout"].default == 300


async def test_one_that_is_forgotten_warns_and_ends_its_kernel() -> None:
    tools = CodeTools(LocalKernels(sandbox="none"))
    pid = int((await tools.call("run_code", {"code": PID})).text)
    with pytest.warns(ResourceWarning, match="was not closed"):
        del tools
    await eventually(lambda: not exists(pid))


async def test_a_provider_of_the_callers_stays_open(tmp_path: Path) -> None:
    provider = LocalKernels(cwd=tmp_path)
    async with CodeTools(provider) as tools:
        await tools.call("run_code", {"code": "open('a', 'w').write('1')"})
    async with CodeTools(provider) as tools:
        assert (await tools.call("run_code", {"code": "open('a').read()"})).text == "'1'"
    await asyncio.to_thread(provider.close)


@pytest.mark.parametrize("module", ["tools", "pydantic_ai", "langchain", "smolagents", "autogen", "openai_agents"])
def test_each_needs_its_framework_alone(module: str) -> None:
    """What only the service needs, and no framework brings, is not imported."""
    service = ["fastapi", "prometheus_client", "joserfc", "limits", "httptools"]
    if module != "openai_agents":  # which brings the `mcp` package
        service += ["mcp", "starlette", "uvicorn"]
    blocked = "".join(f"sys.modules[{name!r}] = None\n" for name in service)
    code = f"import sys\n{blocked}import cellrun.adapters.{module}"
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
