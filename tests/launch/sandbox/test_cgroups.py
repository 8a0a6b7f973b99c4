"""Control groups: version 1 for real where it can be written to, version 2 against a tree of files that look like it.

A tree of files enforces nothing: it shows what is written where, not that Linux does as it is told.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cellrun import SandboxPolicy
from cellrun.launch.sandbox import cgroups
from tests.support.waiting import HANG, PROCESS

MIB = 2**20
POLICY = SandboxPolicy(memory=100 * MIB, processes=20, cpu=0.5)


def unified(tmp_path: Path, *, enabled: str = "memory pids cpu", procs: str = "") -> tuple[str, str, Path]:
    """A mountinfo, a /proc/self/cgroup and a folder, as with version 2."""
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "cgroup.controllers").write_text("cpuset cpu io memory pids")
    (folder / "cgroup.subtree_control").write_text(enabled)
    (folder / "cgroup.procs").write_text(procs)
    return f"30 23 0:26 / {tmp_path} rw shared:4 - cgroup2 cgroup2 rw,nsdelegate\n", "0::/mine\n", folder


def test_version_2_is_found_where_its_controllers_are_enabled(tmp_path: Path) -> None:
    mounts, own, folder = unified(tmp_path)
    found = cgroups.find(mounts, own)
    assert found == cgroups.Hierarchies({"memory": folder, "pids": folder, "cpu": folder}, unified=True)


def test_version_2_below_the_root_of_a_container_is_found(tmp_path: Path) -> None:
    _, _, folder = unified(tmp_path)
    found = cgroups.find(f"1 2 0:26 /docker/abc {folder} rw - cgroup2 cgroup rw\n", "0::/docker/abc\n")
    assert found is not None
    assert set(found.folders.values()) == {folder}


def test_the_limits_of_version_2_are_what_the_policy_says(tmp_path: Path) -> None:
    mounts, own, _ = unified(tmp_path)
    found = cgroups.find(mounts, own)
    assert found is not None
    group = cgroups.make(found, POLICY)
    folder = group.folders["memory"]
    written = {file.name: file.read_text() for file in folder.iterdir()}
    assert written == {
        "memory.max": str(100 * MIB),
        "memory.swap.max": "0",
        "memory.oom.group": "1",
        "pids.max": "20",
        "cpu.max": "50000 100000",
    }
    group.add(4711)
    assert (folder / "cgroup.procs").read_text() == "4711"
    (folder / "memory.events").write_text("low 0\noom 1\noom_kill 1\n")
    assert [group.new_kill(), group.new_kill()] == [True, False]
    (folder / "cpu.stat").write_text("usage_usec 1500000\nuser_usec 1000000\n")
    assert group.cpu_seconds == 1.5


def test_version_2_is_not_used_where_nothing_can_be_enabled(tmp_path: Path) -> None:
    mounts, own, folder = unified(tmp_path, enabled="")
    (folder / "cgroup.subtree_control").unlink()
    assert cgroups.find(mounts, own) is None


def test_garbage_is_no_control_group() -> None:
    assert cgroups.find("", "") is None
    assert cgroups.find("x y\n - \n1 2 3 - cgroup2\n", "0::/\n") is None
    assert cgroups.find("1 2 0:1 / /no/such/place rw - cgroup2 cgroup2 rw\n", "0::/mine\n") is None


@pytest.fixture
def version_1() -> cgroups.Hierarchies:
    found = cgroups.find()
    if found is None or found.unified:
        pytest.skip("no control group of version 1 that can be written to: needs root, and a system that has it")
    return found


def test_version_1_holds_memory_and_processes_and_tells_of_a_kill(version_1: cgroups.Hierarchies) -> None:
    group = cgroups.make(version_1, SandboxPolicy(memory=100 * MIB, processes=20))
    hog = "x = bytearray(300 * 2**20)\nfor i in range(0, len(x), 4096): x[i] = 1\nprint('survived')"
    try:
        with subprocess.Popen(
            [sys.executable, "-c", f"input()\n{hog}"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as child:
            group.add(child.pid)
            said, _ = child.communicate("\n", timeout=PROCESS)
        assert (child.returncode, said) == (-9, "")
        assert [group.new_kill(), group.new_kill()] == [True, False]
    finally:
        group.remove()
    assert not any(folder.exists() for folder in group.folders.values())


_DETACHED = """
import os, time
input()
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        while time.process_time() < 0.3:
            pass
    os._exit(0)
os.wait()
"""


def test_version_1_counts_the_processor_time_of_what_has_detached_itself(version_1: cgroups.Hierarchies) -> None:
    group = cgroups.make(version_1, SandboxPolicy())
    try:
        with subprocess.Popen([sys.executable, "-c", _DETACHED], stdin=subprocess.PIPE, text=True) as child:
            group.add(child.pid)
            before = group.cpu_seconds
            child.communicate("\n", timeout=PROCESS)
        within = time.monotonic() + HANG
        while (group.folders["pids"] / "cgroup.procs").read_text() and time.monotonic() < within:
            time.sleep(0.02)
        after = group.cpu_seconds
        assert before is not None
        assert after is not None
        assert after - before >= 0.25
    finally:
        group.remove()


def test_a_group_with_a_process_in_it_is_ended_and_removed(version_1: cgroups.Hierarchies) -> None:
    group = cgroups.make(version_1, SandboxPolicy())
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        group.add(child.pid)
        group.remove()
        assert child.wait(PROCESS) == -9
    assert not any(folder.exists() for folder in group.folders.values())


def test_groups_of_an_owner_that_is_gone_are_swept_up(version_1: cgroups.Hierarchies) -> None:
    left = [folder / "cellrun-4194305-abcd" for folder in version_1.folders.values()]
    kept = [folder / f"cellrun-{os.getpid()}-abcd" for folder in version_1.folders.values()]
    for folder in [*left, *kept]:
        folder.mkdir()
    try:
        cgroups.sweep(version_1)
        assert not any(folder.exists() for folder in left)
        assert all(folder.exists() for folder in kept)
    finally:
        for folder in kept:
            folder.rmdir()
