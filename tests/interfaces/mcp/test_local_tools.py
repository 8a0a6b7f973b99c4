"""The tools' sessions in the process of their user: how many there are, and what is kept of runs that end badly."""

from __future__ import annotations

from pathlib import Path

import pytest

from cellrun import CellrunService, LocalKernels
from cellrun.service import tool_files, tool_runs
from cellrun.service.local_tools import LocalTools
from cellrun.service.problems import Problem
from tests.remote.conftest import address_of
from tests.service.running import Service
from tests.support.waiting import HANG


async def test_of_many_sessions_the_longest_unused_gives_way_and_that_is_told_once(tmp_path: Path) -> None:
    tools = LocalTools(LocalKernels(sandbox="none"), timeout=60)
    try:
        await tool_runs.run_code(tools, "first", "x = 1")
        for number in range(6):
            await tool_files.list_files(tools, f"other {number}", "")
        assert (await tool_runs.run_code(tools, "first", "x")).text == "1"
        await tool_runs.run_code(tools, "kept", "y = 2")
        for number in range(6, 9):
            await tool_files.list_files(tools, f"other {number}", "")
        for text in ("1", "1"):
            assert (await tool_runs.run_code(tools, "first", "x")).text == text
        for number in range(9, 16):
            await tool_files.list_files(tools, f"other {number}", "")
        told = (await tool_runs.run_code(tools, "kept", "print('y' in globals())")).text
        assert told.startswith(
            "False\n[the kernel was restarted and its variables are gone: 8 other sessions were used"
        )
        assert (await tool_runs.run_code(tools, "kept", "y = 3; y")).text == "3"
    finally:
        await tools.aclose()


async def test_a_session_in_which_code_runs_does_not_give_way() -> None:
    tools = LocalTools(LocalKernels(sandbox="none"), timeout=60)
    try:
        code = "import time; print('on', flush=True); time.sleep(600)"
        runs = [await tool_runs.run_code(tools, f"{number}", code, wait=0) for number in range(8)]
        with pytest.raises(Problem, match="code runs in 8 sessions"):
            await tool_runs.run_code(tools, "one more", "1")
        while "on\n" not in (await tool_runs.get_run(tools, "3", None, wait=0.1)).text:
            pass
        await tool_runs.interrupt(tools, "3", None)
        assert (await tool_runs.get_run(tools, "3", None, wait=HANG)).told["status"] == "interrupted"
        assert (await tool_runs.run_code(tools, "one more", "1")).text == "1"
        assert (await tool_runs.get_run(tools, None, runs[0].told["run_id"], wait=0)).told["status"] == "running"
    finally:
        await tools.aclose()


async def test_what_a_run_had_printed_is_given_when_its_connection_is_lost(own_service: Service) -> None:
    service = own_service.start()
    tools = LocalTools(CellrunService(address_of(service), reconnect=0.5), timeout=60)
    try:
        code = "print('on', flush=True)\nimport time; time.sleep(50)"
        begun = await tool_runs.run_code(tools, "a", code, wait=0)
        while "on" not in (await tool_runs.get_run(tools, "a", None, wait=0.1)).text:
            pass
        service.kill()
        ended = await tool_runs.get_run(tools, "a", begun.told["run_id"])
        assert ended.text.startswith("on\n[kernel_died: ")
        assert "could not be watched" in ended.text
    finally:
        await tools.aclose()
