"""The executor of AutoGen."""

from __future__ import annotations

import asyncio

import pytest
from autogen_core import CancellationToken, ComponentModel
from autogen_core.code_executor import CodeBlock, CodeExecutor

from cellrun import LocalKernels
from cellrun.adapters.autogen import CellrunCodeExecutor, CellrunCodeResult
from tests.support.waiting import eventually

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
    async with CellrunCodeExecutor(timeout=1.0) as executor:
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
