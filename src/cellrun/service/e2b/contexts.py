"""Contexts are sessions of the hub whose names begin as ours do; where each begins is known here, as long as the service runs."""

from __future__ import annotations

import asyncio
import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from cellrun.errors import CellrunError
from cellrun.providers import LocalKernels
from cellrun.service.held import Held
from cellrun.service.hub import Hub
from cellrun.service.problems import Problem

DEFAULT: Final = "e2b"
_NAME: Final = re.compile(r"e2b(-[0-9a-f]{32})?")
_HOME: Final = "/home/user"
_FORMATS: Final = ("e2b/chart", "e2b/data")
_WHERE: Final = "print(__import__('os').getcwd(), end='')"  # leaves no name behind
_PYTHON: Final = ("", "python", "python3")
_START: Final = 60.0


@dataclass(frozen=True)
class Place:
    """Where a context begins: as it was asked for, and what its kernel says of it."""

    folder: str | None
    cwd: str


@dataclass(frozen=True)
class Told:
    """A context, as the SDK reads it."""

    id: str
    cwd: str
    language: str = "python"

    def as_json(self) -> dict[str, str]:
        return {"id": self.id, "language": self.language, "cwd": self.cwd}


class Contexts:
    """Of all tenants."""

    def __init__(self, hub: Hub) -> None:
        self.hub = hub
        self._places: dict[tuple[str, str], Place] = {}

    @property
    def lean(self) -> bool:
        """Whether the kernels are ours, which take what is asked for in a request's metadata."""
        provider = self.hub.provider
        return isinstance(provider, LocalKernels) and provider.lean

    def check_language(self, language: str | None) -> None:
        """Raises Problem for one that there is no kernel for."""
        named = (language or "").strip().lower()
        if named not in _PYTHON:
            raise Problem("bad_request", f"this service runs Python; it has no kernel for {named[:40]!r}")

    def find(self, tenant: str, id: str) -> Held:
        """Raises Problem."""
        if not _NAME.fullmatch(id) or (tenant, id) not in self.hub.held:
            raise Problem("not_found", f"there is no context {id[:128]!r}")
        return self.hub.find(tenant, id)

    def all(self, tenant: str) -> list[Told]:
        self._forget()
        return [self.told(tenant, held) for held in self.hub.sessions(tenant) if _NAME.fullmatch(held.row.id)]

    def told(self, tenant: str, held: Held) -> Told:
        place = self._places.get((tenant, held.row.id))
        return Told(held.row.id, "." if place is None else place.cwd)

    async def create(self, tenant: str, folder: str | None) -> Told:
        """A context whose kernel is there, in this folder. Raises Problem and CellrunError; then there is none."""
        folder = below_home(folder) if folder is not None else None
        if folder is not None and not self.lean:
            raise Problem("unsupported", "the kernels of this service cannot be given a `cwd`")
        self.hub.upkeep.check(tenant)
        self._forget()
        id = f"{DEFAULT}-{uuid.uuid4().hex}"
        try:
            held = await self.hub.session(tenant, id)
            self._places[tenant, id] = Place(folder, await self._begin(held, folder))
        except BaseException:
            self._places.pop((tenant, id), None)
            # To its end, whoever cancels this.
            await asyncio.shield(asyncio.ensure_future(self._take_back(tenant, id)))
            raise
        return self.told(tenant, held)

    async def delete(self, tenant: str, id: str) -> None:
        self.find(tenant, id)
        self._places.pop((tenant, id), None)
        await self.hub.delete(tenant, id)

    async def restart(self, tenant: str, id: str) -> None:
        """Raises Problem and CellrunError."""
        self.find(tenant, id)
        await self.hub.restart(tenant, id)

    def metadata(self, tenant: str, id: str, variables: Mapping[str, str]) -> dict[str, Any]:
        """Of a run: what it asks its kernel for."""
        place = self._places.get((tenant, id))
        wanted: dict[str, Any] = {"formats": [*_FORMATS]}
        if variables:
            wanted["environment"] = dict(variables)
        if place is not None and place.folder is not None:
            wanted["folder"] = place.folder
        return {"cellrun": wanted} if self.lean else {}

    async def _begin(self, held: Held, folder: str | None) -> str:
        """Starts its kernel; gives the folder that it is in."""
        metadata = None if folder is None else {"cellrun": {"folder": folder}}
        session = self.hub.kernel_of(held)
        async with session.stream(_WHERE, silent=True, timeout=_START, stdin=(), metadata=metadata) as stream:
            async for _ in stream:
                pass
        result = stream.result
        if result.status == "ok":
            return result.stdout
        if result.error is not None:
            raise Problem(
                "bad_request",
                f"there is no context that can begin in {folder or 'its folder'!r}: {result.error.value}",
            )
        raise Problem("kernel_start", f"the context's kernel did not begin: {result.reason or result.status}")

    async def _take_back(self, tenant: str, id: str) -> None:
        try:
            await self.hub.delete(tenant, id)
        except (Problem, CellrunError):  # it was deleted meanwhile
            return

    def _forget(self) -> None:
        """The places of sessions that were deleted elsewhere."""
        for key in [key for key in self._places if key not in self.hub.held]:
            del self._places[key]


def below_home(folder: str) -> str:
    """The home of E2B's sandboxes stands for the folder that each context has of its own.

    >>> below_home("/home/user/data/"), below_home("/home/user"), below_home("/mnt"), below_home("data")
    ('data', '.', '/mnt', 'data')
    """
    rest = folder.rstrip("/") or folder
    if rest == _HOME:
        return "."
    return rest.removeprefix(f"{_HOME}/")
