"""Limits that are watched: the decision by table, the measuring on real folders and processes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from cellrun import SandboxPolicy
from cellrun.launch.sandbox import marks
from cellrun.launch.sandbox.rooms import remove_tree
from cellrun.launch.sandbox.watch import Usage, beyond, measure
from tests.support.waiting import PROCESS

MIB = 2**20
POLICY = SandboxPolicy(memory=100 * MIB, processes=20, disk=10 * MIB, files=100)


@pytest.mark.parametrize(
    ("usage", "cause"),
    [
        (Usage(), None),
        (Usage(100 * MIB, 20, 10 * MIB, 100, 200), None),
        (Usage(memory=100 * MIB + 1), "out of memory, limit 100 MB"),
        (Usage(processes=21), "too many processes and threads, limit 20"),
        (Usage(disk=10 * MIB + 1), "too much on disk, limit 10 MB"),
        (Usage(files=101), "too many files, limit 100"),
        (Usage(files=1, depth=201), "folders nested too deep, limit 200"),
        (Usage(10**12, 10**6, 10**12), "out of memory, limit 100 MB"),
    ],
)
def test_what_is_beyond_a_limit_is_named(usage: Usage, cause: str | None) -> None:
    assert beyond(usage, POLICY) == cause


def test_no_limit_is_never_passed() -> None:
    free = SandboxPolicy(memory=None, disk=None)
    assert beyond(Usage(memory=10**15, disk=10**15), free) is None


def folder_usage(folder: Path) -> Usage:
    return measure(os.getpid(), marks.new_mark(), str(folder), POLICY, processes=False, disk=True)


def test_files_and_their_blocks_are_counted_and_links_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "b").write_bytes(b"x" * MIB)
    (tmp_path / "link").symlink_to("/usr")
    with open(tmp_path / "sparse", "wb") as file:
        file.truncate(10**10)
    usage = folder_usage(tmp_path)
    assert usage.files == 4
    assert usage.depth == 2
    assert usage.disk is not None
    assert MIB <= usage.disk < 2 * MIB


def test_a_tree_that_is_too_deep_is_found_without_walking_all_of_it(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    here = os.open(tmp_path, os.O_RDONLY)
    for _ in range(1000):
        os.mkdir("d", dir_fd=here)
        inner = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = inner
    os.close(here)
    policy = SandboxPolicy(files=10_000)
    usage = measure(os.getpid(), marks.new_mark(), str(tmp_path), policy, processes=False, disk=True)
    assert beyond(usage, policy) == "folders nested too deep, limit 200"
    assert len(os.listdir("/proc/self/fd")) == before
    remove_tree(str(tmp_path / "d"))  # whoever clears temporary folders may not get down there


def test_a_wide_folder_takes_few_descriptors(tmp_path: Path) -> None:
    for number in range(90):
        (tmp_path / str(number)).mkdir()
    assert folder_usage(tmp_path).files == 90
    assert beyond(folder_usage(tmp_path), POLICY) is None


def test_a_folder_that_is_gone_counts_nothing(tmp_path: Path) -> None:
    assert folder_usage(tmp_path / "missing") == Usage(None, None, 0, 0, 0)


def test_processes_threads_and_memory_of_those_with_the_mark_are_counted() -> None:
    mark = marks.new_mark()
    code = (
        f"import threading, resource; resource.setrlimit(resource.RLIMIT_MSGQUEUE, ({mark}, {mark}))\n"
        "x = bytearray(150 * 2**20)\nfor i in range(0, len(x), 4096): x[i] = 1\n"
        "go = threading.Event()\nfor _ in range(3): threading.Thread(target=go.wait).start()\n"
        "print('ready', flush=True); input(); go.set()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        usage = measure(os.getpid(), mark, "/missing", POLICY, processes=True, disk=False)
        assert usage.processes == 4
        assert usage.memory is not None
        assert 150 * MIB <= usage.memory < 250 * MIB
        assert marks.marked(os.getpid(), mark) == [child.pid]
        assert child.pid in marks.marked(None, mark)
        child.communicate("\n", timeout=PROCESS)
    assert marks.marked(os.getpid(), mark) == []
