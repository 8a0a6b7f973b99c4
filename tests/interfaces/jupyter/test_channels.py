"""The channels of a kernel: both framings, what comes back after a break, ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from tests.interfaces.jupyter.talk import Talk, http_of, printed, start, talking
from tests.support.waiting import HANG

_WAITS = "import os, time\nprint('begins', flush=True)\nwhile not os.path.exists('go'): time.sleep(0.02)\n"


@pytest.fixture
async def http(local: str) -> AsyncIterator[aiohttp.ClientSession]:
    async with http_of(local) as session:
        yield session
        async with session.get("api/kernels") as answer:
            for kernel in await answer.json():
                await session.delete(f"api/kernels/{kernel['id']}")


async def _go(http: aiohttp.ClientSession, kernel: str) -> None:
    """Makes the file that `_WAITS` waits for."""
    body = {"type": "file", "format": "text", "content": ""}
    async with http.put(f"api/contents/{kernel}/go", json=body) as answer:
        assert answer.status == 201


@pytest.mark.parametrize("v1", [True, False], ids=["v1", "JSON"])
async def test_both_framings_carry_a_session(http: aiohttp.ClientSession, v1: bool) -> None:
    async with talking(http, await start(http), v1=v1) as talk:
        assert talk.v1 == v1
        info = await talk.until_end(await talk.send("kernel_info_request", {}))
        assert any(message["msg_type"] == "kernel_info_reply" for message in info)
        await talk.run("x = 20")
        told = await talk.run("x + 22")
        results = [m["content"]["data"]["text/plain"] for m in told if m["msg_type"] == "execute_result"]
        assert results == ["42"]
        kinds = [message["msg_type"] for message in told]
        assert {"status", "execute_input", "execute_result", "execute_reply"} <= set(kinds)


async def test_without_v1_no_frame_is_larger_than_a_million_bytes(http: aiohttp.ClientSession) -> None:
    async with talking(http, await start(http), session="s") as talk:
        code = "print('\\0' * 1_000_000)\nfrom IPython.display import display\ndisplay({'text/html': 'h' * 2_000_000, 'text/plain': 'p'}, raw=True)"
        told = await talk.run(code)
        assert printed(told) == "\0" * 1_000_000 + "\n"
        (shown,) = [message["content"]["data"] for message in told if message["msg_type"] == "display_data"]
        assert shown["text/plain"] == "p\n[text/html of 2000002 bytes left out]"
        assert max(talk.sizes) <= 1_000_000


async def test_with_v1_all_comes_as_it_is(http: aiohttp.ClientSession) -> None:
    async with talking(http, await start(http), v1=True) as talk:
        told = await talk.run("from IPython.display import HTML\nprint('x' * 3_000_000)\nHTML('<b>a</b>')")
        assert len(printed(told)) == 3_000_001
        (shown,) = [message["content"]["data"] for message in told if message["msg_type"] == "execute_result"]
        assert shown["text/plain"] == "<IPython.core.display.HTML object>"


async def test_two_clients_see_the_output_and_only_who_asked_has_the_reply(http: aiohttp.ClientSession) -> None:
    kernel = await start(http)
    async with talking(http, kernel, v1=True) as one, talking(http, kernel) as other:
        id = await one.execute("print('both')")
        await one.until_end(id)
        seen: list[dict[str, Any]] = []
        while not seen or seen[-1]["content"].get("execution_state") != "idle":
            seen.append(await other.receive())
        assert printed(seen) == "both\n"
        assert all(message["channel"] == "iopub" for message in seen)


async def test_what_was_missed_is_given_to_the_same_session_id(http: aiohttp.ClientSession) -> None:
    kernel = await start(http)
    async with talking(http, kernel, v1=True, session="mine") as talk:
        id = await talk.execute(_WAITS + "for n in range(40): print(n, flush=True); time.sleep(0.02)")
        seen = [await talk.receive()]
        while "begins\n" not in printed(seen):
            seen.append(await talk.receive())
        transport = talk.socket._response.connection
        assert transport is not None
        assert transport.transport is not None
        transport.transport.abort()  # as a network does
    async with asyncio.timeout(HANG):
        while await _connections(http, kernel):  # until the service has noticed
            pass
    await _go(http, kernel)
    async with talking(http, kernel, v1=True, session="other") as stranger:
        await stranger.run("1")
    async with talking(http, kernel, v1=True, session="mine") as talk:
        seen += await talk.until_end(id)
    ours = [message for message in seen if message["parent"] == id]
    assert printed(ours) == "begins\n" + "".join(f"{n}\n" for n in range(40))


async def _connections(http: aiohttp.ClientSession, kernel: str) -> int:
    async with http.get(f"api/kernels/{kernel}") as answer:
        return int((await answer.json())["connections"])


async def test_what_was_forgotten_meanwhile_is_said(http: aiohttp.ClientSession) -> None:
    kernel = await start(http)
    async with talking(http, kernel, v1=True, session="mine") as talk:
        id = await talk.execute("for n in range(30): print('x' * 1_000_000, flush=True)\nprint('last')")
        while "x" not in printed([await talk.receive()]):
            pass
    async with talking(http, kernel, v1=True, session="watches") as other:
        await other.run("1")  # its turn is after the other one
    async with talking(http, kernel, v1=True, session="mine") as talk:
        seen = await talk.until_end(id)
    assert "were forgotten while the client was away" in printed(seen, "stderr")
    assert printed(seen).endswith("last\n")
    assert len(printed(seen)) < 12_000_000


async def test_a_second_connection_with_the_session_id_takes_over(http: aiohttp.ClientSession) -> None:
    kernel = await start(http)
    async with talking(http, kernel, session="mine") as old:
        id = await old.execute(_WAITS + "print('done')")
        while "begins\n" not in printed([await old.receive()]):
            pass
        async with talking(http, kernel, session="mine") as new:
            await _go(http, kernel)
            assert printed(await new.until_end(id)) == "done\n"
            while "closed" not in (last := await old.receive()):
                pass
            assert last["closed"] is not None


async def test_a_plain_client_that_goes_away_interrupts_its_cell(http: aiohttp.ClientSession) -> None:
    kernel = await start(http)
    async with talking(http, kernel) as talk:
        await talk.execute("import time\ntry:\n  print('on', flush=True); time.sleep(60)\nfinally: x = 'interrupted'")
        while "on" not in printed([await talk.receive()]):
            pass
    async with talking(http, kernel) as talk:
        async with asyncio.timeout(HANG):
            assert printed(await talk.run("print(x)")) == "interrupted\n"


async def _until_busy(talk: Talk) -> None:
    while (await talk.receive())["msg_type"] != "execute_input":
        pass


@pytest.mark.parametrize("code", ["import time; time.sleep(600)", "import asyncio; await asyncio.sleep(600)"])
async def test_an_interrupt_ends_a_cell(http: aiohttp.ClientSession, code: str) -> None:
    kernel = await start(http)
    async with talking(http, kernel, v1=True) as talk:
        id = await talk.execute(f"print('on', flush=True); {code}")
        while "on" not in printed([await talk.receive()]):
            pass
        async with http.post(f"api/kernels/{kernel}/interrupt") as answer:
            assert answer.status == 204
        told = await talk.until_end(id)
        assert any(message["msg_type"] == "error" for message in told)


async def test_a_restart_ends_what_runs_and_keeps_the_connection(http: aiohttp.ClientSession) -> None:
    kernel = await start(http)
    async with talking(http, kernel, v1=True) as talk:
        await talk.run("x = 1")
        id = await talk.execute("import time; time.sleep(60)")
        await _until_busy(talk)
        async with http.post(f"api/kernels/{kernel}/restart") as answer:
            assert answer.status == 200
            assert (await answer.json())["execution_state"] == "idle"
        told = await talk.until_end(id)
        assert [m["content"]["status"] for m in told if m["channel"] == "shell"] == ["aborted"]
        assert printed(await talk.run("print('x' in globals())")) == "False\n"


async def test_a_dead_kernel_is_replaced_and_what_was_asked_meanwhile_runs_in_the_new_one(
    http: aiohttp.ClientSession,
) -> None:
    async with talking(http, await start(http), v1=True) as talk:
        id = await talk.execute("import os; os._exit(3)")
        after = await talk.execute("print('here')")
        told = await talk.until_end(id)
        (error,) = [message["content"] for message in told if message["msg_type"] == "error"]
        assert error["ename"] == "KernelDied"
        assert "3" in error["evalue"]
        # It had been sent to the one that died, or it waited: it has an end either way.
        await talk.until_end(after)
        assert printed(await talk.run("print('new')")) == "new\n"


async def test_a_kernel_that_dies_again_and_again_ends(http: aiohttp.ClientSession) -> None:
    kernel = await start(http)
    async with talking(http, kernel, v1=True) as talk:
        closed = False
        for _ in range(3):
            await talk.execute("import os; os._exit(3)")
            async with asyncio.timeout(HANG):
                while not closed:
                    message = await talk.receive()
                    closed = "closed" in message
                    if message.get("content", {}).get("execution_state") == "starting":
                        break
        assert closed
    async with http.get(f"api/kernels/{kernel}") as answer:
        assert answer.status == 404


async def test_what_is_asked_while_two_restart_the_kernel_has_an_end(http: aiohttp.ClientSession) -> None:
    kernel = await start(http)
    async with talking(http, kernel, v1=True) as talk:
        await talk.run("x = 1")

        async def restart() -> None:
            async with http.post(f"api/kernels/{kernel}/restart") as answer:
                assert answer.status == 200, await answer.text()

        both = asyncio.gather(restart(), restart())
        while (await talk.receive())["content"].get("execution_state") != "restarting":
            pass
        told = await talk.run("import time; time.sleep(0.2)")
        assert next(m["content"]["status"] for m in told if m["channel"] == "shell") in ("ok", "aborted")
        await both
        assert printed(await talk.run("print('x' in globals())")) == "False\n"


async def test_a_kernel_that_is_deleted_while_it_restarts_says_so(http: aiohttp.ClientSession) -> None:
    kernel = await start(http)
    async with talking(http, kernel, v1=True) as talk:
        restarting = asyncio.ensure_future(http.post(f"api/kernels/{kernel}/restart"))
        while (await talk.receive())["content"].get("execution_state") != "restarting":
            pass
        async with http.delete(f"api/kernels/{kernel}") as answer:
            assert answer.status == 204
        async with await restarting as answer:
            assert answer.status in (200, 409, 502), await answer.text()
            assert "deleted" in await answer.text() or answer.status == 200


async def test_who_leaves_interrupts_none_but_their_own_cells(http: aiohttp.ClientSession) -> None:
    kernel = await start(http)
    async with talking(http, kernel, v1=True, session="stays") as stays:
        async with talking(http, kernel) as leaves:
            id = await stays.execute("import time; time.sleep(2); print('whole')")
            await _until_busy(stays)
            await leaves.execute("left = 'begun'; time.sleep(60)")
            # Its request has reached the kernel's line when that has answered the one after it on another channel.
            await leaves.send("kernel_info_request", {}, "control")
            while (await leaves.receive())["msg_type"] != "kernel_info_reply":
                pass
        assert printed(await stays.until_end(id)) == "whole\n"
        assert printed(await stays.run("print('next')")) == "next\n"


async def test_comm_messages_do_not_pile_up(http: aiohttp.ClientSession) -> None:
    """To them there is no reply: the statuses are all that comes."""
    async with talking(http, await start(http), v1=True) as talk:
        code = "class C:\n def __init__(self, **k): print('opened', flush=True)\nget_ipython().kernel.comm_manager.register_target('t', lambda comm, message: print('opened', flush=True))"
        await talk.run(code)
        for number in range(30):
            await talk.send("comm_open", {"comm_id": str(number), "target_name": "t", "data": {}})
        opened = 0
        while opened < 30:
            message = await talk.receive()
            opened += "opened" in message["content"].get("text", "")
        id = await talk.execute("import os; os._exit(1)")
        told = await talk.until_end(id)
        assert {message["msg_type"] for message in told if message["channel"] == "shell"} == {"execute_reply"}
        while (message := await talk.receive())["content"].get("execution_state") != "restarting":
            assert message["channel"] != "shell", message


async def test_headers_that_would_come_back_with_each_answer_are_bounded(http: aiohttp.ClientSession) -> None:
    async with talking(http, await start(http)) as talk:
        header = {"msg_id": "1", "msg_type": "execute_request", "session": "s" * 100_000}
        await talk.socket.send_json(
            {"channel": "shell", "header": header, "parent_header": {}, "metadata": {}, "content": {}}
        )
        assert await talk.receive() == {"closed": 1007}


async def test_input_is_asked_for_and_answered(http: aiohttp.ClientSession) -> None:
    async with talking(http, await start(http)) as talk:
        id = await talk.send("execute_request", {"code": "print(input('name? '))", "allow_stdin": True})
        while (asked := await talk.receive())["msg_type"] != "input_request":
            pass
        assert asked["content"]["prompt"] == "name? "
        await talk.send("input_reply", {"value": "Ada", "status": "ok"}, "stdin")
        assert printed(await talk.until_end(id)) == "Ada\n"


async def test_a_kernel_that_is_deleted_closes_its_connections(http: aiohttp.ClientSession) -> None:
    kernel = await start(http)
    async with talking(http, kernel) as talk:
        id = await talk.execute("import time; time.sleep(60)")
        await _until_busy(talk)
        async with http.delete(f"api/kernels/{kernel}") as answer:
            assert answer.status == 204
        told = await talk.until_end(id)
        assert [m["content"]["status"] for m in told if m["channel"] == "shell"] == ["aborted"]
        async with asyncio.timeout(HANG):
            while "closed" not in await talk.receive():
                pass
    async with http.get(f"api/kernels/{kernel}") as answer:
        assert answer.status == 404


@pytest.mark.parametrize("frame", ["no JSON", "[]", '{"channel": "none"}', '{"channel": "shell"}'])
async def test_a_frame_that_is_none_closes_the_connection(http: aiohttp.ClientSession, frame: str) -> None:
    async with talking(http, await start(http)) as talk:
        await talk.socket.send_str(frame)
        assert (await talk.receive())["closed"] == 1007
