"""Forked kernels for any Jupyter program: a kernel provisioner (jupyter_client, "Kernel Provisioning").

A kernelspec that names it (`cellrun kernelspec install`) is started by Jupyter Server, nbclient or papermill as any
other, in milliseconds. All kernels of such a program come from one forkserver, which ends with the program.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import os
import signal
import uuid
from pathlib import Path
from typing import Any, Final

from jupyter_client.provisioning.local_provisioner import LocalProvisioner
from traitlets import List, Unicode

from cellrun import portal
from cellrun.errors import KernelStartError
from cellrun.launch import forkserver
from cellrun.launch.descendants import MARK, process_name
from cellrun.launch.endpoints import connection_in_memory
from cellrun.launch.fork_parent import Child
from cellrun.launch.forkserver import ForkServer
from cellrun.limits import FLUSH_INTERVAL

NAME: Final = "cellrun-forked"
"""Its name as an entry point of jupyter_client.kernel_provisioners, and in a kernelspec's metadata."""

_servers: dict[tuple[str, ...], ForkServer] = {}


class ForkedProvisioner(LocalProvisioner):
    """Forks instead of starting a program; all else is as with local kernels. Where nothing can be forked (macOS, or a
    forkserver that does not start), the kernelspec's command is run."""

    preload = List(Unicode(), default_value=["auto"], help="Modules to load before the fork, or 'auto'.").tag(
        config=True
    )

    parent: Any
    process: Any = None

    async def launch_kernel(self, cmd: list[str], **kwargs: Any) -> Any:
        """See KernelProvisionerBase.launch_kernel."""
        info: Any = self.connection_info
        if not forkserver.AVAILABLE:
            return await super().launch_kernel(cmd, **kwargs)
        mark = uuid.uuid4().hex
        connection = {name: _text(value) for name, value in info.items()}
        birth = {
            "connection_file": self.parent.connection_file,
            "environment": {**kwargs.get("env", os.environ), MARK: mark},
            "folder": str(kwargs.get("cwd") or Path.cwd()),
            "name": process_name(mark),
            "flush_interval": FLUSH_INTERVAL,
            # Several clients may be connected, and one that has stopped must not stop the kernel.
            "drop_nothing": False,
        }
        try:
            self.process = await asyncio.wrap_future(portal.submit(self._fork(cmd[0], birth, connection, mark)))
        except KernelStartError as error:
            self.log.warning("No kernel could be forked (%s): starting it as a program.", error)
            return await super().launch_kernel(cmd, **kwargs)
        self.pid = self.pgid = self.process.pid
        self.cwd = birth["folder"]
        return info

    async def _fork(self, python: str, birth: dict[str, Any], connection: dict[str, Any], mark: str) -> ForkedProcess:
        """On the portal's loop: a Jupyter program may use several loops, one after the other."""
        key = (python, *self.preload)
        server = _servers.get(key)
        if server is None:
            preload = "auto" if self.preload == ["auto"] else list(self.preload)
            server = _servers[key] = ForkServer(preload=preload, python=python)
            portal.close_at_exit(server)
        told = connection_in_memory(connection)
        nothing = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
        lifeline, held = os.pipe()
        try:
            return ForkedProcess(await server.fork(birth, [told, nothing, lifeline]), mark, held)
        except BaseException:
            os.close(held)
            raise
        finally:
            os.close(lifeline)
            os.close(told)
            os.close(nothing)
            server.load_soon()


class ForkedProcess:
    """What LocalProvisioner wants of a `subprocess.Popen`."""

    stdin = stdout = stderr = None

    def __init__(self, child: Child, mark: str, held: int) -> None:
        """On the loop of the child's forkserver. `held` is our end of its lifeline."""
        self._held = held
        self.pid = child.pid
        self._child = child
        self._mark = mark
        self._exited: concurrent.futures.Future[int] = concurrent.futures.Future()
        child.exited.add_done_callback(self._ended)

    def _ended(self, exited: asyncio.Future[int | None]) -> None:
        os.close(self._held)
        code = exited.result()
        self._exited.set_result(-signal.SIGKILL if code is None else code)

    def poll(self) -> int | None:
        return self._exited.result() if self._exited.done() else None

    def wait(self, timeout: float | None = None) -> int:
        """Raises TimeoutError. What the kernel has left behind ends with it."""
        code = self._exited.result(timeout)
        self._child.parent.end_family(self.pid, self._mark)
        return code

    def send_signal(self, signum: int) -> None:
        if not self._exited.done():
            with contextlib.suppress(ProcessLookupError):  # ended, and not told yet
                os.kill(self.pid, signum)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def _text(value: Any) -> Any:
    return value.decode("ascii") if isinstance(value, bytes) else value
