"""Control groups: memory, processes and processor time of a session, held by the system (cgroups(7)).

Version 1 where its controllers are mounted, version 2 where our own group may have others below it. Both need to be
allowed to write there: root mostly is, others where it was given to them (systemd: `Delegate=yes`).
"""

from __future__ import annotations

import contextlib
import os
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from cellrun.launch.sandbox.policy import SandboxPolicy

_MOUNTS: Final = Path("/proc/self/mountinfo")
_OWN: Final = Path("/proc/self/cgroup")
_WANTED: Final = ("memory", "pids", "cpu")
_COUNTING: Final = "cpuacct"  # version 1 counts processor time in a controller of its own; version 2 always does
_PREFIX: Final = "cellrun-"
_LEAF: Final = "cellrun-itself"
_PERIOD: Final = 100_000  # microseconds in which a share of processor time is counted
_PATIENCE: Final = 2.0


@dataclass(frozen=True)
class Hierarchies:
    """Where groups of ours can be made: by controller, and whether that is version 2 (then all are at one place)."""

    folders: Mapping[str, Path]
    unified: bool

    @property
    def controllers(self) -> tuple[str, ...]:
        return tuple(self.folders)


@dataclass
class Group:
    """One session's. `limits` are what is written into it."""

    folders: Mapping[str, Path]
    unified: bool
    _seen: int = field(default=0)

    def add(self, pid: int) -> None:
        """This process, and all that it starts from now on. Raises OSError."""
        for folder in dict.fromkeys(self.folders.values()):
            (folder / "cgroup.procs").write_text(str(pid), "ascii")

    @property
    def kills(self) -> int:
        """How many processes of this group the system has ended for lack of memory."""
        if "memory" not in self.folders:
            return 0
        return _counter(
            self.folders["memory"] / ("memory.events" if self.unified else "memory.oom_control"), "oom_kill"
        )

    @property
    def cpu_seconds(self) -> float | None:
        """What processors have worked for all that is or was in it; None where that is not counted."""
        with contextlib.suppress(OSError, ValueError):
            if self.unified:
                return _counter(next(iter(self.folders.values())) / "cpu.stat", "usage_usec") / 1e6
            if _COUNTING in self.folders:
                return int((self.folders[_COUNTING] / "cpuacct.usage").read_text("ascii")) / 1e9
        return None

    def seen(self, kills: int) -> None:
        """So many are explained."""
        self._seen = max(self._seen, kills)

    def new_kill(self) -> bool:
        """Whether there is one that is not explained; now all are."""
        count = self.kills
        before, self._seen = self._seen, count
        return count > before

    def end_all(self) -> None:
        """SIGKILL to all that is in it, until nothing is. Bounded; never raises."""
        folder = self.folders["pids"] if "pids" in self.folders else next(iter(self.folders.values()))
        deadline = time.monotonic() + _PATIENCE
        with contextlib.suppress(OSError):
            while (folder / "cgroup.procs").read_text("ascii") and time.monotonic() < deadline:
                _end_all(folder)
                time.sleep(0.001)

    def remove(self) -> None:
        """Once nothing is left in it; what is left is ended. Bounded; never raises."""
        for folder in dict.fromkeys(self.folders.values()):
            deadline = time.monotonic() + _PATIENCE
            while folder.exists():
                with contextlib.suppress(OSError):
                    folder.rmdir()
                    break
                _end_all(folder)
                if time.monotonic() > deadline:
                    break
                time.sleep(0.002)


def make(at: Hierarchies, policy: SandboxPolicy) -> Group:
    """A group with the limits of this policy. Raises OSError; then none is left."""
    name = f"{_PREFIX}{os.getpid()}-{secrets.token_hex(4)}"
    group = Group({controller: folder / name for controller, folder in at.folders.items()}, at.unified)
    try:
        for folder in dict.fromkeys(group.folders.values()):
            folder.mkdir()
        for controller, settings in _settings(policy, at.unified).items():
            if controller in group.folders:
                for file, value, must in settings:
                    try:
                        (group.folders[controller] / file).write_text(value, "ascii")
                    except OSError:
                        if must:
                            raise
    except BaseException:
        group.remove()
        raise
    return group


def _settings(policy: SandboxPolicy, unified: bool) -> dict[str, list[tuple[str, str, bool]]]:
    """By controller: file, value, and whether it must be there. Swap accounting is not, everywhere."""
    memory = (
        []
        if policy.memory is None
        else [("memory.max" if unified else "memory.limit_in_bytes", str(policy.memory), True)]
    )
    if policy.memory is not None:
        if unified:
            memory += [("memory.swap.max", "0", False), ("memory.oom.group", "1", False)]
        else:
            memory += [("memory.memsw.limit_in_bytes", str(policy.memory), False), ("memory.swappiness", "0", False)]
    cpu: list[tuple[str, str, bool]] = []
    if policy.cpu is not None:
        quota = str(max(1_000, round(policy.cpu * _PERIOD)))
        cpu = (
            [("cpu.max", f"{quota} {_PERIOD}", True)]
            if unified
            else [("cpu.cfs_period_us", str(_PERIOD), True), ("cpu.cfs_quota_us", quota, True)]
        )
    return {"memory": memory, "pids": [("pids.max", str(policy.processes), True)], "cpu": cpu}


