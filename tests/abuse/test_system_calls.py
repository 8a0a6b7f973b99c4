"""System calls: what ordinary programs do not need, nobody gets."""

from __future__ import annotations

import errno
import os
import platform
import shutil
import stat
from pathlib import Path

import pytest

from tests.abuse.attacking import attack, denied, not_there, refused_with
from tests.abuse.conftest import Host, Inmate, Outside

pytestmark = pytest.mark.skipif(platform.machine() != "x86_64", reason="system calls have other numbers here")

EVERYBODY, ROOT = "everybody", "root"
# Where it succeeds, a bare clone of a process with threads may hang: unshare, above it, stands for the comparison.
NOBODY = "nobody"
NAMESPACES = {
    "user": 0x10000000,
    "mount": 0x20000,
    "process": 0x20000000,
    "network": 0x40000000,
    "host name": 0x4000000,
    "System V": 0x8000000,
    "control group": 0x2000000,
}
CALLS = [
    *(
        pytest.param(ROOT, f"in_child(lambda: call(272, {flag}))", id=f"unshare a {name} namespace")
        for name, flag in NAMESPACES.items()
    ),
    *(
        pytest.param(
            NOBODY,
            # A child made behind the interpreter's back may wait for its lock for ever.
            f"pid = call(56, {flag} | 17, 0, 0, 0, 0)\nif not pid: os._exit(0)\nos.kill(pid, 9)\nos.waitpid(pid, 0)",
            id=f"clone into a {name} namespace",
        )
        for name, flag in NAMESPACES.items()
    ),
    pytest.param(ROOT, "in_child(lambda: call(161, b'/'))", id="chroot"),
    pytest.param(
        ROOT,
        "in_child(lambda: (call(272, 0x20000), call(165, 0, b'/', 0, 0x44000, 0), call(165, b'x', b'/tmp', b'tmpfs', 0, 0)))",
        id="mount",
    ),
    pytest.param(ROOT, "os.close(call(430, b'tmpfs', 0))", id="open a file system"),
    pytest.param(ROOT, "os.close(call(321, 0, struct.pack('IIIIIIIIII', 2, 4, 4, 1, 0, 0, 0, 0, 0, 0), 40))", id="make a map of BPF"),
    pytest.param(EVERYBODY, "call(250, 0, -3, 1)", id="have a keyring"),
    pytest.param(EVERYBODY, "key = call(248, b'user', b'abuse', b'x', 1, -1)", id="keep a key"),
    pytest.param(ROOT, "os.close(call(298, struct.pack('IIQ104x', 1, 112, 0), 0, -1, -1, 0))", id="watch performance"),
    pytest.param(ROOT, "os.close(call(323, 0))", id="handle faults of memory"),
    pytest.param(EVERYBODY, "os.close(call(425, 1, ctypes.create_string_buffer(120)))", id="have a ring of io_uring"),
    pytest.param(EVERYBODY, "call(31, call(29, 0, 4096, 0o1600), 0, 0)", id="have shared memory of System V"),
    pytest.param(EVERYBODY, "call(66, call(64, 0, 1, 0o1600), 0, 0, 0)", id="have semaphores of System V"),
    pytest.param(EVERYBODY, "call(71, call(68, 0, 0o1600), 0, 0)", id="have messages of System V"),
    pytest.param(
        EVERYBODY, "os.close(call(240, b'cellrun-abuse', 0o102, 0o600, 0))\ncall(241, b'cellrun-abuse')", id="have a queue of POSIX"
    ),
    pytest.param(EVERYBODY, "in_child(lambda: call(101, 0, 0, 0, 0))", id="be traced"),
    pytest.param(EVERYBODY, "call(312, os.getpid(), os.getpid(), 0, 0, 0)", id="compare processes"),
    pytest.param(EVERYBODY, "call(310, os.getpid(), 0, 0, 0, 0, 0)", id="read memory of a process"),
    pytest.param(EVERYBODY, "call(311, os.getpid(), 0, 0, 0, 0, 0)", id="write memory of a process"),
    pytest.param(EVERYBODY, "os.close(call(438, os.pidfd_open(os.getpid()), 0, 0))", id="take a descriptor of a process"),
    pytest.param(EVERYBODY, "in_child(lambda: call(135, 0x40000))", id="have memory where it always is"),
    pytest.param(EVERYBODY, "in_child(lambda: call(135, 0x400000))", id="have data that is executed"),
    pytest.param(EVERYBODY, "os.close(call(300, 0x200, 0))", id="watch the file system by fanotify"),
    pytest.param(
        EVERYBODY, "call(303, -100, b'/', struct.pack('II128x', 128, 0), ctypes.create_string_buffer(8), 0)", id="have the handle of a file"
    ),
    pytest.param(EVERYBODY, "os.close(call(447, 0))", id="have secret memory"),
    pytest.param(ROOT, "os.mknod('device', 0o20600, os.makedev(1, 3))\nos.unlink('device')", id="make a device"),
    pytest.param(ROOT, "os.mknod('disk', 0o60600, os.makedev(254, 0))\nos.unlink('disk')", id="make a disk"),
    pytest.param(ROOT, "in_child(lambda: os.setresuid(12345, 12345, 12345))", id="become another user"),
    pytest.param(ROOT, "in_child(lambda: os.setresgid(12345, 12345, 12345))", id="become another group"),
    pytest.param(ROOT, "in_child(lambda: os.setgroups([0, 4]))", id="join groups"),
    pytest.param(
        ROOT,
        "in_child(lambda: must(libc.capset((ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)(2**21, 2**21, 0, 0, 0, 0))))",
        id="have the powers of an administrator",
    ),
    pytest.param(
        ROOT,
        "code = 'import ctypes; l = ctypes.CDLL(None); d = (ctypes.c_uint32 * 6)(); l.capget((ctypes.c_uint32 * 2)(0x20080522, 0), d); print(any(d))'\n"
        "assert subprocess.run([sys.executable, '-S', '-c', code], capture_output=True, text=True).stdout == 'True\\n'",
        id="start a program with powers",
    ),
    pytest.param(ROOT, "in_child(lambda: os.setpriority(os.PRIO_PROCESS, 0, os.getpriority(os.PRIO_PROCESS, 0) - 1))", id="be less nice"),
]  # fmt: skip


