"""`cellrun repl` in a terminal of its own."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pexpect
import pytest

from tests.support.waiting import PROCESS


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Any]:
    env = {**os.environ, "HOME": str(tmp_path), "TERM": "xterm", "PROMPT_TOOLKIT_NO_CPR": "1"}
    child = pexpect.spawn(
        sys.executable,
        ["-m", "cellrun", "repl"],
        env=env,
        cwd=str(tmp_path),
        timeout=PROCESS,
        encoding="utf-8",
        dimensions=(40, 120),
    )
    child.expect("is ready")
    child.expect(r"\[1\]")
    yield child
    child.close(force=True)


def test_it_runs_code_keeps_state_and_counts(terminal: Any) -> None:
    terminal.send("x = 20\r")
    terminal.expect(r"\[2\]")
    terminal.send("x * 2 + 2\r")
    terminal.expect("42")
    terminal.expect(r"\[3\]")


def test_several_lines_are_one_cell(terminal: Any) -> None:
    terminal.send("for i in range(2):\r")
    terminal.expect(r"  \.")  # the prompt of a cell's further lines
    terminal.send("print('li' + 'ne', i)\r")
    terminal.expect(r"  \.")
    terminal.send("\r")
    terminal.expect("line 0")
    terminal.expect("line 1")
    terminal.expect(r"\[2\]")


def test_tab_completes_from_the_kernel(terminal: Any) -> None:
    terminal.send("some_long_name = 99\r")
    terminal.expect(r"\[2\]")
    terminal.send("some_lo")
    terminal.expect("some_lo")
    for _ in range(12):  # the kernel's first completion loads its completer, which can outlast the patience
        terminal.send("\t")
        if terminal.expect(["ng_name", pexpect.TIMEOUT], timeout=6) == 0:
            break
    terminal.send("\r")
    terminal.expect("99")


def test_ctrl_c_interrupts_the_cell_and_ctrl_d_ends(terminal: Any, tmp_path: Path) -> None:
    terminal.send("import time; print('on' + 'going'); time.sleep(60)\r")
    terminal.expect("ongoing")
    terminal.sendintr()
    terminal.expect("KeyboardInterrupt")
    terminal.expect(r"\[2\]")
    terminal.send("6 * 7\r")
    terminal.expect("42")
    terminal.expect(r"\[3\]")
    terminal.sendeof()
    terminal.expect(pexpect.EOF)
    terminal.close()
    assert terminal.exitstatus == 0
    history = tmp_path / ".local" / "state" / "cellrun" / "history"
    assert "6 * 7" in history.read_text()
    assert history.stat().st_mode & 0o077 == 0


def test_input_asks_at_the_terminal(terminal: Any) -> None:
    terminal.send("name = input('your ' + 'name? ')\r")  # what is typed is echoed, and is not what asks
    terminal.expect(r"your name\? ")
    terminal.send("Ada\r")
    terminal.expect(r"\[2\]")
    terminal.send("'hello ' + name\r")
    terminal.expect("hello Ada")
