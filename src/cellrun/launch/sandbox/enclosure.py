"""One contained session: its room, its control group, and the end of everything in it. It outlives a restart of its kernel.

Blocking, but short: called in threads.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Final

from cellrun.launch.death import describe_exit
from cellrun.launch.sandbox import marks
from cellrun.launch.sandbox.enter import FLAGS
from cellrun.launch.sandbox.policy import size_text
from cellrun.launch.sandbox.sandbox import Sandbox, as_file
from cellrun.launch.sandbox.watch import Usage, measure

_BY_SIGNAL: Final = 128


class Enclosure:
    """Makes room and group. Raises OSError; then neither is left. `cause` is set by whoever ends the kernel for something it did."""

    def __init__(self, sandbox: Sandbox) -> None:
        self.sandbox = sandbox
        self.cause: str | None = None
        self.room = sandbox.make_room()
        try:
            self._group = sandbox.make_group()
        except BaseException:
            sandbox.remove_room(self.room)
            raise

    @property
    def folder(self) -> Path:
        """Where the session works, unless its caller named a folder."""
        return Path(self.room.work)

    @property
    def environment(self) -> dict[str, str]:
        """What its kernel has by itself."""
        return self.sandbox.environment({}, self.room)

    def admit(self, pid: int) -> None:
        """Puts the limits on this process, before it runs any code of the user's. Raises OSError."""
        if self._group is not None:
            self._group.add(pid)

    def admit_all(self, pid: int) -> None:
        """As `admit`, with all that has come from this process. Raises OSError."""
        admitted: set[int] = set()
        # What is forked by a process that is in the group is in it: so until nothing new is found, after all before it were put there.
        while new := {pid, *marks.descendants(pid)} - admitted:
            for member in sorted(new, key=lambda member: member != pid):
                with contextlib.suppress(ProcessLookupError):
                    self.admit(member)
            admitted |= new

    def make_sockets(self) -> Path:
        """Where a kernel that makes its sockets itself makes them; it can do so nowhere else. Raises OSError."""
        folder = self.sandbox.make_sockets(self.room)
        self.room = replace(self.room, sockets=str(folder))
        return folder

    def own(self, folder: Path) -> None:
        """Gives what is in this folder to the session's uid. Raises OSError."""
        if self.room.uid is not None:
            for path in folder.iterdir():
                os.chown(path, self.room.uid, self.room.uid, follow_symlinks=False)

    def as_file(self, folder: str, go: int) -> contextlib.AbstractContextManager[int]:
        """A descriptor with what `enter` is told, for a program that is to work in `folder` once a byte comes on `go`."""
        return as_file({"walls": self.sandbox.walls.to_json(), "room": asdict(self.room), "folder": folder, "go": go})

    def command(self, told: int) -> list[str]:
        """What comes before the command of a program that is to be within."""
        return [*self.sandbox.prefix(self.room), sys.executable, *FLAGS, str(told)]

    def first_of(self, pid: int) -> int | None:
        """The first process behind the walls, of those that come from this one; None if this one itself is, or none."""
        return next(iter(marks.marked(pid, self.room.mark)), None) if self.sandbox.form == "strong" else None

    def end_all(self, root: int | None) -> None:
        """SIGKILL to every process of the session; then what it left in shared memory goes, where it can be told from others'. `root`: the process that their orphans come to; None: they come to whoever takes them."""
        if self._group is not None:
            self._group.end_all()
        marks.end_marked(root, self.room.mark, self.room.uid)
        if self.room.uid is not None:
            _clear_shared_memory(root, self.room.uid)

    def usage(self, root: int | None) -> Usage:
        """Of what the system does not limit. `root` as for `end_all`."""
        sandbox = self.sandbox
        held = sandbox.limits("memory") and sandbox.limits("pids")
        return measure(
            root, self.room.mark, self.room.folder, sandbox.policy, processes=not held, disk=not sandbox.mounts
        )

    @property
    def kills(self) -> int:
        """How many processes of the session the system has ended so far for lack of memory."""
        return 0 if self._group is None else self._group.kills

    @property
    def cpu_seconds(self) -> float | None:
        """What processors have worked for the session, those of its processes included that have ended or detached themselves; None
        where the system does not count that."""
        return None if self._group is None else self._group.cpu_seconds

    def outlived(self, kills: int) -> None:
        """The kernel still lives, some time after it were so many: none of them was the kernel."""
        if self._group is not None:
            self._group.seen(kills)

    def describe_exit(self, code: int | None, *, started: bool = False) -> str:
        """How the kernel ended, as `describe_exit` of death.py, but with what is known here. `started`: not forked; then bubblewrap tells
        of a signal as shells do."""
        through_bubblewrap = started and self.sandbox.form == "strong"
        if through_bubblewrap and code is not None and code - _BY_SIGNAL in signal.valid_signals():
            code = _BY_SIGNAL - code
        out_of_memory = self._group is not None and self._group.new_kill()
        if self.cause is not None:
            cause, self.cause = self.cause, None
            return f"the kernel was ended: {cause}"
        memory = self.sandbox.policy.memory
        if out_of_memory and code == -signal.SIGKILL and memory is not None:
            return f"out of memory, limit {size_text(memory)}: the system's out-of-memory killer ended the kernel (SIGKILL)"
        return describe_exit(code, out_of_memory=False)

    def close(self) -> None:
        """Removes group and room, and ends what is left in the group first. Never raises."""
        if self._group is not None:
            self._group.remove()
        self.sandbox.remove_room(self.room)


def _clear_shared_memory(root: int | None, uid: int) -> None:
    """Files in /dev/shm outlive processes. In a mount namespace of its own that is reached by way of a process there."""
    folder = "/dev/shm" if root is None else f"/proc/{root}/root/dev/shm"
    with contextlib.suppress(OSError):
        for name in os.listdir(folder):
            with contextlib.suppress(OSError):
                path = os.path.join(folder, name)
                if os.lstat(path).st_uid == uid:
                    os.unlink(path)
