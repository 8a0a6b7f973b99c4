"""Files, secrets and the system: out of reach."""

from __future__ import annotations

import hashlib
import os
import secrets
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.abuse.attacking import attack, denied, not_there
from tests.abuse.conftest import ORDINARY, SECRET, Host, Inmate, Outside

FILES = [
    pytest.param("assert 'secret' in open(secret).read()", id="is read"),
    pytest.param("os.close(os.open(secret, os.O_WRONLY))", id="is opened for writing"),
    pytest.param("open(victim, 'a').write('more')", id="is appended to"),
    pytest.param("os.truncate(victim, 0)", id="is truncated"),
    pytest.param("assert os.listdir(folder)", id="is found by listing its folder"),
    pytest.param(
        "assert next(os.walk(folder), None)\nos.scandir(folder).close()", id="is found by scanning its folder"
    ),
    pytest.param("os.unlink(victim)", id="is removed"),
    pytest.param("os.rename(victim, victim + '-moved')", id="is renamed"),
    pytest.param("os.rename(victim, 'taken')", id="is moved into work"),
    pytest.param("open('mine', 'w').close()\nos.rename('mine', victim)", id="is replaced"),
    pytest.param("call(316, -100, victim.encode(), -100, (victim + '-x').encode(), 0)", id="is renamed by renameat2"),
    pytest.param("os.link(victim, 'linked')\nopen('linked').close()", id="is linked into work"),
    pytest.param("os.symlink(secret, 'symlink')\nopen('symlink').read()", id="is read through a symlink in work"),
    pytest.param("os.symlink(folder, 'way')\nassert os.listdir('way')", id="is listed through a symlink in work"),
    pytest.param("os.chdir(folder)\nopen('victim').read()", id="is read by a relative path"),
    pytest.param(
        "descriptor = os.open(secret, os.O_PATH)\nopen(f'/proc/self/fd/{descriptor}').read()",
        id="is read by way of a descriptor for its path",
    ),
    pytest.param("open('/proc/self/root' + secret).read()", id="is read through the root link of proc"),
    pytest.param(
        "assert 'secret' in subprocess.run(['cat', secret], capture_output=True, text=True).stdout",
        id="is read by a program",
    ),
    pytest.param("os.mkdir(folder + '/made')", id="gets a folder beside it"),
    pytest.param("os.mkfifo(folder + '/made')", id="gets a pipe beside it"),
    pytest.param("os.symlink('/', folder + '/made')", id="gets a symlink beside it"),
    pytest.param("os.close(os.open(folder + '/made', os.O_CREAT | os.O_WRONLY))", id="gets a file beside it"),
    pytest.param("os.close(os.open(folder, os.O_TMPFILE | os.O_WRONLY))", id="gets a nameless file beside it"),
    pytest.param("socket.socket(socket.AF_UNIX).bind(folder + '/made')", id="gets a socket beside it"),
    # Those that are said to have been done are looked at again. By libc too, since `os.chmod` goes another way in a kernel.
    pytest.param("os.chmod(victim, 0o600)\nassert os.stat(victim).st_mode & 0o777 == 0o600", id="is chmodded"),
    pytest.param(
        "must(libc.chmod(victim.encode(), 0o600))\nassert os.stat(victim).st_mode & 0o777 == 0o600",
        id="is chmodded by libc",
    ),
    pytest.param(
        "os.chdir(folder)\nmust(libc.chmod(victim.encode(), 0o600))\nassert os.stat(victim).st_mode & 0o777 == 0o600",
        id="is chmodded from beside it",
    ),
    pytest.param("os.utime(victim)\nassert os.stat(victim).st_mtime > 10", id="gets another time"),
    pytest.param(
        "must(libc.utime(victim.encode(), None))\nassert os.stat(victim).st_mtime > 10", id="gets a time by libc"
    ),
    pytest.param("os.setxattr(victim, 'user.abuse', b'x')", id="gets an attribute"),
]


@pytest.fixture
def victim(outside: Outside, host: Host) -> Iterator[str]:
    """A file outside that the host's user owns; what an attack has made beside it goes too."""
    folder = Path(outside.folder, f"folder-{secrets.token_hex(4)}")
    folder.mkdir()
    folder.chmod(0o777)
    path = folder / "victim"
    path.write_text("x")
    path.chmod(0o666)
    os.utime(path, (1, 1))
    if host.user == "ordinary" and os.getuid() == 0:
        os.chown(path, ORDINARY, ORDINARY)
    yield str(path)
    for left in folder.iterdir():
        left.rmdir() if left.is_dir() and not left.is_symlink() else left.unlink()
    folder.rmdir()


