"""Our kernel as a process, message by message: what Jupyter's own suite does not look at."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import zmq
import zmq.asyncio

from cellrun import Event, Stdout
from cellrun.launch.forkserver import ForkServer
from tests.kernel.talk import Message, Talk, open_kernel, parent, stream, talking
from tests.support.forked import FORKED, STARTED, Opener, Running, forking
from tests.support.waiting import HANG, eventually, process_exists

pytestmark = pytest.mark.asyncio(loop_scope="module")
ROOT = Path(__file__).parents[2]


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=[FORKED, STARTED])
async def kernel(request: pytest.FixtureRequest) -> AsyncIterator[Talk]:
    """One kernel for all tests that leave it alive."""
    async with open_kernel(request.param) as talk:
        yield talk


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def opener(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Opener]:
    """Of forked kernels that drop nothing, as a session has them."""
    async with forking(tmp_path_factory.mktemp("work"), ForkServer(preload=[])) as opened:
        yield opened


# -- requests ------------------------------------------------------------------------------------------

WAIT = "import os, time\nwhile not os.path.exists({path!r}): time.sleep(0.005)\n"


async def arrived(kernel: Talk) -> None:
    """Until what was sent before has reached the kernel: a later request has been answered, on the other channel."""
    for _ in range(3):
        await kernel.reply(kernel.send("kernel_info_request", {}, channel="control"), "control")


@pytest.mark.parametrize("stop", [True, False])
async def test_an_error_aborts_the_cells_that_have_arrived_unless_they_shall_run(
    kernel: Talk, tmp_path: Path, stop: bool
) -> None:
    go = tmp_path / "go"
    failing = kernel.execute(WAIT.format(path=str(go)) + "1 / 0", stop_on_error=stop)
    others = [kernel.execute(f"print({number})") for number in range(2)]
    question = kernel.send("kernel_info_request", {})
    others.append(kernel.execute("print(2)"))
    await arrived(kernel)
    go.touch()
    assert (await kernel.reply(failing))["ename"] == "ZeroDivisionError"
    replies = [await kernel.reply(each) for each in others]
    texts = [stream(await kernel.output(each)) for each in others]
    assert (await kernel.reply(question))["status"] == "ok"
    if stop:
        assert [reply["status"] for reply in replies] == ["aborted"] * 3
        assert texts == [""] * 3
    else:
        assert [reply["status"] for reply in replies] == ["ok"] * 3
        assert texts == ["0\n", "1\n", "2\n"]
    assert await kernel.text("print('goes on')") == "goes on\n"


async def test_user_expressions_are_evaluated_after_the_cell_and_fail_one_by_one(kernel: Talk) -> None:
    reply, _ = await kernel.run("u = 20", user_expressions={"good": "u + 1", "bad": "1 / 0"})
    assert reply["user_expressions"]["good"]["data"] == {"text/plain": "21"}
    assert reply["user_expressions"]["bad"]["ename"] == "ZeroDivisionError"
    reply, _ = await kernel.run("1 / 0", user_expressions={"good": "1"})
    assert (reply["status"], reply["user_expressions"]) == ("error", {})


async def test_a_silent_cell_shows_and_counts_nothing_but_may_print(kernel: Talk) -> None:
    before = (await kernel.run("pass"))[0]["execution_count"]
    cell = kernel.execute("s = 5\nprint('printed')\ns", silent=True, store_history=False)
    assert (await kernel.reply(cell))["status"] == "ok"
    kinds = [(await kernel.get("iopub", lambda message: parent(message) == cell))["msg_type"] for _ in range(3)]
    assert kinds == ["status", "stream", "status"]
    reply, messages = await kernel.run("s + 1")
    assert reply["execution_count"] == before + 1
    assert messages[-1]["content"]["data"] == {"text/plain": "6"}


async def test_a_cell_that_is_not_stored_is_in_no_history(kernel: Talk) -> None:
    before = (await kernel.run("'stored'"))[0]["execution_count"]
    await kernel.run("'not stored'", store_history=False)
    after = (await kernel.run("'stored too'"))[0]["execution_count"]
    assert after == before + 1
    asked = kernel.send(
        "history_request", {"hist_access_type": "tail", "n": 2, "raw": True, "output": False, "unique": False}
    )
    lines = [entry[1:] for entry in (await kernel.reply(asked))["history"]]
    assert lines == [[before, "'stored'"], [after, "'stored too'"]]


async def test_in_and_out_are_the_cells_and_their_results(kernel: Talk) -> None:
    number = (await kernel.run("6 * 7"))[0]["execution_count"]
    assert await kernel.text(f"print(In[{number}], Out[{number}], _, _{number}, _i)") == "6 * 7 42 42 42 6 * 7\n"


async def test_payloads_come_with_the_reply_and_once(kernel: Talk) -> None:
    reply, _ = await kernel.run("get_ipython().set_next_input('next')")
    assert reply["payload"] == [{"source": "set_next_input", "text": "next", "replace": False}]
    assert (await kernel.run("1"))[0]["payload"] == []
    reply, _ = await kernel.run("get_ipython().set_next_input('next')\n1 / 0")
    assert [payload["text"] for payload in reply["payload"]] == ["next"]


async def test_kernel_info_says_what_this_kernel_can_and_cannot(kernel: Talk) -> None:
    for channel in ("shell", "control"):
        info = await kernel.reply(kernel.send("kernel_info_request", {}, channel=channel), channel)
        assert info["status"] == "ok"
        assert info["language_info"]["version"] == "{}.{}.{}".format(*sys.version_info)
        assert info["supported_features"] == []
        assert info["protocol_version"].startswith("5.")


async def test_magics_and_programs_show_their_output(kernel: Talk) -> None:
    assert (await kernel.text("!echo one\nprint('two')")).split() == ["one", "two"]
    # What a program writes comes by a pipe: all of it, but not at a place among the cell's own prints.
    shown = (await kernel.text("import os\nprint('a')\nos.system('echo b')\nprint('c');")).split()
    assert sorted(shown) == ["a", "b", "c"]
    assert [word for word in shown if word != "b"] == ["a", "c"]
    _, messages = await kernel.run("import os, sys\nos.write(2, b'low\\n')\nprint('high', file=sys.stderr)")
    # In either order, and the one may come between the other and its newline.
    assert all(word in stream(messages, "stderr") for word in ("high", "low"))


# -- interrupts ----------------------------------------------------------------------------------------


async def interrupt(kernel: Talk, how: str) -> None:
    if how == "signal":
        os.kill(kernel.pid, signal.SIGINT)
    else:
        content = await kernel.reply(kernel.send("interrupt_request", {}, channel="control"), "control")
        assert content["status"] == "ok"


@pytest.mark.parametrize("how", ["message", "signal"])
@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("import time\nprint('now', flush=True)\ntime.sleep(60)", "KeyboardInterrupt"),
        ("print('now', flush=True)\nwhile True: pass", "KeyboardInterrupt"),
        ("import asyncio\nprint('now', flush=True)\nawait asyncio.sleep(60)", "CancelledError"),
        ("import subprocess\nprint('now', flush=True)\nsubprocess.run(['sleep', '60'])", "KeyboardInterrupt"),
    ],
    ids=["in a call", "in a loop", "awaiting", "in a program"],
)
async def test_an_interrupt_ends_a_cell_and_nothing_else(kernel: Talk, how: str, code: str, error: str) -> None:
    await kernel.run("kept = 'kept'")
    cell = kernel.execute(code)
    await kernel.shown(cell, "stream")
    await interrupt(kernel, how)
    reply = await kernel.reply(cell)
    assert (reply["status"], reply["ename"]) == ("error", error)
    assert [message["content"]["ename"] for message in await kernel.output(cell)] == [error]
    assert await kernel.text("print(kept)") == "kept\n"


@pytest.mark.parametrize("how", ["message", "signal"])
async def test_an_interrupt_between_cells_changes_nothing(kernel: Talk, how: str) -> None:
    for _ in range(5):
        await interrupt(kernel, how)
        assert await kernel.text("print(1)") == "1\n"


@pytest.mark.wide
async def test_what_was_printed_before_an_interrupt_is_there_once_and_in_order(opener: Opener) -> None:
    """Thirty interrupts at random moments; each message is whole, or it could not be parsed."""
    chance = random.Random(30)
    forked = await opener()
    code = "for i in range(200_000):\n    print(i, flush=i % 7 == 0)\n    done = i\nprint('all')"
    struck = 0
    async with talking(forked.kernel.connection, forked.pid) as kernel:
        for _ in range(30):
            await kernel.text("done = -1")  # in a cell before: the interrupt may come before the first line of this one
            cell = kernel.execute(code)
            await kernel.shown(cell, "execute_input")
            await asyncio.sleep(chance.random() * 0.03)
            os.kill(forked.pid, signal.SIGINT)
            reply = await kernel.reply(cell)
            text = stream(await kernel.output(cell))
            struck += reply["status"] == "error"
            done = int(await kernel.text("print(done)"))
            lines = text.split("\n")
            if reply["status"] == "ok":
                assert lines == [*map(str, range(200_000)), "all", ""]
                continue
            assert reply["ename"] == "KeyboardInterrupt"
            whole = [line for line in lines if line]
            # The interrupt may come between a print and the next line of the cell, and between the two writes of a print.
            assert whole[: done + 1] == [str(number) for number in range(done + 1)]
            assert whole[done + 1 :] in ([], [str(done + 1)], ["all"]), (done, whole[-3:])
        assert struck >= 10
        assert (await kernel.reply(kernel.send("kernel_info_request", {})))["status"] == "ok"


@pytest.mark.wide
async def test_a_kernel_goes_on_sending_in_time_however_often_it_was_interrupted(opener: Opener) -> None:
    """A print that is interrupted while it asks for a flush must not be the last one that is flushed in time."""
    chance = random.Random(5)
    forked = await opener()
    for _ in range(20):
        cell = await forked.start_cell("print('begun')\nwhile True: print('x', end='')")
        await cell.shows("begun")
        await asyncio.sleep(chance.random() * 0.005)
        os.kill(forked.pid, signal.SIGINT)
        await cell.result()
    cell = await forked.start_cell("import time\nprint('in time')\ntime.sleep(60)")
    await cell.shows("in time")
    os.kill(forked.pid, signal.SIGINT)
    await cell.result()
    await forked.close()


# -- while a cell runs ---------------------------------------------------------------------------------


async def test_the_heart_beats_while_a_cell_sleeps(kernel: Talk) -> None:
    cell = kernel.execute("import time\nprint('now', flush=True)\ntime.sleep(60)")
    await kernel.shown(cell, "stream")
    with zmq.asyncio.Context() as context, context.socket(zmq.REQ) as heart:
        heart.linger = 0
        heart.connect(kernel.client._make_url("hb"))
        for beat in (b"1", b"2" * 100_000, b""):
            await heart.send(beat)
            assert await asyncio.wait_for(heart.recv(), HANG) == beat
    await interrupt(kernel, "message")
    await kernel.reply(cell)
    await kernel.output(cell)


@pytest.mark.parametrize("topic", [b"", b"kernel."])
async def test_each_new_subscriber_is_welcomed_also_while_a_cell_prints(kernel: Talk, topic: bytes) -> None:
    cell = kernel.execute("import time\nwhile True: print('x' * 100, flush=True); time.sleep(0.001)")
    await kernel.shown(cell, "stream")
    with zmq.asyncio.Context() as context:
        for number in range(20):
            with context.socket(zmq.SUB) as subscriber:
                subscriber.linger = 0
                subscriber.subscribe(topic)
                subscriber.connect(kernel.client._make_url("iopub"))
                async with asyncio.timeout(HANG):
                    while True:
                        await asyncio.sleep(0)  # what is there already is given without a turn of the loop
                        frames = await subscriber.recv_multipart()
                        if b"iopub_welcome" in frames[frames.index(b"<IDS|MSG>") + 2]:
                            break
                assert json.loads(frames[-1]) == {"subscription": topic.decode()}, number
                assert frames[0] == (topic or b"<IDS|MSG>")
    await interrupt(kernel, "message")
    await kernel.reply(cell)
    await kernel.output(cell)


async def test_a_comm_message_reaches_a_cell_that_awaits_it(kernel: Talk) -> None:
    code = """
