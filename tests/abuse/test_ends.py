"""A session ends with all that it started, however that resists, and says what ended it."""

from __future__ import annotations

import os
import time
from typing import Final

import pytest

from tests.abuse.conftest import Host, Inmate
from tests.abuse.exhausting import answer, living, mark_of, opened, until
from tests.support.waiting import HANG

pytestmark = pytest.mark.soak

_DAEMON: Final = """
import os, signal, sys, time
def daemon(work):
    told, tell = os.pipe()
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            try:
                work()
                os.write(tell, b"x")
                while True:
                    time.sleep(1)
            finally:
                os._exit(0)
        os._exit(0)
    os.wait()
    os.read(told, 1)
"""
# Each leaves at least one process behind when its cell has ended.
RESISTING: Final = {
    "a daemon by a double fork": "daemon(lambda: None)",
    "one that ignores SIGTERM, SIGHUP and SIGINT": (
        "daemon(lambda: [signal.signal(n, signal.SIG_IGN) for n in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)])"
    ),
    "one that blocks all signals": "daemon(lambda: signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals()))",
    "one that has become another program without an environment": (
        "import subprocess\nkept = subprocess.Popen(['sleep', '300'], env={}, start_new_session=True)"
    ),
    "one that renames itself": (
        "import ctypes\ndaemon(lambda: ctypes.CDLL(None).prctl(15, b'systemd', 0, 0, 0) or os.environ.clear())"
    ),
    "one that has stopped itself": (
        "child = os.fork()\nif child == 0:\n    os.setsid()\n    os.kill(os.getpid(), signal.SIGSTOP)\n"
        "os.waitpid(child, os.WUNTRACED)"
    ),
    "one that cannot be looked into": "import ctypes\ndaemon(lambda: ctypes.CDLL(None).prctl(4, 0, 0, 0, 0))",
    "one that lowers its limits": (
        "import resource\ndaemon(lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64)))"
    ),
    "one that keeps forking and ending": (
        "def hop():\n    if os.fork() == 0:\n        while True:\n            if os.fork():\n                os._exit(0)\n"
        "            time.sleep(0.002)\ndaemon(hop)"
    ),
    "one that starts others when it is told to end": (
        "def hydra():\n    signal.signal(signal.SIGTERM, lambda *_: [os.fork() for _ in range(3)])\ndaemon(hydra)"
    ),
    "one that reaps its children for others": (
        "import ctypes\ndef reaper():\n    ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)\n"
        "    if os.fork() == 0:\n        if os.fork() == 0:\n            time.sleep(300)\n        os._exit(0)\ndaemon(reaper)"
    ),
    "twenty in a chain": (
        "def chain():\n    for _ in range(20):\n        if os.fork():\n            break\ndaemon(chain)"
    ),
}


@pytest.mark.parametrize("row", RESISTING)
def test_nothing_outlives_its_session(host: Host, row: str) -> None:
    # The portable one has no namespace of processes to end.
    with opened(host, {"form": "portable"}) as session:
        mark = mark_of(session)
        result = session.run(_DAEMON + RESISTING[row])
        assert result["status"] == "ok", result
        # Otherwise this would prove nothing. One that forks and ends, again and again, is not always there to be seen.
        until(lambda: set(living(mark)) - {session.facts["pid"]})
        session.close()
        until(lambda: not living(mark))


def test_nothing_outlives_a_kernel_that_died(host: Host, form: str) -> None:
    """What its restart does not know about would be there for good."""
    with opened(host, {"form": form}) as session:
        mark = mark_of(session)
        assert session.run(_DAEMON + "daemon(lambda: None)")["status"] == "ok"
        before = set(living(mark))
        assert session.run("import os; os._exit(3)")["status"] == "kernel_died"
        assert session.run("1 + 1")["status"] == "ok"
        until(lambda: not before & set(living(mark)))


def test_nothing_outlives_its_provider(host: Host, form: str) -> None:
    with opened(host, {"form": form}) as session, opened(host, {"form": form}) as other:
        mark = mark_of(session)
        assert session.run(_DAEMON + "daemon(lambda: None)")["status"] == "ok"
        assert len(living(mark)) > 1
        assert mark_of(other) != mark
        session.close()
        until(lambda: not living(mark))
        assert other.run("1 + 1")["status"] == "ok"


STUBBORN: Final = {
    "ignores SIGINT": "import signal, time\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\nwhile True:\n    time.sleep(1)",
    "catches KeyboardInterrupt": (
        "import time\nwhile True:\n    try:\n        while True:\n            time.sleep(1)\n"
        "    except BaseException:\n        pass"
    ),
    # Another thread takes the signal, and Python raises when this one wakes: which it must not.
    "blocks signals": (
        "import signal, time\nsignal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())\nwhile True:\n    time.sleep(300)"
    ),
    "stops itself": "import os, signal\nos.kill(os.getpid(), signal.SIGSTOP)",
    "leaves its process group": (
        "import os, signal, time\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "try:\n    os.setpgid(0, os.getppid())\nexcept OSError:\n    pass\nwhile True:\n    time.sleep(1)"
    ),
}


@pytest.mark.parametrize("row", STUBBORN)
def test_a_cell_that_will_not_stop_is_killed(host: Host, row: str) -> None:
    with opened(host, {"form": "strong"}, limits={"grace": 0.5}) as session:
        started = time.monotonic()
        result = session.run(STUBBORN[row], timeout=4)  # by when it resists
        assert result["status"] == "timeout", result
        assert "killed" in result["reason"]
        assert time.monotonic() - started < 4.5 + HANG
        assert session.run("1 + 1")["status"] == "ok"


def test_a_lifetime_ends_the_kernel_and_says_so(host: Host, form: str) -> None:
    with opened(host, {"form": form, "lifetime": 1.0}) as short, opened(host, {"form": form, "lifetime": 60.0}) as long:
        one, other = short.begin("import time; time.sleep(60)"), long.begin("import time; time.sleep(2.5)")
        ended = answer(one)
        assert ended["status"] == "kernel_died", ended
        assert "its lifetime of 1 s is over" in ended["reason"]
        assert answer(other)["status"] == "ok"


@pytest.mark.parametrize(
    ("code", "name"),
    [
        ("import ctypes; ctypes.string_at(0)", "SIGSEGV"),
        ("import os; os.abort()", "SIGABRT"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGBUS)", "SIGBUS"),
    ],
)
def test_a_crash_is_named_and_leaves_no_core_file(host: Host, form: str, code: str, name: str) -> None:
    with opened(host, {"form": form}) as session:
        # The limit on core files is to be what keeps one from being written, and is not to be raised again.
        raising = "import resource\ntry:\n    resource.setrlimit(resource.RLIMIT_CORE, (-1, -1))\nexcept ValueError:\n    print('no')"
        assert session.run(raising)["stdout"] == "no\n"
        result = session.run(code)
        assert result["status"] == "kernel_died"
        assert name in result["reason"], result
        assert not _cores(session)


def _cores(session: Inmate) -> list[str]:
    return [
        os.path.join(folder, file)
        for folder, _, files in os.walk(session.facts["room"])
        for file in files
        if file == "core" or file.startswith("core.")
    ]
