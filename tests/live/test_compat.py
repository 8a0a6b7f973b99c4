"""`execute_code_jupyter`: the same three strings as ever on ordinary code, and better where output was lost."""

from __future__ import annotations

import asyncio
import base64
import time

import pytest

import cellrun
from tests.support.servers import Server
from tests.support.waiting import HANG, eventually


async def call(server: Server, code: str, timeout: float = 30) -> dict[str, str]:
    return await cellrun.execute_code_jupyter(server.url, code, server.token, server.password, timeout)


async def test_ordinary_code_gives_the_three_strings(free_server: Server) -> None:
    code = (
        "import sys\nprint(' a '); print('b', file=sys.stderr)\nfrom IPython.display import display\ndisplay('one')\n2"
    )
    assert await call(free_server, code) == {"stdout": "a", "stderr": "b", "result": "'one'\n2"}
    assert await call(free_server, "") == {"stdout": "", "stderr": "", "result": ""}


async def test_an_error_is_appended_to_stderr_with_its_colours(free_server: Server) -> None:
    answer = await call(free_server, "import sys; print('warned', file=sys.stderr)\n1/0")
    assert answer["stderr"].startswith("warned\n\x1b[")
    assert "ZeroDivisionError" in answer["stderr"]


async def test_pictures_are_data_urls_of_their_own_type(free_server: Server) -> None:
    code = """
from IPython.display import display
display({"image/png": "iVBO\\nRw0K", "text/plain": "<Figure>"}, raw=True)
display({"image/jpeg": "/9j/", "text/plain": "x"}, raw=True)
display({"image/svg+xml": "<svg/>"}, raw=True)
display("text")
"""
    svg = base64.b64encode(b"<svg/>").decode()
    expected = [
        "data:image/png;base64,iVBORw0K",
        "data:image/jpeg;base64,/9j/",
        f"data:image/svg+xml;base64,{svg}",
        "'text'",
    ]
    assert (await call(free_server, code))["result"].split("\n") == expected


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        ("HTML('<b>bold</b>')", "<b>bold</b>"),
        ("Markdown('# title')", "# title"),
        ("Latex('$x$')", "$x$"),
        ("JSON({'a': 1})", '{"a": 1}'),
    ],
)
async def test_what_has_no_useful_text_gives_its_most_readable_form(
    free_server: Server, shown: str, expected: str
) -> None:
    assert (await call(free_server, f"from IPython.display import *\n{shown}"))["result"] == expected


async def test_updates_clears_and_pages_are_honoured(free_server: Server) -> None:
    code = "from IPython.display import *\nprint('gone'); clear_output()\nh = display('a', display_id=True); h.update('b')\nlen?"
    answer = await call(free_server, code)
    assert answer["stdout"] == ""
    assert answer["result"].startswith("'b'\n")
    assert "Return the number of items" in answer["result"]
    assert "\x1b" not in answer["result"]


async def test_the_time_limit_is_one_for_all_and_interrupts(free_server: Server) -> None:
    for limit in (3, 10, 40):  # on a busy machine the kernel's start alone may take all of the first
        started = time.monotonic()
        code = "import time\nwhile True: print('.', flush=True); time.sleep(0.05)"
        answer = await call(free_server, code, timeout=limit)
        assert time.monotonic() - started < limit + 2 + HANG
        assert answer["stderr"].endswith("Execution timed out.")
        if answer["stdout"] and "KeyboardInterrupt" in answer["stderr"]:
            break
    assert answer["stdout"].startswith(".\n.")
    assert answer["stderr"].endswith("\nExecution timed out.")


async def test_a_dead_kernel_is_said(free_server: Server) -> None:
    answer = await call(free_server, "print('first', flush=True)\nimport os, time; time.sleep(1); os._exit(1)")
    assert answer["stdout"] == "first"
    assert answer["stderr"].startswith("The kernel died: ")


async def test_five_megabytes_arrive(free_server: Server) -> None:
    assert len((await call(free_server, "print('x' * 5_000_000)"))["stdout"]) == 5_000_000


async def test_what_a_stock_server_drops_is_said(token_server: Server) -> None:
    answer = await call(token_server, "print('x' * 9_000_000)")
    assert answer["stdout"] == ""
    assert "IOPub data rate exceeded" in answer["stderr"]


@pytest.mark.wide
async def test_password_and_open_servers_work(password_server: Server, open_server: Server) -> None:
    assert (await call(password_server, "1"))["result"] == "1"
    assert (await call(open_server, "1"))["result"] == "1"


async def test_failures_are_texts_without_secrets(free_server: Server) -> None:
    for url, token in (
        (free_server.url, "wr#ng&secret"),
        ("http://127.0.0.1:9/", "wr#ng&secret"),
        ("nonsense", "wr#ng&secret"),
    ):
        answer = await cellrun.execute_code_jupyter(url, "1", token)
        assert answer["stderr"].startswith("Error: ")
        assert "secret" not in str(answer)


async def test_no_kernel_is_left_not_even_by_a_cancelled_call(free_server: Server) -> None:
    await eventually(lambda: free_server.kernels() == [])
    for delay in (0.0, 0.005, 0.02, 0.05, 0.2, 0.6, 1.2):
        task = asyncio.create_task(call(free_server, "import time; time.sleep(20)"))
        await asyncio.sleep(delay)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    await eventually(lambda: free_server.kernels() == [])


async def test_the_class_behind_it_gives_a_model(free_server: Server) -> None:
    async with cellrun.JupyterCodeExecuter(free_server.url, "print(1); 2", free_server.token, "", 30) as executer:
        model = await executer.run()
    assert (model.stdout, model.stderr, model.result) == ("1", "", "2")
    assert model.model_dump() == {"stdout": "1", "stderr": "", "result": "2"}
    assert free_server.token not in repr(executer)
