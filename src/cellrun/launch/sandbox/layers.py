"""What there is on this machine to build walls of, layer by layer: for `cellrun doctor`."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass

from cellrun.launch.sandbox import bubblewrap, cgroups, landlock, paths, rooms, seccomp
from cellrun.launch.sandbox.policy import SandboxPolicy


@dataclass(frozen=True)
class Layer:
    """`what` was found, and what happens `instead` where it does not hold."""

    name: str
    holds: bool
    what: str
    instead: str = ""


def layers() -> Iterator[Layer]:
    """Of all, whether they hold or not. Blocking: it looks, and makes and removes a folder and a group."""
    version = landlock.version()
    text = f"version {version}, needed {landlock.NEEDED}" if version else "not there"
    yield Layer("Landlock", version >= landlock.NEEDED, text, "nothing: Linux 6.12 or later is needed")
    try:
        seccomp.build(network=False, own_uid=False, portable=True)
        yield Layer("seccomp", True, "filters can be built")
    except seccomp.NoSeccomp as error:
        yield Layer("seccomp", False, str(error), "nothing: it is needed")
    found = bubblewrap.program()
    what = "not installed, or too old" if found is None else f"version {'.'.join(map(str, found[1]))}"
    yield Layer(
        "bubblewrap", found is not None, what, "the portable form: apt-get install bubblewrap for the strong one"
    )
    yield _own_uids(found is not None)
    groups = cgroups.find() if sys.platform == "linux" else None
    if groups is None:
        yield Layer("control groups", False, "none that can be written to", "memory and processes are watched")
    else:
        what = f"version {2 if groups.unified else 1}: {', '.join(groups.controllers)}"
        lacking = {"memory", "pids"} - set(groups.controllers)
        yield Layer("control groups", not lacking, what, f"watched: {', '.join(sorted(lacking))}")
    yield _file_systems()


def _own_uids(bubblewrap_is_there: bool) -> Layer:
    instead = "sessions share a uid; Landlock and seccomp keep them apart"
    if not rooms.uids_available():
        why = "not root" if os.geteuid() else "this user namespace has too few"
        return Layer("a uid for each session", False, why, instead)
    if not bubblewrap_is_there and not paths.reachable(paths.of_interpreter(sys.executable)):
        return Layer("a uid for each session", False, "other uids cannot reach this interpreter", instead)
    return Layer("a uid for each session", True, "available, unless sessions work in a folder of yours")


def _file_systems() -> Layer:
    name, instead = "a file system for each session", "disk and files are watched"
    try:
        place = rooms.Rooms(SandboxPolicy(), own_uids=False)
    except OSError as error:
        return Layer(name, False, str(error), instead)
    try:
        return Layer(name, place.mounts, "in memory" if place.mounts else "mounting is not allowed", instead)
    finally:
        place.close()
