"""Code by the SDK: state, output as it comes, errors, what is shown, the environment of one execution, ends."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from e2b import TimeoutException
from e2b_code_interpreter import AsyncSandbox, Execution, Sandbox

from tests.service.running import Service, client
from tests.support.waiting import HANG


def text(execution: Execution) -> str | None:
    assert execution.error is None, execution.error
    told: str | None = execution.text
    return told


def test_variables_stay_and_executions_are_counted(sandbox: Sandbox) -> None:
    first = sandbox.run_code("x = 20")
    second = sandbox.run_code("x + 1", language="python")
    assert (first.error, first.results, second.text) == (None, [], "21")
    assert first.execution_count is not None
    assert second.execution_count == first.execution_count + 1
    assert text(sandbox.run_code("'a string'")) == "a string"


async def put(service: Service, session: str) -> None:
    """The file `go`, for which a cell waits."""
    async with client(service) as http, http.put(f"/v1/sessions/{session}/files/go", data=b"") as response:
        assert response.status in (200, 201, 204)


def test_output_is_there_while_the_cell_runs(sandbox: Sandbox, service: Service) -> None:
    seen: list[tuple[str, bool]] = []

    def on_stdout(message: object) -> None:
        seen.append((str(message), False))
        if str(message).startswith("first"):  # what the cell waits for is made by whoever has seen its first line
            asyncio.run(put(service, "e2b"))

    code = """
import os, sys, time
print("first", flush=True)
until = time.monotonic() + 60
while not os.path.exists("go") and time.monotonic() < until:
    time.sleep(0.01)