@pytest.mark.parametrize(("whose", "body"), CALLS)
def test_nobody_can(whose: str, body: str, inmate: Inmate, free: Inmate, host: Host) -> None:
    answer = inmate.tries(attack(body))
    assert denied(answer), answer
    assert "ended by signal" not in answer
    if whose == EVERYBODY or host.user == "root":
        compared = free.tries(attack(body))
        # Old, new, or hardened Linux has some of them for nobody.
        assert compared == "succeeded" or not_there(compared), compared


REFUSED = """
_sysctl acct add_key adjtimex afs_syscall bpf chroot clock_adjtime clock_settime clone3 create_module delete_module
fanotify_init fanotify_mark finit_module fsconfig fsmount fsopen fspick get_kernel_syms get_mempolicy getpmsg init_module
io_uring_enter io_uring_register io_uring_setup ioperm iopl kcmp kexec_file_load kexec_load keyctl lookup_dcookie mbind
memfd_secret migrate_pages modify_ldt mount mount_setattr move_mount move_pages mq_getsetattr mq_notify mq_open
mq_timedreceive mq_timedsend mq_unlink msgctl msgget msgrcv msgsnd name_to_handle_at nfsservctl open_by_handle_at open_tree
perf_event_open pidfd_getfd pivot_root process_madvise process_mrelease process_vm_readv process_vm_writev ptrace putpmsg
query_module quotactl quotactl_fd reboot request_key security semctl semget semop semtimedop set_mempolicy
set_mempolicy_home_node setdomainname sethostname setns settimeofday shmat shmctl shmdt shmget swapoff swapon sysfs syslog
tuxcall umount2 unshare uselib userfaultfd ustat vhangup vserver
"""


def test_these_system_calls_are_there_for_nobody(inmate: Inmate) -> None:
    import pyseccomp

    numbers = {name: pyseccomp.resolve_syscall(pyseccomp.Arch.NATIVE, name) for name in REFUSED.split()}
    code = f"""
        answers = {{}}
        for name, number in {numbers!r}.items():
            # Arguments that none of them could do anything with.
            libc.syscall(*map(ctypes.c_long, (number, -1, -1, -1, -1, -1, -1)))
            answers[name] = errno.errorcode.get(ctypes.get_errno(), '')
        raise OSError(str([name for name, answer in answers.items() if answer != 'ENOSYS']))
    """
    assert inmate.tries(attack(code)) == "OSError: []"


def test_system_calls_that_linux_has_yet_to_get_are_there_for_nobody(inmate: Inmate) -> None:
    code = """
        there = []
        for number in range(468, 1024):
            libc.syscall(*map(ctypes.c_long, (number, -1, -1, -1, -1, -1, -1)))
            if ctypes.get_errno() != errno.ENOSYS: there.append(number)
        raise OSError(str(there))
    """
    assert inmate.tries(attack(code)) == "OSError: []"