import asyncio
arrived = asyncio.get_running_loop().create_future()
def opened(comm, message):
    print('in the comm')
    arrived.set_result(message['content']['data'])
get_ipython().kernel.comm_manager.register_target('awaited', opened)
print('now', flush=True)
got = await arrived
print('got', got['value'])
"""
    cell = kernel.execute(code)
    await kernel.shown(cell, "stream")
    comm = kernel.send("comm_open", {"comm_id": "c", "target_name": "awaited", "data": {"value": 7}})
    assert (await kernel.reply(cell))["status"] == "ok"
    messages = await kernel.output(cell)
    assert stream(messages).endswith("got 7\n")
    assert "in the comm\n" in stream(messages) + stream(
        [message for message in kernel._waiting["iopub"] if parent(message) == comm]
    )


async def test_a_task_that_a_cell_has_started_goes_on_between_cells(kernel: Talk) -> None:
    code = """
import asyncio
ticked = asyncio.Event()
async def tick():
    for number in range(3):
        await asyncio.sleep(0.01)
    ticked.set()
task = asyncio.get_running_loop().create_task(tick())
"""
    await kernel.run(code)
    assert await kernel.text("await ticked.wait()\nprint(task.done() or ticked.is_set())") == "True\n"


# -- what is no request --------------------------------------------------------------------------------


@pytest.mark.parametrize("channel", ["shell", "control"])
async def test_what_is_no_message_of_ours_changes_nothing(kernel: Talk, channel: str) -> None:
    await kernel.run("kept = 'still kept'")
    session = kernel.client.session
    good = session.serialize(session.msg("execute_request", {"code": "kept = 'lost'"}))
    forged = [good[0], b"0" * 64, *good[2:]]

    def signed(header: Any, content: bytes) -> list[bytes]:
        parts = [session.pack(header), b"{}", b"{}", content]
        return [b"<IDS|MSG>", session.sign(parts), *parts]

    named = {"msg_id": "m", "session": "s", "username": "", "date": "2026-01-01T00:00:00Z", "version": "5.3"}
    bad: list[list[bytes]] = [
        [b""],
        [b"\xff" * 10],
        [b"<IDS|MSG>"],
        good[:4],
        forged,
        [*good[:2], b"{", *good[3:]],
        signed([], b"{}"),
        signed(named, b"{}"),
        signed({**named, "msg_type": "no_such_request"}, b"{}"),
        signed({**named, "msg_type": ["a", "list"]}, b"{}"),
        signed({**named, "msg_type": {"a": "mapping"}}, b"{}"),
        signed({**named, "msg_type": "execute_request"}, b"[]"),
        signed({**named, "msg_type": "complete_request"}, b'{"code": 5}'),
        signed({**named, "msg_type": "comm_msg"}, b'{"comm_id": []}'),
        signed({**named, "msg_type": "interrupt_request"}, b"{}"),
    ]
    socket = kernel._channel(channel).socket
    for frames in bad:
        await socket.send_multipart(frames)
    for asked in ("control", "shell"):
        answer = await kernel.reply(kernel.send("kernel_info_request", {}, channel=asked), asked)
        assert answer["status"] == "ok"
    assert await kernel.text("print(kept)") == "still kept\n"


# -- the end -------------------------------------------------------------------------------------------

ENDING = """
import atexit, os, sys, threading
class Last:
    def __del__(self, write=os.write, file=os.open({folder!r} + '/deleted', os.O_CREAT | os.O_WRONLY)):
        write(file, b'deleted')