def find(mounts: str | None = None, own: str | None = None) -> Hierarchies | None:
    """Where groups can be made, tried by making one; None where none can. The texts are those of /proc/self."""
    try:
        mounts = _MOUNTS.read_text("utf-8") if mounts is None else mounts
        own = _OWN.read_text("utf-8") if own is None else own
    except OSError:
        return None
    folders = {controller: folder for controller, folder in _version_1(mounts, own).items() if _writable(folder)}
    if "memory" in folders or "pids" in folders:
        return Hierarchies(folders, unified=False)
    unified = _version_2(mounts, own)
    if unified is None:
        return None
    controllers = _enable(unified)
    if not controllers or not _writable(unified):
        return None
    return Hierarchies(dict.fromkeys(controllers, unified), unified=True)


def _version_1(mounts: str, own: str) -> dict[str, Path]:
    paths = {}
    for line in own.splitlines():
        _, controllers, path = line.split(":", 2)
        paths.update(dict.fromkeys(controllers.split(","), path))
    found = {}
    for root, point, kind, options in _mounts(mounts):
        if kind == "cgroup":
            for controller in {*_WANTED, _COUNTING} & set(options.split(",")) & paths.keys():
                found[controller] = _within(point, root, paths[controller])
    return {controller: found[controller] for controller in (*_WANTED, _COUNTING) if controller in found}


def _version_2(mounts: str, own: str) -> Path | None:
    path = next((line[3:] for line in own.splitlines() if line.startswith("0::")), None)
    for root, point, kind, _ in _mounts(mounts):
        if kind == "cgroup2" and path is not None:
            return _within(point, root, path)
    return None


def _mounts(text: str) -> list[tuple[str, str, str, str]]:
    """Root, mount point, file system and its options (proc(5), mountinfo)."""
    found = []
    for line in text.splitlines():
        before, _, after = line.partition(" - ")
        fields, kind = before.split(), after.split()
        if len(fields) > 4 and len(kind) > 2:
            found.append((fields[3], fields[4], kind[0], kind[2]))
    return found


def _within(point: str, root: str, path: str) -> Path:
    relative = os.path.relpath(path, root) if path.startswith(root) else path.lstrip("/")
    return Path(point) / relative


def _enable(folder: Path) -> list[str]:
    """Lets groups below have controllers. A group with processes cannot (the "no internal processes" rule): where ours is the only
    one in it, it moves into a group of its own first."""
    try:
        there = set((folder / "cgroup.controllers").read_text("ascii").split())
        wanted = [controller for controller in _WANTED if controller in there]
        enabled = set((folder / "cgroup.subtree_control").read_text("ascii").split())
    except OSError:
        return []
    missing = [controller for controller in wanted if controller not in enabled]
    for controller in missing:
        try:
            (folder / "cgroup.subtree_control").write_text(f"+{controller}", "ascii")
        except OSError:
            if not _step_aside(folder):
                return [name for name in wanted if name in enabled]
            with contextlib.suppress(OSError):
                (folder / "cgroup.subtree_control").write_text(f"+{controller}", "ascii")
    with contextlib.suppress(OSError):
        enabled = set((folder / "cgroup.subtree_control").read_text("ascii").split())
    return [controller for controller in wanted if controller in enabled]


def _step_aside(folder: Path) -> bool:
    try:
        if (folder / "cgroup.procs").read_text("ascii").split() != [str(os.getpid())]:
            return False
        (folder / _LEAF).mkdir(exist_ok=True)
        (folder / _LEAF / "cgroup.procs").write_text(str(os.getpid()), "ascii")
    except OSError:
        return False
    return True


def _writable(folder: Path) -> bool:
    trial = folder / f"{_PREFIX}trial-{secrets.token_hex(4)}"
    try:
        trial.mkdir()
        trial.rmdir()
    except OSError:
        return False
    return True


def sweep(at: Hierarchies) -> None:
    """Removes groups whose owner ended without doing so. Never raises."""
    for folder in dict.fromkeys(at.folders.values()):
        with contextlib.suppress(OSError):
            for group in folder.glob(f"{_PREFIX}[0-9]*-*"):
                owner = group.name[len(_PREFIX) :].partition("-")[0]
                if owner.isdigit() and not Path(f"/proc/{owner}").exists():
                    _end_all(group)
                    group.rmdir()


def _end_all(folder: Path) -> None:
    with contextlib.suppress(OSError):
        if (folder / "cgroup.kill").exists():
            (folder / "cgroup.kill").write_text("1", "ascii")
            return
        for pid in (folder / "cgroup.procs").read_text("ascii").split():
            with contextlib.suppress(OSError):
                os.kill(int(pid), 9)


def _counter(file: Path, name: str) -> int:
    try:
        for line in file.read_text("ascii").splitlines():
            if line.startswith(f"{name} "):
                return int(line.split()[1])
    except (OSError, ValueError):
        pass
    return 0
