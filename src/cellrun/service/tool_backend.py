"""What the tools for language models stand on: sessions and runs of one caller, wherever their kernels are, and what a call is answered.

There are two backends: sessions of the library (`local_tools.py`), and the hub (`hub_tools.py`).
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import Any, Final, Protocol

from cellrun.errors import CellrunError
from cellrun.files import Files
from cellrun.mime import Image
from cellrun.providers import LocalKernels
from cellrun.service.problems import Problem
from cellrun.terminal import strip_ansi

_LINE: Final = 200
_SESSION: Final = 128  # characters of a session's name
_PART: Final = re.compile(r"[A-Za-z0-9._~:@-]+")
Tell = Callable[[float, str], Awaitable[None]]
"""Called with the seconds that a run has taken, and the last line that it printed."""


@dataclass(frozen=True, kw_only=True)
class Promises:
    """What the tools' descriptions may say, since it is so. `language`: of the code, "" where it is not known before a kernel is there.
    `timeout`: of a run that names none; `longest`: that it may name; `idle`: after which a session loses its kernel; None: no limit.
    `offline`: code has no network for certain. `own_folder`: each session has a folder of its own, which ends with it."""

    language: str = "python"
    timeout: float | None = None
    longest: float | None = None
    idle: float | None = None
    offline: bool = False
    own_folder: bool = True


def promises_of(
    provider: object, *, timeout: float | None, longest: float | None = None, idle: float | None = None
) -> Promises:
    """Of sessions with kernels of this provider, or of a service."""
    promises = Promises(timeout=timeout, longest=longest, idle=idle)
    if not isinstance(provider, LocalKernels):
        return replace(promises, language="", own_folder=False)
    return replace(promises, language=provider.language, offline=provider.offline, own_folder=provider.own_folders)


class ToolRun(Protocol):
    """A run, whether it goes on or has ended."""

    @property
    def id(self) -> str: ...

    @property
    def ended(self) -> bool: ...

    async def wait(self, seconds: float | None) -> bool:
        """Until it has ended, or that long; whether it has."""
        ...

    async def last_line(self) -> str:
        """The newest line that it printed; "" where it has printed nothing."""
        ...

    async def result(self, *, text_only: bool = False) -> dict[str, Any]:
        """Its Result as JSON data; while it goes on that of what there is, with the status "running". `text_only`: large values of its
        outputs, such as pictures, may be missing; its `text` is whole. Raises Problem and CellrunError."""
        ...

    async def interrupt(self) -> None:
        """As Ctrl-C does."""
        ...

    def abandon(self, reason: str) -> None:
        """It may not go on: it is interrupted, and killed if that does not end it."""
        ...


class ToolBackend(Protocol):
    """Sessions and runs of one caller. All raise Problem and CellrunError."""

    @property
    def promises(self) -> Promises: ...

    async def start(self, session: str | None, code: str, timeout: float | None) -> ToolRun:
        """`session` None: on a kernel of its own, that ends with the run. `timeout` None: the usual one."""
        ...

    async def find(self, run: str) -> ToolRun: ...

    async def newest(self, session: str) -> ToolRun | None: ...

    async def restart(self, session: str) -> bool:
        """Whether there was a kernel."""
        ...

    async def files(self, session: str) -> Files: ...

    async def check_write(self, size: int) -> None:
        """Raises Problem where so much may not be written."""
        ...


@dataclass(frozen=True, kw_only=True)
class Answer:
    """Of a tool. `told`: the little that is for programs; `failed`: the tool could not do what it is for. Half a surrogate pair, which
    code can print and the name of a file can hold, is spelled out: no UTF-8 can carry it."""

    text: str
    images: tuple[Image, ...] = ()
    told: dict[str, Any] = field(default_factory=dict)
    failed: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "text", whole(self.text))
        object.__setattr__(self, "told", whole(self.told))


def whole(value: Any) -> Any:
    match value:
        case str():
            return value.encode("utf-8", "backslashreplace").decode("utf-8")
        case list():
            return [whole(item) for item in value]
        case dict():
            return {whole(key): whole(item) for key, item in value.items()}
        case _:
            return value


def named(session: str | None) -> str:
    if session is None:
        raise Problem("bad_request", "name the session: its files and its kernel are not those of another")
    return session


def within(outer: str, name: str) -> str:
    """The session of this name within another one: both together are its name. Raises Problem where that cannot be one."""
    room = _SESSION - len(outer) - 1
    if room < 1:
        raise Problem("bad_request", "there is no room here for the name of a session: leave `session` out")
    if len(name) > room or not _PART.fullmatch(name):
        raise Problem("bad_request", f"here a session is named with up to {room} letters, digits and . _ ~ : @ -")
    return f"{outer}:{name}"


def last_line_of(text: str) -> str:
    """The last line that is not empty, or its end; a progress bar's newest state."""
    lines = [line for line in strip_ansi(text).replace("\r", "\n").splitlines() if line.strip()]
    return lines[-1].strip()[-_LINE:] if lines else ""


def sentence(error: Problem | CellrunError) -> str:
    """What a model is told of a call that could not be carried out."""
    if isinstance(error, Problem):
        return error.detail
    return str(error)
