"""A session on a service gives what a session on a kernel of ours gives: the same events, the same Results, the same calls."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

import nbformat
import pytest

import cellrun
from cellrun import AsyncSession, CellrunService, Event, InputRequest, Result, SessionLost, Stdout, Unsupported, fold
from tests.service.running import TIME_LIMITS, Service, answer, client, run
from tests.support.waiting import HANG, PROCESS, eventually

pytestmark = pytest.mark.wide  # the contract suite, too, has a service among its kinds

CELLS = {
    "a value": "x = 41; x + 1",
    "streams and displays": (
        "import sys\nfrom IPython.display import display, HTML\nprint('one'); print('two', file=sys.stderr)\n"
        "display(HTML('<b>3</b>')); print('four')"
    ),
    "an error": "print('before')\n1/0",
    "a syntax error": "for",
    "an update": "from IPython.display import display\nh = display('a', display_id='d'); h.update('b')",
    "cleared": "from IPython.display import clear_output\nprint('gone'); clear_output(wait=True); print('kept')",
    "a page": "len?",
    "a comm": (
        "from comm import create_comm\nc = create_comm(comm_id='c', target_name='t', data={'a': 1}, buffers=[b'\\x00\\xff'])\n"
        "c.send({'b': 2}, buffers=[bytes(range(256))]); c.close()"
    ),
    "surrogates": r"print('ü 漢 🎉'); '\ud800'",
    "not a number": "from IPython.display import display\ndisplay({'application/json': float('inf')}, raw=True)",
    "a file": "open('made.txt', 'w').write('1');",
    "a picture": (
        "import base64, os\nfrom IPython.display import display\n"
        "display({'image/png': base64.b64encode(bytes(300_000)).decode()}, raw=True)"
    ),
    "a subprocess": "import subprocess\nsubprocess.run(['echo', 'child']);",
    "many lines": "for i in range(20_000): print(i)",
    "an exit": "exit()",
    "after the exit": "'x' in globals()",
    "a death": "print('last', flush=True)\nimport os, time; time.sleep(3); os._exit(3)",
    "after the death": "1",
}
OWN = {"execution_id": "", "duration": 0.0}


def alike(events: list[Event]) -> list[Event]:
    """Without what is each run's own; neighbouring pieces of a stream, whose cut is chance, in one."""
    found: list[Event] = []
    for event in events:
        own: dict[str, Any] = {name: OWN[name] for name in OWN if name in {field.name for field in fields(event)}}
        event = replace(event, seq=0, **own)
        if isinstance(event, Stdout) and found and isinstance(found[-1], Stdout):
            found[-1] = replace(found[-1], text=found[-1].text + event.text)
        else:
            found.append(event)
    return found


async def events_of(session: AsyncSession, code: str) -> tuple[list[Event], Result]:
    async with session.stream(code, timeout=PROCESS) as stream:
        events = [event async for event in stream]
        assert {event.execution_id for event in events} == {stream.execution_id}
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    assert fold(events) == stream.result
    return events, stream.result


async def test_events_and_results_are_those_of_a_session_on_this_machine(session: AsyncSession) -> None:
    async with AsyncSession() as local:
        for name, code in CELLS.items():
            here, result = await events_of(local, code)
            there, distant = await events_of(session, code)
            assert alike(there) == alike(here), name
            assert (distant.status, distant.stdout, distant.stderr, distant.text, distant.files, distant.reason) == (
                result.status,
                result.stdout,
                result.stderr,
                result.text,
                result.files,
                result.reason,
            ), name


async def test_a_run_in_other_forms_gives_the_same(session: AsyncSession) -> None:
    seen: list[Event] = []
    result = await session.run("print('x'); 1", on_event=seen.append)
    assert fold(seen) == result
    async with session.stream("2") as stream:
        assert (await stream.finish()).text == "2"
    results = await asyncio.gather(
        *(session.run(f"order = globals().get('order', []) + [{n}]; order") for n in range(8))
    )
    assert results[-1].text == str(list(range(8)))


async def test_lines_of_input_come_from_a_list_an_iterator_or_a_callback(session: AsyncSession) -> None:
    code = "a = input('first? '); b = input(); print(a, b)"
    assert (await session.run(code, stdin=["Ada", "Bob"])).stdout == "Ada Bob\n"
    numbers = iter(range(10**9))
    assert (await session.run(code, stdin=(f"n{n}" for n in numbers))).stdout == "n0 n1\n"
    asked: list[str] = []

    async def on_input(request: InputRequest) -> str:
        asked.append(request.prompt)
        return f"to {request.prompt!r}"

    assert (await session.run(code, on_input=on_input)).stdout == "to 'first? ' to ''\n"
    assert asked == ["first? ", ""]
    ended = await session.run("input(); input()", stdin=iter(["one"]))
    assert ended.error is not None
    assert ended.error.name == "EOFError"


