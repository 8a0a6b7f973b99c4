"""The walls of one provider's kernels: which form they have here, proved before it is believed.

Blocking throughout: it starts a process and waits for it. `Sandbox.open` is called in a thread.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final, Literal

from cellrun.errors import KernelStartError
from cellrun.launch.sandbox import bubblewrap, cgroups, landlock, paths, rooms, seccomp
from cellrun.launch.sandbox.attacks import Targets
from cellrun.launch.sandbox.enter import FLAGS
from cellrun.launch.sandbox.policy import SandboxPolicy
from cellrun.launch.sandbox.walls import Room, Walls

Form = Literal["strong", "portable"]
FORMS: Final[tuple[Form, ...]] = ("strong", "portable")

_PATIENCE: Final = 30.0
_SHARED_MEMORY: Final = 256 * 2**20
# Processes of this user that there may be besides, where Linux counts all of them together: a backstop behind watch.py.
_OTHERS: Final = 1024
_ADVICE: Final = (
    'Run cellrun in a container or virtual machine made for it and say sandbox="none" (`--sandbox none`) there; '
    "`cellrun doctor` shows what holds on this machine"
)


_proved: set[tuple[Form, bool, bool]] = set()
"""Kinds of walls that held in this process: form, network, own uid."""


class Sandbox:
    """`folder` is the working folder that the caller named, `python` the interpreter of the kernels, `readable` what a kernelspec
    needs besides, `shared` whether all kernels
    are in one bubblewrap. `open()` must come first, `close()` last."""

    form: Form

    def __init__(
        self,
        policy: SandboxPolicy,
        *,
        folder: Path | None = None,
        python: str = sys.executable,
        readable: Sequence[str] = (),
        shared: bool = True,
    ) -> None:
        self.policy = policy
        self._folder = folder
        self._python = python
        self._readable = readable
        self._shared = shared

    def open(self) -> None:
        """Finds the strongest form that holds. Raises KernelStartError if there is none: nothing is started then."""
        rooms.sweep()
        self._check()
        self.groups = cgroups.find()
        if self.groups is not None:
            cgroups.sweep(self.groups)
        if self.policy.cpu is not None and not self.limits("cpu"):
            raise KernelStartError(f"cpu={self.policy.cpu:g} cannot be held here: there is no control group for it")
        reasons = []
        for form in FORMS:
            if self.policy.form in ("auto", form):
                why = self._open(form)
                if not why:
                    return
                self.close()
                reasons.append(f"{form} form: {why}")
        raise KernelStartError(f"code cannot be contained on this machine. {'; '.join(reasons)}. {_ADVICE}")

    def _check(self) -> None:
        """Raises KernelStartError for folders that are not there, or have those of all sessions in them."""
        for folder in (*self.policy.read_only, *self.policy.read_write, *([self._folder] if self._folder else [])):
            if rooms.parent().is_relative_to(Path(folder).resolve()):
                raise KernelStartError(
                    f"{folder} has the folders of all sessions in it, in {rooms.parent()}: name one that lies within it"
                )
        for name in ("read_only", "read_write"):
            for path in getattr(self.policy, name):
                if not os.path.exists(path):
                    raise KernelStartError(f"SandboxPolicy({name}=…) names {path}, which does not exist")

    def _open(self, form: Form) -> str:
        """Why this form does not hold; empty if it does."""
        if why := lacking(form):
            return why
        self.form = form
        policy, network = self.policy, self.policy.network == "full"
        try:
            needed = [*paths.of_interpreter(sys.executable), *paths.of_interpreter(self._python), *self._readable]
            given = [*paths.harmless(needed), *map(str, policy.read_only)]
            readable = tuple(dict.fromkeys(given))
            writable = tuple(map(str, policy.read_write)) + (() if self._folder is None else (str(self._folder),))
            if form == "portable" and (inside := _inside(readable, writable)):
                return (
                    f"{inside[0]} must not be changed and lies in {inside[1]}, which may be: bubblewrap could hold both"
                )
            # What is the caller's belongs to some uid: sessions that are to write there cannot have one of their own.
            # bubblewrap lets everybody pass through to what it shows, so there only the paths themselves count.
            own_uid = rooms.uids_available() and not writable and paths.reachable(readable, alone=form == "strong")
            filters = seccomp.build(network=network, own_uid=own_uid, portable=form == "portable")
            self.walls = Walls(
                readable,
                writable,
                network,
                own_uid,
                own_uid or (form == "strong" and not self._shared),
                filters,
                open_files=policy.open_files,
                file_size=policy.file_size,
                processes=policy.processes if own_uid else policy.processes + _OTHERS,
                data=None if self.limits("memory") else policy.memory,
            )
            self._rooms = rooms.Rooms(policy, own_uids=own_uid)
            self.home = self._rooms.folder / "forkserver"
            self.home.mkdir(mode=0o700)
            self._cache = _cache() or self.home
            return self._prove()
        except (OSError, seccomp.NoSeccomp) as error:
            return str(error)

    def _prove(self) -> str:
        """Why these walls do not hold; empty if a process within them tried to break out, and failed at everything. Once in a
        process for each kind of walls that held."""
        kind = self.form, self.walls.network, self.walls.own_uid
        if kind in _proved:
            return ""
        room = self.make_room()
        try:
            with _targets() as targets:
                told = {"walls": self.walls.to_json(), "room": asdict(room), "targets": asdict(targets)}
                why = _tried(self.prefix(room), told, room)
        finally:
            self.remove_room(room)
        if not why:
            _proved.add(kind)
        return why

    def limits(self, controller: str) -> bool:
        """Whether the system holds this limit; otherwise it is watched."""
        return self.groups is not None and controller in self.groups.controllers

    @property
    def watched(self) -> bool:
        """Whether some limit is not held by the system."""
        return not (self.limits("memory") and self.limits("pids") and self.mounts)

    @property
    def mounts(self) -> bool:
        """Whether each session's folder is a file system of its own."""
        return self._rooms.mounts

    @property
    def containment(self) -> str:
        """What holds, in a few words.

        The form first: "strong: bubblewrap, Landlock, seccomp, own uid, cgroup v1 (memory, pids, cpu), own file system".
        """
        layers = ["bubblewrap"] if self.form == "strong" else []
        layers += ["Landlock", "seccomp"]
        layers += ["own uid"] if self.walls.own_uid else []
        if self.groups is not None:
            layers.append(f"cgroup v{2 if self.groups.unified else 1} ({', '.join(self.groups.controllers)})")
        layers += ["own file system"] if self.mounts else []
        return f"{self.form}: {', '.join(layers)}"

    def prefix(self, room: Room | None = None) -> list[str]:
        """What comes before the command of a process that is to be within: of one in this room, or of the forkserver."""
        if self.form == "portable":
            return []
        places = [str(self._rooms.folder), str(self._cache)]
        if room is not None:
            places = [place for place in (room.folder, room.sockets) if place is not None]
        return bubblewrap.arguments(
            root=os.geteuid() == 0,
            network=self.walls.network,
            readable=self.walls.readable,
            writable=(*self.walls.writable, *places),
            shared_memory=_SHARED_MEMORY,
        )

    def environment(self, extra: Mapping[str, str], room: Room) -> dict[str, str]:
        """Of a kernel in this room."""
        return {**paths.environment(self.policy.environment), **room.environment, **extra}

    def forkserver_environment(self, extra: Mapping[str, str]) -> dict[str, str]:
        """Of the process that its kernels are forked from."""
        own = {"HOME": str(self.home), "IPYTHONDIR": str(self.home), "MPLCONFIGDIR": str(self._cache)}
        return {**paths.environment(self.policy.environment), **own, **extra}

    def make_room(self) -> Room:
        """For one session. Raises OSError."""
        return self._rooms.make()

    def make_sockets(self, room: Room) -> Path:
        """See Rooms.make_sockets."""
        return self._rooms.make_sockets(room)

    def remove_room(self, room: Room) -> None:
        """Never raises."""
        self._rooms.remove(room.folder)

    def make_group(self) -> cgroups.Group | None:
        """For one session; None where there are none. Raises OSError."""
        return None if self.groups is None else cgroups.make(self.groups, self.policy)

    def close(self) -> None:
        """Removes the rooms that are left. Never raises; twice is once."""
        if hasattr(self, "_rooms"):
            self._rooms.close()
            del self._rooms


