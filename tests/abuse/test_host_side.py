"""What a host reads back from a session is its enemy's: files that are none, and messages that are none."""

from __future__ import annotations

import ast
import contextlib
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import cellrun
from tests.abuse.conftest import SECRET, USERS, Host, Inmate, Outside
from tests.support.waiting import HANG

pytestmark = pytest.mark.soak


@pytest.fixture(params=USERS)
def user(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def hostile(host: Host, form: str) -> Iterator[Inmate]:
    """A session that may be broken."""
    session = host.open({"form": form})
    yield session
    session.close()


def _read(session: Inmate, path: str) -> dict[str, Any]:
    return session.host.do(do="read", name=session.name, path=path)


PLANTED = [
    pytest.param("os.symlink('/etc/shadow', 'planted')", "planted", id="a symlink to the passwords"),
    pytest.param("os.symlink(secret, 'planted')", "planted", id="a symlink to a file outside"),
    pytest.param("os.symlink('kept', 'planted')", "planted", id="a symlink to a file of its own"),
    pytest.param("os.symlink('../' * 20 + secret, 'planted')", "planted", id="a symlink that climbs"),
    pytest.param("os.symlink(os.path.dirname(secret), 'planted')", "planted/secret", id="a folder that is a symlink"),
    pytest.param("os.makedirs('a/b'); os.rmdir('a/b'); os.symlink(os.path.dirname(secret), 'a/b')", "a/b/secret", id="a deep folder that is a symlink"),
    pytest.param("os.symlink('planted', 'planted')", "planted", id="a symlink to itself"),
    pytest.param("os.symlink('/proc/self/environ', 'planted')", "planted", id="a symlink to the host's environment"),
    pytest.param("os.mkfifo('planted')", "planted", id="a pipe that nobody writes to"),
    pytest.param("import socket; s = socket.socket(socket.AF_UNIX); s.bind('planted')", "planted", id="a socket"),
    pytest.param("os.mkdir('planted')", "planted", id="a folder"),
    pytest.param("open('planted', 'w').close(); os.chmod('planted', 0)", "planted/under", id="a file as if it were a folder"),
]  # fmt: skip


@pytest.mark.parametrize(("plant", "path"), PLANTED)
def test_a_host_does_not_read(plant: str, path: str, inmate: Inmate, outside: Outside) -> None:
    clean = "import os, shutil\nfor n in os.listdir():\n    shutil.rmtree(n) if os.path.isdir(n) and not os.path.islink(n) else os.unlink(n)\n"
    assert inmate.run(f"{clean}secret = {outside.secret!r}\nopen('kept', 'w').close()\n{plant}")["status"] == "ok"
    answer = _read(inmate, path)
    assert answer["error"] != "TimeoutError"
    assert "data" not in answer
    # Nor what it would write there.
    assert SECRET in Path(outside.secret).read_text()
    inmate.host.do(do="write", name=inmate.name, path=path, text="overwritten")
    assert SECRET in Path(outside.secret).read_text()
    assert inmate.run(clean)["status"] == "ok"


SWAPPED = [
    pytest.param("os.rename(work, work + '2'); os.symlink(target, work)", id="its working folder"),
    pytest.param("os.chdir('/'); import shutil; shutil.rmtree(work); os.symlink(target, work)", id="its working folder when that is empty"),
]  # fmt: skip


@pytest.mark.parametrize("swap", SWAPPED)
def test_a_host_is_not_led_outside_by_a_session_that_swaps(swap: str, hostile: Inmate, outside: Outside) -> None:
    work = hostile.facts["work"]
    hostile.run(f"import os; work = {work!r}; target = {outside.folder!r}\n{swap}")
    host, name = hostile.host, hostile.name
    written = Path(outside.folder, "written-by-the-host")
    try:
        answer = _read(hostile, "secret")
        listed = host.do(do="list", name=name)
        host.do(do="write", name=name, path=written.name, text="x")
        assert "data" not in answer
        assert "secret" not in listed.get("names", ())
        assert not written.exists()
    finally:
        with contextlib.suppress(FileNotFoundError):
            written.unlink()


def test_a_host_is_not_led_outside_by_folders_that_become_symlinks_and_back(hostile: Inmate, outside: Outside) -> None:
    code = f"""
import os, subprocess, sys
os.mkdir('way'); os.symlink({outside.folder!r}, 'other')
swapping = subprocess.Popen([sys.executable, '-S', '-c', '''
import ctypes
libc = ctypes.CDLL(None)
while True:
    libc.syscall(ctypes.c_long(316), -100, b"way", -100, b"other", 2)
'''])
"""
    assert hostile.run(code)["status"] == "ok"
    for _ in range(100):
        assert "data" not in _read(hostile, "way/secret")
        assert not hostile.host.do(do="list", name=hostile.name, path="way").get("names")
    changed = {name for _ in range(50) for name in hostile.run("pass")["files"] or ()}
    assert not {name for name in changed if "secret" in name}
    assert hostile.run("swapping.kill()")["status"] == "ok"


def test_a_sparse_file_costs_the_host_no_more_than_a_file_may_be_large(hostile: Inmate) -> None:
    grow = "import os\ntry: os.truncate(os.open('sparse', os.O_CREAT | os.O_RDWR), 10 * 2**30)\nexcept OSError as error: print(error.strerror)"
    assert hostile.run(grow)["stdout"] == "File too large\n"
    assert hostile.run("os.truncate('sparse', 200 * 2**20)")["status"] == "ok"
    before = _peak(hostile.facts["host"])
    _read(hostile, "sparse")
    assert _peak(hostile.facts["host"]) - before < 450 * 2**20


def _peak(pid: int) -> int:
    line = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def test_a_file_that_grows_while_it_is_read_is_read_to_an_end(hostile: Inmate) -> None:
    code = "open('grows', 'w').close()\nimport subprocess, sys\nwriter = subprocess.Popen([sys.executable, '-S', '-c', \"f = open('grows', 'ab')\\nfor _ in range(40): f.write(bytes(2**20)); f.flush()\"])"
    assert hostile.run(code)["status"] == "ok"
    answer = _read(hostile, "grows")
    assert answer.get("size", 0) <= 40 * 2**20
    assert hostile.run("print(writer.wait())")["stdout"] == "0\n"


def test_names_that_are_no_text_and_folders_that_are_too_deep_are_listed_and_left(hostile: Inmate) -> None:
    code = r"""
import os
for name in (b'\xff\xfe', b'new\nline', b'\x1b[2J', b'x' * 255, '\u202e'.encode(), b' ', b'-rf'):
    open(name, 'w').close()
for _ in range(150):
    os.mkdir('d'); os.chdir('d')
"""
    assert hostile.run(code)["status"] == "ok"
    names = hostile.host.do(do="list", name=hostile.name)["names"]
    assert set(names) == {"\udcff\udcfe", "new\nline", "\x1b[2J", "x" * 255, "\u202e", " ", "-rf", "d"}
    assert hostile.run("print(1)")["stdout"] == "1\n"


def test_folders_three_thousand_deep_are_removed_with_their_session(hostile: Inmate, host: Host, form: str) -> None:
    # Where depth is watched it may end meanwhile; either way nothing is left.
    session = host.open({"form": form})
    session.run("import os\nfor _ in range(3000):\n    os.mkdir('d'); os.chdir('d')")
    room = session.facts["room"]
    session.close()
    deadline = time.monotonic() + HANG
    while os.path.exists(room) and time.monotonic() < deadline:  # nobody waits for the end of what is given back
        hostile.run("pass")
    assert not os.path.exists(room)


FORGE = """
import zmq, json, hmac, hashlib
from ipykernel.kernelapp import IPKernelApp
app = IPKernelApp.instance()
session = app.session
def sign(parts, key=session.key):
    one = hmac.new(key, digestmod=hashlib.sha256)
    for part in parts: one.update(part)
    return one.hexdigest().encode()
def send(frames):
    app.iopub.send_multipart(frames)
def message(kind='stream', content=b'{"name": "stdout", "text": "forged"}', signature=None, header=None, parent=None):
    parent = parent if parent is not None else json.dumps(get_ipython().parent_header['header'] if 'header' in (get_ipython().parent_header or {}) else {}, default=str).encode()
    header = header if header is not None else json.dumps({'msg_id': 'x', 'msg_type': kind, 'session': 'x', 'username': 'x', 'date': '', 'version': '5.3'}).encode()
    parts = [header, parent, b'{}', content]
    send([b'topic', b'<IDS|MSG>', sign(parts) if signature is None else signature, *parts])
"""
FORGED = [
    pytest.param("for n in range(50): send([bytes([n]) * n])", id="garbage"),
    pytest.param("send([]) if False else send([b'']); send([b'<IDS|MSG>']); send([b'<IDS|MSG>'] * 9)", id="delimiters only"),
    pytest.param("message(signature=b''); message(signature=b'0' * 64); message(signature=b'\\xff' * 64)", id="wrong signatures"),
    pytest.param("message(content=b'[' * 100_000 + b']' * 100_000)", id="JSON that is nested deeply"),
    pytest.param("message(content=b'{\"a\":' * 100_000 + b'1' + b'}' * 100_000)", id="objects that are nested deeply"),
    pytest.param("message(content=b'{\"a\": ' + b'9' * 100_000 + b'}')", id="numbers that are long"),
    pytest.param("message(content=b'{\"a\": NaN, \"b\": 1e999999}')", id="numbers that are none"),
    pytest.param("message(header=b'{\"msg_type\": \"' + b'x' * 2**20 + b'\"}')", id="a header of a megabyte"),
    pytest.param("message(header=b'[]'); message(header=b'null'); message(parent=b'7'); message(content=b'\"x\"')", id="parts that are no objects"),
    pytest.param("message(header=b'\\xff\\xfe'); message(content=b'{\"\\xed\\xa0\\x80\": 1}'); message(content=b'{')", id="what is no text"),
    pytest.param("[message(kind=k, content=c) for k in ('status', 'stream', 'error', 'display_data', 'execute_result', 'update_display_data', 'clear_output', 'execute_input', 'comm_msg', 'comm_open', 'iopub_welcome', 'cellrun_log', '') for c in (b'{}', b'{\"name\": 1, \"text\": [], \"data\": 7, \"metadata\": null, \"traceback\": {}, \"transient\": 3, \"execution_state\": {}}')]", id="contents of the wrong kind"),
    pytest.param("send([b'x'] * 5000)", id="thousands of frames"),
    pytest.param("send([b'x', b'<IDS|MSG>', b'y', b'{}', b'{}', b'{}', b'{}', *[bytes(2**16)] * 100])", id="buffers"),
    pytest.param("send([bytes(64 * 2**20)])", id="64 MB of nothing"),
]  # fmt: skip


@pytest.mark.parametrize("forged", FORGED)
def test_a_host_lives_through_messages_that_are_forged(forged: str, hostile: Inmate, inmate: Inmate) -> None:
    result = hostile.run(f"{FORGE}{forged}", timeout=10)
    assert result["status"] in ("ok", "error", "kernel_died", "connection_lost", "timeout"), result
    assert result["status"] != "error", result["error"]
    # What is signed is the kernel's own word; it is its sibling that must not suffer.
    assert inmate.run("print(1)")["stdout"] == "1\n"


def test_a_forged_signature_is_no_output(hostile: Inmate) -> None:
    assert hostile.run(f"{FORGE}message(signature=b'0' * 64)")["stdout"] == ""
    assert hostile.run(f"{FORGE}message()")["stdout"] == "forged"


# Past ZeroMQ: bytes into the very connections that the host reads.
RAW = """
import os, socket, struct
for number in sorted(map(int, os.listdir('/proc/self/fd'))):
    try:
        if not os.readlink(f'/proc/self/fd/{number}').startswith('socket:'): continue
        one = socket.socket(fileno=os.dup(number))
        if not one.getsockname() or one.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN): continue
        one.setblocking(True)
        one.settimeout(3)
        WRITE
    except OSError:
        pass
"""
WRITES = [
    pytest.param("one.sendall(os.urandom(2**16))", id="noise"),
    pytest.param("one.sendall(b'\\x02' + struct.pack('>Q', 2**62) + bytes(2**20))", id="a message of four exabytes"),
    pytest.param("one.sendall(b'\\x02' + struct.pack('>Q', 2**33))\n        for _ in range(600): one.sendall(bytes(2**20))", id="a message of eight gigabytes, 600 megabytes of it"),
    pytest.param("one.sendall(b'\\x00\\x00' * 2**15)", id="thousands of empty messages"),
    pytest.param("one.shutdown(socket.SHUT_RDWR)", id="an end"),
]  # fmt: skip


@pytest.mark.parametrize("write", WRITES)
def test_a_host_lives_through_bytes_that_are_no_message(write: str, hostile: Inmate, inmate: Inmate) -> None:
    before = _peak(hostile.facts["host"])
    hostile.run(RAW.replace("WRITE", write), timeout=5)
    assert inmate.run("print(1)")["stdout"] == "1\n"
    assert _peak(hostile.facts["host"]) - before < 400 * 2**20


def test_a_host_lives_through_a_message_that_is_cut_off_while_it_is_read(form: str, user: str) -> None:
    # A host of its own: ZeroMQ ends a process that finds the rest of a message missing.
    with tempfile.TemporaryDirectory(prefix="cellrun-abuse-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o755)
        own = Host(user, Path(folder))
        try:
            other, hostile = own.open({"form": form}), own.open({"form": form})
            hostile.run(RAW.replace("WRITE", "one.sendall(b'\\x01\\x00' * 2**19)"), timeout=5)
            hostile.close()
            deadline = time.monotonic() + 10
            while (
                os.path.exists(f"/proc/{hostile.facts['pid']}") and time.monotonic() < deadline
            ):  # asked to end, it says so first
                answer = other.begin("print(1)").result(HANG)
                assert answer.get("stdout") == "1\n"
            assert other.begin("print(1)").result(HANG).get("stdout") == "1\n"
        finally:
            with contextlib.suppress(BrokenPipeError):
                own.close()


def test_nothing_in_the_host_unpickles_or_evaluates() -> None:
    found = []
    for file in Path(cellrun.__file__).parent.rglob("*.py"):
        if "kernel" in file.parts[-2:-1]:  # which runs behind the walls
            continue
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            names = {alias.name for alias in node.names} if isinstance(node, ast.Import) else set()
            names |= {str(node.module)} if isinstance(node, ast.ImportFrom) else set()
            names |= {node.func.id} if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) else set()
            found += [
                (file.name, n) for n in names & {"pickle", "marshal", "shelve", "dill", "cloudpickle", "eval", "exec"}
            ]
    assert not found
