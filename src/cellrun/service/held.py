"""What the hub has of a tenant: sessions, kernels that an interface has leased, runs that have ended."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

from cellrun.event_log import EventLog
from cellrun.service.database import RunRow, SessionRow
from cellrun.service.store import Store
from cellrun.session import AsyncSession


@dataclass(eq=False)
class Held:
    """A session of a tenant. Its kernel comes and goes; `succeeds` says why the newest one is not the one before."""

    row: SessionRow
    session: AsyncSession | None = None
    succeeds: str | None = None
    runs: int = 0
    deleted: bool = False

    @property
    def alive(self) -> bool:
        """Whether it has a kernel, or is about to."""
        return self.session is not None and not self.session.closed

    def let_go(self, idle: float | None) -> None:
        """Of a session that has ended by itself; `idle`: the time without use after which they do."""
        self.session = None
        self.succeeds = "the session was not used" if idle is None else f"the session was not used for {idle:g} s"

    @property
    def state(self) -> Literal["new", "idle", "running"]:
        return "new" if not self.alive else "running" if self.runs else "idle"


@dataclass(frozen=True)
class EndedRun:
    """A run that was carried out before, as it is kept."""

    row: RunRow
    log: EventLog


class Leased(Protocol):
    """A kernel of a tenant that has no session here: an interface has leased it. It counts with the others."""

    @property
    def executing(self) -> bool: ...
    def cpu_seconds(self) -> float | None: ...
    def disk_bytes(self) -> int | None: ...
    async def quiet(self) -> None:
        """Until nothing runs in it."""

    async def stop(self, reason: str) -> None:
        """Ends it."""


def ended(store: Store, row: RunRow) -> EndedRun:
    return EndedRun(row, EventLog.of_ended(store, row.id, row.last, row.forgotten))
