"""What a network does to a connection, and what is left of the output then."""

from __future__ import annotations

import asyncio
import random
import time
from pathlib import Path

import pytest

from cellrun import (
    AsyncSession,
    ConnectionFailed,
    Event,
    JupyterServer,
    KernelStartError,
    Limits,
    OutputDropped,
    Stdout,
    fold,
)
from cellrun.channels import client
from tests.support.proxy import FaultProxy
from tests.support.servers import Server, jupyter_server
from tests.support.waiting import HANG, PROCESS, eventually

# Until it is told that this is enough, and some more.
NUMBERS = """
import os, time
i = last = 0
while i < last or not last:
    print(i, flush=True)
    if i % 20 == 0: time.sleep(0.08)
    i += 1
    if not last and os.path.exists({enough!r}): last = i + 200
"""


def connections(server: Server, kernel_id: str) -> int:
    """How many the server has to this kernel's channels."""
    (found,) = [kernel for kernel in server.kernels() if kernel["id"] == kernel_id]
    return int(found["connections"])


def numbers(text: str) -> list[int]:
    return [int(line) for line in text.split()]


@pytest.mark.wide
async def test_twenty_resets_of_the_connection_lose_and_repeat_nothing(
    free_server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chance = random.Random(20)
    enough = tmp_path / "enough"
    monkeypatch.setattr(client, "_RESEND_PATIENCE", HANG)
    async with FaultProxy(free_server.port) as proxy:
        provider = JupyterServer(proxy.url(free_server.url), token=free_server.token, reconnect=HANG)
        async with provider, AsyncSession(provider) as session:
            events: list[Event] = []
            seen = resets = 0
            next_reset = 20
            async with session.stream(NUMBERS.format(enough=str(enough)), timeout=PROCESS) as stream:
                async for event in stream:
                    events.append(event)
                    if isinstance(event, Stdout):
                        seen += event.text.count("\n")
                        if seen >= next_reset and resets < 20:
                            resets += 1
                            next_reset = seen + chance.randrange(10, 90)
                            proxy.reset()
                        if resets == 20:
                            enough.touch()
            told = numbers(fold(events).stdout)
            assert told == list(range(int((await session.run("i")).text)))
            assert [event for event in events if isinstance(event, OutputDropped)] == []
            assert stream.result.ok
            assert resets == 20
            assert (await session.run("'the session goes on'")).ok


async def test_a_reset_of_an_idle_connection_is_not_noticed_by_the_next_run(free_server: Server) -> None:
    async with FaultProxy(free_server.port) as proxy:
        provider = JupyterServer(proxy.url(free_server.url), token=free_server.token, reconnect=HANG)
        async with provider, AsyncSession(provider) as session:
            await session.run("x = 1")
            for _ in range(3):
                connections = proxy.connections
                proxy.reset()
                await eventually(lambda before=connections: proxy.connections > before)  # type: ignore[misc]
                assert (await session.run("x", timeout=HANG)).text == "1"


@pytest.mark.parametrize(
    "with_log",
    [True, pytest.param(False, marks=pytest.mark.wide)],
    ids=["python", "a kernel without a log"],
)
async def test_a_buffer_that_the_server_lost_is_got_from_the_kernel_or_reported(
    free_server: Server, with_log: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another client comes with another session id while we are away: the server throws our buffer away."""
    import aiohttp

    others = {kernel["id"] for kernel in free_server.kernels()}
    go, done = tmp_path / "go", tmp_path / "done"
    if with_log:
        monkeypatch.setattr(client, "_RESEND_PATIENCE", HANG)
    async with FaultProxy(free_server.port) as proxy:
        provider = JupyterServer(proxy.url(free_server.url), token=free_server.token, reconnect=PROCESS)
        async with provider, AsyncSession(provider) as session:
            if not with_log:
                await session.run("del get_ipython().kernel.control_handlers['cellrun_resend']")
            (kernel_id,) = {kernel["id"] for kernel in free_server.kernels()} - others
            code = (
                "import os, time\nfor i in range(40):\n    print(i, flush=True)\n"
                f"    while i == 5 and not os.path.exists({str(go)!r}): time.sleep(0.005)\n"
                f"open({str(done)!r}, 'w').close()"
            )
            begun = asyncio.Event()
            task = asyncio.create_task(
                session.run(code, on_event=lambda event: begun.set() if isinstance(event, Stdout) else None)
            )
            await asyncio.wait_for(begun.wait(), HANG)
            proxy.refuse()
            proxy.reset()
            await eventually(lambda: connections(free_server, kernel_id) == 0)
            url = f"{free_server.url}api/kernels/{kernel_id}/channels?session_id=somebody-else"
            async with aiohttp.ClientSession(headers={"Authorization": f"token {free_server.token}"}) as http:
                ws = await http.ws_connect(url, max_msg_size=0)
                go.touch()
                await eventually(done.exists)
                await ws.close()
            proxy.refuse(False)
            result = await asyncio.wait_for(task, HANG)
            got = numbers(result.stdout)
            if with_log:
                assert (got, result.dropped, result.status) == (list(range(40)), (), "ok")
            else:
                assert any(line.startswith("connection:") for line in result.dropped)
                assert got == sorted(set(got))
                assert len(got) < 40
                assert result.error is not None
                assert result.error.name == "OutcomeUnknown"
            assert (await session.run("'and on'", timeout=HANG)).text == "'and on'"


async def test_a_server_that_is_killed_gives_what_came_and_a_clear_end() -> None:
    with jupyter_server() as server:
        provider = JupyterServer(server.url, token=server.token)
        async with provider, AsyncSession(provider) as session:
            async with session.stream(
                "import time\nfor i in range(1000):\n    print(i, flush=True); time.sleep(0.01)"
            ) as stream:
                killed = 0.0
                async for event in stream:
                    if isinstance(event, Stdout) and not killed:
                        server.kill()
                        killed = time.monotonic()
            assert time.monotonic() - killed < HANG
            result = stream.result
            assert result.status == "kernel_died"
            assert "connect" in (result.reason or "")
            assert numbers(result.stdout)[:1] == [0]
            with pytest.raises(ConnectionFailed, match="cannot be reached"):
                await session.run("1")


@pytest.mark.parametrize("grace", [0.5, 1.0])
async def test_a_server_that_falls_silent_ends_a_run_at_its_deadline(free_server: Server, grace: float) -> None:
    async with FaultProxy(free_server.port) as proxy:
        provider = JupyterServer(proxy.url(free_server.url), token=free_server.token, timeout=2)
        async with provider:
            session = AsyncSession(provider, limits=Limits(grace=grace))
            await session.start()
            proxy.freeze()
            started = time.monotonic()
            result = await session.run("1", timeout=1)
            assert time.monotonic() - started < 1 + grace + HANG
            assert result.status == "timeout"
            proxy.thaw()
            await session.aclose()


@pytest.mark.wide
async def test_a_server_that_accepts_and_never_answers_is_given_up_at_the_deadline() -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    listener = await asyncio.start_server(silent, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    try:
        provider = JupyterServer(f"http://127.0.0.1:{port}/", token="t")
        async with provider:
            session = AsyncSession(provider)
            started = time.monotonic()
            with pytest.raises((ConnectionFailed, KernelStartError)):
                await session.run("1", timeout=1)
            assert time.monotonic() - started < 1 + Limits().grace + HANG
            await session.aclose()
    finally:
        listener.close()


async def test_a_connection_cut_in_the_middle_of_a_frame_comes_back(free_server: Server, tmp_path: Path) -> None:
    go = tmp_path / "go"
    async with FaultProxy(free_server.port) as proxy:
        provider = JupyterServer(proxy.url(free_server.url), token=free_server.token, reconnect=HANG)
        async with provider, AsyncSession(provider) as session:
            proxy.cut_after = 300_000
            proxy.reset()  # the next connection is cut within the big message below
            await session.run("1", timeout=HANG)
            before = proxy.connections
            code = (
                "import os, time\nprint('y' * 600_000, flush=True)\n"
                f"while not os.path.exists({str(go)!r}): time.sleep(0.005)\nprint('end')"
            )
            task = asyncio.create_task(session.run(code, timeout=PROCESS))
            await eventually(lambda: proxy.connections > before)
            proxy.cut_after = None
            go.touch()
            result = await asyncio.wait_for(task, PROCESS)
            # The frame that was under way is lost with its connection; that is said, and the rest arrives.
            assert result.stdout.endswith("end\n")
            if result.stdout_size < 600_000:
                assert any(line.startswith("connection:") for line in result.dropped)
