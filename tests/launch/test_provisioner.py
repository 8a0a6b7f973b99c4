"""Our kernel in other people's programs: nbclient, jupyter_client and Jupyter Server, none of which know of us."""

from __future__ import annotations

import asyncio
import base64
import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest
from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.manager import AsyncKernelManager, KernelManager
from nbclient.client import NotebookClient
from nbclient.exceptions import CellExecutionError

from cellrun import AsyncSession, Event, JupyterServer, OutputDropped, Stdout, fold
from cellrun.channels import client as kernel_client
from cellrun.cli import kernelspec
from cellrun.launch.descendants import children
from tests.kernel.talk import pid_of as process_of
from tests.support.forked import FORKED, kernelspecs, stat_fields, write_kernelspec
from tests.support.proxy import FaultProxy
from tests.support.servers import Server, jupyter_server
from tests.support.waiting import HANG, PROCESS, eventually, process_exists

SECONDS = int(PROCESS)  # each waits for a kernel, the first of them for its forkserver


@pytest.fixture(scope="module", autouse=True)
def specs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of our kernelspecs, which every program here sees."""
    with kernelspecs(tmp_path_factory.mktemp("jupyter")) as path:
        yield path


def is_forked(pid: int) -> bool:
    return Path(f"/proc/{pid}/comm").read_text().startswith("cell-")


# -- nbclient ------------------------------------------------------------------------------------------


def notebook(*cells: str) -> Any:
    return nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in cells])


def text_of(cell: Any) -> str:
    return "".join(output["text"] for output in cell["outputs"] if output["output_type"] == "stream")


def test_nbclient_runs_a_notebook_in_our_kernel(tmp_path: Path) -> None:
    book = notebook(
        "import os\nprint(os.getpid(), os.getcwd())",
        "for number in range(1000): print(number)",
        "import matplotlib.pyplot as plt\nplt.plot([1, 2, 3])\nplt.show()",
        "1 / 0",
        "x = 6",
        "x * 7",
        "!echo from a program",
    )
    client = NotebookClient(
        book, kernel_name=FORKED, allow_errors=True, timeout=SECONDS, resources={"metadata": {"path": str(tmp_path)}}
    )
    client.execute()
    pid, folder = text_of(book.cells[0]).split()
    assert folder == str(tmp_path)
    assert text_of(book.cells[1]).split() == [str(number) for number in range(1000)]
    picture = base64.b64decode(book.cells[2]["outputs"][-1]["data"]["image/png"])
    assert picture.startswith(b"\x89PNG")
    assert book.cells[3]["outputs"][0]["ename"] == "ZeroDivisionError"
    assert book.cells[5]["outputs"][0]["data"]["text/plain"] == "42"
    assert text_of(book.cells[6]).strip() == "from a program"
    assert [cell["execution_count"] for cell in book.cells] == [1, 2, 3, 4, 5, 6, 7]
    assert not process_exists(int(pid))


def test_nbclient_stops_at_an_error_that_is_not_allowed() -> None:
    book = notebook("print('one')", "raise RuntimeError('two')", "print('three')")
    with pytest.raises(CellExecutionError, match=r"RuntimeError.*two"):
        NotebookClient(book, kernel_name=FORKED, timeout=SECONDS).execute()
    assert [text_of(cell) for cell in book.cells] == ["one\n", "", ""]


# -- jupyter_client ------------------------------------------------------------------------------------


@pytest.fixture(params=["tcp", "ipc"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[KernelManager]:
    made = KernelManager(kernel_name=FORKED, transport=request.param)
    made.shutdown_wait_time = HANG  # five seconds, then a kill: that is little for exit handlers on a busy machine
    if request.param == "ipc":
        made.ip = str(tmp_path / "k")
    yield made
    if made.has_kernel:
        made.shutdown_kernel(now=True)
    made.context.destroy(linger=0)


def connected(manager: KernelManager) -> BlockingKernelClient:
    client: BlockingKernelClient = manager.client()
    client.start_channels(hb=False)
    client.wait_for_ready(timeout=SECONDS)
    return client


def printed(client: BlockingKernelClient, code: str) -> str:
    texts: list[str] = []

    def hook(message: Any) -> None:
        if message["msg_type"] == "stream":
            texts.append(message["content"]["text"])

    reply = client.execute_interactive(code, timeout=SECONDS, output_hook=hook)
    assert reply["content"]["status"] == "ok", reply["content"]
    return "".join(texts)


def test_a_kernel_manager_starts_restarts_and_shuts_down_our_kernel(manager: KernelManager, tmp_path: Path) -> None:
    manager.start_kernel(cwd=str(tmp_path), env={**os.environ, "OF_THIS_KERNEL": "yes"})
    client = connected(manager)
    facts = "import os; print(os.getpid(), os.getcwd(), os.environ['OF_THIS_KERNEL'], os.environ.get('OPENBLAS_NUM_THREADS'))"
    pid, *rest = printed(client, facts).split()
    assert rest == [str(tmp_path), "yes", str(os.environ.get("OPENBLAS_NUM_THREADS"))]
    assert int(pid) == process_of(manager)
    assert is_forked(int(pid))
    assert manager.is_alive()
    printed(client, "x = 1")

    manager.restart_kernel()
    client.wait_for_ready(timeout=SECONDS)
    again, *rest = printed(client, facts).split()
    assert rest == [str(tmp_path), "yes", str(os.environ.get("OPENBLAS_NUM_THREADS"))]
    assert again != pid
    assert printed(client, "print('x' in globals())") == "False\n"
    assert not process_exists(int(pid))

    manager.restart_kernel(now=True)
    client.wait_for_ready(timeout=SECONDS)
    last = int(printed(client, "import os; print(os.getpid())"))

    ended = tmp_path / "ended"
    printed(client, f"import atexit; atexit.register(open, {str(ended)!r}, 'w')")
    client.stop_channels()
    manager.shutdown_kernel()
    assert ended.exists()
    assert not process_exists(last)
    assert not manager.has_kernel
    assert manager.is_alive() is False


def test_a_kernel_manager_interrupts_our_kernel(manager: KernelManager) -> None:
    manager.start_kernel()
    client = connected(manager)
    client.execute("import time\nprint('now', flush=True)\ntime.sleep(60)")
    while client.get_iopub_msg(timeout=SECONDS)["msg_type"] != "stream":
        pass
    manager.interrupt_kernel()
    assert client.get_shell_msg(timeout=SECONDS)["content"]["ename"] == "KeyboardInterrupt"
    client.stop_channels()


async def test_an_async_manager_notices_that_a_kernel_was_killed_and_starts_another() -> None:
    manager = AsyncKernelManager(kernel_name=FORKED)
    await manager.start_kernel()
    try:
        assert await manager.is_alive()
        pid = process_of(manager)
        os.kill(pid, signal.SIGKILL)
        async with asyncio.timeout(HANG):
            while await manager.is_alive():
                await asyncio.sleep(0.01)
        assert not process_exists(pid)
        await manager.restart_kernel(now=True)
        assert await manager.is_alive()
        client = manager.client()
        client.start_channels(hb=False)
        await client.wait_for_ready(timeout=SECONDS)
        client.stop_channels()
    finally:
        await manager.shutdown_kernel(now=True)
        manager.context.destroy(linger=0)


async def test_many_kernels_start_at_once_from_one_forkserver_and_leave_nothing() -> None:
    managers = [AsyncKernelManager(kernel_name=FORKED) for _ in range(6)]
    await asyncio.gather(*(manager.start_kernel() for manager in managers))
    pids = [process_of(manager) for manager in managers]
    # A kernel gives itself its name after its pid is known.
    await eventually(lambda: all(is_forked(pid) for pid in pids))
    (parent,) = {int(stat_fields(pid)[1]) for pid in pids}
    await asyncio.gather(*(manager.shutdown_kernel(now=True) for manager in managers))
    for manager in managers:
        manager.context.destroy(linger=0)
    assert not any(process_exists(pid) for pid in pids)
    await eventually(lambda: not children(parent) & set(pids))


def test_what_a_kernel_has_started_ends_with_it(manager: KernelManager) -> None:
    manager.start_kernel()
    client = connected(manager)
    code = "import subprocess\nprint(subprocess.Popen(['sleep', '300'], start_new_session=True).pid)"
    pid = int(printed(client, code))
    assert process_exists(pid)
    client.stop_channels()
    manager.shutdown_kernel(now=True)
    asyncio.run(eventually(lambda: not process_exists(pid)))  # it was killed; nobody waits until it has fallen


def test_the_command_is_run_where_nothing_can_be_forked(specs: Path, tmp_path: Path) -> None:
    """An interpreter whose forkserver does not start: the kernelspec is as good as any other."""
    python = tmp_path / "python"
    python.write_text(
        f'#!/bin/sh\n[ "$1" = -c ] && echo "no forkserver here" >&2 && exit 1\nexec {sys.executable} "$@"\n'
    )
    python.chmod(0o755)
    content = kernelspec.content("Python (no forkserver)", ["auto"])
    content["argv"][0] = str(python)
    write_kernelspec(specs, "no-forkserver", content)
    manager = KernelManager(kernel_name="no-forkserver")
    try:
        manager.start_kernel()
        client = connected(manager)
        pid = int(printed(client, "import os; print(os.getpid())"))
        assert pid == process_of(manager)
        assert not is_forked(pid)
        client.stop_channels()
        manager.shutdown_kernel()
        assert not process_exists(pid)
    finally:
        manager.context.destroy(linger=0)


@pytest.mark.wide
def test_a_module_that_cannot_be_preloaded_does_not_keep_kernels_from_starting(specs: Path) -> None:
    write_kernelspec(specs, "wrong-preload", kernelspec.content("Python (wrong)", ["no_such_module"]))
    for _ in range(2):  # the first finds the forkserver still loading, or not
        manager = KernelManager(kernel_name="wrong-preload")
        manager.start_kernel()
        client = connected(manager)
        assert printed(client, "print(1)") == "1\n"
        client.stop_channels()
        manager.shutdown_kernel(now=True)
        manager.context.destroy(linger=0)


async def test_kernels_and_forkserver_end_with_a_program_that_is_killed() -> None:
    program = f"""
