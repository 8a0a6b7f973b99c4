"""What a tenant may begin: the limits on what goes on at once. Processor seconds and disk, which are measured, are those of `upkeep.py`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from cellrun.limits import Unset
from cellrun.service.held import Held
from cellrun.service.problems import Problem
from cellrun.service.runs import LiveRun, RunRequest

if TYPE_CHECKING:
    from cellrun.service.hub import Hub

_JUST_USED: Final = 60.0
"""Seconds in which a session without a kernel may be about to get one."""


class Admission:
    """To one hub."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._quotas = hub.options.quotas
        self._watching: Counter[str] = Counter()  # by tenant

    def refuse_while_draining(self) -> None:
        """Raises Problem."""
        if self._hub.draining:
            raise Problem("draining", "the service ends: try again when it is back", retry_after=5)

    def check_session(self, tenant: str, now: float) -> Held | None:
        """Whether there may be one more; the one that gives way to it, if one must. Raises Problem."""
        self.refuse_while_draining()
        most, there = self._quotas.sessions, self._hub.sessions(tenant)
        if most is None or len(there) < most:
            return None
        # A chat application never says that a chat is over: variables and files of these have gone with their kernels.
        idle = [one for one in there if not one.alive and not one.runs and one.row.used < now - _JUST_USED]
        if not idle:
            raise Problem("quota_exceeded", f"{most} sessions are the limit: delete one", retry_after=60)
        return min(idle, key=lambda one: one.row.used)

    def check_run(self, tenant: str, request: RunRequest) -> None:
        """Whether one more may begin. Raises Problem."""
        hub = self._hub
        hub.upkeep.check(tenant)
        most, longest = self._quotas.runs, hub.options.max_timeout
        if most is not None and sum(run.tenant == tenant for run in hub.live.values()) >= most:
            raise Problem(
                "quota_exceeded", f"{most} runs at once are the limit: wait until one has ended", retry_after=1
            )
        if longest is None or isinstance(request.timeout, Unset):
            return
        if request.timeout is None or request.timeout > longest:
            raise Problem("bad_request", f"a run may take {longest:g} s at most: name a shorter `timeout`")

    def check_kernels(self, tenant: str, *, besides: LiveRun | None = None) -> None:
        """Whether there is one more kernel for this tenant. `besides`: the run that wants it. Raises Problem."""
        hub, most = self._hub, self._quotas.kernels
        if most is None:
            return
        with_kernel = sum(one.alive for one in hub.sessions(tenant))
        alone = sum(one.tenant == tenant and one.session is None and one is not besides for one in hub.live.values())
        leased = sum(owner == tenant for owner, _ in hub.leased)
        if with_kernel + alone + leased >= most:
            raise Problem(
                "quota_exceeded",
                f"{most} kernels at once are the limit: delete a session, or wait until one has ended",
                retry_after=5,
            )

    def watcher(self, tenant: str) -> Callable[[int], None]:
        """To be called with 1 when somebody begins to read events, with -1 at the end. Raises Problem where there are too many."""
        most = self._quotas.watchers
        if most is not None and self._watching[tenant] >= most:
            raise Problem("quota_exceeded", f"{most} readers of events at once are the limit", retry_after=1)

        def change(by: int) -> None:
            self._hub.metrics.watchers.inc(by)
            self._watching[tenant] += by
            if not self._watching[tenant]:
                del self._watching[tenant]

        return change