def _tidied(body: str) -> str:
    """Run in work, and work is left as it was."""
    tidy = "for name in ('taken', 'mine', 'linked', 'symlink', 'way'):\n    if os.path.lexists(work + '/' + name): os.unlink(work + '/' + name)"
    inner = "".join(f"    {line}\n" for line in body.splitlines())
    return f"work = os.getcwd()\ntry:\n{inner}finally:\n    os.chdir(work)\n" + "".join(
        f"    {line}\n" for line in tidy.splitlines()
    )


def test_the_form_is_the_one_that_is_wanted(inmate: Inmate, form: str, host: Host) -> None:
    assert inmate.facts["containment"].startswith(f"{form}: ")


@pytest.mark.parametrize("body", FILES)
def test_no_file_outside(body: str, inmate: Inmate, free: Inmate, outside: Outside, victim: str) -> None:
    code = attack(_tidied(body), secret=outside.secret, folder=os.path.dirname(victim), victim=victim)
    before = os.stat(victim)
    answer = inmate.tries(code)
    after = os.stat(victim)
    assert denied(answer), answer
    for field in ("st_mode", "st_uid", "st_nlink", "st_size", "st_mtime"):
        assert getattr(after, field) == getattr(before, field)
    assert os.listdir(os.path.dirname(victim)) == ["victim"]
    compared = free.tries(code)
    assert compared == "succeeded" or not_there(compared)  # not every file system has attributes and nameless files


def test_no_folder_outside_can_be_watched(inmate: Inmate, free: Inmate, outside: Outside) -> None:
    # Without the right to list it, somebody could learn the names from what happens there.
    code = attack(
        "must(libc.inotify_add_watch(must(libc.inotify_init()), folder.encode(), 0x100))", folder=outside.folder
    )
    assert free.tries(code) == "succeeded"
    answer = inmate.tries(code)
    assert denied(answer), answer


SYSTEM = [
    pytest.param("'/cellrun-abuse'", id="the root folder"),
    pytest.param("'/usr/cellrun-abuse'", id="usr"),
    pytest.param("'/usr/bin/cellrun-abuse'", id="the programs"),
    pytest.param("'/etc/cellrun-abuse'", id="etc"),
    pytest.param("'/etc/ssl/certs/cellrun-abuse'", id="the certificates"),
    pytest.param("'/var/cellrun-abuse'", id="var"),
    pytest.param("'/dev/cellrun-abuse'", id="the devices"),
    pytest.param("sys.prefix + '/cellrun-abuse'", id="the virtual environment"),
    pytest.param("sys.base_prefix + '/cellrun-abuse'", id="the interpreter"),
    pytest.param("os.path.dirname(os.__file__) + '/cellrun_abuse.py'", id="the standard library"),
]


@pytest.mark.parametrize("path", SYSTEM)
def test_nothing_can_be_put_into(path: str, inmate: Inmate, free: Inmate, host: Host) -> None:
    code = attack(f"path = {path}\nos.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY))\nos.unlink(path)")
    if host.user == "root":  # others cannot, contained or not
        assert free.tries(code) == "succeeded"
    answer = inmate.tries(code)
    assert denied(answer), answer


def test_nothing_can_be_put_into_the_machines_tmp(inmate: Inmate, free: Inmate) -> None:
    code = attack(f"path = '/tmp/{secrets.token_hex(8)}'\nos.mkdir(path)\nos.rmdir(path)")
    assert free.tries(code) == "succeeded"
    assert denied(inmate.tries(code))


@pytest.mark.parametrize(
    "path",
    [
        "/proc/sys/kernel/hostname",
        "/proc/sys/vm/overcommit_memory",
        "/proc/sysrq-trigger",
        "/sys/kernel/mm/transparent_hugepage/enabled",
        "/etc/passwd",
        "/etc/shadow",
        "/dev/kmsg",
        sys.executable,
    ],
)
def test_nothing_of_the_system_can_be_changed(path: str, inmate: Inmate, free: Inmate, host: Host) -> None:
    code = attack("os.close(os.open(path, os.O_WRONLY))", path=os.path.realpath(path))
    # Others than root cannot, and the interpreter is one that runs.
    if host.user == "root" and path != sys.executable and os.path.exists(path):
        assert free.tries(code) == "succeeded"
    answer = inmate.tries(code)
    assert denied(answer), answer


