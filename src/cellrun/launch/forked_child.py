"""From a fork to a kernel: everything that a child has inherited and must not keep."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib.util
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

_PR_SET_PDEATHSIG: Final = 1
_PR_SET_NAME: Final = 15
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
_libc = ctypes.CDLL(None, use_errno=True)


def prctl(option: int, value: int | bytes) -> None:
    """prctl(2) of Linux. Raises OSError."""
    if _libc.prctl(option, value, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl")


@dataclass(frozen=True)
class Birth:
    """What a kernel is told at its fork."""

    connection: Mapping[str, Any] = field(repr=False)
    connection_file: str
    environment: Mapping[str, str] = field(repr=False)
    folder: str
    name: str  # of the process, at most 15 bytes
    log: str  # file for what the process itself says, not the cells
    flush_interval: float
    drop_nothing: bool


def become_kernel(
    application: LeanApplication,
    birth: Birth,
    listeners: Sequence[int],
    lifeline: int,
    parent: int,
    parents_own: Sequence[int],
) -> NoReturn:
    """In the child, right after the fork, with the kernel's environment. `lifeline` is a pipe that ends with the process
    for which the kernel works. The descriptors of `parents_own` are closed; others belong to modules that are loaded, which
    would take a socket of the kernel for their file were theirs closed."""
    status = 1
    try:
        _follow_into_death(parent)
        os.setsid()
        _reset_signals()
        for descriptor in parents_own:
            os.close(descriptor)
        _reset_standard_streams(birth.log)
        prctl(_PR_SET_NAME, birth.name.encode())
        time.tzset()
        os.chdir(birth.folder)
        _reseed()
        tempfile.tempdir = None
        sys.argv[:] = [_LAUNCHER, "-f", birth.connection_file]
        _reset_shell(application)
        gc.enable()
        application.attach(
            birth.connection,
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
    prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def _live_on() -> None:
    prctl(_PR_SET_PDEATHSIG, 0)


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


def _reset_standard_streams(log: str) -> None:
    nothing = os.open(os.devnull, os.O_RDWR)
    written = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(nothing, 0)
    os.dup2(written, 1)
    os.dup2(written, 2)
    os.close(nothing)
    os.close(written)


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
