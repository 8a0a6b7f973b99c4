"""From a fork to a kernel: everything that a child has inherited and must not keep."""

from __future__ import annotations

import contextlib
import gc
import importlib.util
import json
import os
import random
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NoReturn

from cellrun.kernel.application import CHANNELS, LeanApplication
from cellrun.launch.sandbox import metadata
from cellrun.launch.sandbox.system import NAME, PARENT_DEATH_SIGNAL, prctl
from cellrun.launch.sandbox.walls import Prepared, Room

_FOR_PROGRAMS: Final = {
    "TERM": "xterm-color",
    "CLICOLOR": "1",
    "FORCE_COLOR": "1",
    "CLICOLOR_FORCE": "1",
    "PAGER": "cat",
    "GIT_PAGER": "cat",
}
# What sys.argv begins with in a kernel that was started.
_LAUNCHER: Final = str(getattr(importlib.util.find_spec("ipykernel_launcher"), "origin", ""))


@dataclass(frozen=True)
class Birth:
    """What a kernel is told at its fork."""

    connection_file: str
    environment: Mapping[str, str] = field(repr=False)
    folder: str
    name: str  # of the process, at most 15 bytes
    flush_interval: float
    drop_nothing: bool
    room: Mapping[str, Any] | None = None  # of its sandbox; None: it has none


def become_kernel(
    application: LeanApplication,
    birth: Birth,
    descriptors: Sequence[int],
    parent: int,
    parents_own: Sequence[int],
    prepared: Prepared | None,
) -> NoReturn:
    """In the child, right after the fork, with the kernel's environment.

    descriptors   a file with the connection, which only the kernel reads: it holds the key; where the process's own words go,
                  not the cells'; a pipe that ends with the process for which the kernel works; and the sockets that listen, if there
                  are any
    parents_own   is closed; other descriptors belong to modules that are loaded, which would take a socket of the kernel
                  for their file were theirs closed
    prepared      its sandbox
    """
    status = 1
    try:
        _follow_into_death(parent)
        os.setsid()
        _reset_signals()
        for descriptor in parents_own:
            os.close(descriptor)
        told, log, lifeline, *listeners = descriptors
        _reset_standard_streams(log)
        prctl(NAME, birth.name.encode())
        if birth.room is not None:
            assert prepared is not None
            prepared.confine(Room(**birth.room))
            prepared.close()
            _follow_into_death(parent)  # another uid takes that back
        connection = _read(told)
        time.tzset()
        os.chdir(birth.folder)
        _reseed()
        tempfile.tempdir = None
        sys.argv[:] = [_LAUNCHER, "-f", birth.connection_file]
        _reset_shell(application)
        if birth.room is not None:
            _own_profile(application.kernel.shell)
        if prepared is not None and not prepared.walls.own_uid:
            metadata.by_descriptor()
        if prepared is not None and not prepared.walls.terminals:
            application.shell.system = application.shell.system_raw  # the other one needs one
        gc.enable()
        application.attach(
            connection,
            descriptors=dict(zip(CHANNELS, listeners, strict=True)) if listeners else None,
            connection_file=birth.connection_file,
            flush_interval=birth.flush_interval,
            drop_nothing=birth.drop_nothing,
        )
        application.service.watch(Lifeline(lifeline), _watch(lifeline))
        application.kernel.on_first_request = _live_on
        application.serve()
        application.finish()
        status = 0
    except BaseException:
        with contextlib.suppress(Exception):
            traceback.print_exc(file=sys.__stderr__)
    finally:
        # Not by sys.exit: that would take apart, page by page, a heap that is shared with the parent.
        os._exit(status)


def _follow_into_death(parent: int) -> None:
    """Until somebody has asked something of this kernel, it dies with its parent: should that end before it
    has told of the kernel, nobody would ever know of it."""
    prctl(PARENT_DEATH_SIGNAL, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def _live_on() -> None:
    prctl(PARENT_DEATH_SIGNAL, 0)


def _reset_signals() -> None:
    """As Python sets them at its start."""
    signal.set_wakeup_fd(-1)
    for number in signal.valid_signals():
        if signal.getsignal(number) not in (signal.SIG_DFL, None):
            with contextlib.suppress(OSError, ValueError):
                signal.signal(number, signal.SIG_DFL)
    for ignored in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(ignored, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def _reset_standard_streams(log: int) -> None:
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(nothing)
    os.close(log)


def _read(file: int) -> dict[str, Any]:
    """The connection. The forkserver has not read it: later kernels inherit all that it has ever read."""
    os.lseek(file, 0, os.SEEK_SET)
    with open(file, "rb") as content:
        connection: dict[str, Any] = json.load(content)
    return connection


def _reseed() -> None:
    """`random` does so by itself; what else draws from the system at each use needs nothing."""
    random.seed()
    if "multiprocessing.process" in sys.modules:
        sys.modules["multiprocessing.process"].current_process().authkey = os.urandom(32)
    if "numpy.random" in sys.modules:
        sys.modules["numpy.random"].seed()


def kernel_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """With what ipykernel sets for the programs that cells start (`init_environment` of its shell), and for matplotlib."""
    return {"MPLBACKEND": "module://matplotlib_inline.backend_inline", **environment, **_FOR_PROGRAMS}


def _reset_shell(application: LeanApplication) -> None:
    """What the shell took from the environment when it was made."""
    shell = application.kernel.shell
    if "matplotlib" in sys.modules:
        matplotlib = sys.modules["matplotlib"]
        wanted = os.environ["MPLBACKEND"]
        if matplotlib.get_backend().lower() != wanted.lower() and not wanted.endswith("backend_inline"):
            matplotlib.use(wanted)
    shell.history_manager.dir_hist[:] = [Path.cwd()]
    if name := os.environ.get("JPY_SESSION_NAME"):
        shell.user_ns["__session__"] = name


def _own_profile(shell: Any) -> None:
    """What magics keep (`%cd -b`, `%store`, `%rehashx`) is the session's own: the profile that was read is out of its reach."""
    shell.ipython_dir = os.environ["IPYTHONDIR"]
    folder = os.path.join(shell.ipython_dir, "profile_default")
    # Not by the trait itself, which would make the folders of a whole profile for every kernel.
    shell.profile_dir._trait_values["location"] = folder
    if not isinstance(getattr(type(shell), "db", None), property):  # else it is opened where it is first wanted
        shell.db = type(shell.db)(os.path.join(folder, "db"))


class Lifeline:
    """A descriptor as something with a `fileno`."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def fileno(self) -> int:
        return self._descriptor


def _watch(lifeline: int) -> Any:
    os.set_blocking(lifeline, False)

    def read() -> None:
        with contextlib.suppress(BlockingIOError):
            if os.read(lifeline, 1) == b"":
                os.killpg(0, signal.SIGKILL)

    return read
