"""Who a request is from: the tenant of a key. Keys are shown once, when they are made; what is kept of them is a hash.

A key is `cr_`, its id, `_` and 256 random bits. Against those no dictionary helps, so one SHA-256 is enough of a hash.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import time
from dataclasses import dataclass
from typing import Final

from cellrun.service.database import KeyRow
from cellrun.service.problems import Problem
from cellrun.service.store import Store

LOCAL: Final = "local"
"""The one tenant of a service without keys."""
PREFIX: Final = "cr_"
_KEY: Final = re.compile(r"cr_([0-9a-f]{12})_([A-Za-z0-9_-]{43})")
_TENANT: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
_LONGEST: Final = 200
_FRESH: Final = 2.0  # seconds that a revoked key may still work


def new_key(tenant: str, name: str) -> tuple[str, KeyRow]:
    """A key, and what is kept of it. Raises ValueError for a tenant that is no plain word."""
    if not _TENANT.fullmatch(tenant):
        raise ValueError(f"a tenant is named with up to 64 letters, digits and . _ @ -, not {tenant[:80]!r}")
    id, secret = secrets.token_hex(6), secrets.token_urlsafe(32)
    key = f"cr_{id}_{secret}"
    return key, KeyRow(id=id, tenant=tenant, name=name, hash=_hash(key), created=time.time())


def tenant_of(name: str) -> str | None:
    """The tenant that a token of somebody else's names; None where that cannot be one. It never is one that keys are made for."""
    return f"jwt:{name}" if 0 < len(name) <= _LONGEST and name.isprintable() else None


def _hash(key: str) -> bytes:
    return hashlib.sha256(key.encode("ascii")).digest()


@dataclass(frozen=True)
class Caller:
    """Who asks. `key`: the id of the key, for the logs; None without keys."""

    tenant: str
    key: str | None = None


class Keys:
    """The keys that are in force, as of two seconds ago at most: others may add and revoke some while the service runs."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._keys: dict[str, KeyRow] = {}
        self._loaded = float("-inf")

    async def load(self) -> None:
        """Reads them anew. Raises OSError."""
        rows = await self._store.ask(lambda database: database.all_keys())
        self._keys = {row.id: row for row in rows if row.revoked is None}
        self._loaded = time.monotonic()

    def __len__(self) -> int:
        return len(self._keys)

    async def caller(self, key: str) -> Caller:
        """Whose it is. Raises Problem."""
        match = _KEY.fullmatch(key)
        if time.monotonic() - self._loaded > _FRESH:
            await self.load()
        row = self._keys.get(match[1]) if match is not None else None
        if row is None or match is None or not hmac.compare_digest(row.hash, _hash(match[0])):
            raise Problem("unauthenticated", "this key is not known here, or was revoked")
        return Caller(row.tenant, row.id)
