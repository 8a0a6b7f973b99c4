"""The mark that finds the processes of a session."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from cellrun.launch.sandbox import marks
from tests.support.waiting import HANG, PROCESS


def test_marks_differ_and_stay_below_the_systems_own_limit() -> None:
    found = [marks.new_mark() for _ in range(1000)]
    assert len(set(found)) == 1000
    assert all(marks.FIRST <= mark < marks.LAST for mark in found)


def test_a_family_that_grows_and_hides_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(marks, "_PATIENCE", HANG)
    mark = marks.new_mark()
    code = (
        f"import os, resource, sys, time; resource.setrlimit(resource.RLIMIT_MSGQUEUE, ({mark}, {mark}))\n"
        "os.setsid()\n"
        "for _ in range(3):\n"
        "    if os.fork() == 0:\n"
        "        os.setsid()\n"
        "        if os.fork(): os._exit(0)\n"
        "        os.environ.clear()\n"
        "        while True:\n"
        "            if os.fork() == 0: time.sleep(0.05); os._exit(0)\n"
        "            try: os.waitpid(-1, os.WNOHANG)\n"
        "            except ChildProcessError: pass\n"
        "            time.sleep(0.01)\n"
        "print('ready', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        # They have lost their parents: nothing but the mark says whose they are.
        assert len(marks.marked(None, mark)) >= 1
        assert marks.end_marked(None, mark)
        child.wait(PROCESS)
    living = [pid for pid in marks.marked(None, mark) if not marks.is_over(pid)]
    assert living == []


def test_a_process_without_the_mark_is_left_alone() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, text=True) as child:
        assert marks.end_marked(os.getpid(), marks.new_mark())
        assert child.poll() is None
        child.communicate("\n", timeout=PROCESS)
    assert child.returncode == 0


def test_a_process_that_is_gone_has_no_mark() -> None:
    assert not marks.has(2**22 + 1, marks.FIRST)
