"""What a contained kernel may do."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Final, Literal

from cellrun.limits import MIB

_MOST_PROCESSES: Final = 1_000_000

_SIZES: Final = ("memory", "disk", "file_size")
_COUNTS: Final = ("processes", "files", "open_files")


@dataclass(frozen=True, kw_only=True)
class SandboxPolicy:
    """What a contained kernel and all that it starts may do together. Each field says what an attacker in the
    kernel gets where it is loosened. Raises ValueError or TypeError for a value that makes no sense.

    read_only     folders and files that may be read and executed, besides the system's libraries, the interpreter and what it
                  imports. An attacker can read all that is in them, and put it into the output
    read_write    folders and files that may be read and changed, besides the session's own. An attacker can read, change and
                  delete what is in them, fill their disk up, and plant content for whoever reads them next. (Links, pipes and
                  sockets cannot be made there.) The working folder given as `cwd=` is one of them
    network       "none": no sockets but those between processes of the session. "full": as every other program. An attacker
                  can send away what can be read, reach services on this machine and in its network, those on 127.0.0.1 and a
                  cloud's metadata address included, and attack others from your address. In the portable form local sockets
                  can be connected to as well: those of a desktop, an agent for keys, or a container engine hand out your rights
    memory        bytes that the session's processes take together; None: no limit. An attacker can make the machine swap
                  and its other processes die
    processes     processes and threads of the session. An attacker can use up process numbers and slow the scheduler
    cpu           processors' worth of time, 1.5 is one and a half (where no control group can hold that, kernels are refused);
                  None: an equal share for each session. An attacker can keep that many processors busy
    disk          bytes in the session's own folders; None: no limit. An attacker can fill the disk
    files         files and folders in the session's own folders. An attacker can use up the disk's inodes
    file_size     bytes that one file may grow to; None: no limit. As with `disk`; it is the one that also bounds files
                  in `read_write`
    open_files    descriptors of each process. An attacker can use up the kernel's memory for them
    environment   names of variables of this process that the kernel inherits. An attacker can read their values.
                  `env=` of the provider is passed on as it is
    lifetime      seconds after which the kernel is ended, whatever it does; None: it lives as long as its session. An attacker can
                  go on computing (mining, cracking) for as long as somebody keeps the session
    form          "auto": the strongest form of containment that is proved to hold here. "strong", "portable": this one, or
                  none. In the portable form an attacker sees that files outside exist, and has one wall less before them

    >>> SandboxPolicy(memory=256 * 2**20, network="full").memory
    268435456
    """

    read_only: Sequence[str | os.PathLike[str]] = ()
    read_write: Sequence[str | os.PathLike[str]] = ()
    network: Literal["none", "full"] = "none"
    memory: int | None = 1024 * MIB
    processes: int = 256
    cpu: float | None = None
    disk: int | None = 512 * MIB
    files: int = 50_000
    file_size: int | None = 256 * MIB
    open_files: int = 1024
    environment: Sequence[str] = ()
    lifetime: float | None = None
    form: Literal["auto", "strong", "portable"] = "auto"

    def __post_init__(self) -> None:
        for name in ("read_only", "read_write", "environment"):
            if isinstance(getattr(self, name), (str, bytes, os.PathLike)):
                raise TypeError(f"SandboxPolicy({name}=…) takes several: a tuple, not {getattr(self, name)!r}")
            object.__setattr__(self, name, tuple(getattr(self, name)))
        for name in ("read_only", "read_write"):
            paths = [Path(path).expanduser() for path in getattr(self, name)]
            if any(
                str(path) in ("", ".") and not original
                for path, original in zip(paths, getattr(self, name), strict=True)
            ):
                raise ValueError(f"SandboxPolicy({name}=…) names an empty path")
            object.__setattr__(self, name, tuple(path.absolute() for path in paths))
        for name in ("read_only", "read_write"):
            if Path("/") in getattr(self, name):
                raise ValueError(
                    f'SandboxPolicy({name}=…) must not name /: that would be everything; sandbox="none" says that'
                )
        for name in (*_SIZES, *_COUNTS):
            value = getattr(self, name)
            if value is not None and (isinstance(value, bool) or not isinstance(value, int)):
                raise TypeError(f"SandboxPolicy({name}={value!r}) must be a whole number")
        for name, smallest in (("memory", 64 * MIB), ("disk", MIB), ("file_size", 64 * 1024)):
            value = getattr(self, name)
            if value is not None and value < smallest:
                raise ValueError(f"SandboxPolicy({name}={value!r}) is too little: a kernel needs {size_text(smallest)}")
        for name, least in (("processes", 16), ("files", 100), ("open_files", 80)):
            if getattr(self, name) is None or getattr(self, name) < least:
                raise ValueError(f"SandboxPolicy({name}={getattr(self, name)!r}) is too little: a kernel needs {least}")
        if self.processes > _MOST_PROCESSES:
            raise ValueError(f"SandboxPolicy(processes={self.processes}) is no limit: at most {_MOST_PROCESSES}")
        for name in ("cpu", "lifetime"):
            value = getattr(self, name)
            if value is not None and not 0 < value < float("inf"):
                raise ValueError(f"SandboxPolicy({name}={value!r}) must be a number above 0, or None")
        for name, choices in (("network", ("none", "full")), ("form", ("auto", "strong", "portable"))):
            if getattr(self, name) not in choices:
                raise ValueError(f"SandboxPolicy({name}={getattr(self, name)!r}) must be one of {choices}")


FIELDS: Final = tuple(field.name for field in fields(SandboxPolicy))


def policy_of(sandbox: Any) -> SandboxPolicy | None:
    """The policy that the argument `sandbox=` stands for; None: not contained. Raises TypeError for anything else than
    "auto", "none" and a policy."""
    if sandbox == "auto":
        return SandboxPolicy()
    if sandbox == "none":
        return None
    if isinstance(sandbox, SandboxPolicy):
        return sandbox
    raise TypeError(f'sandbox= must be "auto", "none" or a SandboxPolicy, not {sandbox!r}')


_NUMBERS: Final = ("cpu", "lifetime")
_SEVERAL: Final = ("read_only", "read_write", "environment")
_UNITS: Final = {"": 1, "KB": 2**10, "MB": 2**20, "GB": 2**30, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}


def policy_from(texts: Mapping[str, Any]) -> SandboxPolicy:
    """A policy from settings: each field as a text, a number, or several of them. Sizes may have a unit (KB, MB, GB, by 1024), and "none"
    is no limit. Raises ValueError, which says what was wrong.

    >>> policy_from({"memory": "256 MB", "network": "full", "cpu": "none"})
    SandboxPolicy(read_only=(), read_write=(), network='full', memory=268435456, ...
    """
    fields_: dict[str, Any] = {}
    for name, value in texts.items():
        if name not in FIELDS:
            raise ValueError(f"there is nothing named {name!r} to allow: there are {', '.join(FIELDS)}")
        try:
            fields_[name] = _value(name, value)
        except (ValueError, TypeError, OverflowError):
            raise ValueError(f"{name}={value!r} cannot be understood: {_expected(name)} is expected, once") from None
    try:
        return SandboxPolicy(**fields_)
    except TypeError as error:
        raise ValueError(str(error)) from None


def _value(name: str, value: Any) -> Any:
    if isinstance(value, list | tuple) and name not in _SEVERAL:
        raise ValueError
    if name in _SEVERAL:
        return (value,) if isinstance(value, str) else tuple(map(str, value))
    if isinstance(value, str) and value.lower() == "none" and name != "network":
        return None
    if name in _SIZES and isinstance(value, str):
        number = value.rstrip("KMGBIkmgbi ")
        return int(float(number) * _UNITS[value[len(number) :].strip().upper()])
    if name in (*_SIZES, *_COUNTS):
        return int(value)
    return float(value) if name in _NUMBERS else str(value)


def _expected(name: str) -> str:
    if name in _SIZES:
        return "a size such as 512MB, or none"
    if name in _COUNTS:
        return "a whole number"
    return "a number, or none" if name in _NUMBERS else "a text"


def size_text(size: int) -> str:
    """A size as it was probably written.

    >>> size_text(512 * 2**20), size_text(512_000_000), size_text(1000)
    ('512 MB', '512 MB', '1000 bytes')
    """
    for unit in (2**20, 10**6):
        if size % unit == 0:
            return f"{size // unit} MB"
    return f"{size} bytes" if size < 2**20 else f"{size / 2**20:.1f} MB"
