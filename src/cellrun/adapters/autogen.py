"""A CodeExecutor for AutoGen: `CodeExecutorAgent("executor", code_executor=CellrunCodeExecutor())`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final, Self

from autogen_core import CancellationToken, Component
from autogen_core.code_executor import CodeBlock, CodeExecutor, CodeResult
from pydantic import BaseModel

from cellrun.adapters.tools import check, ended
from cellrun.errors import CellrunError, SessionLost, public_url
from cellrun.limits import Limits
from cellrun.mime import Image
from cellrun.providers import Provider
from cellrun.remote.service import CellrunService
from cellrun.result import Result
from cellrun.service.model_view import BUDGET, shortened
from cellrun.session import AsyncSession

TIMEOUT: Final = 60.0
_PYTHON: Final = ("python", "py", "python3", "ipython", "")
_CODES: Final = {"ok": 0, "timeout": 124, "interrupted": 130, "kernel_died": 137}
_REST: Final = "print less, or write it to a file"


class CellrunExecutorConfig(BaseModel):
    """Of a CellrunCodeExecutor, as AutoGen stores it. Neither a key nor the token of an address is stored."""

    provider: str | None = None
    session_id: str | None = None
    timeout: float | None = TIMEOUT


@dataclass
class CellrunCodeResult(CodeResult):
    """Of all blocks. `images`: the pictures that they showed, each with `mime` and `data` (bytes)."""

    images: tuple[Image, ...] = ()


class CellrunCodeExecutor(CodeExecutor, Component[CellrunExecutorConfig]):
    """Runs code blocks in a kernel: contained, with its variables kept between blocks.

    provider, key, session_id: as for AsyncSession; `timeout`: seconds for one block (None: no limit), after which it is interrupted.
    Blocks run in order up to the first that fails. `exit_code` of the result is 0, 1 for an exception, 124 for the time limit, 130 for an
    interrupt and 137 where the kernel died, or its session was ended by a service; `output` has what was printed up to there and the error,
    without colours, at most 20 000 characters. Blocks of another language than the kernel's are not run: exit code 1.

    Raises ValueError for parameters that do not go together, for a string that is no address, a session that cannot be named so and a time
    limit below zero, TypeError for a provider that is none. The kernel is started by `start()` or the first block. That raises ConnectionFailed,
    KernelStartError and AuthenticationError where there is none to be had, on a service LimitExceeded, and SessionLost where `stop()` came
    meanwhile or the provider object is closed; CancelledError when the token is cancelled, which interrupts the block.
    """

    component_config_schema = CellrunExecutorConfig
    component_provider_override = "cellrun.adapters.autogen.CellrunCodeExecutor"

    def __init__(
        self,
        provider: Provider | CellrunService | str | None = None,
        *,
        key: str | None = None,
        session_id: str | None = None,
        timeout: float | None = TIMEOUT,
    ) -> None:
        check(provider, key=key, session_id=session_id, timeout=timeout)
        self._provider = provider
        self._key = key
        self._session_id = session_id
        self._timeout = timeout
        self._session: AsyncSession | None = None
        self._lock = asyncio.Lock()

    async def execute_code_blocks(
        self, code_blocks: list[CodeBlock], cancellation_token: CancellationToken
    ) -> CellrunCodeResult:
        session = await self._started()
        said: list[str] = []
        images: list[Image] = []
        code = 0
        for block in code_blocks:
            if not _is_of(session, block.language):
                said.append(f"The kernel runs {session.language}, not {block.language}: the block was not run.\n")
                code = 1
                break
            running = asyncio.ensure_future(session.run(block.code, stdin=()))
            cancellation_token.link_future(running)
            try:
                result = await running
            except SessionLost as error:
                why = ended(error)
                if why is None or session.closed:
                    raise
                await self._drop(session)
                said.append(
                    f"[session_lost: {why}. Variables are gone, and files may be; the next call has a fresh session]\n"
                )
                code = _CODES["kernel_died"]
                break
            said.append(_said(result))
            images += result.images
            code = _CODES.get(result.status, 1)
            if code:
                break
        text, _ = shortened("".join(said), BUDGET, lambda _: _REST)
        return CellrunCodeResult(exit_code=code, output=text, images=tuple(images))

    async def start(self) -> None:
        """Starts the kernel. Raises as the class says."""
        await self._started()

    async def stop(self) -> None:
        """Ends the kernel, one that is being started too; `start()` or a block starts another one. Never raises."""
        self._lock = asyncio.Lock()
        if self._session is not None:
            await self._drop(self._session)

    async def restart(self) -> None:
        """A fresh kernel: variables are gone, files stay. Where a service has ended the session it is a fresh session. Nothing happens before
        the start. Raises as the start does."""
        async with self._alone():
            session = self._session
            if session is None:
                return
            try:
                await session.restart()
            except SessionLost as error:
                if ended(error) is None or session.closed:
                    raise
                await self._drop(session)
                await self._begin()

    @asynccontextmanager
    async def _alone(self) -> AsyncIterator[None]:
        """One start or restart after the other. `stop()` puts another lock in the place of theirs: whoever holds this one or waits for it sees
        that it came, and what starts after it does not wait for them."""
        lock = self._lock
        async with lock:
            try:
                self._check(lock)
                yield
            except CellrunError:
                self._check(lock)
                raise
            self._check(lock)

    def _check(self, lock: asyncio.Lock) -> None:
        if lock is not self._lock:
            raise SessionLost("the executor was stopped while its kernel was being started") from None

    async def _started(self) -> AsyncSession:
        async with self._alone():
            return self._session or await self._begin()

    async def _begin(self) -> AsyncSession:
        session = self._session = AsyncSession(
            self._provider,
            limits=Limits(timeout=self._timeout),
            key=self._key,
            session_id=self._session_id,
            history=False,
        )
        try:
            return await session.start()
        except BaseException:
            await self._drop(session)
            raise

    async def _drop(self, session: AsyncSession) -> None:
        if self._session is session:
            self._session = None
        await session.aclose()

    def _to_config(self) -> CellrunExecutorConfig:
        if self._provider is not None and not isinstance(self._provider, str):
            raise ValueError("an executor on a provider object cannot be stored: give the address of a server, or none")
        address = None if self._provider is None else public_url(self._provider)
        return CellrunExecutorConfig(provider=address, session_id=self._session_id, timeout=self._timeout)

    @classmethod
    def _from_config(cls, config: CellrunExecutorConfig) -> Self:
        return cls(config.provider, session_id=config.session_id, timeout=config.timeout)


def _is_of(session: AsyncSession, language: str) -> bool:
    asked = language.strip().lower()
    return asked == session.language or (session.language in ("python", "") and asked in _PYTHON)


def _said(result: Result) -> str:
    notes: list[str] = []
    if result.restarted:
        notes.append(f"[the kernel was restarted and its variables are gone: {result.restarted}]")
    if result.status not in ("ok", "error"):
        notes.append(f"[{result.status}: {result.reason}]")
    parts = [part.rstrip("\n") for part in (result.text, *notes) if part]
    return "".join(f"{part}\n" for part in parts)
