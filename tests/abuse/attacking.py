"""What attacks are written with."""

from __future__ import annotations

import errno
import re
import textwrap
from pathlib import Path
from typing import Any, Final

from tests.abuse.conftest import Inmate

# In each attack: `call` makes a system call by its number; `in_child` does something in a process of its own, where it can do
# no harm to the kernel, and raises what it raised there; `any_of` is content with one success.
_TOOLS: Final = """
libc.syscall.restype = ctypes.c_long
def call(number, *arguments):
    return must(libc.syscall(*(ctypes.c_long(a) if isinstance(a, int) else a for a in (number, *arguments))))
def in_child(work):
    pid = os.fork()
    if not pid:
        code = 255
        try:
            work()
            code = 0
        except OSError as error:
            code = error.errno or 254
        except ValueError:  # as `resource` has it
            code = errno.EPERM
        finally:
            os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if code:
        raise OSError(code, os.strerror(code) if code > 0 else f'ended by signal {-code}')
def any_of(things, work):
    last = OSError('there is nothing to be tried')
    for thing in things:
        try:
            return work(thing)
        except OSError as error:
            last = error
    raise last
"""


def attack(body: str, **names: Any) -> str:
    """The code of an attack that knows these names."""
    known = "".join(f"{name} = {value!r}\n" for name, value in names.items())
    return _TOOLS.strip() + "\n" + known + textwrap.dedent(body).strip()


def denied(answer: str) -> bool:
    """Whether an attack was refused, and did not just break: a fault in the attack itself is no defence."""
    return re.match(r"[A-Z]\w*Error:", answer) is not None


def refused_with(answer: str, *numbers: int) -> bool:
    """Whether a system call was refused with one of these errors."""
    return denied(answer) and any(f"[Errno {number}]" in answer for number in numbers)


def not_there(answer: str) -> bool:
    """Whether this machine lacks what an attack needs, so that it says nothing even where nothing is contained."""
    return refused_with(answer, errno.ENOSYS, errno.EAFNOSUPPORT, errno.EOPNOTSUPP, errno.ENOPROTOOPT, errno.ENODEV)


def numbers_of(pid: int) -> list[int]:
    """The numbers of a process, here and in the namespaces within (proc(5), NSpid)."""
    for line in Path(f"/proc/{pid}/status").read_text("utf-8").splitlines():
        if line.startswith("NSpid:"):
            return [int(number) for number in line.split()[1:]]
    return [pid]


def shares_uid(inmate: Inmate) -> bool:
    """Whether sessions have one uid together: then some things are not promised (isolation by name only)."""
    return "own uid" not in str(inmate.facts["containment"])
