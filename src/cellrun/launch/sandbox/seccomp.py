"""seccomp: which system calls this process and all that it starts can make from now on (seccomp(2)).

Two filters, of which the stricter answer counts. The first lets through by name what ordinary programs use, and nothing that is not named: a
call that Linux gets next year is refused. The second refuses by argument. Both are built ahead, by libseccomp; a
forked kernel only loads them.

Refused are other families of sockets than local ones (UDP and raw sockets are beyond Landlock), namespaces and mounts, looking into
other processes, keys, BPF, io_uring, shared memory of System V, and the mark by which a session's processes are found
(marks.py).
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import functools
import socket
import tempfile
from dataclasses import dataclass
from typing import Any, Final

from cellrun.launch.sandbox.marks import RESOURCE
from cellrun.launch.sandbox.system import NO_NEW_PRIVILEGES, SECCOMP, prctl

_FILTER_MODE: Final = 2
_INSTRUCTION: Final = 8  # bytes (struct sock_filter)
# Of clone(2): the flags that make a namespace.
_NAMESPACES: Final = 0x7E020080
_TIOCSTI, _TIOCLINUX = 0x5412, 0x541C  # put characters into a terminal's input
_INT: Final = 0xFFFFFFFF

_FILES: Final = """
access chdir close close_range copy_file_range creat dup dup2 dup3 faccessat faccessat2 fadvise64 fallocate fchdir fchmod
fchown fcntl fdatasync fgetxattr flistxattr flock fremovexattr fsetxattr fstat fstatfs fsync ftruncate getcwd getdents
getdents64 getxattr getxattrat ioctl lgetxattr link linkat
listxattr listxattrat llistxattr lseek lstat mkdir mkdirat mknod mknodat newfstatat open openat pread64 preadv
preadv2 pwrite64 pwritev pwritev2 read readahead readlink readlinkat readv rename renameat renameat2 rmdir sendfile splice
stat statfs statx symlink symlinkat sync sync_file_range syncfs tee truncate umask unlink unlinkat vmsplice write writev
chmod chown fchmodat fchmodat2 fchownat futimesat lchown lremovexattr lsetxattr removexattr removexattrat setxattr
setxattrat utime utimensat utimes
"""
_MEMORY: Final = """
brk madvise membarrier memfd_create mincore mlock mlock2 mlockall mmap mprotect mremap mseal msync munlock munlockall
munmap pkey_alloc pkey_free pkey_mprotect remap_file_pages cachestat map_shadow_stack
"""
_PROCESSES: Final = """
arch_prctl capget capset execve execveat exit exit_group fork get_robust_list get_thread_area getcpu getegid geteuid
getgid getgroups getpgid getpgrp getpid getppid getpriority getresgid getresuid getrlimit getrusage getsid gettid
getuid ioprio_get kill landlock_add_rule landlock_create_ruleset landlock_restrict_self pause pidfd_open
pidfd_send_signal prctl prlimit64 riscv_flush_icache riscv_hwprobe rseq rt_sigaction rt_sigpending rt_sigprocmask
rt_sigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait rt_tgsigqueueinfo sched_get_priority_max
sched_get_priority_min sched_getaffinity sched_getattr sched_getparam sched_getscheduler sched_rr_get_interval
sched_yield seccomp set_robust_list set_thread_area set_tid_address setfsgid setfsuid setgid setgroups setpgid
setregid setresgid setresuid setreuid setrlimit setsid setuid sigaltstack sysinfo tgkill tkill times uname vfork wait4
waitid
"""
_WAITING: Final = """
alarm clock_getres clock_gettime clock_nanosleep epoll_create epoll_create1 epoll_ctl epoll_pwait epoll_pwait2
epoll_wait eventfd eventfd2 futex futex_requeue futex_wait futex_waitv futex_wake getitimer getrandom gettimeofday
nanosleep poll ppoll pselect6 restart_syscall select setitimer signalfd signalfd4 time timer_create timer_delete
timer_getoverrun timer_gettime timer_settime timerfd_create timerfd_gettime timerfd_settime pipe pipe2
"""
_SOCKETS: Final = """
accept accept4 bind connect getpeername getsockname getsockopt listen recvfrom recvmmsg recvmsg sendmmsg sendmsg sendto
setsockopt shutdown
"""
# A path is all that these need, and Landlock does not look at them. Said to have been done, since tar, git and pip give up otherwise;
# the kernel itself does them by descriptor (metadata.py).
_METADATA_BY_PATH: Final = "chmod chown fchmodat fchmodat2 fchownat futimesat lchown utime utimes"
_ATTRIBUTES_BY_PATH: Final = "lremovexattr lsetxattr removexattr removexattrat setxattr setxattrat"
# The same for a descriptor, which may have been opened for reading only: that is enough for these.
_METADATA_BY_DESCRIPTOR: Final = "fchmod fchown utimensat"
_ATTRIBUTES_BY_DESCRIPTOR: Final = "fsetxattr fremovexattr"
_F_SETLEASE: Final = 1024
_FS_SETTERS: Final = (0x40086602, 0x40046602, 0x401C5820)  # FS_IOC_SETFLAGS, for 32 bits too, FS_IOC_FSSETXATTR
_OF_INTERFACES: Final = 0x8900  # ioctl_list(2): the numbers from here to 0x89FF
# Calls that take the mode of a file, and the number of that argument: a program that runs as its owner would be one for others.
_MODES: Final = {
    **dict.fromkeys(("chmod", "fchmod", "creat", "mknod"), 1),
    **dict.fromkeys(("fchmodat", "fchmodat2", "open", "mknodat"), 2),
    "openat": 3,
}
_SET_UID, _SET_GID = 0o4000, 0o2000
# ZeroMQ ends the process where the scheduling of its thread cannot be set: these are said to have been done.
_SCHEDULING: Final = ("sched_setaffinity", "sched_setscheduler", "sched_setparam", "sched_setattr")


class NoSeccomp(Exception):
    """There is no filter to be had on this system; the text says why and what to do."""


@dataclass(frozen=True)
class Filters:
    """Two programs as the system takes them."""

    allowed: bytes
    refused: bytes


@functools.cache
def build(*, network: bool, own_uid: bool, portable: bool) -> Filters:
    """What the filters leave. Raises NoSeccomp. Takes 60 ms the first time.

    network    internet sockets too
    own_uid    whether each session has a uid that is nobody else's; otherwise calls that change a file's metadata by its
               path have no effect, since it could be anybody's file
    portable   whether all files of the machine are in view: then no local socket can be connected to (unless there is
               `network`: the filter cannot tell one from the other), and without an own uid metadata cannot be changed
               by descriptor either
    """
    try:
        import pyseccomp
    except ImportError:
        raise NoSeccomp("pyseccomp is not installed: pip install pyseccomp") from None
    except (RuntimeError, OSError) as error:
        raise NoSeccomp(f"the library libseccomp is missing ({error}): apt-get install libseccomp2") from None
    return Filters(_allowed(pyseccomp, network, portable), _refused(pyseccomp, network, own_uid, portable))


def _allowed(lib: Any, network: bool, portable: bool) -> bytes:
    program = lib.SyscallFilter(lib.ERRNO(errno.ENOSYS))
    program.set_attr(lib.Attr.ACT_BADARCH, lib.KILL_PROCESS)

    def rule(action: int, name: str, *arguments: Any) -> None:
        try:
            program.add_rule(action, name, *arguments)
        except (OSError, ValueError):  # unknown to this architecture or libseccomp: then it stays refused
            return

    for name in f"{_FILES} {_MEMORY} {_PROCESSES} {_WAITING} {_SOCKETS}".split():
        rule(lib.ALLOW, name)
    rule(lib.ALLOW, "clone", lib.Arg(0, lib.MASKED_EQ, _NAMESPACES, 0))
    rule(lib.ALLOW, "personality", lib.Arg(0, lib.EQ, 0))
    rule(lib.ALLOW, "personality", lib.Arg(0, lib.EQ, _INT))  # asks only
    rule(lib.ALLOW, "setpriority", lib.Arg(0, lib.EQ, 0), lib.Arg(1, lib.EQ, 0))
    rule(lib.ALLOW, "ioprio_set", lib.Arg(0, lib.EQ, 1), lib.Arg(1, lib.EQ, 0))
    if portable and not network:
        # A datagram can be sent to a path without connecting: so none of these, here.
        local = lib.Arg(0, lib.EQ, socket.AF_UNIX)
        for kind in (socket.SOCK_STREAM, socket.SOCK_SEQPACKET):
            for flags in (0, socket.SOCK_NONBLOCK, socket.SOCK_CLOEXEC, socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC):
                for name in ("socket", "socketpair"):
                    rule(lib.ALLOW, name, local, lib.Arg(1, lib.EQ, kind | flags))
    else:
        rule(lib.ALLOW, "socketpair", lib.Arg(0, lib.EQ, socket.AF_UNIX))
        rule(lib.ALLOW, "socket", lib.Arg(0, lib.EQ, socket.AF_UNIX))
    if network:
        rule(lib.ALLOW, "socket", lib.Arg(0, lib.EQ, socket.AF_INET))
        rule(lib.ALLOW, "socket", lib.Arg(0, lib.EQ, socket.AF_INET6))
        # What addresses there are: getaddrinfo(3) asks that.
        rule(lib.ALLOW, "socket", lib.Arg(0, lib.EQ, 16), lib.Arg(2, lib.EQ, 0))
    else:
        # ZeroMQ ends the process for other errors.
        rule(lib.ERRNO(errno.EOPNOTSUPP), "socket", lib.Arg(0, lib.NE, socket.AF_UNIX))
    for name in _SCHEDULING:
        rule(lib.ALLOW, name, lib.Arg(0, lib.EQ, 0))
        rule(lib.ERRNO(0), name, lib.Arg(0, lib.NE, 0))
    return _exported(program)


def _refused(lib: Any, network: bool, own_uid: bool, portable: bool) -> bytes:
    program = lib.SyscallFilter(lib.ALLOW)
    program.set_attr(lib.Attr.ACT_BADARCH, lib.KILL_PROCESS)
    refuse = lib.ERRNO(errno.EPERM)
    for request in (_TIOCSTI, _TIOCLINUX):
        program.add_rule(refuse, "ioctl", lib.Arg(1, lib.MASKED_EQ, _INT, request))
    program.add_rule(refuse, "prlimit64", lib.Arg(0, lib.NE, 0))
    program.add_rule(refuse, "prlimit64", lib.Arg(1, lib.MASKED_EQ, _INT, RESOURCE), lib.Arg(2, lib.NE, 0))
    program.add_rule(refuse, "setrlimit", lib.Arg(0, lib.MASKED_EQ, _INT, RESOURCE))
    if not network:
        program.add_rule(refuse, "ioctl", lib.Arg(1, lib.MASKED_EQ, 0xFFFFFF00, _OF_INTERFACES))
    for request in _FS_SETTERS:
        program.add_rule(refuse, "ioctl", lib.Arg(1, lib.MASKED_EQ, _INT, request))
    program.add_rule(refuse, "fcntl", lib.Arg(1, lib.MASKED_EQ, _INT, _F_SETLEASE))

    def for_all(names: str, action: int) -> None:
        for name in names.split():
            with contextlib.suppress(OSError, ValueError):  # newer than this libseccomp: the first filter refuses it
                program.add_rule(action, name)

    done, unsupported = lib.ERRNO(0), lib.ERRNO(errno.EOPNOTSUPP)
    without_effect: set[str] = set()
    if portable and not network:
        for_all("connect", refuse)
    if not own_uid:
        for_all(_METADATA_BY_PATH, done)
        for_all(_ATTRIBUTES_BY_PATH, unsupported)
        without_effect |= set(_METADATA_BY_PATH.split())
        if portable:
            for_all(_METADATA_BY_DESCRIPTOR, done)
            for_all(_ATTRIBUTES_BY_DESCRIPTOR, unsupported)
            without_effect |= set(_METADATA_BY_DESCRIPTOR.split())
        else:
            program.add_rule(done, "utimensat", lib.Arg(1, lib.NE, 0))
    for name, argument in _MODES.items():
        if name not in without_effect:
            for bit in (_SET_UID, _SET_GID):
                with contextlib.suppress(OSError, ValueError):
                    program.add_rule(refuse, name, lib.Arg(argument, lib.MASKED_EQ, bit, bit))
    return _exported(program)


def _exported(program: Any) -> bytes:
    with tempfile.TemporaryFile() as file:
        program.export_bpf(file)
        file.seek(0)
        return file.read()


class _Program(ctypes.Structure):
    """struct sock_fprog."""

    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_void_p))


def load(filters: Filters) -> None:
    """For this thread and all that it starts; it must be the only one. Raises OSError."""
    prctl(NO_NEW_PRIVILEGES, 1)
    # The first filter lets the second be loaded.
    for instructions in (filters.allowed, filters.refused):
        buffer = ctypes.create_string_buffer(instructions, len(instructions))
        program = _Program(len(instructions) // _INSTRUCTION, ctypes.addressof(buffer))
        prctl(SECCOMP, _FILTER_MODE, ctypes.byref(program))
