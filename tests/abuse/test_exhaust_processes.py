"""Processes and threads of a session are bounded, and all of them end with it."""

from __future__ import annotations

import contextlib
import os
from typing import Any, Final

import pytest

from tests.abuse.conftest import FORMS, ORDINARY, Host, Inmate
from tests.abuse.exhausting import answer, both, held, living, mark_of, opened, until
from tests.support.waiting import HANG

pytestmark = pytest.mark.soak

# It stops by itself in the end, in case that nothing else stops it.
FORK_BOMB: Final = """
import os, time
end = time.monotonic() + 6
while time.monotonic() < end:
    try:
        os.fork()
    except OSError:
        time.sleep(0.001)
os._exit(0)
"""
SLEEPERS: Final = """
import os, time
end = time.monotonic() + 6
while time.monotonic() < end:
    try:
        if os.fork() == 0:
            time.sleep(30)
            os._exit(0)
    except OSError:
        time.sleep(0.01)
"""
THREAD_BOMB: Final = """
import threading, time
end = time.monotonic() + 6
while time.monotonic() < end:
    try:
        threading.Thread(target=time.sleep, args=(30,), daemon=True).start()
    except RuntimeError:
        time.sleep(0.01)
"""
THIRTY_PROCESSES: Final = """
import os, signal, time
children = []
try:
    for _ in range(30):
        child = os.fork()
        if child == 0:
            time.sleep(300)
            os._exit(0)
        children.append(child)
    HOLD
    print("held")
finally:
    for child in children:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
"""
THIRTY_THREADS: Final = """
import threading, time
done = threading.Event()
threads = [threading.Thread(target=done.wait, args=(300,)) for _ in range(30)]
try:
    for thread in threads:
        thread.start()
    HOLD
    print("held")
finally:
    done.set()
"""
# Where the system itself holds no limit for one session, it holds one for all that the user has, as a backstop.
BACKSTOP: Final = 4096 + 500


def processes_of(session: Inmate, mark: int) -> int:
    """How many the session has; where it has too many to look at each, those of its uid, which are a few more."""
    if session.host.user == "root":
        return len(living(mark))
    count = 0
    for name in os.listdir("/proc"):
        with contextlib.suppress(OSError):
            count += name.isdigit() and os.stat(f"/proc/{name}").st_uid == ORDINARY
    return count


@pytest.mark.parametrize(
    ("bomb", "form"),
    [(FORK_BOMB, "strong"), (FORK_BOMB, "portable"), (SLEEPERS, "portable"), (THREAD_BOMB, "portable")],
    ids=["forks-strong", "forks-portable", "sleepers", "threads"],
)
def test_a_bomb_is_bounded_and_nobody_else_notices(host: Host, bomb: str, form: str) -> None:
    with (
        opened(host, {"form": form, "processes": 40}) as bomber,
        opened(host, {"form": form, "processes": 40}) as other,
    ):
        mark, most, answered = mark_of(bomber), 0, 0
        # Where nobody but the watch ends it, it goes on: on a busy machine it takes a while to look at so many.
        ending = bomber.begin(bomb, timeout=3) if host.user == "root" else bomber.begin(bomb.replace("+ 6", "+ 60"))
        while not ending.done():
            most = max(most, processes_of(bomber, mark))
            if other.begin("1 + 1").result(HANG)["status"] == "ok":
                answered += 1
        result = answer(ending)
        assert answered  # each of them in time; how many there is time for is the machine's matter
        if host.user == "root":
            # All of its forks are refused beyond that, until its time is over.
            assert most <= 40
            assert result["status"] in ("timeout", "kernel_died"), result
        else:
            assert result["status"] == "kernel_died", result
            assert "too many processes and threads, limit 40" in result["reason"]
            assert most < BACKSTOP
        bomber.close()
        until(lambda: not living(mark))
        assert other.run("1 + 1")["status"] == "ok"


@pytest.mark.parametrize("code", [THIRTY_PROCESSES, THIRTY_THREADS], ids=["processes", "threads"])
@pytest.mark.parametrize("form", FORMS)
def test_a_number_that_is_too_much_for_one_limit_is_fine_for_a_larger_one(host: Host, form: str, code: str) -> None:
    small, large = both(host, form, code, {"processes": 20}, {"processes": 60})
    assert held(large), large
    assert not held(small), small


def test_after_a_bomb_a_limit_is_still_watched(host: Host) -> None:
    """Looking at a bomb takes long; the next one must not have the time for that again."""
    policy: dict[str, Any] = {"form": "portable", "processes": 40}
    with opened(host, policy) as first, opened(host, policy) as second:
        first.run(FORK_BOMB, timeout=4)
        result = answer(second.begin(SLEEPERS.replace("+ 6", "+ 60") if host.user == "ordinary" else SLEEPERS))
        if host.user == "ordinary":
            assert result["status"] == "kernel_died", result


# What is counted for all of a user, or of the machine, and has no limit of its own here.
ASYNCHRONOUS_IO: Final = """
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
got = 0
for _ in range(64):
    context = ctypes.c_ulong(0)
    if libc.syscall(206, 1024, ctypes.byref(context)) == 0:
        got += 1024
print(got)
print("held" if got >= 60_000 else "")
"""
INOTIFY: Final = """
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
got = [fd for fd in (libc.inotify_init1(0) for _ in range(400)) if fd >= 0]
print(len(got))
print("held" if len(got) >= 100 else "")
"""
TIMERS: Final = """
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
got = 0
while got < 400_000 and libc.timer_create(1, None, ctypes.byref(ctypes.c_void_p())) == 0:
    got += 1
print(got)
print("held" if got >= 20_000 else "")
"""


@pytest.mark.parametrize("code", [ASYNCHRONOUS_IO, INOTIFY, TIMERS], ids=["asynchronous I/O", "inotify", "timers"])
def test_what_all_of_the_machine_shares_is_not_used_up(host: Host, code: str) -> None:
    with opened(host, {"form": "portable"}) as session:
        result = answer(session.begin(code))
        # With a uid of its own a session can use up nobody else's share; what all uids share it must not have in any case.
        own_uid = "own uid" in session.facts["containment"]
        assert not held(result) or (own_uid and code != ASYNCHRONOUS_IO), result
