"""The kernel's second thread: everything that must go on while a cell runs."""

from __future__ import annotations

import asyncio
import contextvars
import selectors
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import zmq
from ipykernel.thread import CONTROL_THREAD_NAME


class Service(threading.Thread):
    """Control requests, the heartbeat, new subscribers, captured descriptors, timed flushes; one event loop.

    Stands where ipykernel has its control thread. With nothing to do it waits for descriptors, and costs nothing.
    """

    pydev_do_not_trace = True

    def __init__(self) -> None:
        super().__init__(name=CONTROL_THREAD_NAME, daemon=True)
        self.loop = new_loop()
        self.io_loop = IOLoopFacade(self.loop)

    def run(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.run_forever()

    def watch(self, source: Any, read: Callable[[], Any]) -> None:
        """Calls `read` in this thread when there is something to read. `source` has a `fileno`. Before `start`."""
        # In an empty context: callbacks get that of whoever registers them, and with it what was the parent of
        # messages then. Without it the streams take the one of now.
        context = contextvars.Context()
        context.run(self.loop.add_reader, source.fileno(), read)
        self.loop.call_soon(read, context=context)

    def pause(self, source: Any, read: Callable[[], Any], seconds: float) -> None:
        """Looks away from a watched source for a while. From this thread."""
        self.loop.remove_reader(source.fileno())
        self.loop.call_later(seconds, self.watch, source, read)

    def later(self, delay: float, call: Callable[[], None]) -> None:
        """Calls it in this thread after `delay` seconds."""
        self.loop.call_soon_threadsafe(self.loop.call_later, delay, call)

    def echo(self, socket: zmq.Socket[bytes]) -> None:
        """The heartbeat: what comes goes back (Heartbeat for kernels, Jupyter messaging)."""

        def read() -> None:
            while True:
                try:
                    socket.send_multipart(socket.recv_multipart(zmq.NOBLOCK), zmq.NOBLOCK)
                except zmq.Again:
                    return

        self.watch(socket, read)

    def spawn(self, coroutine: Awaitable[Any]) -> None:
        """Runs it as a task in this thread. From this thread."""
        task = asyncio.ensure_future(coroutine, loop=self.loop)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    _tasks: set[asyncio.Future[Any]] = set()


def new_loop() -> asyncio.AbstractEventLoop:
    """An event loop that waits with poll(2): epoll costs a descriptor, and pays where there are many."""
    return asyncio.SelectorEventLoop(selectors.PollSelector())


class IOLoopFacade:
    """The few methods of a tornado IOLoop that ipykernel's handlers and libraries on top of them call."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.asyncio_loop = loop

    def add_callback(self, call: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        self.asyncio_loop.call_soon_threadsafe(lambda: self._call(call, *args, **kwargs))

    def call_later(self, delay: float, call: Callable[..., Any], *args: Any) -> None:
        self.asyncio_loop.call_soon_threadsafe(self.asyncio_loop.call_later, delay, lambda: self._call(call, *args))

    def stop(self) -> None:
        self.asyncio_loop.call_soon_threadsafe(self.asyncio_loop.stop)

    def _call(self, call: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        result = call(*args, **kwargs)
        if asyncio.iscoroutine(result):
            self.asyncio_loop.create_task(result)
