"""What all requests share, and who sent one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cellrun.service.hub import Hub
from cellrun.service.identity import LOCAL, PREFIX, Caller, Keys
from cellrun.service.problems import Problem
from cellrun.service.rates import Rates

if TYPE_CHECKING:
    from cellrun.service.tokens import Tokens


@dataclass(frozen=True)
class Context:
    """What all requests share. Where there are neither `keys` nor `tokens`, the service serves this machine alone."""

    hub: Hub
    keys: Keys | None
    tokens: Tokens | None
    rates: Rates

    @property
    def local(self) -> bool:
        """Whether whoever reaches it may do all."""
        return self.keys is None and self.tokens is None

    async def identify(self, authorization: str | None) -> Caller:
        """Who asks, of an Authorization header (RFC 6750). Raises Problem where that is nobody we know, or asks too often."""
        scheme, _, token = (authorization or "").partition(" ")
        return await self.caller_of(token.strip() if scheme.lower() == "bearer" else "")

    async def caller_of(self, token: str) -> Caller:
        """Who has this key or token (empty: none was sent). Raises Problem as `identify`."""
        caller = await self._caller(token)
        await self.rates.count(caller.tenant)
        return caller

    async def _caller(self, token: str) -> Caller:
        if self.local:
            return Caller(LOCAL)
        if not token:
            raise Problem(
                "unauthenticated", "send the header `Authorization: Bearer KEY`; `cellrun keys create` makes a key"
            )
        if self.keys is not None and (self.tokens is None or token.startswith(PREFIX)):
            return await self.keys.caller(token)
        assert self.tokens is not None
        return await self.tokens.caller(token)
