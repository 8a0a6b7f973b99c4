"""The numbers and choices of the service, in one place. Times are seconds, sizes bytes."""

from __future__ import annotations

from dataclasses import dataclass, field

from cellrun.limits import MIB


@dataclass(frozen=True, kw_only=True)
class Quotas:
    """What one tenant may have at once; one more is answered 429. None: no limit.

    ============  ===================================================
    `sessions`    sessions; the one unused for longest gives way, if it has no kernel
    `kernels`     kernels: of sessions in use, and of single runs
    `runs`        runs that wait or go on
    `watchers`    connections on which events are read
    `cpu`         processor seconds in an hour
    `disk`        bytes of stored runs, and of files in kernels' folders
    `requests`    requests in a minute
    ============  ===================================================
    """

    sessions: int | None = 100
    kernels: int | None = None
    runs: int | None = 32
    watchers: int | None = 100
    cpu: float | None = None
    disk: int | None = None
    requests: int | None = 3_000


@dataclass(frozen=True, kw_only=True)
class ServiceOptions:
    """How the service behaves.

    =================  =====================================================================
    `timeout`          of a run that names none; None: no limit
    `max_timeout`      that a run may name; None: any, and none at all
    `idle_timeout`     without use after which a session's kernel ends; None: never
    `keep_events`      of one run's events that are kept
    `keep_runs`        how long a run is kept after its end
    `keep_data`        of all runs together; of more, the oldest go
    `body`             of a request, files apart
    `file`             of a file that is uploaded or downloaded
    `drain_timeout`    that runs may go on after the service was told to end
    `quotas`           for each tenant
    `interfaces`       names of what it speaks besides its own API
    =================  =====================================================================
    """

    timeout: float | None = 300.0
    max_timeout: float | None = 3_600.0
    idle_timeout: float | None = 1_800.0
    keep_events: int = 256 * MIB
    keep_runs: float = 7 * 86_400.0
    keep_data: int = 4_096 * MIB
    body: int = 16 * MIB
    file: int = 256 * MIB
    drain_timeout: float = 30.0
    quotas: Quotas = field(default_factory=Quotas)
    interfaces: tuple[str, ...] = ()
