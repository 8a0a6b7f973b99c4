"""Who a request is from, told by a signed token of somebody else's (JWT, RFC 7519), whose keys are a JWKS file or address (RFC 7517).

Only signatures by a key pair are taken: with those, nobody who can check a token can make one.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import aiohttp
from joserfc import jwt
from joserfc.errors import ExpiredTokenError, InvalidKeyIdError, JoseError
from joserfc.jwk import KeySet

from cellrun.limits import MIB
from cellrun.service.identity import Caller, tenant_of
from cellrun.service.problems import Problem

ALGORITHMS: Final = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
_LEEWAY: Final = 30  # seconds that clocks may differ
_AGAIN: Final = 60.0  # the keys are not asked for more often, whatever key a token names
_OLD: Final = 3_600.0  # and anew after this, so that a key that was taken out is forgotten
_PATIENCE: Final = 5.0
_log: Final = logging.getLogger("cellrun.service")


@dataclass(frozen=True, kw_only=True)
class Issuer:
    """Whose tokens are taken. `keys`: path or address of the JWKS; `claim`: what names the tenant. Raises ValueError for an address that
    others could answer for."""

    issuer: str
    audience: str
    keys: str
    claim: str = "sub"

    def __post_init__(self) -> None:
        parts = urlsplit(self.keys)
        if parts.scheme == "http" and parts.hostname not in ("localhost", "127.0.0.1", "::1"):
            raise ValueError(
                f"keys that are asked for over http can be anybody's: say https, not {parts.scheme}://{parts.hostname}"
            )


class Tokens:
    """Of one issuer. `load()` must come first."""

    def __init__(self, issuer: Issuer) -> None:
        self._issuer = issuer
        self._keys = KeySet([])
        self._loaded = self._tried = float("-inf")
        self._loading = asyncio.Lock()
        self._claims = jwt.JWTClaimsRegistry(
            leeway=_LEEWAY,
            iss={"essential": True, "value": issuer.issuer},
            aud={"essential": True, "value": issuer.audience},
            exp={"essential": True},
        )

    async def load(self) -> None:
        """The issuer's keys. Raises ValueError where there are none to be had."""
        source = self._issuer.keys
        self._tried = time.monotonic()
        try:
            if urlsplit(source).scheme in ("http", "https"):
                data = await _fetched(source)
            else:
                data = await asyncio.to_thread(Path(source).read_bytes)
            self._keys = KeySet.import_key_set(json.loads(data))
        except (OSError, aiohttp.ClientError, TimeoutError, JoseError, ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"the keys of the issuer cannot be had from {source}: {type(error).__name__}: {error}"
            ) from None
        self._loaded = time.monotonic()

    async def caller(self, token: str) -> Caller:
        """Raises Problem where the token is not one of the issuer's for us, or is over."""
        if time.monotonic() - self._loaded > _OLD:
            await self._renew()
        try:
            try:
                decoded = jwt.decode(token, self._keys, algorithms=list(ALGORITHMS))
            except InvalidKeyIdError:
                await self._renew()
                decoded = jwt.decode(token, self._keys, algorithms=list(ALGORITHMS))
            self._claims.validate(decoded.claims)
        except ExpiredTokenError:
            raise Problem("unauthenticated", "this token is over: get a new one") from None
        except (JoseError, ValueError, TypeError):
            raise Problem("unauthenticated", "this token is not valid here") from None
        return Caller(self._tenant(decoded.claims))

    def _tenant(self, claims: Any) -> str:
        value = claims.get(self._issuer.claim)
        if not isinstance(value, str) or (tenant := tenant_of(value)) is None:
            raise Problem("unauthenticated", f"this token names no tenant in {self._issuer.claim!r}")
        return tenant

    async def _renew(self) -> None:
        """At most once a minute; where that fails the keys that are there stay."""
        async with self._loading:
            if time.monotonic() - self._tried < _AGAIN:
                return
            try:
                await self.load()
            except ValueError as error:
                _log.warning("%s", error)


async def _fetched(url: str) -> bytes:
    timeout = aiohttp.ClientTimeout(total=_PATIENCE)
    async with aiohttp.ClientSession(timeout=timeout) as client, client.get(url, allow_redirects=False) as answer:
        if answer.status != 200:
            raise ValueError(f"it answers {answer.status}")
        data = b""
        async for piece in answer.content.iter_any():
            data += piece
            if len(data) > MIB:
                raise ValueError("it is larger than 1 MiB")
        return data
