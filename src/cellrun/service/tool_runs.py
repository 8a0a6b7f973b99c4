"""The tools for runs: run code, come back to a run, stop it, begin anew."""

from __future__ import annotations

import asyncio
import base64
import time
from typing import Any, Final

from cellrun.mime import Image
from cellrun.service.decoding import in_turn
from cellrun.service.model_view import BUDGET, model_view, text_of
from cellrun.service.problems import Problem
from cellrun.service.tool_backend import Answer, Tell, ToolBackend, ToolRun, named, whole

TELL_EVERY: Final = 3.0
"""Seconds between two reports of a run that goes on."""
_FILES: Final = 20  # names in an answer
_FEWER: Final = "save them to files, and read_file gives each"
_GIVES_WAY: Final = 3.0


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
    text = f"The run {run.id} was interrupted but goes on: it does not heed KeyboardInterrupt. Its time limit ends it, or `restart` of its session."
    return Answer(text=text, told={"status": "running", "run_id": run.id})


async def restart(backend: ToolBackend, session: str | None) -> Answer:
    if await backend.restart(named(session)):
        return Answer(text="The kernel is a fresh one: variables and imports are gone, files are still there.")
    return Answer(text="There was no kernel yet: the next code runs in a fresh one.")


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
        await tell(time.monotonic() - began, whole(": ".join(filter(None, [before, line]))))
        before = ""


async def _answer(run: ToolRun, offset: int | None = None) -> Answer:
    result = await run.result(text_only=offset is not None)
    if offset is not None:
        return _later(run, text_of(result), offset)

    def more(head: int) -> str:
        return f"get_run with run_id={run.id!r} and offset={head} gives more"

    seen = await in_turn(model_view, result, more=more, pictures=_FEWER)
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
