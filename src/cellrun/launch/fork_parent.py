"""One forkserver process, seen from the process that wants kernels. See forkserver_process.py for what is said."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import os
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from cellrun.errors import KernelStartError
from cellrun.launch.descendants import children, has_mark, kill_family, session_of
from cellrun.launch.sandbox.sandbox import Sandbox, as_file

_BOOT: Final = 30.0
_END: Final = 3.0
_ANSWER: Final = 64 * 1024
_AGAIN: Final = 0.05  # seconds until orphans are looked for once more
_SAID: Final = 500  # characters of what the process said that go into an error
_START: Final = "from cellrun.launch.forkserver_process import main; main({control}, {modules!r}, {without!r}, {walls})"


class ForkServerLost(Exception):
    """The process ended while something was asked of it. Another one can be asked."""


class ForkRefused(Exception):
    """It cannot fork, and says why."""


@dataclass(frozen=True, eq=False)
class Child:
    """A forked process. `pid` is the number that it has for us: in a sandbox it has another one for itself. `exited` becomes
    its code, as `subprocess` gives it, or None where nobody knows."""

    pid: int
    exited: asyncio.Future[int | None]
    parent: ForkParent


class ForkParent:
    """Starts the process; `on_end` is called once, when it has ended and so have its kernels."""

    def __init__(
        self,
        python: str,
        modules: Sequence[str] | str,
        without: Sequence[str],
        env: Mapping[str, str],
        on_end: Callable[[ForkParent], None],
        sandbox: Sandbox | None = None,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._on_end = on_end
        self._ready: asyncio.Future[None] = self._loop.create_future()
        self._pending: dict[int, asyncio.Future[Child]] = {}
        self._children: dict[int, tuple[Child, int]] = {}
        self._number = 0
        self._sending = asyncio.Lock()
        self._writable_again = asyncio.Event()
        self._loading = False
        self.loaded = asyncio.Event()
        self.broken: tuple[str, str] | None = None
        self.ended = asyncio.Event()
        self.avoided = False
        self.last_words = ""
        self.forks = 0
        self.since = time.monotonic()
        self._socket, control = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._log = tempfile.TemporaryFile(prefix="cellrun-forkserver-")  # noqa: SIM115  # closed with the process
        try:
            with contextlib.ExitStack() as stack:
                walls = -1 if sandbox is None else stack.enter_context(as_file(sandbox.walls.to_json()))
                start = _START.format(control=control.fileno(), modules=modules, without=list(without), walls=walls)
                self._process = subprocess.Popen(
                    [*([] if sandbox is None else sandbox.prefix()), python, "-c", start],
                    pass_fds=[control.fileno(), *([] if sandbox is None else [walls])],
                    env={**os.environ, **env} if sandbox is None else sandbox.forkserver_environment(env),
                    cwd="/",
                    stdin=subprocess.DEVNULL,
                    stdout=self._log,
                    stderr=self._log,
                    start_new_session=True,
                )
        except OSError as error:
            self._socket.close()
            self._log.close()
            raise KernelStartError(f"the forkserver cannot be started: {error.strerror}") from None
        finally:
            control.close()
        self.pid = self._process.pid  # until it is known better: in a sandbox that is not the forkserver itself
        self._socket.setblocking(False)
        self._loop.add_reader(self._socket, self._read)

    async def booted(self) -> None:
        """Until it can fork. Raises KernelStartError with what it said if it cannot."""
        try:
            await asyncio.wait_for(asyncio.shield(self._ready), _BOOT)
        except TimeoutError:
            raise KernelStartError(f"the forkserver did not start within {_BOOT:g} s", retryable=True) from None
        except ForkServerLost as error:
            raise KernelStartError(str(error)) from None

    def load(self) -> None:
        """Has it load the rest, between requests; then `loaded` is set, or `broken`."""
        if not self._loading:
            self._loading = True
            self._tell({"op": "preload"})

    def retire(self) -> None:
        """It forks no more, and ends with the last of its kernels."""
        self._tell({"op": "retire"})

    async def fork(self, birth: Mapping[str, Any], descriptors: Sequence[int]) -> Child:
        """A new process that becomes a kernel; see Birth and `become_kernel` for what it is given. Raises ForkRefused, ForkServerLost, and KernelStartError if the environment
        is larger than a message. Cancelled: the process, if it comes to be, is killed."""
        if self.ended.is_set():
            raise ForkServerLost("the forkserver has ended")
        self._number += 1
        number = self._number
        answer: asyncio.Future[Child] = self._loop.create_future()
        try:
            async with self._sending:
                self._pending[number] = answer
                await self._send(json.dumps({"op": "fork", "id": number, "birth": dict(birth)}).encode(), descriptors)
        except BaseException:
            self._pending.pop(number, None)  # it was not sent
            raise
        try:
            async with asyncio.timeout(_BOOT):
                return await answer
        except TimeoutError:
            raise ForkRefused(f"the forkserver did not fork within {_BOOT:g} s") from None
        except asyncio.CancelledError:
            # `_forked` kills a child that nobody waits for; this one may have come in the same moment.
            if answer.done() and not answer.cancelled() and answer.exception() is None:
                self._kill(answer.result())
            raise

    async def _send(self, data: bytes, descriptors: Sequence[int]) -> None:
        while True:
            try:
                socket.send_fds(self._socket, [data], list(descriptors))
                return
            except BlockingIOError:
                await self._writable()
                if self.ended.is_set():
                    raise ForkServerLost("the forkserver has ended") from None
            except OSError as error:
                if error.errno == errno.EMSGSIZE:
                    raise KernelStartError(
                        f"the environment of the kernel is too large to be handed over ({len(data)} bytes)"
                    ) from None
                raise ForkServerLost("the forkserver has ended") from None

    async def _writable(self) -> None:
        """One sender at a time; also woken when the process has ended."""
        self._writable_again.clear()
        self._loop.add_writer(self._socket, self._writable_again.set)
        try:
            await self._writable_again.wait()
        finally:
            if not self.ended.is_set():
                self._loop.remove_writer(self._socket)

    def _tell(self, message: Mapping[str, Any]) -> None:
        with contextlib.suppress(OSError):
            self._socket.send(json.dumps(message).encode())

    # -- what it says ----------------------------------------------------------------------------

    def _read(self) -> None:
        while True:
            try:
                data, descriptors, _, _ = socket.recv_fds(self._socket, _ANSWER, 1)
            except BlockingIOError:
                return
            except OSError:
                data, descriptors = b"", []
            if not data:
                self._lost()
                return
            for descriptor in descriptors:
                os.set_inheritable(descriptor, False)
            self._hear(json.loads(data), descriptors)

    def _hear(self, message: dict[str, Any], descriptors: list[int]) -> None:
        if "forked" in message:
            self._forked(message["forked"], message["pid"], descriptors)
        elif "failed" in message:
            answer = self._pending.pop(message["failed"])
            if not answer.done():
                answer.set_exception(ForkRefused(message["why"]))
        elif "exited" in message:
            child, pidfd = self._children.pop(message["exited"], (None, -1))
            if child is not None:
                os.close(pidfd)
                child.exited.set_result(message["code"])
        elif "ready" in message:
            if descriptors:
                self.pid = _pid_here(descriptors[0])
                os.close(descriptors[0])
            if not self._ready.done():
                self._ready.set_result(None)
        elif "loaded" in message:
            self.loaded.set()
        elif "broken" in message:
            self.broken = message["broken"], message["why"]
            self.loaded.set()

    def _forked(self, number: int, pid: int, descriptors: list[int]) -> None:
        self.forks += 1
        if not descriptors:  # there was none free for it to arrive
            self._tell({"op": "end", "pid": pid})
            if not (refused := self._pending.pop(number)).done():
                refused.set_exception(ForkRefused("no descriptor is free (ulimit -n)"))
            return
        pidfd = descriptors[0]
        child = Child(_pid_here(pidfd), self._loop.create_future(), self)
        self._children[pid] = child, pidfd
        answer = self._pending.pop(number)
        if answer.done():
            self._kill(child)
        else:
            answer.set_result(child)

    def _kill(self, child: Child) -> None:
        for living, pidfd in self._children.values():
            if living is child:
                with contextlib.suppress(ProcessLookupError):
                    signal.pidfd_send_signal(pidfd, signal.SIGKILL)

    def end_family(self, pid: int, mark: str) -> None:
        """SIGKILL to what a kernel that has ended left behind. Its orphans have come to the forkserver, which saves looking
        through all processes; where that has ended too, they are looked for.

        They are looked at twice: the list of children may miss some while others end (proc(5), "children"), and a
        process in the middle of execve(2) shows no environment."""
        if self.ended.is_set():
            kill_family(None, mark)
            return
        self._end_orphans(pid, mark)
        self._loop.call_later(_AGAIN, self._end_orphans, None, mark)

    def _end_orphans(self, pid: int | None, mark: str) -> None:
        if self.ended.is_set():
            return
        kernels = {child.pid for child, _ in self._children.values()}
        for orphan in children(self.pid) - kernels:
            if has_mark(orphan, mark) or (pid is not None and session_of(orphan) == pid):
                kill_family(orphan, mark)

    # -- the end ---------------------------------------------------------------------------------

    def _lost(self) -> None:
        """The process is gone. Its kernels live on, and are watched one by one."""
        self._loop.remove_reader(self._socket)
        self._loop.remove_writer(self._socket)
        self._socket.close()
        self._process.poll()
        self.last_words = self._said()
        lost = ForkServerLost(f"the forkserver ended{self.last_words}")
        if not self._ready.done():
            self._ready.set_exception(lost)
            self._ready.exception()
        for answer in self._pending.values():
            if not answer.done():
                answer.set_exception(lost)
        self._pending.clear()
        self.loaded.set()
        self.ended.set()
        self._writable_again.set()
        for number, (child, pidfd) in list(self._children.items()):
            self._loop.add_reader(pidfd, self._on_orphan_exit, number, child, pidfd)
        if not self._children:
            self._let_go()

    def _on_orphan_exit(self, number: int, child: Child, pidfd: int) -> None:
        self._loop.remove_reader(pidfd)
        code = None
        with contextlib.suppress(ChildProcessError, OSError):  # ours to reap only where we are the init process
            if (end := os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOHANG)) is not None:
                code = end.si_status if end.si_code == os.CLD_EXITED else -end.si_status
        os.close(pidfd)
        del self._children[number]
        child.exited.set_result(code)
        if not self._children:
            self._let_go()

    def _let_go(self) -> None:
        self._log.close()
        self._reap()

    def _reap(self) -> None:
        """Its socket is closed a moment before it has ended; where processors are busy that is a long moment."""
        if self._process.poll() is None:
            self._loop.call_later(0.005, self._reap)
        else:
            self._on_end(self)

    def _said(self) -> str:
        self._log.seek(0, os.SEEK_END)
        self._log.seek(max(0, self._log.tell() - _SAID))
        said = self._log.read().decode("utf-8", "replace").strip()
        return f"; it said: …{said}" if said else ""

    async def aclose(self) -> None:
        """Ends the process, and the kernels that it still has. Bounded; never raises."""
        if not self.ended.is_set():
            # The end of its socket is what it ends by; SIGKILL, if it does not look.
            self._socket.shutdown(socket.SHUT_WR)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.ended.wait(), _END)
        if not self.ended.is_set():
            self._process.kill()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.ended.wait(), _END)
        for child, _ in list(self._children.values()):
            self._kill(child)
            await asyncio.wait({child.exited}, timeout=_END)
        deadline = self._loop.time() + _END
        while self._process.poll() is None and self._loop.time() < deadline:
            if self._loop.time() > deadline - _END / 2:
                self._process.kill()
            await asyncio.sleep(0.002)


def _pid_here(pidfd: int) -> int:
    """The number that the process of a pidfd has for us; 0 if it is gone (proc(5), fdinfo)."""
    with open(f"/proc/self/fdinfo/{pidfd}", encoding="ascii") as file:
        for line in file:
            if line.startswith("Pid:"):
                return max(0, int(line.split()[1]))
    return 0
