"""Parts of the kernel by themselves."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from IPython.core.interactiveshell import InteractiveShell
from traitlets.config import Config

from cellrun.kernel.history import MemoryHistory
from cellrun.kernel.interrupts import InterruptGuard
from cellrun.kernel.iopub import IOPub
from cellrun.kernel.relay import Relay
from cellrun.kernel.streams import LeanStream
from cellrun.kernel.wire import LeanSession
from tests.support.waiting import HANG

# -- InterruptGuard ------------------------------------------------------------------------------------


@pytest.fixture
def struck() -> Iterator[list[int]]:
    """The interrupts that have reached the handler."""
    found: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _: found.append(number))
    yield found
    signal.signal(signal.SIGINT, before)


def interrupt() -> None:
    """Delivered when this returns: a signal to oneself is (signal.raise_signal)."""
    signal.raise_signal(signal.SIGINT)


def test_an_interrupt_waits_for_the_end_of_a_guarded_block(struck: list[int]) -> None:
    handler = signal.getsignal(signal.SIGINT)
    guard = InterruptGuard()
    with guard:
        interrupt()
        with guard:
            interrupt()
        assert struck == []
    assert struck == [signal.SIGINT]  # several are one, as with signals that are blocked
    assert signal.getsignal(signal.SIGINT) is handler
    interrupt()
    assert len(struck) == 2


def test_a_guarded_interrupt_raises_after_the_block_what_its_handler_raises() -> None:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    steps = []
    try:
        with pytest.raises(KeyboardInterrupt):
            with InterruptGuard():
                interrupt()
                steps.append("to the end")
        assert steps == ["to the end"]
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_guard_leaves_ignored_interrupts_ignored() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with InterruptGuard():
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
            interrupt()
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_an_error_in_a_guarded_block_comes_out_and_the_handler_is_back(struck: list[int]) -> None:
    handler = signal.getsignal(signal.SIGINT)
    guard = InterruptGuard()
    with pytest.raises(ZeroDivisionError), guard:
        _ = 1 / 0
    assert signal.getsignal(signal.SIGINT) is handler
    with guard:
        interrupt()
    assert struck == [signal.SIGINT]


def test_other_threads_pass_through_a_guard(struck: list[int]) -> None:
    guard = InterruptGuard()
    inside, leave = threading.Event(), threading.Event()

    def other() -> None:
        with guard:
            inside.set()
            leave.wait(HANG)

    thread = threading.Thread(target=other)
    thread.start()
    assert inside.wait(HANG)
    interrupt()
    assert struck == [signal.SIGINT]
    leave.set()
    thread.join()


def test_interrupts_that_are_held_back_are_noted_once(struck: list[int]) -> None:
    guard = InterruptGuard()
    guard.hold_back()
    assert not guard.struck()
    interrupt()
    interrupt()
    assert struck == []
    assert guard.struck()
    assert not guard.struck()


def test_a_forked_child_has_a_guard_of_its_own(struck: list[int]) -> None:
    guard = InterruptGuard()
    with guard:
        interrupt()
        pid = os.fork()
        if pid == 0:
            guard.after_fork()
            os._exit(guard.struck() or guard._depth)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


# -- Relay ---------------------------------------------------------------------------------------------


@pytest.fixture
def relay() -> Iterator[Relay]:
    made = Relay(lambda frames: None)
    yield made
    made._reader.close()
    made._writer.close()


def received(relay: Relay, count: int) -> list[list[bytes]]:
    messages: list[list[bytes]] = []
    deadline = time.monotonic() + HANG
    while len(messages) < count:
        assert time.monotonic() < deadline, f"{len(messages)} of {count} messages"
        messages += relay.receive()
    return messages


@pytest.mark.parametrize(
    "frames",
    [[b"one"], [b"a", b"", b"c" * 10], [], [b""], [b"x" * 300_000, b"y"], [b"x" * (32 * 1024 - 8)], [bytes(32 * 1024)]],
    ids=["one", "several", "none", "empty", "large", "just a part", "a part and a bit"],
)
def test_a_message_comes_out_of_a_relay_as_it_went_in(relay: Relay, frames: list[bytes]) -> None:
    sender = threading.Thread(target=relay.send, args=(frames,))
    sender.start()
    assert received(relay, 1) == [frames]
    sender.join()
    assert relay.receive() == []


def test_messages_of_several_processes_do_not_mix(relay: Relay) -> None:
    pids = []
    for name in (b"a", b"b", b"c"):
        pid = os.fork()
        if pid == 0:
            for number in range(20):
                relay.send([name, b"%d" % number, name * 100_000])
            os._exit(0)
        pids.append(pid)
    messages = received(relay, 60)
    for pid in pids:
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    for name in (b"a", b"b", b"c"):
        of_one = [frames for frames in messages if frames[0] == name]
        assert of_one == [[name, b"%d" % number, name * 100_000] for number in range(20)]


def test_a_message_whose_sender_died_half_way_costs_no_other(relay: Relay) -> None:
    """Two hundred of them, each with its first part there: they are forgotten, and do not fill memory."""
    pid = os.fork()
    if pid == 0:
        count = 0
        send = relay._writer.send
        relay._writer.setblocking(True)

        class First:
            def send(self, data: bytes) -> int:
                nonlocal count
                count += 1
                return send(data) if count % 3 == 1 else len(data)

        relay._writer = First()  # type: ignore[assignment]
        for _ in range(200):
            relay.send([b"x" * 80_000])
        relay._writer = type("All", (), {"send": staticmethod(send)})()
        relay.send([b"whole"])
        os._exit(0)
    assert received(relay, 1) == [[b"whole"]]
    os.waitpid(pid, 0)
    assert len(relay._unfinished) <= 64


def test_a_message_to_a_kernel_that_is_gone_is_nobodys(relay: Relay) -> None:
    relay._reader.close()
    relay.send([b"x" * 100_000])


# -- MemoryHistory -------------------------------------------------------------------------------------


def empty_history() -> MemoryHistory:
    shell = InteractiveShell(config=Config({"HistoryManager": {"enabled": False}}))
    return MemoryHistory(shell=shell, parent=shell)


@pytest.fixture
def history() -> MemoryHistory:
    made = empty_history()
    for line, source in enumerate(["x = 1", "%time x", "y = 2", "x = 1", "print(y)"], 1):
        made.store_inputs(line, source, source)
    made.output_hist_reprs[3] = "two"
    return made


def inputs(entries: Any) -> list[str]:
    return [entry[2] for entry in entries]


def test_the_tail_of_a_history_is_its_last_inputs_without_the_one_that_asks(history: MemoryHistory) -> None:
    assert inputs(history.get_tail(2)) == ["y = 2", "x = 1"]
    assert inputs(history.get_tail(2, include_latest=True)) == ["x = 1", "print(y)"]
    assert inputs(history.get_tail(100)) == ["x = 1", "%time x", "y = 2", "x = 1"]
    assert inputs(history.get_tail(None)) == inputs(history.get_tail(10))
    assert inputs(history.get_tail(0)) == []
    assert list(history.get_tail(1)) == [(0, 4, "x = 1")]
    assert [entry[2] for entry in history.get_tail(2, output=True)] == [("y = 2", "two"), ("x = 1", None)]


def test_a_history_is_searched_by_patterns(history: MemoryHistory) -> None:
    assert inputs(history.search("x*")) == ["x = 1", "x = 1"]
    assert inputs(history.search("x*", unique=True)) == ["x = 1"]
    assert inputs(history.search("*", n=2)) == ["x = 1", "print(y)"]
    assert inputs(history.search("*", n=0)) == []
    assert inputs(history.search("?ime*")) == []
    assert inputs(history.search("%*")) == ["%time x"]
    assert inputs(history.search("X*")) == []
    assert list(history.search("y*", output=True)) == [(0, 3, ("y = 2", "two"))]


def test_the_last_of_equal_inputs_stands_for_them_when_they_are_unique(history: MemoryHistory) -> None:
    """As the database of IPython does it: `max(session << 10 + line)` of each."""
    assert [entry[1] for entry in history.search("*", unique=True)] == [2, 3, 4, 5]


def test_an_empty_history_has_nothing() -> None:
    history = empty_history()
    assert list(history.get_tail()) == list(history.search()) == []


# -- streams -------------------------------------------------------------------------------------------


class Lagging(IOPub):
    """Has no socket: keeps what it takes, and takes nothing `refuse` times."""

    def __init__(self) -> None:
        super().__init__(InterruptGuard())
        self.refuse = 0
        self.taken: list[list[bytes]] = []

    def try_send(self, frames: list[bytes]) -> bool:
        if self.refuse:
            self.refuse -= 1
            return False
        self.taken.append(frames)
        return True


class Asked:
    """Stands for the service thread: what it is asked to call later."""

    def __init__(self) -> None:
        self.calls: list[Callable[[], None]] = []
        self.interrupted = False

    def later(self, delay: float, call: Callable[[], None]) -> None:
        if self.interrupted:
            self.interrupted = False
            interrupt()
        self.calls.append(call)


def stream_of(iopub: Lagging, asked: Asked) -> tuple[LeanStream, LeanSession]:
    session = LeanSession(key=b"k")
    session.rekey(b"k")
    guard = InterruptGuard()
    stream = LeanStream("stdout", session=session, iopub=iopub, guard=guard, later=asked.later, interval=0.1)
    return stream, session


def texts(iopub: Lagging, session: LeanSession) -> list[str]:
    messages = [session.deserialize(session.feed_identities(frames)[1]) for frames in iopub.taken]
    return [message["content"]["text"] for message in messages]


def test_text_is_gathered_until_it_is_flushed_and_sent_once() -> None:
    iopub, asked = Lagging(), Asked()
    stream, session = stream_of(iopub, asked)
    for number in range(5):
        stream.write(f"{number} ")
    assert iopub.taken == []
    assert len(asked.calls) == 1
    stream.flush()
    stream.flush()
    asked.calls[0]()
    assert texts(iopub, session) == ["0 1 2 3 4 "]


def test_text_goes_out_in_time_again_and_again() -> None:
    iopub, asked = Lagging(), Asked()
    stream, session = stream_of(iopub, asked)
    for number in range(3):
        stream.write(str(number))
        asked.calls.pop()()
    assert asked.calls == []
    assert texts(iopub, session) == ["0", "1", "2"]


def test_text_that_a_reader_was_too_slow_for_is_tried_again_with_what_came_meanwhile() -> None:
    iopub, asked = Lagging(), Asked()
    stream, session = stream_of(iopub, asked)
    iopub.refuse = 2
    stream.write("a")
    asked.calls.pop()()
    stream.write("b")
    assert len(asked.calls) == 1
    asked.calls.pop()()
    stream.flush()
    assert "".join(texts(iopub, session)) == "ab"


def test_an_interrupt_while_a_flush_is_asked_for_does_not_keep_later_text_from_being_flushed_in_time() -> None:
    iopub, asked = Lagging(), Asked()
    stream, session = stream_of(iopub, asked)
    asked.interrupted = True
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            stream.write("a")
    finally:
        signal.signal(signal.SIGINT, before)
    stream.write("b")
    assert asked.calls
    asked.calls.pop()()
    assert "".join(texts(iopub, session)) == "ab"


def test_a_write_right_behind_a_flush_in_time_is_flushed_in_time_too() -> None:
    iopub, asked = Lagging(), Asked()
    stream, session = stream_of(iopub, asked)
    stream.write("a")
    flush_in_time = asked.calls.pop()

    class Late(list[Any]):
        """The last look of the service thread finds nothing; then, before it is done, the main thread writes."""

        def __bool__(self) -> bool:
            if not len(self) and stream._texts is self:
                stream._texts = []
                stream.write("b")
                return False
            return bool(len(self))

    stream._texts = Late(stream._texts)
    flush_in_time()
    assert len(asked.calls) == 1
    asked.calls.pop()()
    assert texts(iopub, session) == ["a", "b"]


def test_what_is_no_text_cannot_be_written() -> None:
    stream, _ = stream_of(Lagging(), Asked())
    with pytest.raises(TypeError, match="must be str"):
        stream.write(b"bytes")  # type: ignore[arg-type]
    stream.close()
    with pytest.raises(ValueError, match="closed"):
        stream.write("a")
