"""The function that chat applications call today, kept as it is and made to lose nothing."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Self

from pydantic import BaseModel

from cellrun.channels.websocket import CONNECTION_LOST
from cellrun.errors import CellrunError
from cellrun.limits import Limits
from cellrun.mime import image_url, is_opaque, joined
from cellrun.providers.base import finish
from cellrun.providers.jupyter_server import JupyterServer
from cellrun.result import DisplayOutput, ErrorInfo, Omission, PageOutput, Result
from cellrun.session import AsyncSession
from cellrun.terminal import strip_ansi

_LAST_WORD = 1.5
TIMED_OUT = "\nExecution timed out."


class ResultModel(BaseModel):
    """The three strings."""

    stdout: str = ""
    stderr: str = ""
    result: str = ""


class JupyterCodeExecuter:
    """Runs one snippet in a fresh kernel of a Jupyter server, which is deleted afterwards.

    `timeout` is one deadline in seconds for everything, connecting included. `run()` raises nothing but
    CancelledError: whatever goes wrong stands in `stderr`, beside what had arrived.
    """

    def __init__(
        self, base_url: str, code: str, token: str = "", password: str = "", timeout: float | None = 60
    ) -> None:
        self.base_url = base_url
        self.code = code
        self._token = token or ""
        self._password = password or ""
        self.timeout = timeout
        self.result = ResultModel()

    def __repr__(self) -> str:
        return f"<JupyterCodeExecuter, timeout={self.timeout!r}>"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        return None

    async def run(self) -> ResultModel:
        """Runs the snippet; the same model is in `.result`."""
        started = time.monotonic()
        budget = 60.0 if self.timeout is None else max(float(self.timeout), 0.1)
        # As much as the caller has memory for: the three strings were never cut.
        limits = Limits(start_timeout=budget, text=1 << 50, displays=1 << 50, outputs=1 << 40)
        try:
            provider = JupyterServer(
                self.base_url, token=self._token, password=self._password, timeout=min(10.0, budget)
            )
            session = AsyncSession(provider, limits=limits)
            try:
                await session.start()
                left = None if self.timeout is None else max(0.0, self.timeout - (time.monotonic() - started))
                self.result = to_model(await session.run(self.code, timeout=left))
            finally:
                # The kernel is deleted whatever happens, but a server that has stopped answering does not
                # hold the caller: then the deletion goes on in the background.
                left = 60.0 if self.timeout is None else self.timeout - (time.monotonic() - started)
                await finish(_close(session, provider), max(left, _LAST_WORD))
        except (CellrunError, ValueError, TypeError) as error:
            text = f"Error: {error}"
            if self.timeout is not None and time.monotonic() - started >= self.timeout:
                text += TIMED_OUT
            self.result = ResultModel(stderr=text)
        return self.result


async def execute_code_jupyter(
    base_url: str, code: str, token: str = "", password: str = "", timeout: float | None = 60
) -> dict[str, str]:
    """Runs a snippet in a fresh kernel of the Jupyter server at `base_url` and deletes the kernel.

    Returns {"stdout", "stderr", "result"}, stripped strings. `result` has for each output, in order, a
    picture as a `data:` URL, else its text. An exception's traceback, with its ANSI colours, the time
    limit, the kernel's death and failures of the connection are appended to `stderr`. Raises nothing;
    cancelled, it deletes the kernel.
    """
    async with JupyterCodeExecuter(base_url, code, token, password, timeout) as executer:
        return (await executer.run()).model_dump()


async def _close(session: AsyncSession, provider: JupyterServer) -> None:
    try:
        await session.aclose()
    finally:  # also where the loop is ended before a server that does not answer has let go of the kernel
        await provider.aclose()


def to_model(result: Result) -> ResultModel:
    """The three strings of a Result."""
    shown = [text for output in result.outputs if (text := _shown(output)) is not None]
    stderr = result.stderr
    for output in result.outputs:
        if isinstance(output, ErrorInfo):
            stderr += output.traceback_ansi or f"{output.name}: {output.value}"
    for line in result.dropped:
        stderr += f"\nOutput was dropped before it arrived ({line})"
    if result.status == "timeout":
        stderr += TIMED_OUT
    elif result.status == "kernel_died":
        lost = (result.reason or "").startswith(CONNECTION_LOST)
        stderr += f"\n{'Error' if lost else 'The kernel died'}: {result.reason}"
    return ResultModel(stdout=result.stdout.strip(), stderr=stderr.strip(), result="\n".join(shown).strip())


def _shown(output: object) -> str | None:
    if isinstance(output, PageOutput):
        return strip_ansi(_text(output.data))
    if isinstance(output, DisplayOutput):
        return image_url(output.data) or _text(output.data)
    if isinstance(output, Omission) and output.displays:
        return output.note("displays").strip()
    return None


def _text(data: Mapping[str, Any]) -> str:
    """`text/plain`, unless it says nothing of what is shown; then the most readable of the other types."""
    plain = joined(data["text/plain"]) if "text/plain" in data else ""
    if plain.strip() and not is_opaque(plain):
        return plain
    for mime in ("text/markdown", "text/latex", "text/html", "application/json"):
        if mime in data and joined(data[mime]).strip():
            return joined(data[mime])
    others = [mime for mime in data if mime.startswith(("text/", "application/")) and mime != "text/plain"]
    return plain or (joined(data[others[0]]) if others else "")
