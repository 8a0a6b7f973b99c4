"""Attacks are made in real sessions: in both forms of containment, of root and of an ordinary user, and uncontained for comparison."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import queue
import secrets
import socket
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest

from tests.support.waiting import HANG, PROCESS

ORDINARY: Final = 54_321
"""The uid of the ordinary user, which nobody else has."""

FORMS: Final = ("strong", "portable")
USERS: Final = ("root", "ordinary") if os.getuid() == 0 else ("ordinary",)
_ANSWER: Final = PROCESS + 20


class Host:
    """A program with sessions (host.py), as the user that is wanted."""

    def __init__(self, user: str, folder: Path) -> None:
        self.user = user
        command = [sys.executable, "-m", "tests.abuse.host"]
        if user == "ordinary" and os.getuid() == 0:
            folder.chmod(0o777)
            command = [*as_ordinary(folder), *command]
        # Secrets that code in a kernel must not find.
        env = {**os.environ, "HOME": str(folder), "TMPDIR": str(folder), "SECRET_OF_THE_SERVICE": SECRET}
        env.pop("XDG_RUNTIME_DIR", None)
        env.pop("XDG_CACHE_HOME", None)
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env, cwd=Path(__file__).parents[2]
        )
        self._waiting: dict[int, Future[dict[str, Any]]] = {}
        self._numbers = itertools.count()
        self._lock = threading.Lock()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            said = json.loads(line)
            self._waiting.pop(said["number"]).set_result(said["answer"])
        for future in self._waiting.values():
            future.set_result({"error": "Ended", "text": "the host has ended"})

    def begin(self, **order: Any) -> Future[dict[str, Any]]:
        """Has something done, and does not wait for it."""
        future: Future[dict[str, Any]] = Future()
        assert self._process.stdin is not None
        with self._lock:
            number = next(self._numbers)
            self._waiting[number] = future
            self._process.stdin.write(json.dumps({"number": number, "order": order}) + "\n")
            self._process.stdin.flush()
        return future

    def do(self, **order: Any) -> dict[str, Any]:
        """Has something done: see host.py."""
        return self.begin(**order).result(_ANSWER)

    def open(self, sandbox: str | dict[str, Any], **more: Any) -> Inmate:
        """A new session."""
        name = secrets.token_hex(4)
        facts = self.do(do="open", name=name, sandbox=sandbox, **more)
        assert "error" not in facts, facts
        return Inmate(self, name, facts)

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(PROCESS)
        finally:
            self._process.kill()
            self._process.wait()
            self._reader.join(HANG)
            assert self._process.stdout is not None
            self._process.stdout.close()


@dataclass
class Inmate:
    """A session of a host. `facts`: what only its host should know: an attacker is told it."""

    host: Host
    name: str
    facts: dict[str, Any] = field(default_factory=dict)

    def run(self, code: str, timeout: float | None = PROCESS) -> dict[str, Any]:
        """The result of a cell, as a dict."""
        return self.host.do(do="run", name=self.name, code=code, timeout=timeout)

    def begin(self, code: str, timeout: float | None = PROCESS) -> Future[dict[str, Any]]:
        """As `run`, without waiting for it."""
        return self.host.begin(do="run", name=self.name, code=code, timeout=timeout)

    def tries(self, attack: str) -> str:
        """Runs an attack: "succeeded", or what kept it from that."""
        body = "".join(f"        {line}\n" for line in attack.strip().splitlines())
        code = (
            "def _attack():\n    import os, socket, sys, ctypes, subprocess, signal, errno, struct, time\n"
            "    libc = ctypes.CDLL(None, use_errno=True)\n"
            "    def must(result):\n        if result < 0: raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))\n"
            f"        return result\n    try:\n{body}    except (OSError, EOFError, AssertionError, RuntimeError, MemoryError) as error:\n"
            "        return f'{type(error).__name__}: {error}'\n    return 'succeeded'\nprint(_attack())"
        )
        result = self.run(code)
        if result.get("status") != "ok":
            return f"{result.get('status')}: {result.get('reason') or result.get('error')}"
        return str(result["stdout"]).strip().splitlines()[-1]

    def close(self) -> None:
        self.host.do(do="close", name=self.name)


SECRET: Final = f"secret-{secrets.token_hex(16)}"


def as_ordinary(folder: Path) -> list[str]:
    """What comes before a command that an ordinary user is to run. Folders that such a user cannot pass through but must, to reach the
    interpreter, are covered, for that command only, by ones that have nothing else in them."""
    script = ["set -e"]
    for needed in dict.fromkeys([os.path.realpath(sys.base_prefix), str(Path(__file__).parents[2])]):
        closed = next((p for p in reversed(Path(needed).parents) if not p.stat().st_mode & stat.S_IXOTH), None)
        if closed is not None:
            script += [
                f"mkdir -p '{folder}/kept'",
                f"mount --bind '{needed}' '{folder}/kept'",
                f"mount -t tmpfs -o mode=755 covered '{closed}'",
                f"mkdir -p '{needed}'",
                f"mount --bind '{folder}/kept' '{needed}'",
                f"umount '{folder}/kept'",
            ]
    identity = f"--reuid {ORDINARY} --regid {ORDINARY} --clear-groups"
    script.append(f'exec setpriv {identity} -- "$@"')
    return ["unshare", "--mount", "--", "bash", "-c", "\n".join(script), "as_ordinary"]


@dataclass
class Outside:
    """What is there to be attacked besides: things of the machine's that everybody may reach who is not contained."""

    secret: str
    folder: str
    port: int
    udp: int
    abstract: str
    socket_path: str
    touched: queue.Queue[str]