last = Last()
held = open({folder!r} + '/held', 'w'); held.write('unflushed')
binary = open({folder!r} + '/binary', 'wb'); binary.write(b'unflushed')
hidden = [[open({folder!r} + '/hidden', 'w')]]; hidden[0][0].write('unflushed')
atexit.register(print, 'said at the end')
atexit.register(print, 'an error at the end', file=sys.stderr)
atexit.register(lambda: open({folder!r} + '/exit', 'w').write('written'))
def late():
    threading.main_thread().join()
    open({folder!r} + '/thread', 'w').write('written')
threading.Thread(target=late).start()
"""


@pytest.mark.parametrize("kind", [FORKED, STARTED])
async def test_a_shutdown_runs_exit_handlers_writes_files_out_and_says_goodbye(kind: str, tmp_path: Path) -> None:
    async with open_kernel(kind) as kernel:
        assert (await kernel.run(ENDING.format(folder=str(tmp_path))))[0]["status"] == "ok"
        asked = kernel.send("shutdown_request", {"restart": False}, channel="control")
        assert await kernel.reply(asked, "control") == {"status": "ok", "restart": False}
        said = []
        while True:
            message = await kernel.get("iopub", lambda _: True)
            said.append(message)
            if message["msg_type"] == "shutdown_reply":
                break
        assert stream(said) == "said at the end\n"
        assert stream(said, "stderr") == "an error at the end\n"
        await eventually(lambda: not process_exists(kernel.pid))
    files = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert files == {
        "held": "unflushed",
        "binary": "unflushed",
        "hidden": "unflushed",
        "exit": "written",
        "thread": "written",
        "deleted": "deleted",
    }


@pytest.mark.parametrize("kind", [FORKED, STARTED])
async def test_a_cell_may_end_the_kernel(kind: str) -> None:
    async with open_kernel(kind) as kernel:
        reply, _ = await kernel.run("exit")
        assert reply["status"] == "ok"
        await eventually(lambda: not process_exists(kernel.pid))


async def test_a_started_kernel_ends_with_the_program_that_started_it() -> None:
    program = f"""
