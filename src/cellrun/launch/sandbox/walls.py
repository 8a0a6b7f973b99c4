"""Putting the walls around this process: after that, and for all that it starts, there is no way back.

What is the same for all sessions is in `Walls`, what is one session's own in `Room`. Both travel as JSON to the process
that becomes the kernel.
"""

from __future__ import annotations

import base64
import contextlib
import os
import resource
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final

from cellrun.launch.sandbox import landlock, marks, seccomp
from cellrun.launch.sandbox.system import DUMPABLE, drop_capabilities, prctl

# What programs need to start, to resolve names, to draw and to check certificates; no keys, no passwords.
SYSTEM: Final = (
    *("/usr", "/lib", "/lib32", "/lib64", "/libx32", "/bin", "/sbin"),
    *(
        "/etc/alternatives",
        "/etc/bash.bashrc",
        "/etc/ca-certificates",
        "/etc/ca-certificates.conf",
        "/etc/debian_version",
    ),
    *(
        "/etc/fonts",
        "/etc/group",
        "/etc/host.conf",
        "/etc/hosts",
        "/etc/inputrc",
        "/etc/ld.so.cache",
        "/etc/ld.so.conf",
    ),
    *("/etc/ld.so.conf.d", "/etc/locale.alias", "/etc/localtime", "/etc/magic", "/etc/mailcap", "/etc/matplotlibrc"),
    *("/etc/mime.types", "/etc/nsswitch.conf", "/etc/os-release", "/etc/passwd", "/etc/pki/tls/certs", "/etc/profile"),
    *("/etc/protocols", "/etc/services", "/etc/ssl/certs", "/etc/ssl/openssl.cnf", "/etc/terminfo", "/etc/timezone"),
)
NETWORK: Final = ("/etc/resolv.conf", "/run/systemd/resolve", "/etc/gai.conf")
_SYSTEM_STATE: Final = (
    "/sys/devices/system/cpu",
    "/sys/kernel/mm/transparent_hugepage",
    *(f"/proc/{name}" for name in ("cpuinfo", "meminfo", "stat", "loadavg", "uptime", "version", "filesystems")),
    *(f"/proc/sys/kernel/{name}" for name in ("cap_last_cap", "ngroups_max", "osrelease", "pid_max", "random")),
    *("/proc/sys/vm/overcommit_memory", "/proc/sys/vm/max_map_count", "/proc/sys/fs/pipe-max-size"),
)
# Of the kernel's own process; none of another's.
_OWN_STATE: Final = (
    *("auxv", "cgroup", "cmdline", "comm", "environ", "exe", "fd", "fdinfo", "io", "limits", "maps", "oom_score"),
    *("smaps", "smaps_rollup", "stat", "statm", "status", "task"),
)
_DEVICES: Final = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")
_TERMINALS: Final = ("/dev/tty", "/dev/ptmx", "/dev/pts")
_TIMERS: Final = 4096  # and signals that wait: the system counts them by uid
_LOCKED: Final = 64 * 1024  # bytes of memory that cannot be swapped: programs ask for a little of it
PARTS: Final = ("work", "tmp", "home")
"""The folders of a room: it can change all in them, and not themselves."""
_FIRST_VICTIM: Final = 500  # of the system's out-of-memory killer, before anything that has not said so (proc(5))


@dataclass(frozen=True)
class Walls:
    """The same for all kernels of a forkserver.

    readable    paths that can be read and executed, besides the system's
    writable    folders of the caller's that can be changed
    network     whether there are internet sockets
    own_uid     whether each session has a uid that is nobody else's
    terminals   whether there are terminals: where one is open to other sessions, there is none
    filters     the two seccomp programs
    open_files, file_size, processes, data    resource limits; None: as they are
    """

    readable: tuple[str, ...]
    writable: tuple[str, ...]
    network: bool
    own_uid: bool
    terminals: bool
    filters: seccomp.Filters = field(repr=False)
    open_files: int | None = None
    file_size: int | None = None
    processes: int | None = None
    data: int | None = None

    def to_json(self) -> dict[str, Any]:
        """What `from_json` takes."""
        filters = [base64.b85encode(part).decode() for part in (self.filters.allowed, self.filters.refused)]
        return {**self.__dict__, "filters": filters}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Walls:
        """Of what `to_json` gave."""
        filters = seccomp.Filters(*(base64.b85decode(part) for part in data["filters"]))
        return cls(**{**data, "filters": filters})


