"""No secret in anything that a failure says: exceptions, reprs, logs, warnings. And each failure in words of
its own, which say what to do."""

from __future__ import annotations

import asyncio
import logging
import ssl
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import pytest

import cellrun
from cellrun import AsyncSession, CellrunError, JupyterServer
from tests.support.leases import lease_of
from tests.support.proxy import FaultProxy
from tests.support.servers import Server
from tests.support.waiting import HANG, PROCESS

SECRET = "s3cr#t&%/+tok=en"
FORMS = {SECRET, quote(SECRET), quote(SECRET, safe=""), "s3cr"}


@asynccontextmanager
async def answering(reply: bytes, *, hang_up: bool = True, context: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    """A server on loopback that says this to everyone."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(reply)
            await writer.drain()
            if not hang_up:
                await reader.read()
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    port = server.sockets[0].getsockname()[1]
    try:
        yield f"http{'s' if context else ''}://127.0.0.1:{port}/"
    finally:
        server.close()


def http(status: str, body: str = "", *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body.encode())}", "Connection: close", *headers, "", body]
    return "\r\n".join(lines).encode()


@dataclass
class World:
    """The servers that failures are made with."""

    token_server: Server
    password_server: Server
    tls_server: Server
    tmp: Path


async def use(provider: JupyterServer) -> Any:
    async with provider, AsyncSession(provider) as session:
        return await session.run("1", timeout=HANG)


async def reply(raw: bytes, *, hang_up: bool = True) -> Any:
    """`hang_up`: if not, the rest is waited for in vain; what is answered whole may take a busy machine longer than that."""
    async with answering(raw, hang_up=hang_up) as url:
        return await use(JupyterServer(url, token=SECRET, timeout=10 if hang_up else 1))


async def wrong_token(w: World) -> Any:
    return await use(JupyterServer(w.token_server.url, token=SECRET))


async def token_in_the_url(w: World) -> Any:
    return await use(JupyterServer(f"{w.token_server.url}?token={quote(SECRET)}"))


async def wrong_password(w: World) -> Any:
    return await use(JupyterServer(w.password_server.url, password=SECRET))


async def password_where_there_is_no_login(w: World) -> Any:
    async with answering(http("404 Not Found", "nothing")) as url:
        return await use(JupyterServer(url, password=SECRET))


async def wrong_path(w: World) -> Any:
    return await use(JupyterServer(f"{w.token_server.url}not/here/", token=w.token_server.token))


async def no_server(w: World) -> Any:
    return await use(JupyterServer("http://127.0.0.1:9/", token=SECRET))


async def no_host(w: World) -> Any:
    return await use(JupyterServer("http://no-such-host.invalid/", token=SECRET))


async def redirect(w: World) -> Any:
    return await reply(http("302 Found", "", f"Location: http://127.0.0.1:9/else/?token={quote(SECRET)}"))


async def redirect_to_login(w: World) -> Any:
    return await reply(http("302 Found", "", f"Location: /hub/login?next={quote(SECRET)}"))


async def server_error_that_echoes(w: World) -> Any:
    return await reply(http("503 Service Unavailable", f'{{"message": "no room for {SECRET}"}}'))


async def html(w: World) -> Any:
    return await reply(http("200 OK", f"<html>{SECRET}</html>"))


async def json_of_something_else(w: World) -> Any:
    return await reply(http("201 Created", '{"hello": 1}'))


async def no_http(w: World) -> Any:
    return await reply(b"SSH-2.0-OpenSSH_9.2\r\n")


async def hang_up(w: World) -> Any:
    return await reply(b"")


async def silence(w: World) -> Any:
    return await reply(b"", hang_up=False)


async def half_an_answer(w: World) -> Any:
    return await reply(b"HTTP/1.1 201 Created\r\nContent-Length: 500\r\n\r\n{", hang_up=False)


async def no_websocket(w: World) -> Any:
    return await reply(http("201 Created", f'{{"id": "{SECRET[:3]}"}}'))


async def untrusted_certificate(w: World) -> Any:
    return await use(JupyterServer(w.tls_server.url, token=SECRET))


async def wrong_authority(w: World) -> Any:
    import trustme

    trustme.CA().cert_pem.write_to_path(str(w.tmp / "other.pem"))
    return await use(JupyterServer(w.tls_server.url, token=SECRET, ca_file=str(w.tmp / "other.pem")))


async def missing_authority(w: World) -> Any:
    return await use(JupyterServer(w.tls_server.url, token=SECRET, ca_file=str(w.tmp / "missing.pem")))


async def https_to_http(w: World) -> Any:
    return await use(JupyterServer(w.token_server.url.replace("http:", "https:"), token=SECRET, timeout=1))


async def http_to_https(w: World) -> Any:
    return await use(JupyterServer(w.tls_server.url.replace("https:", "http:"), token=SECRET))


async def proxy_is_gone(w: World) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("http_proxy", f"http://me:{quote(SECRET, safe='')}@127.0.0.1:9")
        return await use(JupyterServer(w.token_server.url, token=w.token_server.token))


async def proxy_refuses(w: World) -> Any:
    async with answering(http("407 Proxy Authentication Required", SECRET)) as url:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("http_proxy", url.replace("http://", f"http://me:{quote(SECRET, safe='')}@"))
            return await use(JupyterServer(w.token_server.url, token=w.token_server.token))


async def half_open(w: World) -> Any:
    async with FaultProxy(w.token_server.port) as proxy:
        proxy.freeze()
        return await use(JupyterServer(proxy.url(w.token_server.url), token=w.token_server.token, timeout=1))


async def no_scheme(w: World) -> Any:
    return await use(JupyterServer(f"127.0.0.1:8888/?token={SECRET}"))


async def wrong_scheme(w: World) -> Any:
    return await use(JupyterServer(f"ftp://127.0.0.1/?token={SECRET}"))


async def empty(w: World) -> Any:
    return await use(JupyterServer("  ", token=SECRET))


async def bad_port(w: World) -> Any:
    return await use(JupyterServer(f"http://127.0.0.1:port/?token={SECRET}"))


async def credentials_in_the_address(w: World) -> Any:
    return await use(JupyterServer(f"http://me:{quote(SECRET, safe='')}@127.0.0.1:9/"))


async def line_break_in_the_token(w: World) -> Any:
    return await use(JupyterServer(w.token_server.url, token=f"{SECRET}\n"))


async def unknown_kernelspec(w: World) -> Any:
    return await use(JupyterServer(w.token_server.url, token=w.token_server.token, kernel="no-such-kernel"))


async def missing_folder(w: World) -> Any:
    return await use(JupyterServer(w.token_server.url, token=w.token_server.token, cwd="no-such-folder"))


FAILURES: dict[Callable[[World], Awaitable[Any]], str] = {
    wrong_token: "refused the token",
    token_in_the_url: "refused the token",
    wrong_password: "refused the password",
    password_where_there_is_no_login: "no password login",
    wrong_path: "404; is the base address right|answered 404",
    no_server: "cannot be reached: Connect call failed",
    no_host: "cannot be reached",
    redirect: "redirects to http://127.0.0.1:9/else/; redirects are not followed",
    redirect_to_login: "redirects to .*/hub/login",
    server_error_that_echoes: "answered 503: no room for …",
    html: "not JSON: is this the base address of a Jupyter server",
    json_of_something_else: "without a kernel id",
    no_http: "did not answer in HTTP|broke",
    hang_up: "broke: ServerDisconnected",
    silence: "was not answered within",
    half_an_answer: "was not answered within",
    no_websocket: "answered 201|could not be|answered",
    untrusted_certificate: "certificate .* was refused.*ca_file=",
    wrong_authority: "certificate .* was refused",
    missing_authority: "ca_file cannot be used",
    https_to_http: "does it speak https",
    http_to_https: "did not answer in HTTP|broke",
    proxy_is_gone: "the proxy .* cannot be reached",
    proxy_refuses: "407",
    half_open: "was not answered within",
    no_scheme: "must begin with http",
    wrong_scheme: "must begin with http:// or https://, not 'ftp'",
    empty: "is empty",
    bad_port: "cannot be read",
    credentials_in_the_address: "holds a user name or password; pass token= or password=",
    line_break_in_the_token: "the token holds a line break",
    unknown_kernelspec: "no kernelspec named 'no-such-kernel'; it has: ",
    missing_folder: "no folder 'no-such-folder'",
}


LONG: Final = (half_an_answer, half_open)  # as long as silence is


@pytest.mark.parametrize(
    "failure",
    [pytest.param(failure, marks=pytest.mark.wide if failure in LONG else ()) for failure in FAILURES],
    ids=lambda failure: failure.__name__,
)
async def test_a_failure_says_what_is_wrong_and_no_secret(
    failure: Callable[[World], Awaitable[Any]],
    token_server: Server,
    password_server: Server,
    tls_server: Server,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    caplog.set_level(logging.DEBUG)
    logging.getLogger("asyncio").setLevel(logging.WARNING)
    world = World(token_server, password_server, tls_server, tmp_path)
    secrets = FORMS | {token_server.token, password_server.password, tls_server.token}
    with pytest.raises((CellrunError, ValueError), match=FAILURES[failure]) as caught:
        await asyncio.wait_for(failure(world), PROCESS)
    chain = caught.value
    said = [str(chain), repr(chain), "".join(traceback.format_exception_only(chain)), str(chain.args)]
    assert chain.__cause__ is None
    assert chain.__suppress_context__ or chain.__context__ is None
    out, err = capfd.readouterr()
    for text in [*said, out, err, *(record.getMessage() for record in caplog.records)]:
        for secret in secrets:
            assert secret not in text


def test_there_are_at_least_twenty_five_failures() -> None:
    assert len(FAILURES) >= 25


async def test_reprs_and_requests_hold_no_secret(token_server: Server) -> None:
    async with FaultProxy(token_server.port) as proxy:
        provider = JupyterServer(proxy.url(token_server.url), token=token_server.token, headers={"X-Key": SECRET})
        async with provider, AsyncSession(provider) as session:
            result = await session.run("1/0")
            texts = [repr(x) for x in (provider, session, result, provider._http, lease_of(session))]
            async with session.stream("1") as stream:
                texts += [repr(event) async for event in stream]
        lines = bytes(proxy.received).split(b"\r\n")
        urls = [line for line in lines if line.endswith(b"HTTP/1.1")]
        assert len(urls) >= 3
        for secret in (token_server.token, quote(token_server.token), SECRET):
            assert not any(secret in text for text in texts)
            assert not any(secret.encode() in url for url in urls)


async def test_the_three_strings_hold_no_secret(token_server: Server) -> None:
    for url in (token_server.url, f"{token_server.url}?token={SECRET}", "http://127.0.0.1:9/"):
        answer = await cellrun.execute_code_jupyter(url, "1", SECRET, "", 5)
        assert answer["stderr"].startswith("Error: ")
        assert not any(form in str(answer) for form in FORMS)
