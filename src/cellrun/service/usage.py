"""What each tenant takes of processors and disk, against its quotas."""

from __future__ import annotations

import math
from collections import defaultdict, deque
from typing import Final

HOUR: Final = 3_600.0
Kernel = tuple[str, str]
"""A tenant, and what of it has the kernel."""
_STEP: Final = 60.0  # seconds of an hour that are told apart


class CpuHour:
    """Processor seconds of the last hour, by tenant. `most`: that a tenant may take; None: any. Pure: times are told, monotonic, in seconds.

    >>> cpu = CpuHour(10.0)
    >>> cpu.add("t", 4.0, now=0.0), cpu.add("t", 6.0, now=1_800.0)
    (None, None)
    >>> cpu.wait("t", now=1_801.0), cpu.wait("t", now=3_700.0)
    (1799.0, 0.0)
    """

    def __init__(self, most: float | None) -> None:
        self.most = most
        self._taken: defaultdict[str, deque[tuple[float, float]]] = defaultdict(deque)

    def add(self, tenant: str, seconds: float, *, now: float) -> None:
        if seconds <= 0:
            return
        taken, step = self._taken[tenant], math.floor(now / _STEP) * _STEP
        if taken and taken[-1][0] == step:
            taken[-1] = (step, taken[-1][1] + seconds)
        else:
            taken.append((step, seconds))

    def wait(self, tenant: str, *, now: float) -> float:
        """Seconds until the tenant has some again; 0 if it has."""
        if self.most is None or tenant not in self._taken:
            return 0.0
        taken = self._taken[tenant]
        while taken and taken[0][0] + HOUR <= now:
            taken.popleft()
        left = sum(seconds for _, seconds in taken)
        if not taken:
            del self._taken[tenant]
        for step, seconds in list(taken):
            if left < self.most:
                break
            left -= seconds
            if left < self.most:
                return max(1.0, step + HOUR - now)
        return 0.0


class Meter:
    """Processor seconds since the last look, of kernels that come and go: each by its name.

    >>> meter = Meter()
    >>> meter.since({("t", "s"): 2.0}), meter.since({("t", "s"): 3.0})
    ({('t', 's'): 2.0}, {('t', 's'): 1.0})
    >>> meter.last(("t", "s"), 3.5), meter.last(("t", "another"), 0.5)
    (0.5, 0.5)
    """

    def __init__(self) -> None:
        self._seen: dict[Kernel, float] = {}

    def since(self, now: dict[Kernel, float]) -> dict[Kernel, float]:
        """`now`: what each has taken in all. A kernel in the place of another begins anew."""
        grown = {}
        for key, seconds in now.items():
            before = self._seen.get(key, 0.0)
            grown[key] = seconds - before if seconds >= before else seconds
        self._seen = now
        return grown

    def last(self, key: Kernel, seconds: float) -> float:
        """Of a kernel that is given up."""
        before = self._seen.pop(key, 0.0)
        return seconds - before if seconds >= before else seconds
