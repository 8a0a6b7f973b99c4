"""Sessions of one provider, which know everything of each other: their paths, their numbers, their keys."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.abuse.attacking import attack, denied, numbers_of, shares_uid
from tests.abuse.conftest import Host, Inmate


def _as_it_was(kept: str) -> None:
    """From outside: not every session can change times and permissions."""
    Path(kept).chmod(0o644)
    os.utime(kept, (1, 1))


@pytest.fixture
def known(inmate: Inmate, sibling: Inmate) -> Iterator[dict[str, Any]]:
    """What there is of the sibling's, and what the attacker leaves is removed."""
    kept = f"{sibling.facts['work']}/kept"
    assert sibling.run("open('kept', 'w').write('kept')")["status"] == "ok"
    _as_it_was(kept)
    yield {"work": sibling.facts["work"], "room": sibling.facts["room"], "kept": kept}
    inmate.run("import os\nfor name in os.listdir(): os.unlink(name)")


FILES = [
    pytest.param("assert open(kept).read() == 'kept'", id="reads one"),
    pytest.param("assert os.listdir(work)", id="lists them"),
    pytest.param("assert os.listdir(os.path.dirname(room))", id="lists all rooms"),
    pytest.param("open(kept, 'a').close()", id="opens one for writing"),
    pytest.param("os.truncate(kept, 4)", id="truncates one"),
    pytest.param("os.close(os.open(work + '/new', os.O_CREAT | os.O_WRONLY))\nos.unlink(work + '/new')", id="makes one"),
    pytest.param("os.mkdir(work + '/new')\nos.rmdir(work + '/new')", id="makes a folder"),
    pytest.param("os.rename(kept, work + '/k2')\nos.rename(work + '/k2', kept)", id="renames one"),
    pytest.param("os.rename(work, room + '/w2')\nos.rename(room + '/w2', work)", id="renames their folder"),
    pytest.param("os.link(kept, work + '/k2')\nos.unlink(work + '/k2')", id="links one beside it"),
    pytest.param("open('mine', 'w').write('kept')\nos.utime('mine', (1, 1))\nos.rename('mine', kept)", id="replaces one"),
    pytest.param("os.symlink(kept, 'way')\nassert open('way').read()", id="reads one through a symlink"),
    pytest.param("os.symlink(work, 'way')\nassert os.listdir('way')", id="lists them through a symlink"),
    pytest.param("os.chdir(work)\nassert open('kept').read()", id="reads one by a relative path"),
    pytest.param("os.fchdir(os.open(work, os.O_PATH))\nassert open('kept').read()", id="reads one by a path's descriptor"),
    pytest.param("must(libc.inotify_add_watch(must(libc.inotify_init()), work.encode(), 0xfff))", id="watches them"),
    pytest.param("must(libc.chmod(kept.encode(), 0o600))\nassert os.stat(kept).st_mode & 0o777 == 0o600", id="chmods one"),
    pytest.param("os.chmod(kept, 0o600)\nassert os.stat(kept).st_mode & 0o777 == 0o600", id="chmods one by Python"),
    pytest.param("must(libc.utime(kept.encode(), None))\nassert os.stat(kept).st_mtime > 10", id="gives one another time"),
    pytest.param("assert subprocess.run(['cat', kept], capture_output=True).stdout == b'kept'", id="has a program read one"),
]  # fmt: skip


@pytest.mark.parametrize("body", FILES)
def test_nobody_reaches_a_siblings_files_who(
    body: str, inmate: Inmate, sibling: Inmate, free: Inmate, host: Host, form: str, known: dict[str, Any]
) -> None:
    tidy = ["finally:", "    os.chdir(here)", "    if os.path.lexists('way'): os.unlink('way')"]
    back = "\n".join(["here = os.getcwd()", "try:", *(f"    {line}" for line in body.splitlines()), *tidy])
    answer = inmate.tries(attack(back, **known))
    assert denied(answer), answer
    after = os.stat(known["kept"])
    assert (after.st_mode & 0o777, after.st_mtime, after.st_nlink) == (0o644, 1, 1)
    assert sibling.run("import os; print(open('kept').read(), os.listdir())")["stdout"] == "kept ['kept']\n"
    # The rooms are seen by whoever is outside of the sandbox, as the same user.
    compared = free.tries(attack(back, **known))
    assert compared == "succeeded" or "Invalid cross-device link" in compared, compared
    _as_it_was(known["kept"])