print("second" if os.path.exists("go") else "nobody has seen the first line")
print("wrong", file=sys.stderr)
6 * 7
"""
    results: list[str | None] = []
    begun = time.time_ns()
    execution = sandbox.run_code(
        code,
        on_stdout=on_stdout,
        on_stderr=lambda message: seen.append((message.line, message.error and message.timestamp >= begun)),
        on_result=lambda result: results.append(result.text),
    )
    assert "".join(line for line, error in seen if not error) == "first\nsecond\n"
    assert ("wrong\n", True) in seen
    assert results == ["42"]
    assert "".join(execution.logs.stdout) == "first\nsecond\n"
    assert execution.logs.stderr == ["wrong\n"]


def test_an_error_has_its_name_its_value_and_one_traceback(sandbox: Sandbox) -> None:
    told: list[object] = []
    execution = sandbox.run_code("print('before')\n\n1 / 0", on_error=told.append)
    error = execution.error
    assert error is not None
    assert told == [error]
    assert (error.name, error.value) == ("ZeroDivisionError", "division by zero")
    assert "line 3" in error.traceback
    assert execution.logs.stdout == ["before\n"]
    assert (broken := sandbox.run_code("def").error) is not None
    assert broken.name == "SyntaxError"
    assert (asks := sandbox.run_code("input('name? ')").error) is not None
    assert asks.name == "EOFError"


def test_each_format_has_its_place(sandbox: Sandbox) -> None:
    bundle = {
        "text/plain": "plain \u2028 text",
        "text/html": "<b>h</b>",
        "text/markdown": "*m*",
        "text/latex": "$l$",
        "image/svg+xml": "<svg/>",
        "image/png": "cG5n",
        "image/jpeg": "anBn",
        "application/pdf": "cGRm",
        "application/json": {"a": [1, None]},
        "application/javascript": "1",
        "application/x.own": "own",
    }
    execution = sandbox.run_code(f"display({bundle!r}, raw=True)\n'last'")
    shown, last = execution.results
    names = {name: name.rpartition("/")[2].replace("plain", "text").replace("svg+xml", "svg") for name in bundle}
    for mime, name in names.items():
        if mime != "application/x.own":
            assert shown[name] == bundle[mime]
    assert shown.extra == {"application/x.own": "own"}
    assert (shown.is_main_result, last.is_main_result) == (False, True)
    assert execution.text == "last"


def test_a_display_that_is_updated_ends_as_it_was_last(sandbox: Sandbox) -> None:
    code = "shown = display(1, display_id=True)\nfor n in range(2, 50): shown.update(n)"
    assert [result.text for result in sandbox.run_code(code).results] == ["1", "49"]


def test_help_is_shown(sandbox: Sandbox) -> None:
    (result,) = sandbox.run_code("len?").results
    assert result.text is not None
    assert "number of items" in result.text


ENVIRONMENT = (
    "import os, subprocess\nsubprocess.run(['sh', '-c', 'echo $FOO $PATH'], capture_output=True).stdout.decode()"
)


@pytest.mark.parametrize("code", [ENVIRONMENT, f"import asyncio\nawait asyncio.sleep(0)\n{ENVIRONMENT}"])
def test_the_environment_of_an_execution_is_no_other_ones(sandbox: Sandbox, code: str) -> None:
    before = text(sandbox.run_code(code))
    assert text(sandbox.run_code(code, envs={"FOO": "bar", "PATH": "/bin"})) == "bar /bin\\n"
    assert text(sandbox.run_code(code)) == before
    assert "bar" not in (before or "")


def test_the_environment_ends_with_the_cell_however_that_ends(sandbox: Sandbox) -> None:
    failed = sandbox.run_code(
        "os.environ['FOO'] = 'changed'\n\nraise KeyError(os.environ['BAR'])", envs={"FOO": "", "BAR": "b"}
    )
    assert failed.error is not None
    assert failed.error.value == "'b'"
    assert "line 3" in failed.error.traceback

    class Enough(Exception):
        pass

    def leave(message: object) -> None:
        raise Enough

    code = "reached = os.environ['FOO']\nprint('reached', flush=True)\nwhile True: pass"
    with pytest.raises(Enough):
        sandbox.run_code(code, envs={"FOO": "bar"}, on_stdout=leave)
    assert text(sandbox.run_code("reached, os.environ.get('FOO'), os.environ.get('BAR')")) == "('bar', None, None)"


@contextmanager
def interrupted() -> Iterator[None]:
    with pytest.raises(TimeoutException, match="Execution timed out"):
        yield


def test_a_cell_whose_client_gives_up_is_interrupted(sandbox: Sandbox) -> None:
    sandbox.run_code("why = 'it had not begun'")
    code = "try:\n  n = 0\n  while True: n += 1\nexcept BaseException as e: why = repr(e)"
    for patience in (1, 8, 30):  # longer for a machine that has stood still for as long as the first
        with interrupted():
            sandbox.run_code(code, timeout=patience)
        began = time.monotonic()
        why = text(sandbox.run_code("why"))
        assert time.monotonic() - began < HANG
        if why != "it had not begun":
            break
    assert why == "KeyboardInterrupt()"


def test_a_kernel_that_dies_is_told_of_and_replaced(sandbox: Sandbox, service: Service) -> None:
    context = sandbox.create_code_context()
    code = """
print('last words', flush=True)
import os, time
while not os.path.exists('go'): time.sleep(0.01)
os.kill(os.getpid(), 9)
"""
    died = sandbox.run_code(code, context=context, on_stdout=lambda _: asyncio.run(put(service, context.id)))
    assert died.error is not None
    assert died.error.name == "KernelDied"
    assert "SIGKILL" in died.error.value
    assert died.logs.stdout == ["last words\n"]
    again = sandbox.run_code("1", context=context)
    assert again.text == "1"
    assert "earlier variables are gone" in "".join(again.logs.stderr)
    sandbox.remove_code_context(context)


async def test_the_asynchronous_sandbox_does_the_same(service: Service) -> None:
    sandbox = await AsyncSandbox.create(debug=True, sandbox_url=service.url)
    context = await sandbox.create_code_context(cwd="here")
    lines: list[str] = []
    execution = await sandbox.run_code(
        "import os\nfor n in range(3): print(n)\nos.path.basename(os.getcwd())",
        context=context,
        on_stdout=lambda message: lines.append(message.line),
    )
    assert (execution.text, "".join(lines)) == ("here", "0\n1\n2\n")
    assert context.id in [one.id for one in await sandbox.list_code_contexts()]
    await sandbox.remove_code_context(context)
    assert await sandbox.is_running()
