"""bubblewrap: a view of the machine in which there is nothing but what is named (bwrap(1))."""

from __future__ import annotations

import functools
import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from cellrun.launch.sandbox.walls import NETWORK, SYSTEM

_OLDEST: Final = (0, 6)  # has --perms and --size
_NO_NESTING: Final = (0, 8)  # has --disable-userns
_TEMPORARY: Final = 64 * 1024 * 1024


@functools.cache
def program() -> tuple[str, tuple[int, ...]] | None:
    """Where bubblewrap is, and its version; None where it is not, or too old."""
    path = shutil.which("bwrap")
    if path is None:
        return None
    try:
        said = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=10, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    version = tuple(map(int, re.findall(r"\d+", said)))
    return (path, version) if version >= _OLDEST else None


def arguments(
    *,
    root: bool,
    network: bool,
    readable: Iterable[str],
    writable: Iterable[str],
    shared_memory: int,
) -> list[str]:
    """What comes before the program that is to run in it.

    root           whether we are root: then it keeps what it takes to give each session its uid; else it gets a user namespace
    network        whether it shares the network
    readable       paths that are there besides the system's
    writable       folders that are there to be changed
    shared_memory  bytes of /dev/shm, for all sessions together
    """
    found = program()
    assert found is not None
    path, version = found
    command = [path, "--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try", "--die-with-parent"]
    command += ["--hostname", "cellrun", "--cap-drop", "ALL"]
    if not network:
        command.append("--unshare-net")
    if root:
        for capability in ("CAP_SETUID", "CAP_SETGID", "CAP_KILL"):
            command += ["--cap-add", capability]
    else:
        command.append("--unshare-user")
        if version >= _NO_NESTING:
            command.append("--disable-userns")
    command += ["--size", str(_TEMPORARY), "--tmpfs", "/tmp", "--proc", "/proc", "--dev", "/dev"]
    command += ["--size", str(shared_memory), "--perms", "1777", "--tmpfs", "/dev/shm"]
    for path in ("/sys/devices/system/cpu", "/sys/kernel/mm/transparent_hugepage"):
        command += ["--ro-bind-try", path, path]
    command += _binds(SYSTEM, "--ro-bind-try") + _binds(NETWORK if network else (), "--ro-bind-try")
    # What can only be read may lie within what can be changed, and the other way round: the inner one comes later, and counts.
    ways = [*((path, "--ro-bind-try") for path in readable), *((path, "--bind") for path in writable)]
    bound: dict[str, str] = {}
    for path, how in sorted(dict(ways).items(), key=lambda way: len(Path(way[0]).parts)):
        around = [parent for parent in map(str, Path(path).parents) if parent in bound]
        if not around or bound[around[0]] != how:  # else it is there already, in the same way
            command += _binds([path], how)
        bound[path] = how
    return [*command, "--remount-ro", "/dev", "--remount-ro", "/", "--"]


def _binds(paths: Iterable[str], how: str) -> list[str]:
    """Each path as it is named, and as it is where links lead. The folders above are made, for everybody to pass through."""
    command: list[str] = []
    for path in paths:
        if os.path.islink(path):
            command += ["--symlink", os.readlink(path), path]
            path = os.path.realpath(path)
            if any(path.startswith(f"{whole}/") for whole in SYSTEM):
                continue
        command += [*_folders_above(path), how, path, path]
    return command


def _folders_above(path: str) -> Sequence[str]:
    parts = os.path.dirname(path).split("/")[1:]
    above: list[str] = []
    for end in range(1, len(parts) + 1):
        above += ["--perms", "0755", "--dir", "/" + "/".join(parts[:end])]
    return above if parts != [""] else []