def test_that_a_siblings_file_is_there_can_be_told_where_a_uid_is_shared(inmate: Inmate, known: dict[str, Any]) -> None:
    # Not promised: Landlock has no right for stat(2), and a path must be known first.
    answer = inmate.tries(attack("os.stat(kept)", **known))
    assert answer == "succeeded" if shares_uid(inmate) else denied(answer)


@pytest.fixture
def shared(sibling: Inmate) -> Iterator[str]:
    """The name of shared memory that a sibling has."""
    name = f"abuse-{secrets.token_hex(4)}"
    code = (
        f"from multiprocessing.shared_memory import SharedMemory as S; m = S({name!r}, True, 64); m.buf[:4] = b'mine'"
    )
    assert sibling.run(code)["status"] == "ok"
    yield f"/dev/shm/{name}"
    assert sibling.run("m.close(); m.unlink()")["status"] == "ok"


def test_shared_memory_whose_name_is_not_known_cannot_be_found(inmate: Inmate, free: Inmate, shared: str) -> None:
    code = attack("assert os.listdir('/dev/shm') is not None")
    assert free.tries(code) == "succeeded"
    answer = inmate.tries(code)
    assert denied(answer), answer


def test_the_names_of_shared_memory_cannot_be_learned_by_watching_it_being_made(inmate: Inmate, free: Inmate) -> None:
    code = attack("must(libc.inotify_add_watch(must(libc.inotify_init()), b'/dev/shm', 0x100))")
    assert free.tries(code) == "succeeded"
    answer = inmate.tries(code)
    assert denied(answer), answer


def test_shared_memory_whose_name_is_known_is_open_to_siblings_that_share_a_uid(inmate: Inmate, shared: str) -> None:
    # Not promised: a kernel needs to make files there, and Landlock knows paths, not owners. multiprocessing draws names of 32 bits.
    answer = inmate.tries(attack("assert open(path, 'rb').read(4) == b'mine'", path=shared))
    assert answer == "succeeded" if shares_uid(inmate) else denied(answer)


@pytest.mark.parametrize("number", range(1, 6))
def test_a_siblings_sockets_cannot_be_connected_to(number: int, inmate: Inmate, sibling: Inmate) -> None:
    # Nor by anybody else: their names are taken away once their host has connected.
    path = f"{sibling.facts['connection']['ip']}-{number}"
    answer = inmate.tries(attack("socket.socket(socket.AF_UNIX).connect(path)", path=path))
    assert denied(answer), answer
    assert not os.path.exists(path)


def test_a_siblings_connection_file_is_not_there(inmate: Inmate, sibling: Inmate) -> None:
    path = f"{os.path.dirname(sibling.facts['connection']['ip'])}/kernel.json"
    answer = inmate.tries(attack("open(path).read()", path=path))
    assert denied(answer), answer