async def test_what_a_service_cannot_do_is_said_and_not_passed_over(session: AsyncSession, address: str) -> None:
    options: list[dict[str, Any]] = [{"queue_timeout": 1.0}, {"silent": True}, {"store_history": False}]
    for asked in options:
        with pytest.raises(Unsupported, match=f"does not offer {next(iter(asked))}="):
            await session.run("1", **asked)
    with pytest.raises(Unsupported, match="execution_id="):
        async with session.stream("1", execution_id="mine"):
            pass
    for call in (session.complete("x"), session.inspect("x"), session.is_complete("x"), session.send_comm("c", {})):
        with pytest.raises(Unsupported, match="does not offer"):
            await call
    with pytest.raises(Unsupported, match="late"):
        session.late()
    for limits in (cellrun.Limits(queue_timeout=1), cellrun.Limits(idle_timeout=1)):
        with pytest.raises(Unsupported, match="has its own"):
            AsyncSession(address, limits=limits)
    with pytest.raises(ValueError, match="name a shorter `timeout`"):
        await session.run("1", timeout=None)
    assert (await session.run("1", timeout=HANG)).ok
    wrongs: list[tuple[Callable[[], object], str]] = [
        (lambda: AsyncSession(key="k"), "key= is for a cellrun service"),
        (lambda: AsyncSession("http://localhost:8888/", key="k"), "JupyterServer"),
        (lambda: AsyncSession(session_id="s"), "session_id= is for a cellrun service"),
        (lambda: AsyncSession(CellrunService(address), key="k"), "has its own"),
        (lambda: AsyncSession(address, session_id=""), "a session is named with"),
        (lambda: AsyncSession(address, session_id="a/files/b"), "a session is named with"),
        (lambda: AsyncSession(address, succeeds="x"), "succeeds="),
    ]
    for wrong, words in wrongs:
        with pytest.raises(ValueError, match=words):
            wrong()


async def test_a_timeout_ends_the_cell_and_its_variables_stay(session: AsyncSession) -> None:
    await session.run("kept = 1")
    for limit in TIME_LIMITS:
        result = await session.run("print('on', flush=True)\nimport time; time.sleep(300)", timeout=limit)
        assert result.status == "timeout"
        if result.stdout:
            break
    assert result.stdout == "on\n"
    assert (await session.run("kept")).text == "1"


async def test_a_restart_is_told_to_the_next_run(session: AsyncSession) -> None:
    await session.run("x = 1")
    await session.restart()
    result = await session.run("'x' in globals()")
    assert (result.text, result.restarted) == ("False", "restart() was called")


async def test_an_interrupt_stops_what_runs_also_of_somebody_else(address: str, service: Service) -> None:
    async with AsyncSession(address, session_id="shared") as session:
        await session.interrupt()  # nothing runs
        async with session.stream("print('in', flush=True)\nimport time; time.sleep(60)") as stream:
            async for event in stream:
                if isinstance(event, Stdout):
                    await stream.interrupt()
        assert (stream.result.status, stream.result.reason) == ("interrupted", "interrupt() was called")
        async with client(service) as http:
            other = asyncio.create_task(run(http, "shared", "import time; time.sleep(600)"))
            while "running" not in str((await answer(http, "GET", "/v1/sessions/shared"))["runs"]):
                await asyncio.sleep(0.02)
            await session.interrupt()
            assert (await other)["status"] == "interrupted"


async def test_files_go_in_and_out_and_their_errors_are_those_of_files(session: AsyncSession) -> None:
    data = bytes(range(256)) * 20_000

    async def pieces() -> Any:
        for start in range(0, len(data), 300_000):
            yield data[start : start + 300_000]

    await session.files.write("in/ü %#?.bin", pieces())
    await session.files.write("empty", b"")
    assert await session.files.read("in/ü %#?.bin") == data
    assert await session.files.read("empty") == b""
    assert (
        b"".join([chunk async for chunk in session.files.chunks("in/ü %#?.bin", start=5_000_000)]) == data[5_000_000:]
    )
    assert [chunk async for chunk in session.files.chunks("empty", start=3)] == []
    assert (await session.files.stat("in")).is_dir
    assert [(info.path, info.size) for info in await session.files.list("in")] == [("in/ü %#?.bin", len(data))]
    assert (await session.run("len(open('in/ü %#?.bin', 'rb').read())")).text == str(len(data))

    async def failing() -> Any:
        yield b"begun"
        raise LookupError("the caller's own")

    with pytest.raises(LookupError, match="the caller's own"):
        await session.files.write("never", failing())
    for path, error in (("never", FileNotFoundError), ("in", IsADirectoryError), ("empty/x", NotADirectoryError)):
        with pytest.raises(error):
            await session.files.read(path)
    with pytest.raises(NotADirectoryError):
        await session.files.list("empty")
    with pytest.raises(OSError, match="in"):
        await session.files.delete("in")  # it is not empty
    for path in ("../x", "/etc/passwd"):
        with pytest.raises(ValueError, match="relative"):
            await session.files.read(path)
    for nameless in (session.files.write("", b""), session.files.delete("")):
        with pytest.raises(ValueError, match=r"name|folder itself"):
            await nameless
    await session.files.delete("empty")
    with pytest.raises(FileNotFoundError):
        await session.files.delete("empty")


