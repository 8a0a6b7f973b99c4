"""HTTP to one service: its address, the key, one pool of connections for all sessions, and what is tried again.

The key goes into the header `Authorization: Bearer …` and nowhere else. Redirects are not followed, so it goes to no other host.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Mapping
from typing import Any, Final, TypeVar

import aiohttp
import stamina
from yarl import URL

from cellrun.errors import ConnectionFailed, ProtocolError
from cellrun.limits import KIB, MIB
from cellrun.providers.connecting import errors_of, proxy_for, tls_of
from cellrun.remote.address import shown
from cellrun.remote.problems import Refused, refused

T = TypeVar("T")

# The service closes a connection that was not used for 5 s (uvicorn's default); ours goes first, so no request meets that end.
_KEEP_ALIVE: Final = 4.0
IF_THERE: Final = {"If-Match": "*"}
"""Header of what would make a session: one that was deleted must not come back as another one."""
_PROBLEM: Final = 64 * KIB
_ANSWER: Final = 256 * MIB


class _Away(Exception):
    """Worth another try; `error` says what it was."""

    def __init__(self, error: ConnectionFailed | Refused) -> None:
        super().__init__(str(error))
        self.error = error


class ServiceHttp:
    """Requests below one base address. Made on the event loop that uses it; `aclose()` when done. All raise ConnectionFailed, or Refused
    with the service's words. `reached`: whether it has ever answered; before that nothing is tried again."""

    def __init__(
        self, base: URL, key: str, *, ca_file: str | None, verify: bool, timeout: float, reconnect: float
    ) -> None:
        self.base = base
        self.timeout = timeout
        self.reached = False
        self._key = key
        self._reconnect = reconnect
        self._proxy, self._proxy_headers = proxy_for(base)
        self._client = aiohttp.ClientSession(
            cookie_jar=aiohttp.DummyCookieJar(),
            connector=aiohttp.TCPConnector(
                ssl=tls_of(ca_file, verify) if base.scheme == "https" else True, limit=0, keepalive_timeout=_KEEP_ALIVE
            ),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=timeout),
            trust_env=False,
            read_bufsize=256 * KIB,
        )

    def __repr__(self) -> str:
        return f"<ServiceHttp {shown(self.base)}>"

    async def aclose(self) -> None:
        await self._client.close()

    @property
    def patience(self) -> float:
        """Seconds for which a service that is away is tried again."""
        return self._reconnect if self.reached else 0.0

    async def open(
        self,
        method: str,
        path: str,
        *,
        body: Any = None,
        data: AsyncIterable[bytes] | None = None,
        params: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = None,
        unlimited: bool = False,
    ) -> aiohttp.ClientResponse:
        """An answer that is a success; its body is the caller's to read, and the answer to close. `body`: sent as JSON; `data`: as it is.
        `timeout`: until the answer begins; `unlimited`: the caller bounds that."""
        limit = timeout or self.timeout
        sent: dict[str, str] = dict(headers or {})
        if self._key:
            sent["Authorization"] = f"Bearer {self._key}"
        if body is not None:
            sent["Content-Type"] = "application/json"
        with self._mapped(method, path, limit):
            async with asyncio.timeout(None if unlimited else limit):
                response = await self._client.request(
                    method,
                    self.base.join(URL(path, encoded=True)).with_query(dict(params) if params else None),
                    data=data if body is None else io.BytesIO(json.dumps(body).encode("ascii")),
                    headers=sent,
                    allow_redirects=False,
                    proxy=self._proxy,
                    proxy_headers=self._proxy_headers,
                )
        if response.status < 300:
            self.reached = True
            return response
        try:
            told = None
            with self._mapped(method, path, limit):
                async with asyncio.timeout(limit):
                    told = await _whole(response, _PROBLEM)
        finally:
            response.close()
        problem = refused(
            shown(self.base),
            f"{method} /{path}",
            response.status,
            _json(self._without_key(told.decode("utf-8", "replace"))),
            retry_after=response.headers.get("Retry-After"),
            has_key=bool(self._key),
        )
        self.reached = self.reached or response.content_type == "application/problem+json"
        raise problem

    async def json(
        self,
        method: str,
        path: str,
        *,
        body: Any = None,
        params: Mapping[str, str] | None = None,
        timeout: float | None = None,
        patience: float | None = None,
        on_away: Callable[[Exception], None] | None = None,
    ) -> Any:
        """The decoded answer, None where there is none. Only for requests that may be made twice: they are tried again, for `patience` seconds,
        else for those of the service. `on_away`: is told of each try that has failed so."""

        async def once() -> bytes:
            response = await self.open(method, path, body=body, params=params, timeout=timeout)
            limit = timeout or self.timeout
            try:
                with self._mapped(method, path, limit):
                    async with asyncio.timeout(limit):
                        return await _whole(response, _ANSWER)
            finally:
                response.close()

        text = await self.again(once, self.patience if patience is None else min(patience, self.patience), on_away)
        if not text:
            return None
        try:
            return await asyncio.to_thread(json.loads, text) if len(text) > MIB else json.loads(text)
        except (ValueError, RecursionError):
            raise ProtocolError(f"{shown(self.base)} answered /{path} with something that is not JSON") from None

    async def again(
        self, call: Callable[[], Awaitable[T]], patience: float, on_away: Callable[[Exception], None] | None = None
    ) -> T:
        """What the call gives; made anew, after pauses that grow, while the connection breaks or the service is away, for `patience` seconds."""

        async def once() -> T:
            try:
                return await call()
            except ConnectionFailed as error:
                if error.retryable and not self._client.closed:
                    if on_away is not None:
                        on_away(error)
                    raise _Away(error) from None
                raise
            except Refused as problem:
                if problem.passing:
                    if on_away is not None:
                        on_away(problem.error)
                    raise _Away(problem) from None
                raise

        try:
            if patience <= 0:
                return await once()
            async for attempt in stamina.retry_context(
                on=_Away, attempts=None, timeout=patience, wait_initial=0.05, wait_max=1.0, wait_jitter=0.05
            ):
                with attempt:
                    return await once()
        except _Away as away:
            raise away.error from None
        raise AssertionError

    async def pieces(
        self, response: aiohttp.ClientResponse, silence: Callable[[], float]
    ) -> AsyncGenerator[bytes, None]:
        """The body as it comes. ConnectionFailed when it breaks, or nothing comes for so many seconds."""
        while True:
            limit = silence()
            with self._mapped("GET", response.url.raw_path.lstrip("/"), limit):
                async with asyncio.timeout(limit):
                    piece = await response.content.readany()
            if not piece:
                return
            yield piece

    def _mapped(self, method: str, path: str, limit: float) -> contextlib.AbstractContextManager[None]:
        return errors_of(self._client, method, f"{shown(self.base)}/{path}", limit)

    def _without_key(self, text: str) -> str:
        return text.replace(self._key, "…") if self._key else text


async def _whole(response: aiohttp.ClientResponse, most: int) -> bytes:
    """The body. Raises ProtocolError for one of more than `most` bytes."""
    found: list[bytes] = []
    size = 0
    while piece := await response.content.readany():
        size += len(piece)
        if size > most:
            raise ProtocolError(f"the service's answer is larger than {most} bytes")
        found.append(piece)
    return b"".join(found)


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None