import signal
from jupyter_client.manager import start_new_kernel
from cellrun.launch.descendants import children
import os
manager, client = start_new_kernel(kernel_name={FORKED!r})
print(manager.provisioner.pid, *children(os.getpid()), flush=True)
signal.pause()
"""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as service:
        assert service.stdout is not None
        pids = [int(pid) for pid in (await asyncio.to_thread(service.stdout.readline)).split()]
        service.kill()
        assert len(pids) == 2
        await eventually(lambda: not any(process_exists(pid) for pid in pids))


# -- Jupyter Server ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def server(specs: Path) -> Iterator[Server]:
    with jupyter_server("--ZMQChannelsWebsocketConnection.limit_rate=False") as made:
        yield made
        made.wait_until_empty()


async def pid_of(session: AsyncSession) -> int:
    return int((await session.run("import os; os.getpid()", timeout=SECONDS)).text)


@pytest.mark.wide
async def test_a_session_over_a_server_with_our_kernel_is_a_session(server: Server) -> None:
    provider = JupyterServer(server.url, token=server.token, kernel=FORKED)
    async with provider, AsyncSession(provider) as session:
        pid = await pid_of(session)
        assert is_forked(pid)
        result = await session.run(
            "print('a')\nimport sys; print('b', file=sys.stderr)\nimport os; os.system('echo c')"
        )
        assert (result.stdout, result.stderr, result.text[-1:]) == ("a\nc\n", "b\n", "0")
        figure = await session.run("import matplotlib.pyplot as plt\nplt.plot([1, 2]); plt.show()", timeout=SECONDS)
        assert len(figure.images) == 1
        assert (await session.run("1 / 0")).error is not None
        stopped = await session.run("import time; time.sleep(60)", timeout=0.3)
        assert stopped.status == "timeout"
        assert (await session.run("x = 5\nx")).text == "5"
        await session.restart()
        assert (await session.run("'x' in globals()")).text == "False"
        assert await pid_of(session) != pid
        assert not process_exists(pid)
        again = await pid_of(session)
    await eventually(lambda: not process_exists(again))


@pytest.mark.wide
async def test_a_kernel_that_dies_on_a_server_is_told_and_replaced(server: Server) -> None:
    provider = JupyterServer(server.url, token=server.token, kernel=FORKED)
    async with provider, AsyncSession(provider) as session:
        await session.run("x = 1")
        result = await session.run("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", timeout=SECONDS)
        assert result.status == "kernel_died"
        result = await session.run("'x' in globals()", timeout=SECONDS)
        assert result.text == "False"
        assert result.restarted


@pytest.mark.wide
async def test_breaks_of_the_connection_lose_and_repeat_nothing_on_our_kernel(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chance = random.Random(7)
    enough = tmp_path / "enough"
    monkeypatch.setattr(kernel_client, "_RESEND_PATIENCE", HANG)
    async with FaultProxy(server.port) as proxy:
        provider = JupyterServer(proxy.url(server.url), token=server.token, kernel=FORKED, reconnect=HANG)
        async with provider, AsyncSession(provider) as session:
            await session.run("1", timeout=SECONDS)
            events: list[Event] = []
            seen = resets = 0
            next_reset = 20
            # Until it is told that this is enough, and some more.
            code = (
                "import os, time\ni = last = 0\nwhile i < last or not last:\n    print(i, flush=True)\n"
                "    if i % 20 == 0: time.sleep(0.06)\n    i += 1\n"
                f"    if not last and os.path.exists({str(enough)!r}): last = i + 200"
            )
            async with session.stream(code, timeout=PROCESS) as stream:
                async for event in stream:
                    events.append(event)
                    if isinstance(event, Stdout):
                        seen += event.text.count("\n")
                        if seen >= next_reset and resets < 10:
                            resets += 1
                            next_reset = seen + chance.randrange(10, 90)
                            proxy.reset()
                        if resets == 10:
                            enough.touch()
            told = [int(line) for line in fold(events).stdout.split()]
            assert told == list(range(int((await session.run("i")).text)))
            assert [event for event in events if isinstance(event, OutputDropped)] == []
            assert (stream.result.ok, resets) == (True, 10)


@pytest.mark.wide
async def test_what_the_server_did_not_keep_is_had_from_the_log_in_our_kernel(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another client comes while we are away: the server throws away what it had kept for us."""
    import aiohttp

    monkeypatch.setattr(kernel_client, "_RESEND_PATIENCE", HANG)
    others = {kernel["id"] for kernel in server.kernels()}
    async with FaultProxy(server.port) as proxy:
        provider = JupyterServer(proxy.url(server.url), token=server.token, kernel=FORKED, reconnect=PROCESS)
        async with provider, AsyncSession(provider) as session:
            await session.run("1", timeout=SECONDS)
            (kernel_id,) = {kernel["id"] for kernel in server.kernels()} - others
            go, done = server.root / "go", server.root / "done"
            code = (
                "import os, time\nfor i in range(40):\n    print(i, flush=True)\n"
                f"    while i == 5 and not os.path.exists({str(go)!r}): time.sleep(0.005)\n"
                f"print('end')\nopen({str(done)!r}, 'w').close()"
            )
            async with session.stream(code, timeout=PROCESS) as stream:
                async for event in stream:
                    if isinstance(event, Stdout) and "5" in event.text:
                        break
                proxy.refuse()
                proxy.reset()
                await eventually(lambda: _connections(server, kernel_id) == 0, SECONDS)
                url = f"{server.url}api/kernels/{kernel_id}/channels?session_id=somebody-else"
                async with aiohttp.ClientSession(headers={"Authorization": f"token {server.token}"}) as client:
                    ws = await client.ws_connect(url, max_msg_size=0)
                    go.touch()
                    await eventually(done.exists, SECONDS)
                    await ws.close()
                proxy.refuse(False)
                async for _ in stream:
                    pass
            result = stream.result
            assert result.stdout.split() == [*map(str, range(40)), "end"]
            assert (result.status, result.dropped) == ("ok", ())
            go.unlink()
            done.unlink()


def _connections(server: Server, kernel_id: str) -> int:
    (found,) = [kernel for kernel in server.kernels() if kernel["id"] == kernel_id]
    return int(found["connections"])


@pytest.mark.wide
async def test_a_server_that_is_killed_leaves_no_kernels() -> None:
    with jupyter_server() as server:
        provider = JupyterServer(server.url, token=server.token, kernel=FORKED)
        async with provider:
            session = AsyncSession(provider)
            pid = await pid_of(session)
            child = int((await session.run("import subprocess; subprocess.Popen(['sleep', '300']).pid")).text)
            parent = int(stat_fields(pid)[1])
            server.kill()
            await eventually(lambda: not any(process_exists(each) for each in (pid, child, parent)))
            await session.aclose()
