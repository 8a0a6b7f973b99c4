"""The blocking twin: from plain code, from inside a running loop, from threads."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

import cellrun
from cellrun import InputRequest, LocalKernels, Session, Stdout
from tests.support.waiting import HANG, PROCESS, process_exists


def test_one_call_runs_a_snippet() -> None:
    result = cellrun.run("import math; math.tau")
    assert (result.ok, result.text) == (True, "6.283185307179586")
    assert cellrun.run("1/0").status == "error"
    with pytest.raises(cellrun.ExecutionFailed, match="ZeroDivisionError: division by zero") as caught:
        cellrun.run("1/0").raise_for_error()
    assert caught.value.result.status == "error"


async def test_it_works_inside_a_running_event_loop() -> None:
    assert cellrun.run("40 + 2").text == "42"


def test_a_session_keeps_state_streams_and_has_files() -> None:
    with Session() as session:
        session.run("x = 41")
        assert session.run("x + 1", timeout=30).text == "42"
        stream = session.stream("for i in range(3): print(i, flush=True)")
        texts = [event.text for event in stream if isinstance(event, Stdout)]
        assert "".join(texts) == "0\n1\n2\n"
        assert stream.result.stdout == "0\n1\n2\n"
        session.files.write("a/b.txt", "text")
        assert session.files.read("a/b.txt") == b"text"
        assert [info.path for info in session.files.list("a")] == ["a/b.txt"]
        session.files.delete("a/b.txt")
        assert session.run("input('? ')", stdin=["Ada"]).text == "'Ada'"
        assert "x" in session.complete("x", timeout=HANG)["matches"]
        assert session.is_complete("(", timeout=HANG) == "incomplete"
        assert session.inspect("len", timeout=HANG)["found"]
        assert (session.containment or "").partition(":")[0] in ("strong", "portable")
        assert session.language == "python"
        assert len(session.to_notebook().cells) >= 3
        session.restart()
        assert session.run("'x' in globals()").text == "False"


def test_callbacks_may_be_plain_functions_but_may_not_block_the_portal() -> None:
    def on_input(request: InputRequest) -> str:
        return "plain"

    with Session() as session:
        assert session.run("input()", on_input=on_input).text == "'plain'"
        with pytest.raises(RuntimeError, match="use the async form"):
            session.run("input()", on_input=lambda request: session.run("1").text)


def test_leaving_a_loop_over_a_stream_early_interrupts_the_cell() -> None:
    with Session() as session:
        for event in session.stream("import time\nfor i in range(1000): print(i, flush=True); time.sleep(0.05)"):
            if isinstance(event, Stdout):
                break
        assert session.run("'next'").text == "'next'"


def test_another_thread_can_interrupt() -> None:
    with Session() as session:
        started = threading.Event()
        with ThreadPoolExecutor(1) as pool:
            future = pool.submit(
                session.run, "import time\nfor _ in range(300): time.sleep(0.1)", on_event=lambda event: started.set()
            )
            assert started.wait(HANG)
            session.interrupt()
            assert future.result(HANG).status == "interrupted"


@pytest.mark.wide
def test_one_provider_serves_many_blocking_sessions() -> None:
    with LocalKernels() as provider, ThreadPoolExecutor(3) as pool:

        def one(number: int) -> str:
            with Session(provider) as session:
                return session.run(f"{number} + 1").text

        assert list(pool.map(one, range(3))) == ["1", "2", "3"]


def test_closing_twice_is_fine_and_forgetting_warns() -> None:
    session = Session()
    session.start()
    session.close()
    session.close()
    forgotten = Session().start()
    with pytest.warns(ResourceWarning, match="was not closed"):
        forgotten.__del__()


def test_ctrl_c_interrupts_the_cell_and_the_session_lives() -> None:
    program = """
import os, signal, cellrun
def strike(event):
    if isinstance(event, cellrun.Started):
        os.kill(os.getpid(), signal.SIGINT)
with cellrun.Session(limits=cellrun.Limits(grace=60)) as session:
    session.run("x = 1")
    try:
        session.run("import time; time.sleep(300)", on_event=strike)
    except KeyboardInterrupt:
        print("interrupted")
    print(session.run("x").text)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=PROCESS, check=False)
    assert (done.stdout, done.returncode) == ("interrupted\n1\n", 0), done.stderr


@pytest.mark.wide
def test_a_session_left_open_ends_with_the_process() -> None:
    program = "import cellrun\ns = cellrun.Session().start()\ns.run('1')\nprint(s._session._backend.lease.pid)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=PROCESS, check=False)
    assert done.returncode == 0, done.stderr
    assert not process_exists(int(done.stdout))


async def test_async_and_blocking_sessions_have_the_same_names() -> None:
    def names(cls: type) -> set[str]:
        return {name for name in dir(cls) if not name.startswith("_")}

    assert names(Session) - names(cellrun.AsyncSession) == {"close"}
    assert names(cellrun.AsyncSession) - names(Session) == {"aclose", "late", "send_comm"}
    await asyncio.sleep(0)


@pytest.mark.wide
def test_a_session_that_was_not_closed_ends_with_the_process_and_says_nothing_else() -> None:
    code = "import cellrun\nsession = cellrun.Session(cellrun.LocalKernels())\nprint(session.run('6 * 7').text)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("42\n", "")