@dataclass(frozen=True)
class Room:
    """One session's own: its folder, the mark of its processes, its uid, where it has one, and the folder in which a kernel that
    makes its own sockets makes them."""

    folder: str
    mark: int
    uid: int | None = None
    sockets: str | None = None

    @property
    def work(self) -> str:
        """Where it works, unless the caller named a folder."""
        return f"{self.folder}/work"

    @property
    def environment(self) -> dict[str, str]:
        """The variables that say where it may write."""
        home = f"{self.folder}/home"
        return {
            "HOME": home,
            "TMPDIR": f"{self.folder}/tmp",
            "USER": "session",
            "LOGNAME": "session",
            "IPYTHONDIR": f"{home}/.ipython",
            "MPLCONFIGDIR": f"{home}/.config/matplotlib",
            "XDG_CACHE_HOME": f"{home}/.cache",
            "XDG_CONFIG_HOME": f"{home}/.config",
            "XDG_DATA_HOME": f"{home}/.local/share",
            "GIT_CONFIG_NOSYSTEM": "1",  # git gives up where it cannot read that file
            "JUPYTER_RUNTIME_DIR": f"{home}/.local/share/jupyter/runtime",
        }


class Prepared:
    """The paths of the walls, opened: that need not be done in each child again. Descriptors stay open
    until `close`."""

    def __init__(self, walls: Walls) -> None:
        self.walls = walls
        self._open: list[tuple[int, int]] = []
        network = NETWORK if walls.network else ()
        self._add((*SYSTEM, *network, *walls.readable, *_SYSTEM_STATE), landlock.READ)
        self._add(walls.writable, landlock.CHANGE)
        self._add(_DEVICES, landlock.DEVICE)
        self._add(("/dev/shm",), landlock.SHARED_MEMORY)
        if walls.terminals:
            self._add(_TERMINALS, landlock.TERMINAL)

    def _add(self, paths: Iterable[str], rights: int) -> None:
        for path in paths:
            with contextlib.suppress(OSError):  # not there, or not for us: then it is not reached either
                self._open.append((os.open(path, os.O_PATH | os.O_CLOEXEC), rights))

    @property
    def descriptors(self) -> list[int]:
        return [descriptor for descriptor, _ in self._open]

    def close(self) -> None:
        for descriptor, _ in self._open:
            os.close(descriptor)
        self._open = []

    def confine(self, room: Room) -> None:
        """This process, which must have one thread, from now on. Raises OSError or ValueError; then it must not
        go on."""
        if room.uid is not None:
            os.setgroups([])
            os.setresgid(room.uid, room.uid, room.uid)
            os.setresuid(room.uid, room.uid, room.uid)
            prctl(DUMPABLE, 1)  # otherwise it could not read its own /proc/self
        with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:
            file.write(str(_FIRST_VICTIM))
        self._limit(room)
        drop_capabilities()
        own = ((f"/proc/self/{name}", landlock.READ) for name in _OWN_STATE)
        made = [] if room.sockets is None else [(room.sockets, landlock.CHANGE | landlock.MAKE_SOCK)]
        parts = ((f"{room.folder}/{part}", landlock.OWN) for part in PARTS)
        landlock.restrict([*self._open, *own, *made, *parts], tcp=self.walls.network)
        seccomp.load(self.walls.filters)

    def _limit(self, room: Room) -> None:
        marks.put_on(room.mark)
        walls = self.walls
        for kind, value in (
            (resource.RLIMIT_CORE, 0),
            (resource.RLIMIT_MEMLOCK, _LOCKED),
            (resource.RLIMIT_SIGPENDING, _TIMERS),
            (resource.RLIMIT_NOFILE, walls.open_files),
            (resource.RLIMIT_FSIZE, walls.file_size),
            (resource.RLIMIT_NPROC, walls.processes),
            (resource.RLIMIT_DATA, walls.data),
        ):
            if value is not None:
                hard = resource.getrlimit(kind)[1]
                value = value if hard == resource.RLIM_INFINITY else min(value, hard)
                resource.setrlimit(kind, (value, value))