OTHER_WAYS = [
    pytest.param("call(0x40000000 | 39)", id="of x32"),
    pytest.param(
        """
        import mmap
        page = mmap.mmap(-1, 4096, prot=7)
        page.write(bytes([0xb8, 20, 0, 0, 0, 0xcd, 0x80, 0xc3]))
        ctypes.CFUNCTYPE(ctypes.c_long)(ctypes.addressof(ctypes.c_char.from_buffer(page)))()
        """,
        id="of 32 bits",
    ),
]


@pytest.mark.parametrize("body", OTHER_WAYS)
def test_there_is_no_other_way_to_make_a_system_call(body: str, inmate: Inmate, free: Inmate) -> None:
    inner = "\n".join(f"    {line.removeprefix('        ')}" for line in body.strip("\n").splitlines())
    code = attack(f"def work():\n{inner}\nin_child(work)")
    compared = free.tries(code)
    assert compared == "succeeded" or "ended by signal 11" in compared or not_there(compared), (
        compared
    )  # Linux can do without either
    answer = inmate.tries(code)
    assert "ended by signal 31" in answer or refused_with(answer, errno.ENOSYS), answer


MARK = [
    pytest.param("resource.setrlimit(12, (1, 1))", id="setrlimit"),
    pytest.param("resource.prlimit(0, 12, (1, 1))", id="prlimit"),
    pytest.param("resource.prlimit(os.getpid(), 12, (1, 1))", id="prlimit of its own number"),
    pytest.param("resource.prlimit(os.getppid(), 12, (1, 1))", id="prlimit of its parent"),
    pytest.param("call(160, 12, limits)", id="the call setrlimit"),
    pytest.param("call(160, 12 | 1 << 32, limits)", id="setrlimit with high bits"),
    pytest.param("call(302, 0, 12, limits, 0)", id="the call prlimit64"),
    pytest.param("call(302, 0, 12 | 1 << 32, limits, 0)", id="prlimit64 with high bits"),
    pytest.param("call(302, 1 << 32, 12, limits, 0)", id="prlimit64 with high bits of nobody's number"),
    pytest.param("call(302, 0, 12, limits, limits)", id="prlimit64 that asks as well"),
]


@pytest.mark.parametrize("body", MARK)
def test_the_mark_of_a_session_cannot_be_changed_by(body: str, inmate: Inmate, free: Inmate) -> None:
    look = "import resource\nbefore = resource.getrlimit(12)\nlimits = struct.pack('QQ', 1, 1)\n"
    work = f"def work():\n    {body}\n    assert resource.getrlimit(12) == (1, 1) or resource.prlimit(os.getppid(), 12) == (1, 1)\nin_child(lambda: in_child(work))"
    compared = free.tries(attack(look + work))
    assert compared == "succeeded", compared
    answer = inmate.tries(attack(look + work))
    assert refused_with(answer, errno.EPERM), answer
    assert inmate.run("import resource; print(resource.getrlimit(12)[0] >= 1000)")["stdout"] == "True\n"


@pytest.mark.parametrize("request_", [0x5412, 0x541C, 0x5412 | 1 << 32, 0x541C | 1 << 40])
def test_nothing_can_be_put_into_a_terminals_input(request_: int, inmate: Inmate, free: Inmate) -> None:
    code = attack(f"call(16, 0, {request_}, ctypes.create_string_buffer(8))")
    assert refused_with(free.tries(code), errno.ENOTTY)  # asked, of what is no terminal
    assert refused_with(inmate.tries(code), errno.EPERM)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can make such a program for somebody else")
@pytest.mark.parametrize("host", ["ordinary"], indirect=True)
def test_a_program_that_would_become_root_stays_what_it_is(
    host: Host, form: str, free: Inmate, outside: Outside
) -> None:
    program = Path(outside.folder, "become")
    shutil.copy(shutil.which("id") or "/usr/bin/id", program)
    program.chmod(0o755 | stat.S_ISUID)
    session = host.open({"form": form, "read_only": [str(program)]})
    try:
        code = attack("assert subprocess.check_output([path, '-u']) == b'0\\n'", path=str(program))
        assert free.tries(code) == "succeeded"
        assert session.tries(code) == "AssertionError:"
    finally:
        session.close()
        program.unlink()


def test_a_program_in_memory_can_be_run_and_is_behind_the_same_walls(inmate: Inmate, free: Inmate) -> None:
    code = attack("""
        program = os.memfd_create('program', 0)
        os.write(program, open('/usr/bin/true', 'rb').read())
        in_child(lambda: os.execve(program, ['true'], {}))
    """)
    assert free.tries(code) == "succeeded"
    assert inmate.tries(code) == "succeeded"
