"""What the service speaks besides its own API, for programs that are there already. Each can be left out."""

from __future__ import annotations

from collections.abc import Callable, Collection
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Final

from fastapi import FastAPI

from cellrun.service.context import Context

NAMES: Final = ("jupyter", "mcp", "tools", "e2b")


@dataclass(frozen=True, kw_only=True)
class Interface:
    """`mount` adds its addresses, which are not in the document of our own API; `running` is entered when the service starts and
    left before its sessions are ended. `paths`: how the addresses begin; who asks there is for the interface to find out, with
    `Context.identify` or `Context.caller_of`, for each of them has a way of its own to send credentials."""

    name: str
    paths: tuple[str, ...]
    mount: Callable[[FastAPI], None]
    running: Callable[[FastAPI, Context], AbstractAsyncContextManager[None]]


def chosen(names: str) -> tuple[str, ...]:
    """Of a setting: `all`, `none`, or names with commas between. Raises ValueError."""
    if names.strip() == "all":
        return NAMES
    if names.strip() in ("none", ""):
        return ()
    picked = tuple(name.strip() for name in names.split(","))
    for name in picked:
        if name not in NAMES:
            raise ValueError(f"there is no interface {name!r}: there are {', '.join(NAMES)}, `all` and `none`")
    return picked


def interfaces(names: Collection[str]) -> list[Interface]:
    """Those of these names; what an interface needs is imported only for those that are wanted."""
    wanted: list[Interface] = []
    if "jupyter" in names:
        from cellrun.service import jupyter

        wanted.append(jupyter.interface())
    # One `if "jupyter" in names:` each, with the import below it.
    if "mcp" in names:
        from cellrun.service.mcp.http import interface as mcp

        wanted.append(mcp())
    if "tools" in names:
        from cellrun.service.tools import interface as tools

        wanted.append(tools())
    if "e2b" in names:
        from cellrun.service import e2b

        wanted.append(e2b.interface())
    return wanted