async def test_a_named_session_stays_and_a_nameless_one_goes(address: str, service: Service) -> None:
    async with client(service) as http:
        async with AsyncSession(address, session_id="chat:1") as session:
            await session.run("x = 41")
            assert "session 'chat:1'" in repr(session)
            async with AsyncSession(address) as nameless:
                await nameless.run("1")
                assert len((await answer(http, "GET", "/v1/sessions"))["sessions"]) >= 2
        names = [found["id"] for found in (await answer(http, "GET", "/v1/sessions"))["sessions"]]
        assert "chat:1" in names
        assert repr(nameless).endswith("closed>")
        assert not any(len(name) == 32 for name in names)
        async with AsyncSession(address, session_id="chat:1") as again:
            assert (await again.run("x + 1")).text == "42"
            assert len(again.to_notebook().cells) == 1
            whole = await again.fetch_notebook()
            nbformat.validate(whole)
            assert [cell.source for cell in whole.cells] == ["x = 41", "x + 1"]
        await answer(http, "DELETE", "/v1/sessions/chat:1", status=204)


async def test_what_is_not_to_be_kept_is_not_kept(address: str) -> None:
    async with AsyncSession(address, history=False) as session:
        await session.run("1")
        with pytest.raises(RuntimeError, match="history=False"):
            session.to_notebook()
        assert len((await session.fetch_notebook()).cells) == 1


async def test_the_walls_are_told_at_the_start(address: str) -> None:
    session = AsyncSession(address)
    assert (session.containment, session.closed, session.language) == (None, False, "")
    async with session:
        assert session.containment is not None
        assert session.containment.startswith(("strong", "portable"))
    assert session.closed
    with pytest.raises(SessionLost, match="closed"):
        await session.run("1")


async def test_several_sessions_share_one_service_object(address: str) -> None:
    async with CellrunService(address) as shared:
        async with AsyncSession(shared) as one, AsyncSession(shared) as two:
            await asyncio.gather(one.run("x = 1"), two.run("x = 2"))
            assert [(await one.run("x")).text, (await two.run("x")).text] == ["1", "2"]
        async with AsyncSession(shared) as three:
            assert (await three.run("3")).text == "3"
    with pytest.raises(SessionLost, match="closed"):
        await AsyncSession(shared).start()
    alone = CellrunService(address)
    async with AsyncSession(alone) as first:
        await first.run("1")
    assert alone._http is None  # with its last session it has let go of its connections


def test_the_blocking_session_has_it_too(address: str) -> None:
    with cellrun.Session(address, session_id="blocking") as session:
        session.run("x = 41")
        assert session.run("x + 1").text == "42"
        texts = [event.text for event in session.stream("print(1)") if isinstance(event, Stdout)]
        assert texts == ["1\n"]
        session.files.write("a.txt", "text")
        assert session.files.read("a.txt") == b"text"
        assert [cell.source for cell in session.fetch_notebook().cells] == ["x = 41", "x + 1", "print(1)"]
        assert session.cpu_seconds() is None
        assert session.disk_bytes() is None
    assert cellrun.run("6 * 7", address).text == "42"
    with CellrunService(address) as shared, cellrun.Session(shared) as other:
        assert other.run("1").text == "1"


async def test_on_another_event_loop_it_says_so(address: str) -> None:
    async with AsyncSession(address) as session:
        await session.run("1")

        def elsewhere() -> None:
            asyncio.run(session.run("2"))

        with pytest.raises(RuntimeError, match="another event loop"):
            await asyncio.to_thread(elsewhere)


async def test_forgetting_one_warns(address: str) -> None:
    session = AsyncSession(address)
    await session.run("1")
    with pytest.warns(ResourceWarning, match="was not closed"):
        session.__del__()
    await session.aclose()
    await eventually(lambda: session.closed)
