"""The executor of AutoGen."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from autogen_core import CancellationToken, ComponentModel
from autogen_core.code_executor import CodeBlock, CodeExecutor

from cellrun import CellrunService, LocalKernels, SessionLost
from cellrun.adapters.autogen import CellrunCodeExecutor, CellrunCodeResult
from cellrun.providers.local_lease import LocalLease
from tests.support.waiting import HANG, SLACK, eventually

PLOT = "from PIL import Image; Image.new('RGB', (8, 8))"


def python(*codes: str) -> list[CodeBlock]:
    return [CodeBlock(code=code, language="python") for code in codes]


async def run(executor: CodeExecutor, *codes: str) -> CellrunCodeResult:
    result = await executor.execute_code_blocks(python(*codes), CancellationToken())
    assert isinstance(result, CellrunCodeResult)
    return result


async def test_blocks_run_in_order_in_one_kernel_and_variables_stay() -> None:
    async with CellrunCodeExecutor() as executor:
        result = await run(executor, "x = 6\nprint('set')", "x * 7")
        assert (result.exit_code, result.output) == (0, "set\n42\n")
        assert (await run(executor, "x")).output == "6\n"
        await executor.restart()
        assert "NameError" in (await run(executor, "x")).output


async def test_the_first_block_that_fails_is_the_last_one() -> None:
    async with CellrunCodeExecutor() as executor:
        result = await run(executor, "print('one')", "1/0", "print('three')")
        assert result.exit_code == 1
        assert result.output.startswith("one\n")
        assert result.output.endswith("ZeroDivisionError: division by zero\n")
        assert "\x1b" not in result.output


async def test_a_block_that_takes_too_long_gives_what_it_printed() -> None:
    async with CellrunCodeExecutor(timeout=SLACK) as executor:
        result = await run(executor, "print('so far')\nimport time; time.sleep(60)")
        assert result.exit_code == 124
        assert result.output.startswith("so far\n")
        assert "[timeout: " in result.output


async def test_a_kernel_that_dies_is_told_and_the_next_block_has_another() -> None:
    async with CellrunCodeExecutor() as executor:
        assert (await run(executor, "import os; os._exit(3)")).exit_code == 137
        result = await run(executor, "1 + 1")
        assert (result.exit_code, result.output.splitlines()[0]) == (0, "2")
        assert "variables are gone" in result.output


async def test_a_block_of_another_language_is_not_run() -> None:
    async with CellrunCodeExecutor() as executor:
        result = await executor.execute_code_blocks([CodeBlock("ls", "sh")], CancellationToken())
        assert (result.exit_code, result.output) == (1, "The kernel runs python, not sh: the block was not run.\n")


async def test_a_cancelled_token_interrupts_the_block() -> None:
    async with CellrunCodeExecutor() as executor:
        token = CancellationToken()
        running = asyncio.create_task(executor.execute_code_blocks(python("import time; time.sleep(60)"), token))
        await eventually(lambda: bool(token._callbacks))
        token.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert (await run(executor, "'free'")).output == "'free'\n"


async def test_pictures_are_beside_the_output_and_long_output_is_cut() -> None:
    async with CellrunCodeExecutor() as executor:
        result = await run(executor, PLOT, "print('x' * 1_000_000)")
        assert [image.mime for image in result.images] == ["image/png"]
        assert len(result.output) < 21_000
        assert "characters left out; print less, or write it to a file" in result.output


async def test_it_is_stored_and_loaded_as_a_component_without_its_key() -> None:
    executor = CellrunCodeExecutor("cellrun://localhost:1", key="very secret", session_id="chat", timeout=5)
    stored: ComponentModel = executor.dump_component()
    assert "secret" not in stored.model_dump_json()
    loaded = CodeExecutor.load_component(stored)
    assert isinstance(loaded, CellrunCodeExecutor)
    assert CellrunCodeExecutor.dump_component(loaded) == stored
    with pytest.raises(ValueError, match="cannot be stored"):
        CellrunCodeExecutor(LocalKernels()).dump_component()
    on_server = CellrunCodeExecutor("http://127.0.0.1:8888/?token=secret").dump_component()
    assert on_server.config["provider"] == "http://127.0.0.1:8888/"


async def test_it_starts_by_itself_and_again_after_a_stop() -> None:
    executor = CellrunCodeExecutor()
    assert (await run(executor, "x = 1")).exit_code == 0
    await executor.stop()
    await executor.stop()
    assert (await run(executor, "x")).exit_code == 1
    await executor.stop()


class Slow(LocalKernels):
    """Its kernels come when they may."""

    def __init__(self) -> None:
        super().__init__(pool=0, preload=())
        self.asked = asyncio.Event()
        self.may = asyncio.Event()

    async def acquire(self, timeout: float) -> LocalLease:
        self.asked.set()
        await self.may.wait()
        return await super().acquire(timeout)


async def test_a_stop_during_the_start_leaves_no_kernel() -> None:
    async with asyncio.timeout(HANG), Slow() as provider:
        executor = CellrunCodeExecutor(provider)
        starting = asyncio.create_task(executor.start())
        waiting = asyncio.create_task(run(executor, "1"))
        await provider.asked.wait()
        await executor.stop()
        provider.may.set()
        for task in (starting, waiting):
            with pytest.raises(SessionLost, match="the executor was stopped while its kernel was being started"):
                await task
        await eventually(lambda: not provider._leases)
        assert (await run(executor, "1 + 1")).output == "2\n"
        await executor.stop()


async def test_a_start_after_a_stop_does_not_wait_for_the_one_before() -> None:
    async with asyncio.timeout(HANG), Slow() as provider:
        executor = CellrunCodeExecutor(provider)
        before = asyncio.create_task(executor.start())
        await provider.asked.wait()
        await executor.stop()
        provider.asked.clear()
        after = asyncio.create_task(run(executor, "1 + 1"))
        await provider.asked.wait()
        provider.may.set()
        assert (await after).output == "2\n"
        with pytest.raises(SessionLost, match="stopped"):
            await before
        await eventually(lambda: len(provider._leases) == 1)
        await executor.stop()


async def test_a_restart_during_the_start_is_a_restart() -> None:
    async with asyncio.timeout(HANG), Slow() as provider:
        executor = CellrunCodeExecutor(provider)
        starting = asyncio.create_task(executor.start())
        await provider.asked.wait()
        restarting = asyncio.create_task(executor.restart())
        provider.may.set()
        await asyncio.gather(starting, restarting)
        assert "variables are gone: restart() was called" in (await run(executor, "1")).output
        await executor.stop()


async def test_before_its_start_there_is_nothing_to_restart() -> None:
    executor = CellrunCodeExecutor("http://127.0.0.1:9/")
    await executor.restart()


@pytest.mark.parametrize("name", [None, "chat-7"])
async def test_a_session_that_the_service_has_ended_is_told_once(
    address: str, end_sessions: Callable[[], None], name: str | None
) -> None:
    async with CellrunCodeExecutor(address, session_id=name) as executor:
        assert (await run(executor, "x = 1")).exit_code == 0
        await asyncio.to_thread(end_sessions)
        result = await run(executor, "print('one')", "print('two')")
        assert result.exit_code == 137
        assert result.output.count("[session_lost: ") == 1
        assert result.output.endswith("the next call has a fresh session]\n")
        assert "make a new" not in result.output
        assert (await run(executor, "print('x' in globals())")).output == "False\n"


@pytest.mark.parametrize("name", [None, "chat-8"])
async def test_a_restart_after_the_service_has_ended_the_session_gives_a_fresh_one(
    address: str, end_sessions: Callable[[], None], name: str | None
) -> None:
    async with CellrunCodeExecutor(address, session_id=name) as executor:
        await run(executor, "x = 1")
        await asyncio.to_thread(end_sessions)
        await executor.restart()
        assert (await run(executor, "print('x' in globals())")).output == "False\n"


async def test_a_service_object_that_is_closed_is_an_error(address: str) -> None:
    async with CellrunService(address) as service:
        executor = CellrunCodeExecutor(service)
    for _ in range(2):
        with pytest.raises(SessionLost, match="is closed"):
            await executor.start()


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ({"timeout": -1}, "timeout must be zero or more seconds"),
        ({"provider": "nonsense"}, "must begin with http:// or https://"),
        ({"key": "k"}, "key= is for a cellrun service"),
        ({"session_id": "s"}, "session_id= is for a cellrun service"),
        ({"provider": "cellrun://localhost", "session_id": "bad name/"}, "a session is named with"),
    ],
)
def test_parameters_are_looked_at_when_it_is_made(parameters: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        CellrunCodeExecutor(**parameters)
