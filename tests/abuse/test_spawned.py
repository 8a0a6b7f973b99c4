"""A kernel that is started, not forked, stands behind the same walls."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from typing import Any, Final

import pytest

from tests.abuse.conftest import FORMS, SECRET, Host, Inmate, Outside
from tests.abuse.exhausting import MB, answer, both, held, living, mark_of, opened, until
from tests.support.waiting import HANG

pytestmark = pytest.mark.soak

STARTED: Final = "ipykernel"


@pytest.fixture(scope="module")
def inmate(host: Host, form: str) -> Iterator[Inmate]:
    """The attacker: in this file a started kernel. However slow an interrupt is, it is not killed."""
    with opened(host, {"form": form}, kernel=STARTED, limits={"grace": HANG}) as session:
        yield session


@pytest.fixture(scope="module")
def sibling(host: Host, form: str) -> Iterator[Inmate]:
    """Another one of the same provider."""
    with opened(host, {"form": form}, kernel=STARTED) as session:
        yield session


@pytest.fixture(scope="module")
def free(host: Host) -> Iterator[Inmate]:
    """One that nothing contains."""
    with opened(host, "none", kernel=STARTED) as session:
        yield session


def _refused(tried: str) -> bool:
    return tried.startswith(("PermissionError", "FileNotFoundError", "ProcessLookupError", "OSError"))


def test_it_is_contained(inmate: Inmate, form: str) -> None:
    assert inmate.facts["containment"].startswith(f"{form}: ")
    assert inmate.run("print(1 + 1)")["stdout"] == "2\n"


def test_a_file_outside_cannot_be_read(inmate: Inmate, free: Inmate, outside: Outside) -> None:
    attack = f"assert open({outside.secret!r}).read() == {SECRET!r}"
    assert free.tries(attack) == "succeeded"
    assert _refused(inmate.tries(attack))


def test_the_secrets_of_the_service_are_not_in_its_environment(inmate: Inmate, free: Inmate) -> None:
    attack = f"assert any({SECRET!r} in value for value in os.environ.values())"
    assert free.tries(attack) == "succeeded"
    assert inmate.tries(attack).startswith("AssertionError")


def test_a_port_of_this_machine_cannot_be_reached(inmate: Inmate, free: Inmate, outside: Outside) -> None:
    attack = f"socket.create_connection(('127.0.0.1', {outside.port}), 3)"
    assert free.tries(attack) == "succeeded"
    assert _refused(inmate.tries(attack))


def test_an_abstract_socket_cannot_be_reached(inmate: Inmate, free: Inmate, outside: Outside) -> None:
    attack = f"socket.socket(socket.AF_UNIX).connect('\\0{outside.abstract}')"
    assert free.tries(attack) == "succeeded"
    assert _refused(inmate.tries(attack)) or "Refused" in inmate.tries(attack)


def test_its_host_cannot_be_signalled(inmate: Inmate, free: Inmate) -> None:
    attack = f"os.kill({inmate.facts['host']}, 0)"
    assert free.tries(attack) == "succeeded"
    # In a space of numbers of its own that number may be nobody's.
    assert _refused(inmate.tries(attack))


def test_a_siblings_room_cannot_be_entered(inmate: Inmate, sibling: Inmate) -> None:
    sibling.run("open('private', 'w').write('x')")
    path = os.path.join(sibling.facts["work"], "private")
    assert sibling.tries(f"open({path!r}).read()") == "succeeded"
    assert _refused(inmate.tries(f"open({path!r}).read()"))
    assert _refused(inmate.tries(f"os.listdir({sibling.facts['room']!r})"))
    assert _refused(inmate.tries(f"open({path + '2'!r}, 'w')"))


def test_a_sibling_cannot_be_signalled(inmate: Inmate, sibling: Inmate) -> None:
    assert _refused(inmate.tries(f"os.kill({sibling.facts['pid']}, 9)"))
    inmate.tries("os.kill(-1, 0)")
    assert sibling.run("1 + 1")["status"] == "ok"


def test_its_sockets_have_no_names_any_more(inmate: Inmate, sibling: Inmate) -> None:
    for session in (inmate, sibling):
        assert not os.path.exists(f"{session.facts['connection']['ip']}-2")


def test_it_is_interrupted(inmate: Inmate) -> None:
    assert inmate.run("kept = 'still there'")["status"] == "ok"
    started = time.monotonic()
    result = inmate.run("import time\nwhile True:\n    time.sleep(0.1)", timeout=2)
    assert result["status"] == "timeout"
    assert time.monotonic() - started < 2 + HANG
    assert inmate.run("print(kept)")["stdout"] == "still there\n"


def test_its_memory_is_bounded(host: Host, form: str) -> None:
    code = "pieces = [bytearray(10 * 2**20) for _ in range(40)]\nHOLD\nprint('held')"
    small, large = _both(host, form, code, {"memory": 300 * MB}, {"memory": 600 * MB})
    assert held(large), large
    assert not held(small), small
    if host.user == "root":
        assert small["status"] == "kernel_died"
        assert "out of memory, limit 300 MB" in small["reason"], small
    else:
        assert small["status"] == "error", small
        assert small["error"]["name"] == "MemoryError"


@pytest.mark.parametrize("form", FORMS[:1], indirect=True)
def test_its_processes_are_bounded(host: Host, form: str) -> None:
    code = """
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
"""
    small, large = _both(host, form, code, {"processes": 30}, {"processes": 80})
    assert held(large), large
    assert not held(small), small


@pytest.mark.parametrize("form", FORMS[:1], indirect=True)
def test_its_disk_is_bounded(host: Host, form: str) -> None:
    code = "open('file', 'wb').write(bytes(12 * 2**20))\nHOLD\nprint('held')"
    small, large = _both(host, form, code, {"disk": 8 * MB}, {"disk": 24 * MB})
    assert held(large), large
    assert not held(small), small


def _both(
    host: Host, form: str, code: str, small: dict[str, Any], large: dict[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    return both(host, form, code, small, large, kernel=STARTED)


def test_a_crash_is_named(host: Host, form: str) -> None:
    with opened(host, {"form": form}, kernel=STARTED) as session:
        result = answer(session.begin("import ctypes; ctypes.string_at(0)"))
        assert result["status"] == "kernel_died"
        assert "SIGSEGV" in result["reason"], result
        assert session.run("1 + 1")["status"] == "ok"


def test_a_lifetime_ends_it(host: Host, form: str) -> None:
    with opened(host, {"form": form, "lifetime": 1.0}, kernel=STARTED) as session:
        result = answer(session.begin("import time; time.sleep(60)"))
        assert result["status"] == "kernel_died", result
        assert "its lifetime of 1 s is over" in result["reason"]


def test_nothing_of_it_is_left(host: Host, form: str) -> None:
    with opened(host, {"form": form}, kernel=STARTED) as session:
        mark = mark_of(session)
        code = "import os, time\nif os.fork() == 0:\n    os.setsid()\n    if os.fork() == 0:\n        os.environ.clear()\n        time.sleep(300)\n    os._exit(0)\nos.wait()"
        assert session.run(code)["status"] == "ok"
        assert len(living(mark)) > 1
        session.close()
        until(lambda: not living(mark))