def why_not(form: Form, *, network: bool = False) -> str:
    """Why this form does not hold on this machine; empty if a process within it tried to break out, and failed at everything."""
    sandbox = Sandbox(SandboxPolicy(form=form, network="full" if network else "none"))
    try:
        sandbox.open()
    except KernelStartError as error:
        return str(error).partition(f"{form} form: ")[2].removesuffix(f". {_ADVICE}") or str(error)
    finally:
        sandbox.close()
    return ""


def lacking(form: Form) -> str:
    """What this form needs and this machine does not have; empty if it has all."""
    if sys.platform != "linux":
        return "it needs Linux"
    if (version := landlock.version()) < landlock.NEEDED:
        found = f"version {version}" if version else "none, or it is switched off"
        return f"it needs Landlock version {landlock.NEEDED} (Linux 6.12 or later, `lsm=landlock`); found: {found}"
    if form == "strong" and bubblewrap.program() is None:
        return "bubblewrap is not installed, or older than 0.6 (apt-get install bubblewrap)"
    return ""


def _inside(readable: Sequence[str], writable: Sequence[str]) -> tuple[str, str] | None:
    """A path that may only be read within one that may be changed."""
    for path in readable:
        for folder in writable:
            if Path(path).resolve().is_relative_to(Path(folder).resolve()):
                return path, folder
    return None