import signal, sys
from jupyter_client.manager import start_new_kernel
manager, client = start_new_kernel(kernel_name={STARTED!r})
print(manager.provisioner.pid, flush=True)
signal.pause()
"""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as service:
        assert service.stdout is not None
        pid = int(await asyncio.to_thread(service.stdout.readline))
        try:
            assert process_exists(pid)
            service.kill()
            await eventually(lambda: not process_exists(pid))
        finally:
            if process_exists(pid):
                os.kill(pid, signal.SIGKILL)


async def test_a_file_in_the_working_folder_does_not_stand_in_for_a_module_of_the_kernel(tmp_path: Path) -> None:
    tmp_path.joinpath("zmq.py").write_text("raise RuntimeError('of the user')\n")
    async with open_kernel(STARTED, cwd=str(tmp_path)) as kernel:
        assert await kernel.text("print(1)") == "1\n"


# -- much output, and output from elsewhere ------------------------------------------------------------


@pytest.mark.wide
async def test_a_slow_reader_loses_nothing(opener: Opener) -> None:
    forked = await opener()
    numbers: list[str] = []

    class Slow(Running):
        def sink(self, events: list[Event]) -> Any:
            super().sink([event for event in events if not isinstance(event, Stdout)] or events[-1:])
            numbers.extend(event.text for event in events if isinstance(event, Stdout))
            return asyncio.sleep(0.0005) if len(numbers) < 3000 else None

    cell = await forked.start_cell("for i in range(100_000): print(i, flush=i % 10 == 0)", running=Slow())
    await cell.ended.wait()
    assert "".join(numbers) == "".join(f"{number}\n" for number in range(100_000))
    await forked.close()


async def test_output_of_forked_children_belongs_to_the_cell(kernel: Talk) -> None:
    code = """
