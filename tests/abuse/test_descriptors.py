"""What a contained kernel has in its hands: a descriptor leads past every wall."""

from __future__ import annotations

import ctypes
import errno
import itertools
import os
import platform
from collections import Counter

import pytest

from tests.abuse.attacking import attack, denied
from tests.abuse.conftest import Inmate
from tests.abuse.exhausting import until

_KCMP = {"x86_64": 312, "aarch64": 272}.get(platform.machine(), -1)


def _descriptors(pid: int) -> dict[int, str]:
    found = {}
    for name in os.listdir(f"/proc/{pid}/fd"):
        try:
            found[int(name)] = os.readlink(f"/proc/{pid}/fd/{name}")
        except FileNotFoundError:
            continue
    return found


def _same(one: tuple[int, int], other: tuple[int, int]) -> bool:
    """Whether two descriptors of two processes are one open file (kcmp(2)), so that what one does to it the other sees."""
    libc = ctypes.CDLL(None, use_errno=True)
    arguments = (ctypes.c_long(part) for part in (_KCMP, one[0], other[0], 0, one[1], other[1]))
    result = libc.syscall(*arguments)
    if result < 0 and ctypes.get_errno() in (errno.EPERM, errno.ENOSYS):
        pytest.skip("descriptors of other processes cannot be compared here")
    return bool(result == 0)


KINDS = """
import os, socket, stat
def kind(number):
    where = os.readlink(f'/proc/self/fd/{number}')
    mode = os.fstat(number).st_mode
    if stat.S_ISFIFO(mode):
        return 'pipe, ' + ('read' if int(open(f'/proc/self/fdinfo/{number}').read().split()[3], 8) & 3 == 0 else 'write')
    if not stat.S_ISSOCK(mode):
        return where
    with socket.socket(fileno=os.dup(number)) as one:
        return ', '.join([one.family.name, one.type.name, 'listens' if one.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) else
                          'named' if one.getsockname() else 'nameless'])
for number in sorted(map(int, os.listdir('/proc/self/fd'))):
    try: print(kind(number))
    except OSError: pass
"""


def test_a_kernel_has_these_descriptors_and_no_other(inmate: Inmate) -> None:
    names = "AF_UNIX, SOCK_STREAM, named"
    until(lambda: inmate.run(KINDS)["stdout"].splitlines().count(names) >= 4)  # it answers before all four are there
    found = Counter(inmate.run(KINDS)["stdout"].splitlines())
    # Of ZeroMQ and asyncio: as many as they like, all made by the kernel itself.
    for own in ("anon_inode:[eventfd]", "anon_inode:[eventpoll]"):
        assert found.pop(own)
    assert found == {
        "/dev/null": 1,  # standard input
        "pipe, write": 4,  # standard output and error, twice
        "pipe, read": 3,  # their other ends; and what tells of its host's end
        "/memfd:log (deleted)": 1,  # its own words, which its host reads
        "AF_UNIX, SOCK_STREAM, listens": 5,  # the channels
        names: 4,  # its host's connections to them
        "AF_UNIX, SOCK_STREAM, nameless": 4,  # two pairs by which its event loops wake themselves
    }


def test_the_forkservers_control_socket_is_in_no_kernels_hands(inmate: Inmate, sibling: Inmate) -> None:
    server, host = inmate.facts["forkserver"], inmate.facts["host"]
    for theirs, pid in itertools.product((server, host), (inmate.facts["pid"], sibling.facts["pid"])):
        sockets = {where for where in _descriptors(theirs).values() if where.startswith("socket:")}
        assert not sockets & set(_descriptors(pid).values())


@pytest.mark.parametrize("whom", ["sibling", "forkserver"])
def test_no_descriptor_is_shared_with_a(whom: str, inmate: Inmate, sibling: Inmate) -> None:
    own = inmate.facts["pid"]
    other = sibling.facts["pid"] if whom == "sibling" else inmate.facts["forkserver"]
    shared = [
        where
        for number, where in _descriptors(own).items()
        for another, there in _descriptors(other).items()
        if where == there and where != "/dev/null" and _same((own, number), (other, another))
    ]
    assert not shared


def test_the_pipe_that_tells_of_the_hosts_end_cannot_be_written_to(inmate: Inmate, sibling: Inmate) -> None:
    # Whoever holds its other end open keeps it from telling the siblings, too, and what is written there wakes them.
    own = set(_descriptors(inmate.facts["pid"]).values()) & set(_descriptors(inmate.facts["forkserver"]).values())
    pipes = [where for where in own if where.startswith("pipe:")]
    code = """
        numbers = [n for n in os.listdir('/proc/self/fd') if os.path.lexists(f'/proc/self/fd/{n}') and os.readlink(f'/proc/self/fd/{n}') in pipes]
        any_of(numbers, lambda n: os.close(os.open(f'/proc/self/fd/{n}', os.O_WRONLY | os.O_NONBLOCK)))
    """
    answer = inmate.tries(attack(code, pipes=pipes))
    assert denied(answer), answer


def test_the_log_cannot_grow_and_its_host_reads_little_of_it(inmate: Inmate) -> None:
    find = (
        "log = next(int(n) for n in os.listdir('/proc/self/fd') if 'memfd:log' in os.readlink(f'/proc/self/fd/{n}'))\n"
    )
    for grow in ("os.truncate(log, 2**20)", "os.pwrite(log, b'x', 2**20)", "os.posix_fallocate(log, 0, 2**20)"):
        answer = inmate.tries(attack(find + grow))
        assert denied(answer), answer
    unseal = "import fcntl\nassert fcntl.fcntl(log, fcntl.F_GET_SEALS) & 7 != 7\n"
    assert denied(inmate.tries(attack(find + unseal)))


def test_a_program_that_a_cell_starts_has_three_descriptors(inmate: Inmate) -> None:
    probe = "import os\nfound = []\nfor n in range(1024):\n    try: os.fstat(n)\n    except OSError: continue\n    found.append(n)\nprint(found)"
    start = f"import subprocess, sys\nprint(subprocess.run([sys.executable, '-S', '-c', {probe!r}], close_fds=False, capture_output=True, text=True).stdout)"
    assert inmate.run(start)["stdout"].strip() == "[0, 1, 2]"
