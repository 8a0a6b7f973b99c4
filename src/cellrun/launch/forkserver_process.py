"""The forkserver: one process with one thread that has everything loaded, runs nobody's code, and forks kernels.

It is told what to do over the socket that it was started with, and answers there. When that ends, whoever started it
is gone, and it ends its kernels and itself.

    in   {"op": "fork", "id", "birth": …} with the descriptors of a file with the connection, of one for the process's own words, of a
         pipe that ends with its owner, and of five listening sockets, or none: then it binds them itself
         {"op": "preload"}                 loads the rest, as soon as nothing else is to be done
         {"op": "end", "pid"}              ends a kernel that nobody could take
         {"op": "retire"}                  forks no more, and ends with the last of its kernels
    out  {"ready": pid} with a pidfd of its own
         {"forked": id, "pid"} with a pidfd, or {"failed": id, "why"}
         {"exited": pid, "code"}           as `subprocess` gives it: negative for a signal
         {"loaded": [steps]}, or {"broken": step, "why", "threads": [names]} when it can fork no more
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, NoReturn

from cellrun.kernel.application import LeanApplication
from cellrun.launch.descendants import MARK, children, kill_family
from cellrun.launch.forked_child import Birth, become_kernel, kernel_environment
from cellrun.launch.preload import NO_THREADS, CannotImport, Step, steps
from cellrun.launch.sandbox.system import SUBREAPER, prctl
from cellrun.launch.sandbox.walls import Prepared, Walls

_ROUNDS: Final = 5
_NOBODY: Final = "of no kernel"  # a mark that no process has
_SETTLING: Final = 0.1
_LARGEST: Final = 256 * 1024  # bytes of a request: an environment, mostly


class ForkServerProcess:
    """The process's state: its kernels, and what is still to be loaded."""

    def __init__(
        self,
        control: socket.socket,
        modules: Sequence[str] | str,
        without: Sequence[str],
        prepared: Prepared | None,
    ) -> None:
        self._control = control
        self._modules = modules
        self._without = without
        self._prepared = prepared
        self._kernels: dict[int, str] = {}
        self._loading = False
        self._retired = False
        self._broken = ""
        self._frozen = False

    def run(self) -> None:
        """Until the other end of the socket is closed."""
        self._own_environment = dict(os.environ)
        application = self._application = LeanApplication.instance()
        application.prepare()
        self._steps: Iterator[Step] = steps(application, self._modules, self._without)
        self._done: list[str] = []
        wakeup, self._wakeup = socket.socketpair()
        self._wakeups = wakeup
        wakeup.setblocking(False)
        self._wakeup.setblocking(False)
        signal.set_wakeup_fd(self._wakeup.fileno())
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        poll = select.poll()
        poll.register(self._control, select.POLLIN)
        poll.register(wakeup, select.POLLIN)
        itself = os.pidfd_open(os.getpid())
        self._say({"ready": os.getpid()}, itself)
        os.close(itself)
        while not (self._retired and not self._kernels):
            ready = dict(poll.poll(0 if self._loading else None))
            if wakeup.fileno() in ready:
                with contextlib.suppress(BlockingIOError):
                    wakeup.recv(4096)
                self._reap()
            if self._control.fileno() in ready:
                self._obey()
            elif self._loading:
                self._take_step()
        self._end_orphans()

    # -- requests --------------------------------------------------------------------------------

    def _obey(self) -> None:
        try:
            data, descriptors, _, _ = socket.recv_fds(self._control, _LARGEST, 16)
        except OSError:  # reset: whoever was there ended with words of ours unread
            data, descriptors = b"", []
        for descriptor in descriptors:  # recv_fds takes no notice of its flags
            os.set_inheritable(descriptor, False)
        if not data:
            self._abandoned()
        request: dict[str, Any] = json.loads(data)
        match request["op"]:
            case "fork":
                self._fork(request, descriptors)
            case "preload":
                self._loading = not self._broken
            case "end":
                if request["pid"] in self._kernels:
                    os.kill(request["pid"], signal.SIGKILL)
            case "retire":
                self._retired = True
                self._loading = False

    def _fork(self, request: dict[str, Any], descriptors: list[int]) -> None:
        pid = -1
        try:
            birth = Birth(**request["birth"])
            self._check_threads()
            if self._broken:
                raise RuntimeError(self._broken)
            self._wear(birth.environment)
            if not self._frozen:
                self._application.settle()
                gc.collect()
                gc.freeze()  # the collector of a kernel must not write to, and so copy, what is shared
                self._frozen = True
            gc.disable()
            parent = os.getpid()
            pid = os.fork()
        except Exception as error:  # a fault of one request must not end the kernels of others
            self._say({"failed": request["id"], "why": str(error)})
        if pid == 0:
            own = [self._control.fileno(), self._wakeup.fileno(), self._wakeups.fileno()]
            become_kernel(self._application, birth, descriptors, parent, own, self._prepared)
        gc.enable()
        for descriptor in descriptors:
            os.close(descriptor)
        if pid > 0:
            self._kernels[pid] = birth.environment.get(MARK, birth.name)
            try:
                pidfd = os.pidfd_open(pid)
            except OSError as error:
                os.kill(pid, signal.SIGKILL)
                self._say({"failed": request["id"], "why": str(error)})
                return
            self._say({"forked": request["id"], "pid": pid}, pidfd)
            os.close(pidfd)

    def _wear(self, environment: Mapping[str, str]) -> None:
        """Takes on the next kernel's variables, so far as they are not those of the last one: a child that did so itself
        would copy memory for each."""
        self._put_on(kernel_environment(environment))

    def _put_on(self, worn: Mapping[str, str]) -> None:
        for name in os.environ.keys() - worn.keys():
            del os.environ[name]
        for name, value in worn.items():
            if os.environ.get(name) != value:
                os.environ[name] = value

    def _check_threads(self) -> None:
        names = settled_threads()
        if len(names) > 1 and not self._broken:
            why = f"the forkserver has threads ({', '.join(names[1:])}): a fork would copy their locks and not them"
            self._fail("", why)

    # -- loading ---------------------------------------------------------------------------------

    def _take_step(self) -> None:
        step = next(self._steps, None)
        if step is None:
            self._loading = False
            self._say({"loaded": self._done})
            return
        name, work = step
        self._put_on(kernel_environment({**self._own_environment, **NO_THREADS}))  # not what the last kernel was given
        try:
            work()
        except CannotImport as error:
            self._fail(name, str(error))
            return
        except Exception as error:  # of a cell of ours, in some version of IPython or a library
            self._fail(name, f"loading {name!r} failed: {type(error).__name__}: {error}")
            return
        self._frozen = False
        names = settled_threads()
        if len(names) > 1:
            self._fail(
                name,
                f"preloading {name!r} started threads ({', '.join(names[1:])}), and a process with threads cannot be forked",
            )
            return
        self._done.append(name)

    def _fail(self, step: str, why: str) -> None:
        self._loading = False
        self._broken = why
        self._say({"broken": step, "why": why, "threads": threads()[1:]})

    # -- ends ------------------------------------------------------------------------------------

    def _reap(self) -> None:
        """Also of orphans that kernels have left: they come to this process, and are not known to it."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if self._kernels.pop(pid, None) is not None:
                self._say({"exited": pid, "code": os.waitstatus_to_exitcode(status)})

    def _abandoned(self) -> NoReturn:
        """Nobody is left to whom the kernels belong."""
        for pid, mark in self._kernels.items():
            kill_family(pid, mark)
        self._end_orphans()
        deadline = time.monotonic() + 2.0
        while self._kernels and time.monotonic() < deadline:
            self._reap()
            time.sleep(0.005)
        os._exit(0)

    def _end_orphans(self) -> None:
        """Whatever else has come to this process was left behind by a kernel."""
        for _ in range(_ROUNDS):
            if not (left := children(os.getpid())):
                return
            for pid in left:
                kill_family(pid, _NOBODY)
            self._reap()

    def _say(self, message: dict[str, Any], *descriptors: int) -> None:
        try:
            socket.send_fds(self._control, [json.dumps(message).encode()], list(descriptors))
        except OSError:  # gone: the next look at the socket tells
            return


def settled_threads() -> list[str]:
    """The names of the threads, when those that have just ended have gone: join() returns a little earlier."""
    deadline = time.monotonic() + _SETTLING
    while len(names := threads()) > 1 and time.monotonic() < deadline:
        time.sleep(0.002)
    return names


def threads() -> list[str]:
    """The names of this process's threads, the main one first (proc(5))."""
    names = []
    for task in sorted(os.listdir("/proc/self/task"), key=int):
        with contextlib.suppress(OSError), open(f"/proc/self/task/{task}/comm", encoding="utf-8") as file:
            names.append(file.read().strip())
    return names


def main(control: int, modules: Sequence[str] | str, without: Sequence[str], walls: int) -> None:
    """What the process runs. `walls` is a file with the Walls of its kernels, or -1: then they have none."""
    sys.path[:] = [entry for entry in sys.path if entry]  # put there for -c; the shell of a kernel puts it back
    prctl(SUBREAPER, 1)
    prepared = None
    if walls >= 0:
        with open(walls, "rb") as file:
            prepared = Prepared(Walls.from_json(json.load(file)))
    os.set_inheritable(control, False)
    ForkServerProcess(socket.socket(fileno=control), modules, without, prepared).run()