import multiprocessing, sys
from IPython.display import display, HTML
context = multiprocessing.get_context("fork")
def work():
    print('printed')
    print('to stderr', file=sys.stderr)
    display(HTML('<b>shown</b>'))
    display({'text/plain': 'x' * 300_000}, raw=True)
process = context.Process(target=work)
process.start()
process.join()
print('after', process.exitcode)
"""
    reply, messages = await kernel.run(code)
    assert reply["status"] == "ok"
    assert stream(messages) == "printed\nafter 0\n"
    assert stream(messages, "stderr") == "to stderr\n"
    shown = [message["content"]["data"] for message in messages if message["msg_type"] == "display_data"]
    assert [each.get("text/html") for each in shown] == ["<b>shown</b>", None]
    assert shown[1] == {"text/plain": "x" * 300_000}


async def test_lines_of_several_children_at_once_stay_whole(kernel: Talk) -> None:
    code = """
import multiprocessing
from IPython.display import display
context = multiprocessing.get_context("fork")
def work(name):
    for number in range(200):
        print(f'{name} {number} ' + '-' * 50)
    display({'text/plain': name * 100_000}, raw=True)
processes = [context.Process(target=work, args=(name,)) for name in 'abcdef']
for process in processes: process.start()
for process in processes: process.join()
"""
    _, messages = await kernel.run(code)
    lines = stream(messages).splitlines()
    assert sorted(lines) == sorted(f"{name} {number} " + "-" * 50 for name in "abcdef" for number in range(200))
    for name in "abcdef":
        of_one = [line for line in lines if line.startswith(name)]
        assert of_one == [f"{name} {number} " + "-" * 50 for number in range(200)]
    shown = [message["content"]["data"]["text/plain"] for message in messages if message["msg_type"] == "display_data"]
    assert sorted(shown) == [name * 100_000 for name in "abcdef"]


async def test_a_pool_of_processes_and_one_of_threads_work(kernel: Talk) -> None:
    code = """
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
import multiprocessing
for pool in (ProcessPoolExecutor(2, multiprocessing.get_context("fork")), ThreadPoolExecutor(2)):
    with pool:
        print(sum(pool.map(abs, range(-10, 0))))
"""
    assert await kernel.text(code) == "55\n55\n"


async def test_output_of_a_background_thread_belongs_to_its_cell_while_that_runs(kernel: Talk) -> None:
    code = """
