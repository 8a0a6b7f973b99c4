"""What a language model does with a session, whoever brings its calls: run code, come back to a run, stop it, handle files.

The tools are here once. Where their kernels are is a ToolBackend: sessions of the library (`local_tools.py`), or the hub (`hub_tools.py`).
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath
from typing import Any, Final, Protocol, TypeVar

from cellrun.errors import CellrunError
from cellrun.files import Files
from cellrun.limits import KIB, MIB
from cellrun.mime import Image
from cellrun.providers import LocalKernels
from cellrun.service.model_view import BUDGET, model_view, scaled
from cellrun.service.problems import Problem
from cellrun.terminal import strip_ansi

TELL_EVERY: Final = 3.0
"""Seconds between two reports of a run that goes on."""
_FILES: Final = 20  # names in an answer
_LISTED: Final = 200
_LINE: Final = 200
_BASE64: Final = 512 * KIB
_PICTURE: Final = 16 * MIB
_FEWER: Final = "save them to files, and read_file gives each"
_GIVES_WAY: Final = 3.0
_PICTURES: Final = {
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".gif": "image/gif",
    ".webp": "image/webp",
}

_T = TypeVar("_T")
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

    async def result(self) -> dict[str, Any]:
        """Its Result as JSON data; while it goes on that of what there is, with the status "running". Raises Problem and CellrunError."""
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
        object.__setattr__(self, "text", _whole(self.text))
        object.__setattr__(self, "told", _whole(self.told))


def _whole(value: Any) -> Any:
    match value:
        case str():
            return value.encode("utf-8", "backslashreplace").decode("utf-8")
        case list():
            return [_whole(item) for item in value]
        case dict():
            return {_whole(key): _whole(item) for key, item in value.items()}
        case _:
            return value


async def run_code(
    backend: ToolBackend,
    session: str | None,
    code: str,
    *,
    timeout: float | None = None,
    wait: float | None = None,
    tell: Tell | None = None,
) -> Answer:
    """Runs it, and waits `wait` seconds (None: to its end). Cancelled, it interrupts the run."""
    run = await backend.start(session, code, timeout)
    try:
        await _watch(run, wait, tell)
        return await _answer(run)
    except asyncio.CancelledError:
        run.abandon("the client cancelled the call")
        raise


async def get_run(
    backend: ToolBackend,
    session: str | None,
    run_id: str | None,
    *,
    offset: int | None = None,
    wait: float | None = None,
    tell: Tell | None = None,
) -> Answer:
    """A run's answer, for which it waits as `run_code` does, or at once a later part of its text. Cancelled, it leaves the run alone."""
    run = await _found(backend, session, run_id)
    await _watch(run, wait if offset is None else 0, tell)
    return await _answer(run, offset)


async def interrupt(backend: ToolBackend, session: str | None, run_id: str | None) -> Answer:
    run = await _found(backend, session, run_id)
    if run.ended:
        return Answer(text=f"Nothing to interrupt: the run {run.id} has ended.", told={"run_id": run.id})
    await run.interrupt()
    if await run.wait(_GIVES_WAY):
        return await _answer(run)
    text = f"The run {run.id} was interrupted but goes on: it does not heed KeyboardInterrupt. `restart` ends it."
    return Answer(text=text, told={"status": "running", "run_id": run.id})


async def restart(backend: ToolBackend, session: str | None) -> Answer:
    if await backend.restart(_named(session)):
        return Answer(text="The kernel is a fresh one: variables and imports are gone, files are still there.")
    return Answer(text="There was no kernel yet: the next code runs in a fresh one.")


async def list_files(backend: ToolBackend, session: str | None, path: str) -> Answer:
    files = await backend.files(_named(session))
    found = await _of(path, files.list(path.rstrip("/") if path.strip("/") else ""))
    lines = [f"{one.path}/" if one.is_dir else f"{one.path}\t{one.size} bytes" for one in found[:_LISTED]]
    if len(found) > _LISTED:
        lines.append(f"[{len(found) - _LISTED} of {len(found)} left out: list a folder below]")
    return Answer(text="\n".join(lines) or "The folder is empty.")


async def read_file(
    backend: ToolBackend, session: str | None, path: str, *, offset: int = 0, encoding: str = "auto"
) -> Answer:
    """Text in parts of the budget; a picture as one; `encoding="base64"`: the bytes, half a MiB at a time."""
    files = await backend.files(_named(session))
    size = (await _of(path, files.stat(path))).size or 0
    kind = _PICTURES.get(PurePosixPath(path).suffix.lower())
    if encoding == "auto" and kind is not None and size <= _PICTURE:
        data = await _of(path, files.read(path, limit=_PICTURE))
        small = await asyncio.to_thread(scaled, Image(kind, data))
        if small is not None:
            return Answer(text=f"{path}: a picture of {size} bytes", images=(small,))
    data = await _of(path, _part(files, path, offset, _BASE64 if encoding == "base64" else BUDGET))
    rest = size - offset - len(data)
    if encoding == "base64":
        told = {"offset": offset, "bytes": len(data), "size": size}
        return Answer(text=base64.b64encode(data).decode("ascii"), told=told)
    text, used = _as_text(data, begun=offset > 0, whole=rest <= 0)
    if text is None:
        wrong = "not text" if kind is None else "neither text nor a picture that can be shown"
        return Answer(
            text=f"{path} is {wrong}: {size} bytes. `encoding`: base64 gives the bytes; or look into it with code.",
            failed=True,
        )
    end = offset + used
    note = f"\n[bytes {offset} to {end} of {size}; the rest with offset={end}]" if end < size else ""
    return Answer(text=(text + note) or (f"[the file ends at byte {size}]" if offset else "The file is empty."))