@pytest.fixture(scope="session")
def outside() -> Iterator[Outside]:
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="cellrun-outside-", dir="/tmp")))
        folder.chmod(0o777)
        (folder / "secret").write_text(SECRET)
        (folder / "secret").chmod(0o666)
        tcp = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        udp = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        udp.bind(("127.0.0.1", 0))
        abstract = f"cellrun-abuse-{secrets.token_hex(8)}"
        hidden = stack.enter_context(socket.socket(socket.AF_UNIX))
        hidden.bind(f"\0{abstract}")
        hidden.listen()
        path = folder / "socket"
        named = stack.enter_context(socket.socket(socket.AF_UNIX))
        named.bind(str(path))
        named.listen()
        path.chmod(0o777)
        yield Outside(
            str(folder / "secret"),
            str(folder),
            tcp.getsockname()[1],
            udp.getsockname()[1],
            abstract,
            str(path),
            queue.Queue(),
        )


@pytest.fixture(scope="module", params=[USERS[0], *(pytest.param(user, marks=pytest.mark.wide) for user in USERS[1:])])
def host(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """As root and as an ordinary user."""
    with tempfile.TemporaryDirectory(prefix="cellrun-abuse-", dir="/tmp") as folder:
        Path(folder).chmod(0o755)
        host = Host(request.param, Path(folder))
        try:
            yield host
        finally:
            host.close()


@pytest.fixture(scope="module", params=[FORMS[0], *(pytest.param(form, marks=pytest.mark.wide) for form in FORMS[1:])])
def form(request: pytest.FixtureRequest) -> str:
    """Both forms of containment."""
    return str(request.param)


@pytest.fixture(scope="module")
def inmate(host: Host, form: str) -> Iterator[Inmate]:
    """A contained session, which attacks."""
    session = host.open({"form": form})
    yield session
    session.close()


@pytest.fixture(scope="module")
def sibling(host: Host, form: str) -> Iterator[Inmate]:
    """Another one of the same provider, which is attacked."""
    session = host.open({"form": form})
    yield session
    session.close()


@pytest.fixture(scope="module")
def free(host: Host) -> Iterator[Inmate]:
    """One that nothing contains, where an attack must succeed: otherwise it is no attack."""
    session = host.open("none")
    yield session
    session.close()