def _tried(prefix: Sequence[str], told: Mapping[str, Any], room: Room) -> str:
    with as_file(told) as file:
        try:
            done = subprocess.run(
                [*prefix, sys.executable, *FLAGS, str(file)],
                pass_fds=[file],
                env={**paths.environment(), **room.environment},
                cwd="/",
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=_PATIENCE,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return f"its self-test did not end within {_PATIENCE:g} s"
    if done.returncode != 0:
        said = done.stderr.decode("utf-8", "replace").strip()[-300:]
        return f"its self-test failed with code {done.returncode}: {said or 'it said nothing'}"
    try:
        succeeded = json.loads(done.stdout)["succeeded"]
    except (ValueError, KeyError):
        return "its self-test said nothing that can be understood"
    return f"in its self-test a contained process could {', '.join(succeeded)}" if succeeded else ""


def _cache() -> Path | None:
    """Where matplotlib's list of fonts is kept from one forkserver to the next: making it takes a second. Kernels cannot write there."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    folder = Path(base, "cellrun", "matplotlib")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return None
    return folder if os.access(folder, os.W_OK) else None


@contextlib.contextmanager
def as_file(told: Mapping[str, Any]) -> Iterator[int]:
    """A descriptor of a file in memory with this as JSON, to be read from its beginning."""
    file = os.memfd_create("cellrun", os.MFD_CLOEXEC)
    try:
        data = json.dumps(told).encode()
        os.write(file, data)
        os.lseek(file, 0, os.SEEK_SET)
        yield file
    finally:
        os.close(file)


@contextlib.contextmanager
def _targets() -> Iterator[Targets]:
    """Things to reach for, which everybody outside can."""
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="cellrun-selftest-", dir=rooms.parent()))
        os.chmod(folder, 0o777)  # noqa: S103  # so that nothing but the walls keeps anybody out
        secret = Path(folder, "secret")
        secret.write_text("x", "ascii")
        secret.chmod(0o644)
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        abstract = f"cellrun-{secrets.token_hex(8)}"
        waiting = stack.enter_context(socket.socket(socket.AF_UNIX))
        waiting.bind(f"\0{abstract}")
        waiting.listen()
        stream, datagram = f"{folder}/stream", f"{folder}/datagram"
        for path, kind in ((stream, socket.SOCK_STREAM), (datagram, socket.SOCK_DGRAM)):
            named = stack.enter_context(socket.socket(socket.AF_UNIX, kind))
            named.bind(path)
            os.chmod(path, 0o777)  # noqa: S103
            if kind == socket.SOCK_STREAM:
                named.listen()
        yield Targets(str(secret), folder, listener.getsockname()[1], abstract, stream, datagram, os.getpid())