PROCESSES = [
    pytest.param("os.kill(pid, 0)", id="signalled"),
    pytest.param("assert pid != 1\nos.killpg(pid, 0)", id="signalled as a group"),  # of 1 means everybody
    pytest.param("call(234, pid, pid, 0)", id="signalled as a thread"),
    pytest.param("call(129, pid, 0, struct.pack('iii116x', 0, 0, -1))", id="signalled by sigqueue"),
    pytest.param("signal.pidfd_send_signal(os.pidfd_open(pid), 0)", id="signalled through a pidfd"),
    pytest.param("open(f'/proc/{pid}/mem', 'rb').close()", id="read by its memory"),
    pytest.param("open(f'/proc/{pid}/mem', 'r+b', 0).close()", id="changed by its memory"),
    pytest.param("open(f'/proc/{pid}/environ', 'rb').read()", id="read by its environment"),
    pytest.param("open(f'/proc/{pid}/maps').read()", id="read by its maps"),
    pytest.param("open(f'/proc/{pid}/cmdline').read()", id="read by its command line"),
    pytest.param("open(f'/proc/{pid}/status').read()", id="read by its status"),
    pytest.param("open(f'/proc/{pid}/limits').read()", id="read by its limits"),
    pytest.param("os.listdir(f'/proc/{pid}/fd')", id="read by its descriptors"),
    pytest.param("os.readlink(f'/proc/{pid}/fd/0')", id="read by where a descriptor leads"),
    pytest.param("os.open(f'/proc/{pid}/fd/0', os.O_RDONLY)", id="read through a descriptor"),
    pytest.param("os.listdir(f'/proc/{pid}/root/')", id="seen through its root"),
    pytest.param("os.listdir(f'/proc/{pid}/cwd/')", id="seen through its folder"),
    pytest.param("os.readlink(f'/proc/{pid}/cwd')", id="seen by where it works"),
    pytest.param("os.readlink(f'/proc/{pid}/exe')", id="seen by what it runs"),
    pytest.param("os.readlink(f'/proc/{pid}/ns/pid')", id="seen by its namespaces"),
    pytest.param("open(f'/proc/{pid}/ns/mnt').close()", id="entered by its namespaces"),
    pytest.param("open(f'/proc/{pid}/oom_score_adj', 'r+').close()", id="made the first victim"),
    pytest.param("in_child(lambda: call(101, 0x4206, pid, 0, 0))", id="traced"),
    pytest.param("call(438, os.pidfd_open(pid), 0, 0)", id="robbed of a descriptor"),
    pytest.param("call(312, pid, os.getpid(), 0, 0, 0)", id="compared"),
    pytest.param("call(302, pid, 7, 0, ctypes.create_string_buffer(16))", id="asked for its limits"),
    pytest.param("call(310, pid, 0, 0, 0, 0, 0)", id="read by process_vm_readv"),
]


@pytest.mark.parametrize("whom", ["the sibling", "the forkserver", "the host", "the first process"])
@pytest.mark.parametrize("body", PROCESSES)
def test_no_other_process_is(body: str, whom: str, inmate: Inmate, sibling: Inmate, free: Inmate, host: Host) -> None:
    target = {
        "the sibling": sibling.facts["pid"],
        "the forkserver": inmate.facts["forkserver"],
        "the host": inmate.facts["host"],
        "the first process": 1,
    }[whom]
    code = f"def work(pid):\n    {body.replace(chr(10), chr(10) + '    ')}\nany_of(pids, work)"
    answer = inmate.tries(attack(code, pids=numbers_of(target)))
    assert denied(answer), answer
    leads_a_group = "killpg" not in body or whom == "the sibling"
    if (
        leads_a_group and host.user == "root" and whom != "the first process"
    ):  # Yama may keep others from their own processes
        compared = free.tries(attack(code, pids=[target]))
        # Limits of another uid's process take a power that not every root has.
        assert compared == "succeeded" or "call(302" in body, compared


def test_none_of_all_the_processes_can_be_reached_by_number(inmate: Inmate, sibling: Inmate) -> None:
    code = """
        reached = []
        own = {os.getpid()}
        pids = {*range(1, 2000), *known} - own
        for pid in sorted(pids):
            for work in (
                lambda: os.kill(pid, 0),
                lambda: os.listdir(f'/proc/{pid}'),
                *(lambda name=name: open(f'/proc/{pid}/{name}', 'rb').close() for name in ('mem', 'environ', 'maps', 'cmdline', 'stat')),
                lambda: os.readlink(f'/proc/{pid}/cwd'),
            ):
                try:
                    work()
                except OSError:
                    continue
                reached.append(pid)
        threads = {int(name) for name in os.listdir('/proc/self/task')}
        if not set(reached) - threads: raise OSError('none')
    """
    known = [
        n for pid in (sibling.facts["pid"], inmate.facts["forkserver"], inmate.facts["host"]) for n in numbers_of(pid)
    ]
    assert inmate.tries(attack(code, known=known)) == "OSError: none"
    assert denied(inmate.tries(attack("assert [name for name in os.listdir('/proc') if name.isdigit()]")))


LISTEN = "import signal; heard = []; _ = signal.signal(signal.SIGURG, lambda *_: heard.append(1))"


