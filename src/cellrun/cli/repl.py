"""`cellrun repl`: a prompt on a kernel, with history, several lines, completion and Ctrl-C."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncGenerator
from pathlib import Path

from prompt_toolkit import PromptSession
from prompt_toolkit.buffer import Buffer
from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.document import Document
from prompt_toolkit.history import FileHistory, History, InMemoryHistory
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.lexers import PygmentsLexer
from pygments.lexers.python import Python3Lexer

from cellrun.cli.execute import ask_line, interruptible, target_of
from cellrun.cli.show import Shower
from cellrun.errors import CellrunError, Unsupported
from cellrun.events import InputRequest
from cellrun.limits import Limits
from cellrun.session import AsyncSession
from cellrun.settings import Settings

# The first completion of a kernel loads its completer, which takes seconds.
_COMPLETION_TIMEOUT = 5.0


async def repl(settings: Settings) -> int:
    """Until Ctrl-D or `exit`. Raises CellrunError if no kernel can be had."""
    if not sys.stdin.isatty():
        raise ValueError("the prompt needs a terminal; to run code that comes through a pipe: cellrun run -")
    show = Shower(settings.images, "cellrun")
    limits = Limits(timeout=settings.timeout)
    async with target_of(settings) as provider, AsyncSession(provider, limits=limits) as session:
        show.say(f"{session.language or 'kernel'} is ready; Ctrl-C interrupts, Ctrl-D ends")
        prompt: PromptSession[str] = PromptSession(
            history=_history(),
            completer=KernelCompleter(session),
            complete_while_typing=False,
            lexer=PygmentsLexer(Python3Lexer) if session.language == "python" else None,
            key_bindings=_keys(session),
            multiline=True,
            prompt_continuation=lambda width, line, wrapped: ". ".rjust(width),
        )
        count = 1
        while True:
            try:
                code = await prompt.prompt_async(f"[{count}] ")
            except KeyboardInterrupt:
                continue
            except EOFError:
                return 0
            if code.strip() in ("exit", "quit", "exit()", "quit()"):
                return 0
            if code.strip():
                count = await _run(session, code, show) or count


async def _run(session: AsyncSession, code: str, show: Shower) -> int | None:
    async def on_input(asked: InputRequest) -> str:
        return await ask_line(asked)

    try:
        async with interruptible(session):
            result = await session.run(code, on_event=show.show, on_input=on_input)
    except asyncio.CancelledError:
        # The second Ctrl-C: the cell is stopped, by force if need be; the prompt comes back.
        task = asyncio.current_task()
        assert task is not None
        task.uncancel()
        return None
    except CellrunError as error:
        show.say(str(error))
        return None
    if result.restarted is not None and result.execution_count is None:
        return 1
    return None if result.execution_count is None else result.execution_count + 1


class KernelCompleter(Completer):
    """Completions of the kernel, on Tab. A kernel that is busy offers none."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> list[Completion]:
        return []

    async def get_completions_async(
        self, document: Document, complete_event: CompleteEvent
    ) -> AsyncGenerator[Completion, None]:
        try:
            reply = await self._session.complete(document.text, document.cursor_position, timeout=_COMPLETION_TIMEOUT)
        except CellrunError:
            return
        matches, start = reply.get("matches"), reply.get("cursor_start")
        if isinstance(matches, list) and isinstance(start, int):
            for match in matches:
                yield Completion(str(match), start_position=start - document.cursor_position)


def _keys(session: AsyncSession) -> KeyBindings:
    keys = KeyBindings()
    in_order = asyncio.Lock()  # a second Enter waits for what the first one comes to

    @keys.add("enter")
    async def _(event: KeyPressEvent) -> None:
        """Runs what is complete; otherwise a new line, indented as the last one, or deeper after a colon."""
        async with in_order:
            await enter(event.current_buffer)

    async def enter(buffer: Buffer) -> None:
        text = buffer.document.text
        last_line_is_blank = "\n" in text and not buffer.document.current_line.strip()
        if not text.strip() or (buffer.document.is_cursor_at_the_end and last_line_is_blank):
            buffer.validate_and_handle()
            return
        try:
            status = await session.is_complete(text, timeout=_COMPLETION_TIMEOUT)
        except Unsupported:
            status = is_complete(text)
        except CellrunError:
            status = "unknown"
        if status == "incomplete":
            line = buffer.document.current_line
            indent = line[: len(line) - len(line.lstrip())] + ("    " if line.rstrip().endswith(":") else "")
            buffer.insert_text("\n" + indent)
        else:
            buffer.validate_and_handle()

    return keys


def is_complete(code: str) -> str:
    """What IPython's kernel would say, for a service, which cannot be asked.

    >>> is_complete("for i in range(3):"), is_complete("1")
    ('incomplete', 'complete')
    """
    from IPython.core.inputtransformer2 import TransformerManager

    return str(TransformerManager().check_complete(code)[0])


def _history() -> History:
    base = os.environ.get("XDG_STATE_HOME") or os.path.join(os.path.expanduser("~"), ".local", "state")
    path = Path(base) / "cellrun" / "history"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab"):
            pass
        path.chmod(0o600)
    except OSError as error:
        print(f"cellrun: no history is kept: {error.strerror}", file=sys.stderr)
        return InMemoryHistory()
    return FileHistory(str(path))
