"""HTTP to one Jupyter server: address, credentials, TLS, proxies, and errors that say what to do.

Facts that this rests on, each held by a test: a token goes into the header `Authorization: token …`, which
Jupyter Server, Kernel Gateway and JupyterHub all accept, and never into a URL. Password login is a form with
an `_xsrf` cookie, and later POST and DELETE carry that cookie's value in `X-XSRFToken`. A server without any
authentication wants the cookie too.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
from collections.abc import AsyncIterator, Mapping
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

import aiohttp
from yarl import URL

from cellrun.errors import AuthenticationError, CellrunError, ConnectionFailed, ProtocolError, public_url
from cellrun.providers.connecting import errors_of, proxy_for, tls_of

# Pages of Jupyter's own front ends: people copy the address that they see.
_PAGES: Final = ("/lab", "/tree", "/notebooks", "/nbclassic")
_LARGEST_ANSWER: Final = 256 * 1024 * 1024


def parse_base_url(url: str) -> tuple[URL, str]:
    """The base address, ending in "/", and the token of its query ("" if none), as people paste it from
    `jupyter server list`. Raises ValueError, with nothing secret in it, for what is no base address."""
    if not isinstance(url, str) or not url.strip():
        raise ValueError("the address of the Jupyter server is empty; expected something like http://host:8888/")
    url = url.strip()
    try:
        parts = urlsplit(url)
        port = parts.port
        host = parts.hostname
    except ValueError:
        raise ValueError(f"the address of the Jupyter server cannot be read: {public_url(url)}") from None
    if parts.scheme not in ("http", "https"):
        raise ValueError(
            "the address of the Jupyter server must begin with http:// or https://"
            + (f", not {parts.scheme!r}" if "://" in url else "; a host and port alone are not enough")
        )
    if not host or any(character.isspace() for character in parts.netloc):
        raise ValueError("the address of the Jupyter server has no valid host; expected http://host:8888/")
    if parts.username is not None or parts.password is not None:
        raise ValueError(
            "the address of the Jupyter server holds a user name or password; pass token= or password= instead"
        )
    path = parts.path
    for page in _PAGES:
        before, found, after = path.partition(page)
        if found and (not after or after.startswith("/")):
            path = before
    token = parse_qs(parts.query).get("token", [""])[0]
    base = URL.build(scheme=parts.scheme, host=host, port=port, path=path.rstrip("/") + "/", encoded="%" in path)
    return base, token


class JupyterHttp:
    """Requests below one base address. Made on the event loop that uses it; `aclose()` when done."""

    def __init__(
        self,
        base: URL,
        *,
        token: str = "",
        password: str = "",
        headers: Mapping[str, str] | None = None,
        ca_file: str | None = None,
        verify: bool = True,
        timeout: float = 10.0,
    ) -> None:
        self.base = base
        self.timeout = timeout
        self._token = token
        self._password = password
        self._headers = dict(headers or {})
        self._tls = tls_of(ca_file, verify) if base.scheme == "https" else True
        self._proxy, self._proxy_headers = proxy_for(base)
        self._xsrf = ""
        self._login = asyncio.Lock()
        self._ready = bool(token)
        # With a token cookies are of no use and can contradict it.
        jar = aiohttp.DummyCookieJar() if token else aiohttp.CookieJar(unsafe=True)
        self._client = aiohttp.ClientSession(
            cookie_jar=jar,
            connector=aiohttp.TCPConnector(ssl=self._tls, limit=0),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=timeout),
            trust_env=False,
        )

    async def aclose(self) -> None:
        await self._client.close()

    def __repr__(self) -> str:
        return f"<JupyterHttp {public_url(str(self.base))}>"

    # -- requests --------------------------------------------------------------------------------

    async def json(
        self,
        method: str,
        path: str,
        *,
        body: Any = None,
        params: Mapping[str, str] | None = None,
        expect: tuple[int, ...] = (200, 201, 204),
        timeout: float | None = None,
    ) -> tuple[int, Any]:
        """Status and decoded JSON (None where there is none). A status that is not in `expect` raises:
        AuthenticationError for 401 and 403 and for redirects to a login page, ConnectionFailed else."""
        async with self._open(method, path, body=body, params=params, timeout=timeout) as response:
            data = await self._body(response)
            if response.status in expect:
                return response.status, data
            raise self._refusal(method, path, response, data)

    @contextlib.asynccontextmanager
    async def stream(self, path: str) -> AsyncIterator[aiohttp.ClientResponse]:
        """A GET whose body the caller reads in pieces. The status is the caller's to look at."""
        async with self._open("GET", path, timeout=None, unlimited=True) as response:
            yield response

    async def websocket(self, path: str, params: Mapping[str, str], protocols: tuple[str, ...], timeout: float) -> Any:
        """An open WebSocket. Raises as `json` does; NotFound for 404."""
        await self._prepare()
        with self.mapped("GET", path, timeout):
            async with asyncio.timeout(timeout):
                try:
                    return await self._client.ws_connect(
                        # An http scheme, since proxies are looked up by it.
                        self._url(path, params),
                        protocols=protocols,
                        headers=self._all_headers("GET"),
                        max_msg_size=0,
                        autoping=False,
                        autoclose=False,
                        heartbeat=None,
                        proxy=self._proxy,
                        proxy_headers=self._proxy_headers,
                        compress=0,
                    )
                except aiohttp.WSServerHandshakeError as error:
                    raise self._refused_status("GET", path, error.status, None) from None

    def refresh_credentials(self) -> None:
        """The next request logs in anew. For a session that the server has forgotten."""
        if not self._token:
            self._ready = False

    @contextlib.asynccontextmanager
    async def _open(
        self,
        method: str,
        path: str,
        *,
        body: Any = None,
        params: Mapping[str, str] | None = None,
        timeout: float | None = None,
        unlimited: bool = False,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        limit = None if unlimited else (timeout or self.timeout)
        await self._prepare()
        with self.mapped(method, path, limit):
            async with (
                asyncio.timeout(limit),
                self._client.request(
                    method,
                    self._url(path, params),
                    data=None if body is None else io.BytesIO(json.dumps(body).encode("utf-8")),
                    headers=self._all_headers(method, has_body=body is not None),
                    allow_redirects=False,
                    proxy=self._proxy,
                    proxy_headers=self._proxy_headers,
                    # A stream as a whole may take its time, but not stand still.
                    timeout=aiohttp.ClientTimeout(sock_connect=self.timeout, sock_read=60.0 if unlimited else None),
                ) as response,
            ):
                yield response

    def _url(self, path: str, params: Mapping[str, str] | None = None) -> URL:
        return self.base.join(URL(path, encoded=True)).with_query(params or None)

    def _all_headers(self, method: str, *, has_body: bool = False) -> dict[str, str]:
        headers = dict(self._headers)
        if has_body:
            headers["Content-Type"] = "application/json"
        if self._token:
            headers["Authorization"] = f"token {self._token}"
        elif self._xsrf and method not in ("GET", "HEAD"):
            headers["X-XSRFToken"] = self._xsrf
        return headers

    # -- credentials -----------------------------------------------------------------------------

    async def _prepare(self) -> None:
        if self._ready:
            return
        async with self._login:
            if self._ready:
                return
            await self._log_in()
            self._ready = True

    async def _log_in(self) -> None:
        """Without credentials: the `_xsrf` cookie alone. With a password: the login form."""
        with self.mapped("GET", "login", self.timeout):
            async with asyncio.timeout(self.timeout):
                xsrf = await self._xsrf_cookie()
                if not self._password:
                    self._xsrf = xsrf
                    return
                async with self._client.post(
                    self._url("login"),
                    data={"password": self._password, "_xsrf": xsrf},
                    headers={**self._headers, "X-XSRFToken": xsrf},
                    allow_redirects=False,
                    proxy=self._proxy,
                    proxy_headers=self._proxy_headers,
                ) as response:
                    if response.status not in (302, 303):
                        raise AuthenticationError(self._login_words(response.status))
                # Some servers renew the cookie at login.
                self._xsrf = self._cookie("_xsrf") or xsrf

    def _login_words(self, status: int) -> str:
        where = public_url(str(self.base))
        if status == 401:
            return f"the Jupyter server at {where} refused the password"
        if status in (404, 405):
            return f"the server at {where} has no password login (it answered {status}); it may want token= instead"
        return f"the login at {where} failed: it answered {status}; check the address and the password"

    async def _xsrf_cookie(self) -> str:
        async with self._client.get(
            self._url("login"),
            headers=self._headers,
            allow_redirects=False,
            proxy=self._proxy,
            proxy_headers=self._proxy_headers,
        ) as response:
            await response.read()
        return self._cookie("_xsrf")

    def _cookie(self, name: str) -> str:
        cookie = self._client.cookie_jar.filter_cookies(self._url("login")).get(name)
        return cookie.value if cookie is not None else ""

    # -- errors ----------------------------------------------------------------------------------

    async def _body(self, response: aiohttp.ClientResponse) -> Any:
        if response.status == 204:
            return None
        if (response.content_length or 0) > _LARGEST_ANSWER:
            raise ProtocolError(f"the server's answer is larger than {_LARGEST_ANSWER} bytes")
        text = await response.text(errors="replace")
        try:
            return json.loads(text) if text else None
        except (ValueError, RecursionError):
            if response.status in (200, 201):
                raise ProtocolError(
                    f"{public_url(str(response.url))} answered {response.status} with something that is not JSON: "
                    "is this the base address of a Jupyter server?"
                ) from None
            return None

    def _refusal(self, method: str, path: str, response: aiohttp.ClientResponse, data: Any) -> CellrunError:
        if response.status in (301, 302, 303, 307, 308):
            to = public_url(str(response.url.join(URL(response.headers.get("Location", "")))))
            if "login" in to:
                return AuthenticationError(self._credential_words(f"it redirects to {to}"))
            return ConnectionFailed(
                f"{public_url(str(response.url))} redirects to {to}; redirects are not followed: "
                "pass the address that it leads to as the base address",
                retryable=False,
            )
        return self._refused_status(method, path, response.status, data)

    def _refused_status(self, method: str, path: str, status: int, data: Any) -> CellrunError:
        where = public_url(str(self._url(path)))
        if status in (401, 403):
            return AuthenticationError(self._credential_words(f"{method} {where} answered {status}"))
        said = data.get("message") if isinstance(data, dict) else None
        words = f": {self._without_secrets(str(said))[:200]}" if said else ""
        if status == 404:
            return NotFound(
                f"{method} {where} answered 404{words}; is the base address right? (a cellrun service is named cellrun://HOST:PORT)",
                status,
            )
        return Refused(f"{method} {where} answered {status}{words}", status)

    def _credential_words(self, what: str) -> str:
        where = public_url(str(self.base))
        if self._token:
            return f"the Jupyter server at {where} refused the token ({what}); check it with `jupyter server list`"
        if self._password:
            return f"the Jupyter server at {where} refused the request after the password login ({what})"
        return f"the Jupyter server at {where} wants credentials ({what}); pass token= or password="

    def _without_secrets(self, text: str) -> str:
        for secret in (self._token, self._password, self._xsrf, *self._headers.values()):
            if secret:
                text = text.replace(secret, "…")
        return text

    def mapped(self, method: str, path: str, limit: float | None) -> contextlib.AbstractContextManager[None]:
        """Around a request, or a wait for one: its failures in our words."""
        where = public_url(str(self._url(path)))
        return errors_of(self._client, method, where, limit or self.timeout)


class Refused(ConnectionFailed):
    """The server answered with a status that is no success."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message, retryable=status in (429, 502, 503, 504))
        self.status = status


class NotFound(Refused):
    """404: usually a wrong base address, or something that is gone."""
