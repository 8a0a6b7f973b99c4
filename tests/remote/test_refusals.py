"""What a service, or what is in its place, refuses: the library's errors, with what to do, and never with the key."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
import traceback
from collections.abc import AsyncIterator

import pytest
import trustme
from aiohttp import web

from cellrun import (
    AsyncSession,
    AuthenticationError,
    CellrunError,
    CellrunService,
    ConnectionFailed,
    InputRequest,
    KernelStartError,
    LimitExceeded,
    Limits,
    ProtocolError,
    SessionLost,
    Unsupported,
)
from cellrun.remote.problems import refused
from cellrun.service.problems import KINDS
from tests.remote.conftest import address_of
from tests.service.running import Service, answer, client
from tests.support.proxy import FaultProxy
from tests.support.waiting import HANG, PROCESS

WRONG = "ck_0123456789_this-is-no-key-that-there-is"


@pytest.mark.parametrize("code", KINDS)
def test_every_problem_of_the_service_is_an_error_of_the_library(code: str) -> None:
    kind = KINDS[code]
    body = {"code": code, "detail": "what was wrong", "retryable": kind.retryable}
    error = refused("cellrun://h", "GET /v1", kind.status, body, retry_after="7", has_key=True).error
    expected = {
        "bad_request": ValueError,
        "unauthenticated": AuthenticationError,
        "forbidden_host": AuthenticationError,
        "not_found": SessionLost,
        "conflict": SessionLost,
        "too_large": LimitExceeded,
        "key_reused": ProtocolError,
        "quota_exceeded": LimitExceeded,
        "unsupported": Unsupported,
        "kernel_start": KernelStartError,
    }
    assert type(error) is expected.get(code, ConnectionFailed)
    assert "cellrun://h" in str(error)
    if isinstance(error, CellrunError):
        assert error.retryable == kind.retryable
    if kind.status != 401:
        assert "what was wrong" in str(error)
        assert "again in 7 s" in str(error) or code in ("method_not_allowed", "not_acceptable", "range_not_satisfiable")


async def test_without_a_key_or_with_a_wrong_one_the_way_to_one_is_told(own_service: Service) -> None:
    key = own_service.add_key("chat")
    address = address_of(own_service.start())
    for given, words in ((None, "pass key="), (WRONG, "refused the key")):
        with pytest.raises(AuthenticationError, match=words) as caught:
            async with AsyncSession(address, key=given):
                pass
        assert WRONG not in "".join(traceback.format_exception(caught.value))
    async with AsyncSession(address, key=key, session_id="s") as session:
        assert (await session.run("6 * 7")).text == "42"
    async with CellrunService(address, key=key) as shared, AsyncSession(shared, session_id="s") as session:
        assert [cell.source for cell in (await session.fetch_notebook()).cells] == ["6 * 7"]
    own_service.end()


@pytest.mark.wide
async def test_a_key_that_is_revoked_while_a_session_is_open_is_refused(own_service: Service) -> None:
    key = own_service.add_key("chat")
    address = address_of(own_service.start())
    async with AsyncSession(address, key=key) as session:
        await session.run("1")
        id = own_service.keys("list").stdout.split()
        own_service.keys("revoke", next(word for word in id if word in key))
        async with asyncio.timeout(HANG):
            with pytest.raises(AuthenticationError, match="refused the key"):
                while True:
                    await session.run("1")
    own_service.end()


@pytest.mark.wide
async def test_quotas_are_limits_that_say_when_to_come_again(own_service: Service) -> None:
    own_service.variables |= {"CELLRUN_QUOTA_SESSIONS": "1", "CELLRUN_QUOTA_RUNS": "1"}
    async with CellrunService(address_of(own_service.start())) as service, AsyncSession(service) as session:
        with pytest.raises(LimitExceeded, match="1 sessions are the limit") as caught:
            async with AsyncSession(service):
                pass
        assert caught.value.retryable
        asked, go = asyncio.Event(), asyncio.Event()

        async def on_input(request: InputRequest) -> str:
            asked.set()
            await go.wait()
            return ""

        first = asyncio.create_task(session.run("input()", on_input=on_input))
        await asyncio.wait_for(asked.wait(), HANG)
        with pytest.raises(LimitExceeded, match=r"1 runs at once are the limit.*again in 1 s"):
            async with session.stream("2"):
                pass
        go.set()
        assert (await first).ok
        assert (await session.run("2")).text == "2"
    own_service.end()


@pytest.mark.wide
async def test_a_kernel_that_cannot_be_started_is_told_at_the_start(own_service: Service, bash_kernelspec: str) -> None:
    own_service.flags = ("--kernel", "crashing")
    async with CellrunService(address_of(own_service.start())) as service:
        session = AsyncSession(service, limits=Limits(start_timeout=PROCESS))
        with pytest.raises(KernelStartError, match="could not start a kernel") as caught:
            await session.start()
        assert caught.value.retryable
        with pytest.raises(KernelStartError):
            await session.run("1")
        await session.aclose()
    own_service.end()


@pytest.mark.wide
async def test_the_key_is_in_no_text_whatever_happens(own_service: Service, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    key = own_service.add_key("chat")
    own_service.start()
    texts: list[str] = []
    async with FaultProxy(int(own_service.url.rpartition(":")[2])) as proxy:
        service = CellrunService(f"cellrun://127.0.0.1:{proxy.port}", key=key)
        async with service, AsyncSession(service) as session:
            result = await session.run("1/0")
            texts += [repr(thing) for thing in (service, service.http, session, session._backend, result)]
            async with session.stream(
                "import time\nfor i in range(30): print(i, flush=True); time.sleep(0.05)"
            ) as stream:
                texts += [repr(await anext(stream)), repr(stream)]
                proxy.reset()
                texts += [repr(event) async for event in stream]
            service.http.timeout, service.http._reconnect = 2.0, 0.5
            proxy.refuse()
            proxy.reset()
            for call in (session.run("1"), session.files.read("x"), session.restart(), session.fetch_notebook()):
                with pytest.raises(CellrunError) as caught:
                    await call
                texts += ["".join(traceback.format_exception(caught.value)), repr(caught.value)]
            proxy.refuse(False)
        requests = bytes(proxy.received).split(b"\r\n")
    assert not any(key in text for text in [*texts, caplog.text, own_service.log_text()])
    assert {line for line in requests if key.encode() in line} == {b"Authorization: Bearer " + key.encode()}
    own_service.end()


@contextlib.asynccontextmanager
async def serving(app: web.Application) -> AsyncIterator[str]:
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"cellrun://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def test_a_redirect_is_not_followed_and_the_key_goes_nowhere() -> None:
    seen: list[str] = []

    async def elsewhere(request: web.Request) -> web.Response:
        seen.append(request.path)
        return web.Response()

    other = web.Application()
    other.router.add_route("*", "/{path:.*}", elsewhere)
    async with serving(other) as target:

        async def redirect(request: web.Request) -> web.Response:
            raise web.HTTPTemporaryRedirect(target.replace("cellrun", "http") + request.path)

        app = web.Application()
        app.router.add_route("*", "/{path:.*}", redirect)
        async with serving(app) as address:
            with pytest.raises(ConnectionFailed, match="redirect, which is not followed") as caught:
                async with AsyncSession(address, key=WRONG):
                    pass
    assert not caught.value.retryable
    assert seen == []


async def test_something_else_behind_the_address_is_named() -> None:
    async def page(request: web.Request) -> web.Response:
        return web.Response(text=f"you sent {request.headers['Authorization']}", status=418)

    async def html(request: web.Request) -> web.Response:
        return web.Response(text="<html>hello</html>", content_type="text/html")

    for handler, words in ((page, "is this the address of a cellrun service"), (html, "something that is not JSON")):
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", handler)
        async with serving(app) as address:
            with pytest.raises((ConnectionFailed, ProtocolError), match=words) as caught:
                async with AsyncSession(address, key=WRONG):
                    pass
        assert WRONG not in "".join(traceback.format_exception(caught.value))


@pytest.mark.wide
async def test_a_proxy_whose_service_is_away_is_tried_again(service: Service) -> None:
    """502 without problem details is what a proxy says for a service that is being started again."""
    away = 0

    async def relay(request: web.Request) -> web.StreamResponse:
        nonlocal away
        if request.path.endswith("/runs") and away < 2:
            away += 1
            raise web.HTTPBadGateway
        headers = {name: value for name, value in request.headers.items() if name.lower() != "host"}
        body = await request.read()
        async with (
            client(service) as http,
            http.request(request.method, request.path_qs, data=body, headers=headers) as got,
        ):
            passed = {name: got.headers[name] for name in ("Content-Type", "Location") if name in got.headers}
            return web.Response(body=await got.read(), status=got.status, headers=passed)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", relay)
    async with serving(app) as address, AsyncSession(address) as session:
        assert (await session.run("6 * 7")).text == "42"
    assert away == 2


async def test_tls_is_checked_and_can_have_an_authority_of_its_own(
    service: Service, tmp_path_factory: pytest.TempPathFactory
) -> None:
    authority = trustme.CA()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    file = tmp_path_factory.mktemp("tls") / "ca.pem"
    authority.cert_pem.write_to_path(str(file))
    port = int(service.url.rpartition(":")[2])
    tasks: set[asyncio.Task[None]] = set()

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            up_reader, up_writer = await asyncio.open_connection("127.0.0.1", port)
            for source, sink in ((reader, up_writer), (up_reader, writer)):
                task = asyncio.create_task(pump(source, sink))
                tasks.add(task)
                task.add_done_callback(tasks.discard)
        except OSError:
            writer.close()

    async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(65536):
                sink.write(data)
                await sink.drain()
        sink.close()

    async with await asyncio.start_server(relay, "127.0.0.1", 0, ssl=context) as server:
        address = f"cellruns://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        with pytest.raises(ConnectionFailed, match=r"certificate .* was refused.*ca_file="):
            async with AsyncSession(address):
                pass
        for trusted in (CellrunService(address, ca_file=str(file)), CellrunService(address, verify=False)):
            async with trusted, AsyncSession(trusted) as session:
                assert (await session.run("6 * 7")).text == "42"
        while tasks:
            await asyncio.sleep(0.01)


def test_addresses_and_keys_that_cannot_be_are_named_without_their_secrets() -> None:
    for address, words in (
        ("", "is empty"),
        ("cellrun://", "no valid host"),
        ("ftp://host", "begins with 'ftp'"),
        ("cellrun://host:99999", "cannot be read"),
        (f"cellrun://{WRONG}@host", "pass key= instead"),
        (f"cellrun://host/?key={WRONG}", "query or fragment"),
        (f"cellrun://host/#{WRONG}", "query or fragment"),
    ):
        with pytest.raises(ValueError, match=words) as caught:
            CellrunService(address)
        assert WRONG not in str(caught.value)
    for key in (f"{WRONG}\n", f"{WRONG}é"):
        with pytest.raises(ValueError, match="the key holds") as caught:
            CellrunService("cellrun://host", key=key)
        assert WRONG not in str(caught.value)
    with pytest.raises(ValueError, match="reconnect must be"):
        CellrunService("cellrun://host", reconnect=-1)
    for address, shown in (
        ("cellrun://host", "cellrun://host:8080"),
        ("cellruns://host/base/", "cellruns://host/base"),
        ("https://[::1]:9", "cellruns://[::1]:9"),
    ):
        assert repr(CellrunService(address)) == f"<CellrunService {shown}>"


@pytest.mark.wide
async def test_another_tenants_session_of_the_same_name_is_another_one(own_service: Service) -> None:
    one, two = own_service.add_key("one"), own_service.add_key("two")
    address = address_of(own_service.start())
    async with (
        AsyncSession(address, key=one, session_id="s") as first,
        AsyncSession(address, key=two, session_id="s") as second,
    ):
        await first.run("x = 1")
        assert (await second.run("'x' in globals()")).text == "False"
    async with client(own_service, one) as http:
        assert len((await answer(http, "GET", "/v1/sessions"))["sessions"]) == 1
    own_service.end()


@pytest.mark.parametrize("silent", [False, True])
async def test_a_service_that_is_away_while_a_session_begins_is_no_kernel_that_does_not_start(
    service: Service, silent: bool
) -> None:
    async with FaultProxy(int(service.url.rpartition(":")[2])) as proxy:
        async with CellrunService(f"cellrun://127.0.0.1:{proxy.port}", reconnect=20.0) as shared:
            async with AsyncSession(shared) as first:
                await first.run("1")
                if silent:
                    proxy.freeze()
                else:
                    proxy.refuse()
                proxy.reset()
                session = AsyncSession(shared, limits=Limits(start_timeout=0.7))
                with pytest.raises(ConnectionFailed, match=r"was not answered|broke|cannot be reached"):
                    await asyncio.wait_for(session.start(), HANG)
                proxy.refuse(False)
                proxy.thaw()
                session._backend.limits = Limits()  # its kernel may take as long as it must
                assert (await session.run("6 * 7")).text == "42"
                await session.aclose()


@pytest.mark.wide
@pytest.mark.parametrize("away", [False, True])
async def test_a_kernel_that_takes_too_long_is_told_as_that_and_a_service_that_goes_away_meanwhile_is_not(
    service: Service, away: bool
) -> None:
    """The kernel is waited for by the first look at the files."""
    asked = 0
    enough = asyncio.Event()

    async def relay(request: web.Request) -> web.StreamResponse:
        nonlocal asked
        if request.path.endswith("/files"):
            asked += 1
            if away:
                raise web.HTTPBadGateway
            await enough.wait()
        async with client(service) as http, http.request(request.method, request.path_qs) as got:
            return web.Response(body=await got.read(), status=got.status)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", relay)
    async with serving(app) as address:
        session = AsyncSession(address, limits=Limits(start_timeout=3))
        error, words = (ConnectionFailed, "no service behind") if away else (KernelStartError, "no kernel was ready")
        with pytest.raises(error, match=words):
            await session.start()
        enough.set()
        await session.aclose()
    assert asked > 1 if away else asked == 1
