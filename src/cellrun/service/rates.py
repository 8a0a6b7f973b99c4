"""How often a tenant may ask: a window that moves, by the library `limits`."""

from __future__ import annotations

import time

from limits import RateLimitItemPerMinute
from limits.aio.storage import MemoryStorage  # the other one starts a thread for each request
from limits.aio.strategies import SlidingWindowCounterRateLimiter

from cellrun.service.problems import Problem


class Rates:
    """`most`: requests in a minute; None: any number."""

    def __init__(self, most: int | None) -> None:
        self._item = None if most is None else RateLimitItemPerMinute(most)
        self._limiter = SlidingWindowCounterRateLimiter(MemoryStorage())

    async def count(self, tenant: str) -> None:
        """One request of this tenant. Raises Problem where it is one too many."""
        if self._item is None or await self._limiter.hit(self._item, tenant):
            return
        wait = (await self._limiter.get_window_stats(self._item, tenant)).reset_time - time.time()
        raise Problem(
            "quota_exceeded", f"{self._item.amount} requests in a minute are the limit", retry_after=max(1.0, wait)
        )
