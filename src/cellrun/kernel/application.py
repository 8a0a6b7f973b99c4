"""Making a kernel: what can be done before there is a process for it, and what must be done in that process."""

from __future__ import annotations

import atexit
import contextlib
import gc
import json
import logging
import os
import sys
import threading
import uuid
from _io import _IOBase
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final

import zmq
from ipykernel.displayhook import ZMQDisplayHook
from ipykernel.kernelapp import IPKernelApp

from cellrun.kernel.history import MemoryHistory
from cellrun.kernel.interrupts import InterruptGuard
from cellrun.kernel.iopub import IOPub
from cellrun.kernel.kernel import LeanKernel
from cellrun.kernel.relay import Relay
from cellrun.kernel.service import Service
from cellrun.kernel.streams import CapturedDescriptor, LeanStream
from cellrun.kernel.wire import LeanSession

_PAUSE: Final = 0.02  # seconds
_LINGER: Final = 1000  # milliseconds that unsent messages have when the kernel ends, as in ipykernel
CHANNELS: Final = ("shell", "iopub", "stdin", "control", "hb")


class LeanApplication(IPKernelApp):
    """`prepare()` once, where nothing is opened and no thread is started; then `attach()` and `serve()`, in the process
    that is to be the kernel."""

    kernel: LeanKernel
    shell: Any
    context: Any

    def prepare(self) -> None:
        """Reads IPython's configuration, makes shell and kernel."""
        self.config.HistoryManager.enabled = False
        super(IPKernelApp, self).initialize([])  # the profile and its configuration files
        # traitlets lets every record be made, and has the handler throw it away.
        self.log.setLevel(self.log_level)
        self.init_pdb()
        self.guard = InterruptGuard()
        self.iopub = IOPub(self.guard)
        self.session = LeanSession(parent=self, config=self.config, key=b"not yet known", username=_user())
        self.session.rekey(b"not yet known")
        with _without_debugger():
            self.kernel = LeanKernel.instance(
                parent=self,
                session=self.session,
                iopub_socket=self.iopub,
                iopub_thread=self.iopub,
                log=self.log,
                profile_dir=self.profile_dir,
                user_ns=self.user_ns,
            )
        self.kernel.guard = self.guard
        shell = self.shell = self.kernel.shell
        history = MemoryHistory(shell=shell, parent=shell)
        shell.configurables[shell.configurables.index(shell.history_manager)] = history
        shell.history_manager = history
        shell.init_user_ns()  # In, Out and the like are its lists
        shell.configurables.append(self)
        self.init_gui_pylab()
        self.init_extensions()

    def attach(
        self,
        connection: Mapping[str, Any],
        *,
        descriptors: Mapping[str, int] | None = None,
        connection_file: str = "",
        flush_interval: float = 0.2,
        drop_nothing: bool = False,
    ) -> None:
        """Opens the sockets and captures the output.

        connection      the content of a connection file
        descriptors     sockets that listen at its addresses already, by channel; else they are bound here
        drop_nothing    whether a reader that lags makes the kernel wait (XPUB_NODROP) instead of losing output
        """
        self.connection_file = connection_file
        self._take_connection(connection)
        self.session.rekey(connection["key"].encode())
        self.kernel.ident = str(uuid.uuid4())
        self.shell.displayhook.topic = self.kernel._topic("execute_result")
        self.context = zmq.Context()
        sockets = {name: self._open(name, connection, descriptors, drop_nothing) for name in CHANNELS}
        self.service = service = Service()
        self.iopub.open(sockets["iopub"])
        self.iopub.io_loop = service.io_loop
        self.iopub.welcome = self._welcome
        self.kernel.open(sockets, service, self.iopub)
        self.kernel.record_ports({f"{name}_port": connection[f"{name}_port"] for name in CHANNELS})
        service.echo(sockets["hb"])
        service.watch(sockets["iopub"], self.iopub.read_subscriptions)
        self._capture_output(flush_interval)
        self._sockets = sockets
        os.register_at_fork(before=self._before_fork, after_in_child=self._in_forked_child)
        self.init_path()
        self._run_startup_code()
        self.kernel.flush_streams()

    def settle(self) -> None:
        """The last that can be done ahead. What `%reset` takes for modules of the user's begins here."""
        self.shell._sys_modules_keys = set(sys.modules)

    def _run_startup_code(self) -> None:
        """As `init_code` of InteractiveShellApp, in each kernel for itself: it is the operator's code. What that
        does for a command line is left out, and `settle` does what would copy the memory that is shared with a parent."""
        self._run_startup_files()
        self._run_exec_lines()
        self._run_exec_files()
        if self.hide_initial_ns:
            self.shell.user_ns_hidden.update(self.shell.user_ns)

    def _take_connection(self, connection: Mapping[str, Any]) -> None:
        self.transport = connection.get("transport", "tcp")
        self.ip = connection["ip"]
        for name in CHANNELS:
            setattr(self, f"{name}_port", connection[f"{name}_port"])

    def _open(
        self, name: str, connection: Mapping[str, Any], descriptors: Mapping[str, int] | None, drop_nothing: bool
    ) -> zmq.Socket[bytes]:
        socket: zmq.Socket[bytes] = self.context.socket(zmq.XPUB if name == "iopub" else zmq.ROUTER)
        socket.linger = _LINGER
        if name == "iopub":
            # Each new subscriber is told, also of a topic that others have (zmq_setsockopt(3)).
            socket.setsockopt(zmq.XPUB_VERBOSE, 1)
            socket.setsockopt(zmq.XPUB_NODROP, int(drop_nothing))
        else:
            socket.setsockopt(zmq.ROUTER_HANDOVER, 1)  # a client that comes again takes its old place
        if "curve_secretkey" in connection:
            socket.curve_secretkey = connection["curve_secretkey"].encode()
            socket.curve_publickey = connection["curve_publickey"].encode()
            socket.curve_server = True
        if descriptors is not None:
            socket.setsockopt(zmq.USE_FD, descriptors[name])
        port = connection[f"{name}_port"]
        socket.bind(f"ipc://{self.ip}-{port}" if self.transport == "ipc" else f"tcp://{self.ip}:{port}")
        return socket

    def _welcome(self, topic: bytes) -> list[bytes]:
        message = self.session.msg("iopub_welcome", {"subscription": topic.decode("utf-8", "replace")})
        frames: list[bytes] = self.session.serialize(message)
        return frames

    def _capture_output(self, flush_interval: float) -> None:
        # What the kernel itself logs goes where the process's stderr went, not into a cell's output.
        original = open(os.dup(2), "w", encoding="utf-8", errors="backslashreplace", buffering=1)  # noqa: SIM115
        for handler in self.log.handlers:
            if isinstance(handler, logging.StreamHandler):
                handler.setStream(original)
        self._streams: list[LeanStream] = []
        for name, descriptor in (("stdout", 1), ("stderr", 2)):
            stream = LeanStream(
                name,
                session=self.session,
                iopub=self.iopub,
                guard=self.guard,
                later=self.service.later,
                interval=flush_interval,
            )
            captured = CapturedDescriptor(descriptor, stream)
            captured.pause = partial(self.service.pause, captured, captured.read, _PAUSE)
            self.service.watch(captured, captured.read)
            self.kernel.captured.append(captured)
            setattr(sys, name, stream)
            setattr(self.kernel, f"_{name}", stream)
            self._streams.append(stream)
        self.patch_io()
        self.displayhook = ZMQDisplayHook(self.session, self.iopub)
        self.displayhook.get_execution_count = lambda: self.kernel.execution_count
        sys.displayhook = self.displayhook

    def _before_fork(self) -> None:
        """A child may have messages to send: see Relay. Made when the first child is."""
        if self.iopub.relay is None and os.getpid() == self.iopub.pid:
            relay = self.iopub.relay = Relay(self.iopub.send_multipart)
            self.kernel.captured.append(relay)
            self.service.loop.call_soon_threadsafe(self.service.watch, relay, relay.drain)

    def _in_forked_child(self) -> None:
        self.guard.after_fork()
        self.iopub.lock = threading.RLock()
        for stream in self._streams:
            stream._after_fork()

    def serve(self) -> None:
        """Until a shutdown is asked for."""
        self.kernel.serve()

    def finish(self) -> None:
        """What the interpreter does at its end, while what is said then can still be sent: threads are waited for, exit
        handlers run, objects of the user's end, files are written out."""
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
        self.shell.user_ns.clear()
        gc.collect()
        for thing in gc.get_objects():
            # The base of io.IOBase, which is an abstract class: to ask that of thousands of objects takes milliseconds.
            if issubclass(type(thing), _IOBase) and thing not in self._streams:
                with contextlib.suppress(Exception):
                    thing.flush()
        self.close()

    def close(self) -> None:
        """Says goodbye and waits, for up to a second, until all has been sent."""
        self.kernel.say_goodbye()
        self.service.loop.call_soon_threadsafe(self.service.loop.stop)
        self.service.join(1.0)
        for socket in self._sockets.values():
            socket.close()
        self.context.term()


@contextlib.contextmanager
def _without_debugger() -> Iterator[None]:
    """ipykernel takes its debugger where debugpy can be imported, which takes 0.1 s and 10 MB. Cells can import it all the same."""
    absent = [name for name in ("debugpy", "debugpy.server") if name not in sys.modules]
    for name in absent:
        sys.modules[name] = None  # type: ignore[assignment]  # import then says that there is none
    try:
        yield
    finally:
        for name in absent:
            del sys.modules[name]


def read_connection(path: str) -> dict[str, Any]:
    """The content of a connection file (Connection files, jupyter_client)."""
    connection: dict[str, Any] = json.loads(Path(path).read_text("utf-8"))
    return connection


def _user() -> str:
    return os.environ.get("USER") or "username"
