"""The kernel: ipykernel's IPythonKernel with a loop of its own."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import os
import signal
import sys
import threading
import zlib
from collections import deque
from collections.abc import Callable, Coroutine, Mapping
from contextvars import copy_context
from types import TracebackType
from typing import Any, Final

import zmq
from ipykernel.compiler import XCachingCompiler, get_tmp_directory
from ipykernel.ipkernel import IPythonKernel
from ipykernel.kernelbase import Kernel
from IPython.core.interactiveshell import ExecutionInfo, ExecutionResult
from traitlets import Any as AnyTrait

from cellrun.kernel.asked import Asked
from cellrun.kernel.interrupts import InterruptGuard
from cellrun.kernel.iopub import IOPub
from cellrun.kernel.relay import Relay
from cellrun.kernel.service import IOLoopFacade, Service, new_loop
from cellrun.kernel.streams import CapturedDescriptor
from cellrun.kernel.wire import receive

_COMMS: Final = frozenset({"comm_open", "comm_msg", "comm_close"})
# Requests that run code of the user's objects, and so can be interrupted.
_OF_THE_USERS: Final = frozenset({"complete_request", "inspect_request", *_COMMS})
_READ_AHEAD: Final = 1000  # requests; more of them wait in the sockets, and then at their senders

Request = tuple[list[bytes], dict[str, Any]]


class Compiler(XCachingCompiler):
    """ipykernel's, with a cheaper number in the name of a cell's file (its hash in Python takes 0.25 ms per KiB)."""

    def get_code_name(self, raw_code: str, code: str, number: int) -> str:
        name = os.environ.get("IPYKERNEL_CELL_NAME")
        return name or f"{get_tmp_directory()}{os.sep}{zlib.crc32(raw_code.encode('utf-8', 'surrogatepass'))}.py"


class MainThread:
    """Stands where ipykernel asks its shell-channel thread which thread runs cells."""

    parent_thread = threading.main_thread()


class LeanKernel(IPythonKernel):
    """One request after the other on the main thread, each in the same asyncio task; the rest in the `Service` thread.

    While a cell awaits, comm messages are let through, as in ipykernel. Not offered: debugger, subshells, %gui loops.
    """

    shell: Any
    session: Any
    io_loop: Any
    control_stream = AnyTrait()
    shell_stream = AnyTrait()
    compiler_class = Compiler
    _execute_sleep = 0.0

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.shell_channel_thread = MainThread()
        self.captured: list[CapturedDescriptor | Relay] = []
        self._requests: deque[Request] = deque()
        self._to_abort = 0
        self._evaluated: dict[str, Any] = {}
        self._handling = False
        self._wakeup: asyncio.Future[None] | None = None
        self._concurrent: set[asyncio.Task[None]] = set()
        self._control_busy = asyncio.Lock()
        self.asked = Asked()

    guard: InterruptGuard
    on_first_request: Callable[[], None] | None = None

    @property
    def _supports_kernel_subshells(self) -> bool:
        return False

    @property
    def kernel_info(self) -> dict[str, Any]:
        return {**super().kernel_info, "supported_features": []}

    # -- life ------------------------------------------------------------------------------------

    def open(self, sockets: Mapping[str, zmq.Socket[bytes]], service: Service, iopub: IOPub) -> None:
        """Takes its sockets: shell, control, stdin (the others belong to `iopub` and `service`)."""
        self.shell_socket = sockets["shell"]
        self.control_socket = sockets["control"]
        self.stdin_socket = sockets["stdin"]
        self.shell_stream = self.shell_socket
        self.control_stream = self.control_socket
        self.iopub_thread = self.iopub_socket = iopub
        self.control_thread = service
        shell = self.shell
        shell.displayhook.pub_socket = shell.display_pub.pub_socket = iopub
        service.watch(self.control_socket, self._read_control)

    def serve(self) -> None:
        """Handles requests until a shutdown is asked for. Runs on the main thread."""
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        loop = new_loop()
        asyncio.set_event_loop(loop)
        self.io_loop = IOLoopFacade(loop)
        self.shell.exit_now = False
        self.session.hold(self.iopub_socket)
        self._publish_status("starting", "shell")
        self.iopub_socket.read_subscriptions()  # of those who wait already: they are welcomed first, at the last moment
        self.session.release(self.iopub_socket)
        loop.add_reader(self.shell_socket.fileno(), self._on_shell)
        consumer = loop.create_task(self._consume())
        self.control_thread.start()
        loop.run_forever()
        loop.remove_reader(self.shell_socket.fileno())
        consumer.cancel()
        loop.run_until_complete(self._at_end())

    async def _at_end(self) -> None:
        # Asking psutil for children reads all of /proc; the system knows at once whether there are any (proc(5)).
        with contextlib.suppress(OSError):
            if not any(_text(f"/proc/self/task/{task}/children").strip() for task in os.listdir("/proc/self/task")):
                return
        await self._progressively_terminate_all_children()

    def say_goodbye(self) -> None:
        """The last message, after exit handlers have run."""
        self.flush_streams()
        if self._shutdown_message is not None:
            self.session.send(self.iopub_socket, self._shutdown_message, ident=self._topic("shutdown"))

    # -- the shell channel -----------------------------------------------------------------------

    def _on_shell(self) -> None:
        self._read_requests()
        if self._requests and self._wakeup is not None and not self._wakeup.done():
            self._wakeup.set_result(None)

    def _read_requests(self) -> None:
        """Takes what has arrived. Its descriptor tells of new messages by edges that a send may swallow: so
        this is called after each request as well (ZMQ_FD)."""
        while len(self._requests) < _READ_AHEAD:
            try:
                request = receive(self.session, self.shell_socket)
            except ValueError as error:
                self.log.error("Invalid message: %s", error)
                continue
            if request is None:
                return
            if self._handling and request[1]["msg_type"] in _COMMS:
                # The cell that is awaiting may be waiting for this one. In a context of its own: the parent
                # that it sets is not the cell's.
                task = asyncio.get_running_loop().create_task(self._handle_beside(*request), context=copy_context())
                self._concurrent.add(task)
                task.add_done_callback(self._concurrent.discard)
            else:
                self._requests.append(request)

    async def _consume(self) -> None:
        while True:
            self._read_requests()
            if self._requests:
                if self._to_abort:
                    self._to_abort -= 1
                    abort = True
                else:
                    abort = False
                self._handling = True
                if self.on_first_request is not None:
                    self.on_first_request()
                    self.on_first_request = None
                try:
                    await self._handle(*self._requests.popleft(), abort=abort)
                except Exception:  # a hook of the user's, mostly; the next request must find somebody
                    self.log.error("Exception in a request:", exc_info=True)
                finally:
                    self._handling = False
                if self.shell.exit_now:
                    self.io_loop.stop()
                await asyncio.sleep(0)  # tasks that cells have started get their turn
            else:
                self._wakeup = asyncio.get_running_loop().create_future()
                await self._wakeup

    async def _handle(self, ident: list[bytes], request: dict[str, Any], *, abort: bool) -> None:
        """One request, between its statuses busy and idle."""
        self.set_parent(ident, request, channel="shell")
        kind = request["msg_type"]
        if kind == "execute_request":
            await self._handle_execute(ident, request, abort=abort)
            return
        self._publish_status("busy", "shell")
        handler = self.shell_handlers.get(kind)
        if handler is None:
            self.log.warning("Unknown message type: %r", kind)
        else:
            try:
                if kind in _OF_THE_USERS:
                    signal.signal(signal.SIGINT, signal.default_int_handler)
                await self._call(handler, ident, request)
                signal.signal(signal.SIGINT, signal.SIG_IGN)
            except KeyboardInterrupt:  # just before or just after it
                signal.signal(signal.SIGINT, signal.SIG_IGN)
        self.flush_streams()
        self._publish_status("idle", "shell")
        self.iopub_socket.read_subscriptions()

    async def _handle_execute(self, ident: list[bytes], request: dict[str, Any], *, abort: bool) -> None:
        """What comes before the cell is sent at once, and so is what comes after it: see `do_execute`."""
        iopub = self.iopub_socket
        # Whoever is told that the cell has begun may interrupt it, though it has not quite.
        self.guard.hold_back()
        self.session.hold(iopub)
        try:
            self._publish_status("busy", "shell")
            if abort or self._aborting:
                self._send_abort_reply(self.shell_socket, request, ident)
            else:
                await self._execute_or_say_why(ident, request)
            self._publish_status("idle", "shell")
        finally:
            self.session.release(iopub)
            signal.signal(signal.SIGINT, signal.SIG_IGN)
        iopub.read_subscriptions()

    async def _execute_or_say_why(self, ident: list[bytes], request: dict[str, Any]) -> None:
        """Whatever goes wrong, there is a reply: whoever asked waits for it."""
        try:
            await self.execute_request(self.shell_socket, ident, request)
        except (Exception, KeyboardInterrupt) as error:  # ours, or of a hook of the user's
            self.log.error("Exception in execute_request:", exc_info=True)
            content = {"status": "error", "ename": type(error).__name__, "evalue": str(error), "traceback": []}
            content["execution_count"] = self.execution_count
            self.session.send(self.shell_socket, "execute_reply", content, request, ident=ident)

    async def _handle_beside(self, ident: list[bytes], request: dict[str, Any]) -> None:
        """A comm message while a cell awaits."""
        running: Any = self._get_shell_context_var(self._shell_parent_ident), self.get_parent("shell")
        self.set_parent(ident, request, channel="shell")
        try:
            await self._call(self.shell_handlers[request["msg_type"]], ident, request)
            self.flush_streams()
        finally:
            self.set_parent(running[0], running[1], channel="shell")

    async def _call(self, handler: Any, ident: list[bytes], request: dict[str, Any]) -> None:
        try:
            result = handler(self.shell_socket, ident, request)
            if inspect.isawaitable(result):
                await result
        except Exception:  # a request that breaks us must not end the kernel
            self.log.error("Exception in message handler:", exc_info=True)
        except KeyboardInterrupt:
            self.log.error("KeyboardInterrupt caught in kernel.")

    def _abort_queues(self, subshell_id: str | None = None) -> None:
        """After an error: the execute requests that have arrived by now are answered as aborted."""
        self._read_requests()
        self._to_abort = len(self._requests)
        if self.stop_on_error_timeout:
            self._aborting = True
            self.io_loop.call_later(self.stop_on_error_timeout, self._stop_aborting)

    def _stop_aborting(self) -> None:
        self._aborting = False

    def flush_streams(self) -> None:
        """The ones of the moment, which may be the user's, and ours, to which theirs may write."""
        for stream in dict.fromkeys((sys.stdout, sys.stderr, self._stdout, self._stderr)):
            if stream is not None:
                with contextlib.suppress(Exception):  # closed, or no stream at all
                    stream.flush()

    # -- execution -------------------------------------------------------------------------------

    async def do_execute(
        self,
        code: str,
        silent: bool,
        store_history: bool = True,
        user_expressions: Mapping[str, str] | None = None,
        allow_stdin: bool = False,
        *,
        cell_meta: Mapping[str, Any] | None = None,
        cell_id: str | None = None,
    ) -> dict[str, Any]:
        """Runs a cell and gives the content of its execute_reply (Execution results, Jupyter messaging)."""
        self.session.release(self.iopub_socket)
        wanted = cell_meta.get("cellrun") if cell_meta else None
        try:
            if not isinstance(wanted, Mapping):
                return await self._execute(
                    code, silent, store_history, user_expressions, allow_stdin, cell_meta, cell_id
                )
            try:
                self.asked.begin(wanted)
            except OSError as error:
                info = ExecutionInfo(code, store_history, silent, True, cell_id)
                return self._reply(self._show(info, error.with_traceback(None)))
            with self.asked.granted(wanted, self.shell):
                return await self._execute(
                    code, silent, store_history, user_expressions, allow_stdin, cell_meta, cell_id
                )
        finally:
            self.flush_streams()
            if self.iopub_socket.pid not in (0, os.getpid()):
                os._exit(0)  # a forked child that has come out of its cell: the cell's end is its parent's to tell
            self.session.hold(self.iopub_socket)

    async def _execute(
        self,
        code: str,
        silent: bool,
        store_history: bool,
        user_expressions: Mapping[str, str] | None,
        allow_stdin: bool,
        cell_meta: Mapping[str, Any] | None,
        cell_id: str | None,
    ) -> dict[str, Any]:
        """A cell without `await` runs here; one that awaits, by ipykernel's code."""
        shell = self.shell
        failed = None
        transformed = code
        if not _may_await(code) and not getattr(shell, "trio_runner", None):
            try:
                transformed = shell.transform_cell(code)
            except Exception:  # a syntax error found early, to be shown by run_cell_async
                failed = sys.exc_info()
        if _may_await(transformed) or getattr(shell, "trio_runner", None):
            return await self._execute_awaiting(
                code, silent, store_history, user_expressions, allow_stdin, cell_meta, cell_id
            )
        shell._last_traceback = None
        shell._last_traceback_during_displayhook = False
        self._forward_input(allow_stdin)
        try:
            result = self._run_interruptibly(
                ExecutionInfo(code, store_history, silent, True, cell_id),
                lambda: shell.run_cell_async(
                    code,
                    store_history=store_history,
                    silent=silent,
                    transformed_cell=transformed,
                    preprocessing_exc_tuple=failed,
                    cell_id=cell_id,
                ),
                user_expressions,
            )
        finally:
            self._restore_input()
            self._drain_captured()
        return self._reply(result)

    async def _execute_awaiting(
        self,
        code: str,
        silent: bool,
        store_history: bool,
        user_expressions: Mapping[str, str] | None,
        allow_stdin: bool,
        cell_meta: Mapping[str, Any] | None,
        cell_id: str | None,
    ) -> dict[str, Any]:
        reply: dict[str, Any]
        try:
            self._let_interrupts_in()
            reply = await super().do_execute(
                code, silent, store_history, user_expressions, allow_stdin, cell_meta=cell_meta, cell_id=cell_id
            )
        except KeyboardInterrupt as error:  # before the cell had begun, or after it had ended
            reply = self._reply(self._show(ExecutionInfo(code, store_history, silent, True, cell_id), error))
        finally:
            self.guard.hold_back()
            self._drain_captured()
        return reply

    def _let_interrupts_in(self) -> None:
        """Raises KeyboardInterrupt for one that came before."""
        signal.signal(signal.SIGINT, signal.default_int_handler)
        if self.guard.struck():
            raise KeyboardInterrupt

    def _run_interruptibly(
        self, info: ExecutionInfo, start: Any, user_expressions: Mapping[str, str] | None
    ) -> ExecutionResult:
        """Runs the cell with interrupts on, its hooks and expressions after it included; whatever they strike, there is a result."""
        shell = self.shell
        result: ExecutionResult | None = None
        self._evaluated = {}
        try:
            try:
                try:
                    self._let_interrupts_in()
                    # What the last expression shows is followed by the reply at once: they travel together.
                    self.session.defer_results = shell.ast_node_interactivity != "all"
                    result = _run_to_end(start())
                except BaseException as error:
                    result = self._show(info, error)
                finally:
                    self.session.defer_results = False
                    shell.events.trigger("post_execute")
                    if not info.silent:
                        shell.events.trigger("post_run_cell", result)
                if user_expressions and result.success:
                    self._evaluated = shell.user_expressions(user_expressions)
            finally:
                self.guard.hold_back()
        except KeyboardInterrupt as error:  # in a hook, or between the cell and here
            self.guard.hold_back()
            if result is None or result.success:
                result = self._show(info, error)
        return result

    def _show(self, info: ExecutionInfo, error: BaseException) -> ExecutionResult:
        """The result of a cell that `error` ended outside of the user's code, as InteractiveShell makes it."""
        result = ExecutionResult(info)
        result.error_in_exec = error
        error.__traceback__ = _below_here(error.__traceback__)
        with contextlib.suppress(BaseException):  # the error may be one that cannot be shown
            self.shell.showtraceback(running_compiled_code=True)
        return result

    def _reply(self, result: ExecutionResult) -> dict[str, Any]:
        shell = self.shell
        error = result.error_before_exec if result.error_before_exec is not None else result.error_in_exec
        reply: dict[str, Any]
        if result.success and not getattr(shell, "_last_traceback_during_displayhook", False):
            reply = {"status": "ok", "execution_count": shell.execution_count - 1}
            reply["user_expressions"] = self._evaluated
        else:
            reply = {
                "status": "error",
                "traceback": shell._last_traceback or [],
                "ename": type(error).__name__,
                "evalue": str(error),
                "execution_count": shell.execution_count - 1,
                "user_expressions": {},
                "engine_info": {"engine_uuid": self.ident, "engine_id": self.int_id, "method": "execute"},
            }
        reply["payload"] = shell.payload_manager.read_payload()
        shell.payload_manager.clear_payload()
        return reply

    def _drain_captured(self) -> None:
        for captured in self.captured:
            captured.drain()

    # -- the control channel, in the service thread ----------------------------------------------

    def _read_control(self) -> None:
        while True:
            try:
                request = receive(self.session, self.control_socket)
            except ValueError as error:
                self.log.error("Invalid control message: %s", error)
                continue
            if request is None:
                return
            if request[1]["msg_type"] == "interrupt_request":
                # Before anything is sent: the cell may hold IOPub, waiting for a reader that waits for this interrupt.
                self._send_interrupt_children()
            self.control_thread.spawn(self._control(*request))

    async def _control(self, ident: list[bytes], request: dict[str, Any]) -> None:
        async with self._control_busy:
            self.set_parent(ident, request, channel="control")
            self._publish_status("busy", "control")
            handler = self.control_handlers.get(request["msg_type"])
            if handler is None:
                self.log.error("UNKNOWN CONTROL MESSAGE TYPE: %r", request["msg_type"])
            else:
                try:
                    result = handler(self.control_socket, ident, request)
                    if inspect.isawaitable(result):
                        await result
                except Exception:  # a request that breaks us must not end the thread
                    self.log.error("Exception in control handler:", exc_info=True)
            self._publish_status("idle", "control")
        self._read_control()  # what arrived meanwhile: sending may have swallowed its edge

    async def interrupt_request(self, stream: Any, ident: list[bytes], parent: dict[str, Any]) -> None:
        """The reply; the interrupt itself was sent before (on control), or is pointless (on shell, where it is read
        after the cell has ended)."""
        self.session.send(stream, "interrupt_reply", {"status": "ok"}, parent, ident=ident)

    async def shutdown_request(self, stream: Any, ident: list[bytes], parent: dict[str, Any]) -> None:
        """Replies, and ends the main loop when the cell that runs has ended."""
        content = {"status": "ok", "restart": bool(parent["content"].get("restart"))}
        self.session.send(stream, "shutdown_reply", content, parent, ident=ident)
        self._shutdown_message = self.session.msg("shutdown_reply", content, parent)
        self.io_loop.stop()

    def set_parent(self, ident: list[bytes], parent: dict[str, Any], channel: str = "shell") -> None:
        """As in ipykernel; on shell, everything that publishes learns the parent's header."""
        Kernel.set_parent(self, ident, parent, channel)
        if channel == "shell":
            self.shell.set_parent(parent)


def _below_here(trace: TracebackType | None) -> TracebackType | None:
    """Without frames of this file."""
    while trace is not None and trace.tb_frame.f_code.co_filename == __file__:
        trace = trace.tb_next
    return trace


def _may_await(code: str) -> bool:
    return "await" in code or "async" in code


def _run_to_end(coroutine: Coroutine[Any, Any, ExecutionResult]) -> ExecutionResult:
    """Runs a coroutine that never waits."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        result: ExecutionResult = done.value
        return result
    coroutine.close()
    raise RuntimeError("a cell without await has awaited something")


def _text(path: str) -> str:
    with open(path, encoding="ascii") as file:
        return file.read()