import threading
thread = threading.Thread(target=lambda: [print(number) for number in range(1000)])
thread.start(); thread.join()
print('end')
"""
    assert (await kernel.text(code)).split() == [*map(str, range(1000)), "end"]


LATER = """
import os, threading, time
path = {path!r}
def wait_and_write():
    while not os.path.exists(path): time.sleep(0.005)
    print('written late', flush=True)
if {forked}:
    if os.fork() == 0:
        wait_and_write()
        os._exit(0)
else:
    threading.Thread(target=wait_and_write).start()
"""


@pytest.mark.parametrize("forked", [True, False], ids=["child", "thread"])
@pytest.mark.parametrize("busy", [True, False], ids=["while another runs", "between cells"])
async def test_what_is_written_after_its_cell_goes_to_a_cell_that_began_it_or_runs(
    kernel: Talk, tmp_path: Path, forked: bool, busy: bool
) -> None:
    go, done = tmp_path / "go", tmp_path / "done"
    first = kernel.execute(LATER.format(path=str(go), forked=forked))
    await kernel.output(first)
    second = kernel.execute(WAIT.format(path=str(done)) if busy else "pass")
    if not busy:
        await kernel.output(second)
    go.touch()

    def late(message: Message) -> bool:
        return message["msg_type"] == "stream" and "written late" in message["content"]["text"]

    message = await kernel.get("iopub", late)
    assert parent(message) in (first, second)
    done.touch()
    if busy:
        await kernel.output(second)
    assert await kernel.text("print('next')") == "next\n"


async def test_a_flood_from_a_program_does_not_keep_a_cell_from_its_end(kernel: Talk) -> None:
    code = """
import subprocess
flood = subprocess.Popen(["sh", "-c", "while :; do echo flood; done"])
print('end of the cell')
"""
    cell = kernel.execute(code)
    assert (await kernel.reply(cell))["status"] == "ok"
    stop = kernel.execute("flood.kill(); flood.wait()")
    assert (await kernel.reply(stop))["status"] == "ok"
    # Without its newline, which print writes by itself: the flood may come in between.
    assert "end of the cell" in stream(await kernel.output(cell))
    await kernel.output(stop)


def silence(cell: Running) -> Callable[[], bool]:
    """Whether nothing has come for 0.4 s."""
    seen, since = -1, time.monotonic()

    def nothing_new() -> bool:
        nonlocal seen, since
        if len(cell.events) != seen:
            seen, since = len(cell.events), time.monotonic()
        return time.monotonic() - since > 0.4

    return nothing_new


AT_ONCE = """
import threading, time
from IPython.display import display
ended = threading.Event()
def chatter():
    while not ended.wait(0.001):
        print('x' * 1000)
thread = threading.Thread(target=chatter)
thread.start()
print('now', flush=True)
try:
    while True:
        display({{'text/plain': 'y' * 10_000}}, raw=True)
except KeyboardInterrupt:
    ended.set()
    open({path!r}, 'w').close()
    thread.join()
    raise
"""


async def test_an_interrupt_by_message_reaches_a_cell_that_waits_for_a_stopped_reader(
    opener: Opener, tmp_path: Path
) -> None:
    """A reader that takes nothing makes the kernel wait, everywhere but where interrupts are heard."""
    forked = await opener()
    struck = tmp_path / "struck"
    context = zmq.asyncio.Context()
    stopped = context.socket(zmq.SUB)
    stopped.rcvhwm = 1
    stopped.linger = 0
    stopped.subscribe(b"")
    address = forked.kernel.connection["ip"]
    stopped.connect(f"ipc://{address}-{forked.kernel.connection['iopub_port']}")
    await asyncio.wait_for(stopped.recv_multipart(), HANG)  # the welcome: it is subscribed
    try:
        cell = await forked.start_cell(AT_ONCE.format(path=str(struck)))
        await cell.shows("now")
        await eventually(silence(cell))
        asking = asyncio.ensure_future(forked.client.ask("interrupt_request", {}, channel="control", timeout=HANG))
        await eventually(struck.exists)
        stopped.close()
        assert (await asking)["status"] == "ok"
        result = await cell.result()
        assert result.error is not None
        assert result.error.name == "KeyboardInterrupt"
        assert (await forked.run("print(1)")).stdout == "1\n"
    finally:
        stopped.close()
        context.term()
        await forked.close()