@pytest.mark.parametrize("path", ["/etc/shadow", "/proc/kcore", "/proc/net/unix", "/proc/kallsyms"])
def test_nothing_of_the_system_that_is_nobodys_business_can_be_read(
    path: str, inmate: Inmate, free: Inmate, host: Host
) -> None:
    code = attack("open(path, 'rb').read(1)", path=path)
    if host.user == "root" and os.path.exists(path):
        assert free.tries(code) == "succeeded"
    answer = inmate.tries(code)
    assert denied(answer), answer


@pytest.mark.parametrize(
    "change",
    [
        pytest.param("os.fchmod(file, os.fstat(file).st_mode & 0o7777)", id="permissions"),
        pytest.param("os.utime(file, ns=(os.fstat(file).st_atime_ns, os.fstat(file).st_mtime_ns))", id="times"),
        pytest.param("os.setxattr(file, 'user.abuse', b'x')\nos.removexattr(file, 'user.abuse')", id="attributes"),
        pytest.param("os.fchown(file, os.getuid(), -1)", id="owner"),
        # A lease makes everybody else who opens the file wait for 45 seconds (fcntl(2), F_SETLEASE).
        pytest.param(
            "import fcntl\nfcntl.fcntl(file, 1024, fcntl.F_RDLCK)\nfcntl.fcntl(file, 1024, fcntl.F_UNLCK)", id="leases"
        ),
    ],
)
def test_what_can_be_read_cannot_be_changed_by_its_descriptor(
    change: str, inmate: Inmate, free: Inmate, host: Host
) -> None:
    # Reading is allowed, and these need only that and the same uid; each puts what is there already.
    path = "/etc/passwd"
    code = attack(
        f"file = os.open(path, os.O_RDONLY)\ntry:\n    {change.replace(chr(10), chr(10) + '    ')}\nfinally:\n    os.close(file)",
        path=path,
    )
    before = os.stat(path).st_ctime_ns
    answer = inmate.tries(code)
    assert denied(answer) or ("fcntl" not in change and os.stat(path).st_ctime_ns == before), (
        answer
    )  # or said to be done
    if host.user == "root":  # it is root's
        compared = free.tries(code)
        assert compared == "succeeded" or not_there(compared), compared


@pytest.mark.parametrize(
    "change", ["os.fchmod(file, 0o640)", "os.utime(file, (5, 5))", "os.setxattr(file, 'user.a', b'x')"]
)
def test_a_file_that_may_only_be_read_keeps_its_metadata(
    change: str, host: Host, form: str, free: Inmate, victim: str
) -> None:
    folder = os.path.dirname(victim)
    code = attack(f"file = os.open(victim, os.O_RDONLY)\n{change}", victim=victim)
    session = host.open({"form": form, "read_only": [folder]})
    try:
        assert session.tries(attack("open(victim).read()", victim=victim)) == "succeeded"
        before = os.stat(victim)
        answer = session.tries(code)
        assert os.stat(victim).st_ctime_ns == before.st_ctime_ns, answer
    finally:
        session.close()
    compared = free.tries(code)
    assert compared == "succeeded" or not_there(compared)


def test_a_file_that_may_only_be_read_cannot_be_leased(host: Host, form: str, free: Inmate, victim: str) -> None:
    # Whoever else opens it would wait for 45 seconds.
    code = attack(
        "import fcntl\nfile = os.open(victim, os.O_RDONLY)\nfcntl.fcntl(file, 1024, fcntl.F_RDLCK)\nos.close(file)",
        victim=victim,
    )
    assert free.tries(code) == "succeeded"
    session = host.open({"form": form, "read_only": [os.path.dirname(victim)]})
    try:
        answer = session.tries(code)
        assert denied(answer), answer
    finally:
        session.close()


ENVIRONMENTS = [
    pytest.param("found(repr(dict(os.environ)).encode())", id="its own"),
    pytest.param("found(open('/proc/self/environ', 'rb').read())", id="its own in proc"),
    pytest.param("found(subprocess.check_output(['env']))", id="that of a program it starts"),
    pytest.param("any_of(parents, lambda pid: found(open(f'/proc/{pid}/environ', 'rb').read()))", id="its parents"),
    pytest.param("any_of(pids, lambda pid: found(open(f'/proc/{pid}/environ', 'rb').read()))", id="any process"),
    pytest.param(
        "any_of(pids, lambda pid: found(open(f'/proc/{pid}/task/{pid}/environ', 'rb').read()))", id="any first thread"
    ),
]


