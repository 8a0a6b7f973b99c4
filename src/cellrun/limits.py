"""The numbers that bound an execution, in one place.

Times are seconds, sizes bytes. `None` means "no limit" where a field allows it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final

KIB: Final = 1024
MIB: Final = 1024 * KIB


class Unset(Enum):
    """The type of `UNSET`: "the caller said nothing", which is not the same as None ("no limit")."""

    UNSET = "unset"

    def __repr__(self) -> str:
        return "UNSET"


UNSET: Final = Unset.UNSET


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What one execution may take and what its Result keeps.

    ==================  ======================================================================
    `timeout`           seconds from the start of an execution to its interrupt; None: no limit
    `queue_timeout`     seconds that a run may wait for its turn; None: no limit
    `grace`             seconds between the interrupt and the kill
    `start_timeout`     seconds for a kernel to come up, connection included
    `text`              bytes of stream text that the Result keeps: the first and the last half
    `displays`          bytes of displayed data that the Result keeps, first and last half
    `outputs`           separate outputs that the Result keeps, of streams and of displays each
    `stream_buffer`     bytes of events waiting for a slow reader of `stream()`: at this mark the
                        kernel's output is no longer read until the reader has caught up
    `queue_length`      runs that may wait on one session; one more raises LimitExceeded
    `idle_timeout`      seconds without use after which a session ends by itself; None: never
    `late_events`       events of finished executions kept for a slow listener of `late()`
    ==================  ======================================================================

    Limits on what the Result keeps do not touch `stream()`, which sees everything.
    """

    timeout: float | None = None
    queue_timeout: float | None = None
    grace: float = 2.0
    start_timeout: float = 60.0
    idle_timeout: float | None = None
    text: int = 16 * MIB
    displays: int = 256 * MIB
    outputs: int = 10_000
    stream_buffer: int = 8 * MIB
    queue_length: int = 1_000
    late_events: int = 1_000

    def __post_init__(self) -> None:
        for name in ("timeout", "queue_timeout", "grace", "start_timeout", "idle_timeout"):
            value = getattr(self, name)
            if value is None and name in ("timeout", "queue_timeout", "idle_timeout"):
                continue
            if value is None or not value >= 0:
                raise ValueError(f"{name} must be zero or more seconds, not {value!r}")
        for name in ("text", "displays", "outputs", "stream_buffer", "queue_length", "late_events"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)!r}")


# The interval at which an ipykernel hands its printed text on. Its own default is 0.2 s, which is
# what makes first output late; shorter costs throughput (measured: make bench, row "first byte").
FLUSH_INTERVAL: Final = 0.04

# After a kill the end is waited for this long, then the execution is closed without it.
KILL_CONFIRMATION: Final = 0.7