async def write_file(
    backend: ToolBackend, session: str | None, path: str, content: str, *, encoding: str = "text"
) -> Answer:
    try:
        data = base64.b64decode(content, validate=True) if encoding == "base64" else content.encode("utf-8")
    except (binascii.Error, UnicodeEncodeError) as error:
        raise Problem(
            "bad_request", f"the content is not {'base64' if encoding == 'base64' else 'text'}: {error}"
        ) from None
    await backend.check_write(len(data))
    files = await backend.files(_named(session))
    await _of(path, files.write(path, data))
    return Answer(text=f"{path}: {len(data)} bytes written.", told={"bytes": len(data)})


# -- runs ----------------------------------------------------------------------------------------


async def _found(backend: ToolBackend, session: str | None, run_id: str | None) -> ToolRun:
    if run_id is not None:
        return await backend.find(run_id)
    if session is None:
        raise Problem("bad_request", "name the run: run_id")
    run = await backend.newest(session)
    if run is None:
        raise Problem("not_found", "nothing was run in this session")
    return run


async def _watch(run: ToolRun, seconds: float | None, tell: Tell | None) -> None:
    began = time.monotonic()
    until = None if seconds is None else began + seconds
    if tell is None:
        await run.wait(seconds)
        return
    before = f"run {run.id}"  # once, so that whoever loses the connection knows what to ask for
    while True:
        now = time.monotonic()
        left = TELL_EVERY if until is None else min(TELL_EVERY, until - now)
        if await run.wait(max(0.0, left)) or (until is not None and time.monotonic() >= until):
            return
        line = await run.last_line()
        await tell(time.monotonic() - began, _whole(": ".join(filter(None, [before, line]))))
        before = ""


async def _answer(run: ToolRun, offset: int | None = None) -> Answer:
    result = await run.result()
    if offset is not None:
        return _later(run, result["text"], offset)
    seen = await asyncio.to_thread(
        model_view, result, full=f"get_run with run_id={run.id!r} and an offset", pictures=_FEWER
    )
    notes = []
    if seen["status"] == "running":
        notes.append(f"[still running; get_run with run_id={run.id!r} waits for the rest, interrupt stops it]")
    told: dict[str, Any] = {"status": seen["status"], "run_id": run.id, "seconds": round(seen["duration"] or 0.0, 2)}
    if seen["files"]:
        told["files"] = seen["files"][:_FILES]
    if seen["cut"]:
        told["cut"] = seen["cut"]
    text = "\n".join(filter(None, [seen["text"], *notes]))
    if not text:
        text = "[ok, nothing was printed]" if not seen["images"] else "[ok]"
    images = tuple(Image(one["mime"], base64.b64decode(one["base64"])) for one in seen["images"])
    return Answer(text=text, images=images, told=told)


def _later(run: ToolRun, text: str, offset: int) -> Answer:
    part = text[offset : offset + BUDGET]
    end = offset + len(part)
    note = f"\n[characters {offset} to {end} of {len(text)}" + (
        f"; the rest with offset={end}]" if end < len(text) else "]"
    )
    return Answer(text=part + note, told={"run_id": run.id})


def last_line_of(text: str) -> str:
    """The last line that is not empty, or its end; a progress bar's newest state."""
    lines = [line for line in strip_ansi(text).replace("\r", "\n").splitlines() if line.strip()]
    return lines[-1].strip()[-_LINE:] if lines else ""


# -- files ---------------------------------------------------------------------------------------


def _named(session: str | None) -> str:
    if session is None:
        raise Problem("bad_request", "name the session: its files and its kernel are not those of another")
    return session


async def _of(path: str, work: Awaitable[_T]) -> _T:
    """Errors of the system as problems that say what of the path is wrong."""
    try:
        return await work
    except FileNotFoundError:
        raise Problem("not_found", f"there is no {path!r}") from None
    except IsADirectoryError:
        raise Problem("bad_request", f"{path!r} is a folder") from None
    except NotADirectoryError:
        raise Problem("bad_request", f"{path!r} is no folder, or leads through a file") from None
    except ValueError as error:  # it says which path
        raise Problem("bad_request", str(error)) from None
    except OSError as error:
        raise Problem("bad_request", f"{path!r}: {error.strerror or error}") from None


async def _part(files: Files, path: str, offset: int, most: int) -> bytes:
    found = b""
    async with contextlib.aclosing(files.chunks(path, start=offset)) as pieces:
        async for piece in pieces:
            found += piece
            if len(found) >= most:
                break
    return found[:most]


def _as_text(data: bytes, *, begun: bool, whole: bool) -> tuple[str | None, int]:
    """The text, and how many bytes of the data it is: a part may begin (`begun`: of a file) and end within a character. None: this is no
    text."""
    first = 0
    while begun and first < min(3, len(data)) and data[first] & 0xC0 == 0x80:
        first += 1
    for less in range(1 if whole else 4):
        try:
            text = data[first : len(data) - less].decode("utf-8")
        except UnicodeDecodeError:
            continue
        return (None, 0) if "\0" in text else (text, len(data) - less)
    return None, 0


def sentence(error: Problem | CellrunError) -> str:
    """What a model is told of a call that could not be carried out."""
    if isinstance(error, Problem):
        return error.detail
    return str(error)