@pytest.mark.parametrize("body", ENVIRONMENTS)
def test_secrets_of_the_service_are_not_in_the_environment_of(
    body: str, inmate: Inmate, free: Inmate, sibling: Inmate
) -> None:
    facts = inmate.facts
    ours = [facts["host"], facts["forkserver"], facts["pid"], sibling.facts["pid"]]
    find = f"def found(text):\n    if {SECRET.encode()!r} not in text: raise OSError('not there')\n"
    code = find + body
    code = attack(code, parents=[1, *ours], pids=[*ours, *range(1, 2000)]).replace(
        "pids = [", "pids = [os.getppid(), ", 1
    )
    compared = free.tries(code.replace("parents = [1", "parents = [os.getppid()"))
    assert compared == "succeeded"
    answer = inmate.tries(code)
    assert answer.startswith(("OSError: not there", "PermissionError", "FileNotFoundError", "ProcessLookupError")), (
        answer
    )


SEARCH = """
import hashlib, re, os
found = set()
memory = os.open(f'/proc/self/task/{os.getpid()}/mem', os.O_RDONLY)
for line in open('/proc/self/maps'):
    where, rights, *rest = line.split()
    start, end = (int(part, 16) for part in where.split('-'))
    if not rights.startswith('rw') or rest[-1] == '[vvar]':
        continue
    while start < end:
        try:
            data = os.pread(memory, min(end - start, 2**22), start)
        except OSError:
            break
        if not data:
            break
        for one in re.findall(PATTERN, data):
            found.add(hashlib.sha256(one).hexdigest())
        start += max(1, len(data) - 128) if len(data) == 2**22 else len(data)
os.close(memory)
print(HASH in found)
"""


def _search(pattern: str, wanted: str) -> str:
    """Looks through all of a kernel's memory. It is told a hash, lest it find what it was told."""
    hashed = hashlib.sha256(wanted.encode()).hexdigest()
    return SEARCH.replace("PATTERN", f"rb{pattern!r}").replace("HASH", repr(hashed))


@pytest.mark.wide
def test_a_kernels_memory_holds_no_secret_of_the_service_and_no_key_of_an_earlier_session(
    free: Inmate, host: Host, form: str, sibling: Inmate
) -> None:
    secret = _search("secret-[0-9a-f]{32}", SECRET)
    key = "(?<![0-9a-f])[0-9a-f]{64}(?![0-9a-f])"
    assert free.run(secret)["stdout"].strip() == "True"
    later = host.open({"form": form})
    try:
        assert later.facts["forkserver"] == sibling.facts["forkserver"]
        assert later.run(secret)["stdout"].strip() == "False"
        assert later.run(_search(key, later.facts["connection"]["key"]))["stdout"].strip() == "True"
        assert later.run(_search(key, sibling.facts["connection"]["key"]))["stdout"].strip() == "False"
    finally:
        later.close()


def test_that_a_file_outside_is_there_can_be_told_in_the_portable_form_and_where_a_uid_is_shared(
    inmate: Inmate, free: Inmate, outside: Outside, form: str
) -> None:
    # Landlock has no right for stat(2): size, times and owner of a file whose path is known are not promised to stay hidden.
    code = attack("os.stat(secret)", secret=outside.secret)
    assert free.tries(code) == "succeeded"
    assert inmate.tries(code) == "succeeded" if form == "portable" else denied(inmate.tries(code))


def test_a_crash_leaves_no_memory_behind(inmate: Inmate) -> None:
    assert inmate.run("import resource; print(resource.getrlimit(resource.RLIMIT_CORE))")["stdout"].strip() == "(0, 0)"
    answer = inmate.tries(attack("must(libc.setrlimit(4, (ctypes.c_ulong * 2)(2**20, 2**20)))"))
    assert denied(answer), answer
    code = "import os, signal\nif not (pid := os.fork()): os.kill(os.getpid(), signal.SIGSEGV)\nprint(os.waitpid(pid, 0)[1] & 127)"
    assert inmate.run(code)["stdout"].strip() == "11"
    assert not [name for name in os.listdir(inmate.facts["work"]) if name.startswith("core")]
