"""`cellrun run`: the cells of a source, one after the other, until one fails."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from getpass import getpass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from cellrun.cli.show import Shower, Spinner
from cellrun.cli.sources import Source
from cellrun.events import Event, InputRequest
from cellrun.launch.sandbox import bubblewrap
from cellrun.launch.sandbox.policy import policy_from
from cellrun.limits import Limits
from cellrun.notebook import outputs_of
from cellrun.providers import Provider
from cellrun.remote.address import is_service
from cellrun.result import Result
from cellrun.running import END_OF_INPUT
from cellrun.session import AsyncSession
from cellrun.settings import Settings, SettingsError
from cellrun.wire import event_to_json

if TYPE_CHECKING:
    import nbformat

    from cellrun.remote.service import CellrunService

EXIT_CODES: Final = {"ok": 0, "error": 1, "kernel_died": 1, "timeout": 124, "interrupted": 130}


@dataclass(frozen=True)
class RunRequest:
    """What `cellrun run` was asked for."""

    source: Source
    settings: Settings
    format: str  # "text", "json" or "ndjson"
    save: Path | None = None


def provider_of(settings: Settings) -> Provider:
    """The provider that the settings name. Raises ValueError for a server address, or something to allow, that is none."""
    # Each brings libraries of its own, which take longer to load than a cell to run.
    if settings.server is None:
        from cellrun.providers import LocalKernels

        policy = policy_from(settings.allow)  # also looked at where it is not used: it may be wrong
        # One kernel is all that a command needs: nothing is kept ready.
        return LocalKernels(
            kernel=settings.kernel or "python3",
            cwd=working_folder(settings),
            sandbox="none" if settings.sandbox == "none" else policy,
            pool=0,
            preload=(),
        )
    from cellrun.providers import JupyterServer

    if settings.allow:
        _say_what_allow_is_not()
    return JupyterServer(
        settings.server,
        token=settings.server_token(),
        password=settings.password.get_secret_value() if settings.password is not None else None,
        kernel=settings.kernel,
        ca_file=None if settings.ca_file is None else str(settings.ca_file),
        verify=settings.verify,
    )


def target_of(settings: Settings) -> Provider | CellrunService:
    """Where code runs, as the settings say: a service, or else what `provider_of` gives. Raises ValueError."""
    if settings.server is None or not is_service(settings.server):
        return provider_of(settings)
    for name, given, instead in (
        ("kernel", settings.kernel, "it has kernels of its own choice"),
        ("password", settings.password, "its key goes into --token-file or CELLRUN_TOKEN"),
    ):
        if given is not None:
            raise ValueError(f"a cellrun service takes no {name}: {instead}")
    if settings.allow:
        _say_what_allow_is_not()
    from cellrun.remote.service import CellrunService

    return CellrunService(
        settings.server,
        key=settings.server_token() or None,
        ca_file=None if settings.ca_file is None else str(settings.ca_file),
        verify=settings.verify,
    )


def _say_what_allow_is_not() -> None:
    print(
        "cellrun: what is allowed (--allow) says nothing to a server: its kernels have what it gives them",
        file=sys.stderr,
    )


def working_folder(settings: Settings) -> Path | None:
    """The current folder, which code may change; but not where that is the home folder, or the one for temporary files, or one above: then
    contained code could read every secret in it. Nor where the interpreter lies in it and only the portable form is there, which cannot
    keep that from being changed. The code works in a folder of its own there, and the user is told."""
    here = Path.cwd()
    if settings.sandbox == "none":
        return here
    inside = {"your home folder": Path.home(), "the folder for temporary files": Path(tempfile.gettempdir())}
    if bubblewrap.program() is None:
        inside["the interpreter"] = Path(sys.prefix)
    for what, path in inside.items():
        if path.resolve().is_relative_to(here.resolve()):
            print(
                f"cellrun: {here} has {what} in it, so the code works in a folder of its own, which is removed at the end "
                "(change to another folder, or name folders: --allow read_write=DIR)",
                file=sys.stderr,
            )
            return None
    return here


async def execute(request: RunRequest) -> int:
    """Runs it and gives the exit code. Raises CellrunError for the plumbing."""
    results: list[Result] = []
    show = Shower(request.settings.images, request.source.stem) if request.format == "text" else None
    limits = Limits(timeout=request.settings.timeout)
    async with target_of(request.settings) as provider, AsyncSession(provider, limits=limits) as session:
        async with interruptible(session):
            try:
                for code in request.source.cells:
                    results.append(await _run_cell(session, code, request, show))
                    if not results[-1].ok or asked_to_exit(results[-1]):
                        break
            finally:
                if request.save is not None:
                    save_notebook(request, session, results)
    if request.format == "json":
        print(json.dumps(combined(results), ensure_ascii=True))
    return exit_code(results[-1]) if results else 0


def asked_to_exit(result: Result) -> bool:
    """`exit()` and `quit()` are a payload to the front end, no error."""
    return any(payload.get("source") == "ask_exit" for payload in result.payloads)


def exit_code(result: Result) -> int:
    """Of the last cell. `sys.exit()` means in a script what it means in Python: nothing or 0 is success, a
    number is the code, anything else is 1."""
    if result.status == "error" and result.error is not None and result.error.name == "SystemExit":
        value = result.error.value.strip()
        if value in ("", "None"):
            return 0
        return int(value) & 0xFF if value.lstrip("-").isdigit() else 1
    return EXIT_CODES[result.status]


async def _run_cell(session: AsyncSession, code: str, request: RunRequest, show: Shower | None) -> Result:
    spinner = Spinner()
    started = quiet_since = time.monotonic()

    def on_event(event: Event) -> None:
        nonlocal quiet_since
        quiet_since = time.monotonic()
        spinner.tell(event)
        if show is not None:
            show.show(event)
        elif request.format == "ndjson":
            print(event_to_json(event), flush=True)

    async def tick() -> None:
        while True:
            await asyncio.sleep(0.25)
            if time.monotonic() - quiet_since >= 1.0:
                spinner.tick(time.monotonic() - started)

    async def on_input(asked: InputRequest) -> str:
        spinner.hide()
        return await ask_line(asked)

    ticking = asyncio.create_task(tick())
    try:
        # A program that came in by standard input has used that up: `input()` fails in the kernel's words.
        answer = None if request.source.from_stdin else on_input
        return await session.run(code, on_event=on_event, on_input=answer)
    finally:
        ticking.cancel()
        spinner.hide()


async def ask_line(asked: InputRequest) -> str:
    """A line of our own standard input; the end of it is the end for the cell too. Read in a thread that
    nobody waits for at the end of the process: it may stand in its read for ever."""
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[str] = loop.create_future()

    def settle(line: str) -> None:
        if not answer.done():
            answer.set_result(line)

    def read() -> None:
        line = _read_line(asked)
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody asks any more
            loop.call_soon_threadsafe(settle, line)

    threading.Thread(target=read, name="cellrun standard input", daemon=True).start()
    return await answer


_unread = bytearray()


def _read_line(asked: InputRequest) -> str:
    try:
        if asked.password and sys.stdin.isatty():
            return getpass(asked.prompt)
        print(asked.prompt, end="", file=sys.stderr, flush=True)
        # From the descriptor: a thread that stands in sys.stdin's read holds a lock that the end of the
        # process wants.
        while b"\n" not in _unread and (data := os.read(0, 65536)):
            _unread.extend(data)
    except (EOFError, OSError):
        return END_OF_INPUT
    if not _unread:
        return END_OF_INPUT
    line, _, rest = bytes(_unread).partition(b"\n")
    _unread[:] = rest
    return line.decode("utf-8", "replace")


@contextlib.asynccontextmanager
async def interruptible(session: AsyncSession) -> AsyncIterator[None]:
    """Ctrl-C interrupts the cell; a second one, before the cell has ended, quits."""
    loop = asyncio.get_running_loop()
    task = asyncio.current_task()
    assert task is not None
    interrupts: set[asyncio.Task[None]] = set()

    def on_signal() -> None:
        if interrupts:
            task.cancel()
            return
        print("\ncellrun: interrupting the cell; Ctrl-C again quits", file=sys.stderr)
        interrupts.add(asyncio.create_task(session.interrupt()))

    loop.add_signal_handler(signal.SIGINT, on_signal)
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGINT)
        await asyncio.gather(*interrupts, return_exceptions=True)


def combined(results: list[Result]) -> dict[str, Any]:
    """The JSON of a run: the Result of one cell; of several cells that of the last one, with the texts of
    all of them joined and each one's own Result under "cells"."""
    if not results:
        return {"status": "ok", "stdout": "", "stderr": "", "text": "", "outputs": [], "error": None, "cells": []}
    whole = results[-1].to_dict()
    if len(results) > 1:
        cells = [result.to_dict() for result in results]
        for key in ("stdout", "stderr"):
            whole[key] = "".join(cell[key] for cell in cells)
        whole["text"] = "\n".join(cell["text"] for cell in cells if cell["text"])
        whole["outputs"] = [output for cell in cells for output in cell["outputs"]]
        for key in ("duration", "stdout_size", "stderr_size"):
            whole[key] = sum(cell[key] for cell in cells)
        whole["truncated"] = any(cell["truncated"] for cell in cells)
        whole["dropped"] = [line for cell in cells for line in cell["dropped"]]
        whole["cells"] = cells
    return whole


def save_notebook(request: RunRequest, session: AsyncSession, results: list[Result]) -> None:
    """The notebook that was run with its new outputs, or a new one of what was run."""
    import nbformat

    notebook = request.source.notebook
    if notebook is None:
        notebook = session.to_notebook()
    else:
        fill_notebook(notebook, results)
    assert request.save is not None
    try:
        request.save.write_text(nbformat.writes(notebook), "utf-8")
    except OSError as error:
        raise SettingsError(f"{request.save} cannot be written: {error.strerror}") from None


def fill_notebook(notebook: nbformat.NotebookNode, results: list[Result]) -> None:
    """Puts results into the code cells, in order; cells that were not reached lose their old outputs."""
    displays: dict[str, list[Any]] = {}
    waiting = iter(results)
    for cell in notebook.cells:
        if cell.cell_type != "code":
            continue
        result = next(waiting, None)
        cell.execution_count = None if result is None else result.execution_count
        cell.outputs = [] if result is None else outputs_of(result, displays)
