"""Containment is believed only when a process has tried to break out and failed."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from cellrun import AsyncSession, KernelStartError, LocalKernels, SandboxPolicy
from cellrun.launch.sandbox import bubblewrap, landlock, sandbox, seccomp
from cellrun.launch.sandbox.sandbox import FORMS, Form, why_not
from cellrun.launch.sandbox.walls import Walls
from tests.support.waiting import PROCESS


@pytest.fixture(autouse=True)
def nothing_known() -> None:
    sandbox._proved.clear()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("network", [False, True])
def test_both_forms_hold_here(form: Form, network: bool) -> None:
    assert why_not(form, network=network) == ""


def test_every_attack_of_the_self_test_succeeds_where_nothing_contains_it() -> None:
    """Otherwise it would prove nothing. In a process of its own, since it makes a namespace and a device."""
    code = (
        "import json, sys; from cellrun.launch.sandbox.attacks import Targets, attempt\n"
        "print(json.dumps(attempt(Targets(**json.loads(sys.argv[1])), network=False)))"
    )
    import json

    with sandbox._targets() as targets:
        done = subprocess.run(
            [sys.executable, "-c", code, json.dumps(asdict(targets))],
            capture_output=True,
            text=True,
            timeout=PROCESS,
            check=True,
            env={**os.environ, "TMPDIR": targets.folder},
        )
    succeeded = set(json.loads(done.stdout))
    expected = {
        *("read a file outside", "list a folder outside", "write a file outside", "connect to an abstract socket"),
        *("signal its owner", "make shared memory of System V", "connect to a socket by its path"),
        "send a datagram to a socket by its path",
        *("connect to a port of this machine", "send to the network", "ask for the network's interfaces"),
    }
    assert expected <= succeeded
    if os.getuid() == 0:  # an ordinary user cannot do these uncontained either, or not everywhere
        as_root = {"read its parent's memory", "read its parent's environment", "make a namespace", "become root"}
        as_root.add("watch a process")
        assert as_root <= succeeded


@pytest.mark.parametrize(
    ("wall", "told"),
    [
        ("Landlock", "read a file outside"),
        ("seccomp", "send to the network"),
        ("seccomp", "make shared memory of System V"),
    ],
)
def test_a_wall_that_does_not_stand_is_noticed(wall: str, told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The program that goes behind the walls is a process of its own: what it is told is changed."""
    original = Walls.to_json
    open_filter = b"\x06\x00\x00\x00\x00\x00\xff\x7f"  # one instruction: everything is allowed

    def weakened(walls: Walls) -> dict[str, object]:
        if wall == "Landlock":
            walls = replace(walls, readable=(*walls.readable, "/tmp"))
        else:
            walls = replace(walls, filters=seccomp.Filters(open_filter, open_filter))
        return original(walls)

    monkeypatch.setattr(Walls, "to_json", weakened)
    assert told in why_not("portable")


async def test_where_nothing_holds_local_kernels_are_refused_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(landlock, "version", lambda: 3)
    async with LocalKernels() as kernels:
        with pytest.raises(KernelStartError) as caught:
            await kernels.acquire(PROCESS)
    text = str(caught.value)
    assert "code cannot be contained on this machine" in text
    assert "needs Landlock version 6 (Linux 6.12 or later" in text
    assert "found: version 3" in text
    assert 'sandbox="none"' in text
    async with LocalKernels(sandbox="none", pool=0) as kernels, AsyncSession(kernels) as session:
        assert (await session.run("1")).text == "1"
        assert session.containment == "none"


async def test_without_bubblewrap_the_portable_form_is_taken_and_the_strong_one_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(bubblewrap, "program", lambda: None)
    async with LocalKernels(pool=0, preload=()) as kernels, AsyncSession(kernels) as session:
        assert (await session.run("1")).text == "1"
        assert (session.containment or "").startswith("portable: ")
    async with LocalKernels(sandbox=SandboxPolicy(form="strong")) as kernels:
        with pytest.raises(KernelStartError, match=r"strong form: bubblewrap is not installed"):
            await kernels.acquire(PROCESS)


async def test_a_bubblewrap_that_does_not_work_is_no_wall(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    broken = tmp_path / "bwrap"
    broken.write_text("#!/bin/sh\necho 'bwrap: setting up uid map: Permission denied' >&2\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setattr(bubblewrap, "program", lambda: (str(broken), (0, 8, 0)))
    assert "setting up uid map: Permission denied" in why_not("strong")
    async with LocalKernels(pool=0, preload=()) as kernels, AsyncSession(kernels) as session:
        await session.start()
        assert (session.containment or "").startswith("portable: ")


async def test_without_seccomp_nothing_is_started(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*, network: bool, own_uid: bool, portable: bool) -> seccomp.Filters:
        raise seccomp.NoSeccomp("the library libseccomp is missing: apt-get install libseccomp2")

    monkeypatch.setattr(seccomp, "build", missing)
    async with LocalKernels() as kernels:
        with pytest.raises(KernelStartError, match="apt-get install libseccomp2"):
            await kernels.acquire(PROCESS)
