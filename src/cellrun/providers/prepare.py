"""What a fresh kernel is told before the first cell: silently, so that nothing of it shows and no line
number of a later traceback is shifted."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping

from cellrun.channels.client import KernelClient
from cellrun.errors import KernelStartError, Unsupported
from cellrun.events import ErrorOutput, Event, Finished
from cellrun.limits import FLUSH_INTERVAL, MIB
from cellrun.protocol.execution import Execution

# Runs as one expression statement in a namespace of its own: no name of it is left behind.
#
# - XPUB_NODROP (zmq): the kernel waits for us where it would drop output once a thousand messages are under way.
# - `drain`: what subprocesses and C code write goes through a pipe that a thread of the kernel reads. Without a
#   wait at the end of a cell that output comes after the cell's end, and whoever asked for the result misses it.
#   The thread is done when the pipe is empty and it waits in read() on it (proc(5), "syscall").
_PYTHON = """\
import os, sys
for stream in (sys.stdout, sys.stderr):
    if hasattr(stream, "flush_interval"):
        stream.flush_interval = {interval!r}
try:
    import zmq
    out = sys.stdout.pub_thread
    out.schedule(lambda: out.socket.setsockopt(zmq.XPUB_NODROP, 1))
except Exception:
    pass
try:
    import fcntl, struct, termios, time
    pipes = [(s._fid, "/proc/self/task/%d/syscall" % s.watch_fd_thread.native_id) for s in (sys.stdout, sys.stderr)]
    def waits(fid, path):
        if struct.unpack("i", fcntl.ioctl(fid, termios.FIONREAD, b"0000"))[0]:
            return False
        with open(path) as file:
            return file.read().split()[1:2] == [hex(fid)]
    def drain():
        for pipe in pipes:
            end = time.monotonic() + 1.0
            try:
                while not waits(*pipe) and time.monotonic() < end:
                    time.sleep(0.0005)
            except Exception:
                return
    get_ipython().events.register("post_execute", drain)
except Exception:
    pass
os.environ.update({environment})
folder = {folder!r}
if folder:
    os.chdir(folder)
"""

# The kernel keeps its last messages, up to a bound, and sends them again when asked: see protocol/resume.py.
# IOPub belongs to a thread of its own, so log and resending happen there.
_LOG = """\
import collections, os, re, sys
kernel = get_ipython().kernel
session, thread = kernel.session, sys.stdout.pub_thread
log, replies = collections.deque(), collections.deque(maxlen=8)
size, forgotten, latest, own = 0, 0, 0, os.getpid()
find = re.compile(b'"msg_id": ?"[^"]*_([0-9]+)_([0-9]+)"').search
really_send, session_send = thread._really_send, session.send
def record(frames, *args, **kwargs):
    global size, forgotten, latest
    header = frames[frames.index(b"<IDS|MSG>") + 2]
    length = sum(map(len, frames))
    pid, number = map(int, find(header).groups())
    if pid == own:
        latest = number
    else:  # of a forked child, which counts for itself
        number = latest + 1
    log.append((number, length, frames))
    size += length
    while len(log) > 1 and (size > {bytes} or len(log) > {messages}):
        forgotten, length, _ = log.popleft()
        size -= length
    return really_send(frames, *args, **kwargs)
def send(stream, message, *args, **kwargs):
    sent = session_send(stream, message, *args, **kwargs)
    if sent and sent["msg_type"] == "execute_reply":
        replies.append({{k: sent[k] for k in ("header", "parent_header", "metadata", "content")}})
    return sent
def resend(after, token):
    for number, _, frames in list(log):
        if number > after:
            thread.socket.send_multipart(frames)
    content = {{"after": after, "token": token, "complete": forgotten <= after, "replies": list(replies)}}
    session_send(thread.socket, "cellrun_log", content)
def on_resend(stream, ident, parent):
    thread.schedule(lambda: resend(**parent["content"]))
thread._really_send, session.send = record, send
kernel.control_handlers["cellrun_resend"] = on_resend
session_send(kernel.iopub_socket, "cellrun_log", {{}})
"""
_LOG_BYTES = 16 * MIB
_LOG_MESSAGES = 10_000


async def prepare(
    client: KernelClient,
    *,
    timeout: float,
    env: Mapping[str, str] | None = None,
    folder: str | None = None,
    keep_log: bool = False,
    terminals: bool = True,
) -> None:
    """A short flush interval, `env`, the working folder and, on wish, a log to resume from, for Python
    kernels; without `terminals`, programs are started without one. For other languages raises Unsupported if `env` or `folder` are wanted; KernelStartError if
    the kernel refuses."""
    if client.language != "python":
        if env or folder:
            raise Unsupported(
                f"the environment and folder of a {client.language or 'foreign'} kernel cannot be set here"
            )
        return
    code = _PYTHON.format(interval=FLUSH_INTERVAL, environment=repr(dict(env or {})), folder=folder)
    if not terminals:
        code += "get_ipython().system = get_ipython().system_raw\n"
    if keep_log:
        log = _LOG.format(bytes=_LOG_BYTES, messages=_LOG_MESSAGES)
        code += f"try:\n    exec({log!r}, {{'get_ipython': get_ipython}})\nexcept Exception:\n    pass\n"
    code = f"exec({code!r}, {{'get_ipython': get_ipython}})"
    await run_silently(client, code, timeout=timeout, wait=bool(env or folder))


async def run_silently(client: KernelClient, code: str, *, timeout: float, wait: bool) -> None:
    """Runs code that shows nothing and counts nothing. Raises KernelStartError if it fails; where we do not
    `wait` for it, it is only sent: the kernel runs it before whatever is sent next, and its failure costs
    comfort alone."""
    done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    errors: list[str] = []

    def sink(events: list[Event]) -> None:
        for event in events:
            if isinstance(event, ErrorOutput):
                errors.append(f"{event.name}: {event.value}")
            elif isinstance(event, Finished) and not done.done():
                if event.status != "ok":
                    errors.append(event.reason or event.status)
                done.set_result(None)

    execution = Execution(client.new_id())
    await client.execute(execution, code, sink, silent=True, store_history=False, allow_stdin=False)
    if not wait:
        return
    started = time.monotonic()
    try:
        await asyncio.wait_for(done, timeout)
    except TimeoutError:
        client.abandon(execution, "preparation took too long")
        raise KernelStartError(f"the kernel was not prepared within {time.monotonic() - started:.0f} s") from None
    if errors:
        raise KernelStartError(f"the kernel could not be prepared: {errors[0]}")