def test_a_signal_to_everybody_reaches_no_sibling(inmate: Inmate, sibling: Inmate, free: Inmate) -> None:
    # kill(-1) says that it succeeded whatever it reached. SIGURG harms nobody who does not listen.
    assert sibling.run(LISTEN)["status"] == "ok"
    assert inmate.tries(attack("os.kill(-1, signal.SIGURG)")) == "succeeded"
    assert sibling.run("print(len(heard))")["stdout"] == "0\n"
    assert free.tries(attack("os.kill(pid, signal.SIGURG)", pid=sibling.facts["pid"])) == "succeeded"
    assert sibling.run("print(len(heard))")["stdout"] == "1\n"


def test_a_signal_to_all_of_its_group_reaches_itself_only(inmate: Inmate, sibling: Inmate) -> None:
    # Even from a child which, uncontained, would be let reach everything of its uid.
    code = "import os, signal\nif not (pid := os.fork()):\n    os.setsid()\n    os.killpg(0, signal.SIGKILL)\nprint(os.waitpid(pid, 0)[1])"
    assert inmate.run(code)["stdout"].strip() == "9"
    assert sibling.run("print(1)")["stdout"] == "1\n"


def test_a_descriptor_sends_no_signal_to_a_sibling(inmate: Inmate, sibling: Inmate, free: Inmate, host: Host) -> None:
    # F_SETOWN names whom a pipe signals (fcntl(2)).
    assert sibling.run(LISTEN)["status"] == "ok"
    code = """
        import fcntl
        def work(pid):
            read, write = os.pipe()
            fcntl.fcntl(read, fcntl.F_SETOWN, pid)
            fcntl.fcntl(read, 10, signal.SIGURG)
            fcntl.fcntl(read, fcntl.F_SETFL, os.O_ASYNC | os.O_NONBLOCK)
            os.write(write, b'x')
            os.close(read); os.close(write)
        for pid in pids:
            try: work(pid)
            except OSError: pass
    """
    inmate.tries(attack(code, pids=numbers_of(sibling.facts["pid"])))
    assert sibling.run("print(len(heard))")["stdout"] == "0\n"
    free.tries(attack(code, pids=[sibling.facts["pid"]]))
    assert sibling.run("print(len(heard))")["stdout"] == "1\n"


CHANGES = [
    pytest.param("os.sched_setaffinity(pid, {0})", os.sched_getaffinity, id="on which processors it runs"),
    pytest.param("os.setpriority(os.PRIO_PROCESS, pid, 7)", lambda pid: os.getpriority(os.PRIO_PROCESS, pid), id="how nice it is"),
    pytest.param("os.sched_setscheduler(pid, os.SCHED_BATCH, os.sched_param(0))", os.sched_getscheduler, id="how it is scheduled"),
]  # fmt: skip


@pytest.mark.parametrize(("body", "look"), CHANGES)
def test_nobody_can_change_of_a_sibling(
    body: str, look: Any, inmate: Inmate, host: Host, free: Inmate, form: str
) -> None:
    victim = host.open({"form": form})
    try:
        pid = victim.facts["pid"]
        before = look(pid)
        code = f"for pid in pids:\n    try: {body}\n    except OSError: pass"
        assert inmate.tries(attack(code, pids=numbers_of(pid))) == "succeeded"
        assert look(pid) == before
        assert free.tries(attack(code, pids=[pid])) == "succeeded"
        assert look(pid) != before or (os.cpu_count() == 1 and "affinity" in body)
    finally:
        victim.close()


def test_the_nicety_of_a_whole_user_cannot_be_changed(inmate: Inmate, free: Inmate) -> None:
    code = attack("os.setpriority(os.PRIO_PGRP, 0, os.getpriority(os.PRIO_PROCESS, 0))")
    assert free.tries(code) == "succeeded"
    assert denied(inmate.tries(code))
    assert denied(inmate.tries(attack("os.setpriority(os.PRIO_USER, 0, 7)")))


def test_a_siblings_terminal_cannot_be_opened(inmate: Inmate, sibling: Inmate) -> None:
    made = sibling.run("import os\ntry: print(os.ttyname(os.openpty()[1]))\nexcept OSError: print('/dev/pts/0')")
    answer = inmate.tries(attack("os.close(os.open(path, os.O_RDWR | os.O_NOCTTY))", path=made["stdout"].strip()))
    assert denied(answer), answer
