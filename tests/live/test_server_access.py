"""Getting to a Jupyter server: credentials, addresses, TLS, proxies, kernelspecs, folders, environment."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from cellrun import (
    AsyncSession,
    AuthenticationError,
    ConnectionFailed,
    JupyterServer,
    KernelStartError,
    Limits,
    Unsupported,
)
from cellrun.providers import jupyter_server
from tests.support.forward_proxy import ForwardProxy
from tests.support.servers import Server
from tests.support.waiting import HANG, PROCESS, eventually


async def answer(provider: JupyterServer) -> str:
    async with provider, AsyncSession(provider) as session:
        return (await session.run("6 * 7", timeout=30)).text


async def test_a_token_goes_in_a_header(token_server: Server) -> None:
    assert await answer(JupyterServer(token_server.url, token=token_server.token)) == "42"


async def test_a_password_logs_in(password_server: Server) -> None:
    assert await answer(JupyterServer(password_server.url, password=password_server.password)) == "42"


async def test_a_server_without_authentication_needs_nothing(open_server: Server) -> None:
    assert await answer(JupyterServer(open_server.url)) == "42"


async def test_a_kernel_gateway_is_a_server_too(gateway: Server) -> None:
    assert await answer(JupyterServer(gateway.url, token=gateway.token)) == "42"


@pytest.mark.wide
async def test_a_users_server_of_a_jupyterhub_is_a_server_too(hub_server: Server) -> None:
    provider = JupyterServer(hub_server.url, token=hub_server.token)
    async with provider, AsyncSession(provider) as session:
        assert (await session.run("x = 41")).ok
        assert (await session.run("x + 1")).text == "42"
        await session.files.write("hub.txt", "at the hub")
        assert await session.files.read("hub.txt") == b"at the hub"


@pytest.mark.wide
async def test_a_wrong_hub_token_is_an_authentication_error(hub_server: Server) -> None:
    async with JupyterServer(hub_server.url, token="0" * 32) as provider:
        with pytest.raises(AuthenticationError, match="refused the token"):
            await provider.acquire(HANG)


async def test_tls_with_an_authority_of_ones_own(tls_server: Server) -> None:
    assert await answer(JupyterServer(tls_server.url, token=tls_server.token, ca_file=tls_server.ca_file)) == "42"


async def test_tls_can_be_trusted_blindly_only_by_name(tls_server: Server) -> None:
    assert await answer(JupyterServer(tls_server.url, token=tls_server.token, verify=False)) == "42"
    async with JupyterServer(tls_server.url, token=tls_server.token) as provider:
        with pytest.raises(ConnectionFailed, match=r"certificate .* was refused.*ca_file="):
            await provider.acquire(HANG)


@pytest.mark.parametrize("page", ["", "lab", "lab/tree/x.ipynb", "tree?token=ignored"])
async def test_addresses_are_taken_as_people_copy_them(free_server: Server, page: str) -> None:
    assert (
        await answer(JupyterServer(free_server.url.rstrip("/") + ("/" + page if page else ""), token=free_server.token))
        == "42"
    )


async def test_a_token_in_the_address_is_taken_out_of_it(free_server: Server) -> None:
    provider = JupyterServer(f"{free_server.url}lab?token={free_server.token}")
    assert free_server.token not in repr(provider)
    assert await answer(provider) == "42"


async def test_a_proxy_of_the_environment_is_used(free_server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    async with ForwardProxy("user", "pa:ss") as proxy:
        monkeypatch.setenv("http_proxy", f"http://user:pa%3Ass@127.0.0.1:{proxy.port}")
        monkeypatch.setenv("no_proxy", "")
        assert await answer(JupyterServer(free_server.url, token=free_server.token)) == "42"
        assert proxy.upgrades >= 1  # more where the kernel is slow to answer: the handshake is tried again
        assert proxy.requests > 1
        seen = proxy.requests
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        assert await answer(JupyterServer(free_server.url, token=free_server.token)) == "42"
        assert proxy.requests == seen


async def test_headers_of_ones_own_are_sent(open_server: Server) -> None:
    async with ForwardProxy() as proxy:
        url = open_server.url.replace(str(open_server.port), str(proxy.port))
        proxy.target_port = open_server.port
        provider = JupyterServer(url, headers={"X-Mine": "yes it is"})
        assert await answer(provider) == "42"
        assert proxy.heads.count(b"X-Mine: yes it is") == proxy.requests


async def test_an_unknown_kernelspec_is_named_with_those_that_exist(free_server: Server) -> None:
    async with JupyterServer(free_server.url, token=free_server.token, kernel="nope") as provider:
        with pytest.raises(KernelStartError, match=r"no kernelspec named 'nope'; it has: .*python3"):
            await provider.acquire(20)


DEAF = """
from ipykernel.ipkernel import IPythonKernel
from ipykernel.kernelapp import IPKernelApp

class Deaf(IPythonKernel):
    asked = False

    async def kernel_info_request(self, *arguments):
        if self.asked:
            await super().kernel_info_request(*arguments)
        self.asked = True

IPKernelApp.launch_instance(kernel_class=Deaf)
"""


async def test_a_kernel_whose_first_answer_the_server_never_got_is_there_soon_all_the_same(
    free_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server asks once, and without an answer keeps the connection waiting for a minute."""
    spec = free_server.root.parent / ".local/share/jupyter/kernels/deaf"
    spec.mkdir(parents=True)
    (spec / "deaf.py").write_text(DEAF)
    argv = [sys.executable, str(spec / "deaf.py"), "-f", "{connection_file}"]
    (spec / "kernel.json").write_text(json.dumps({"argv": argv, "display_name": "deaf", "language": "python"}))
    monkeypatch.setattr(jupyter_server, "_HANDSHAKE_PATIENCE", 4.0)
    async with JupyterServer(free_server.url, token=free_server.token, kernel="deaf") as provider:
        async with AsyncSession(provider, limits=Limits(start_timeout=PROCESS)) as session:
            assert (await session.run("6 * 7")).text == "42"
    await eventually(lambda: free_server.kernels() == [])


async def test_the_working_folder_is_the_servers_and_must_exist(free_server: Server) -> None:
    (free_server.root / "sub dir" / "ü").mkdir(parents=True, exist_ok=True)
    provider = JupyterServer(free_server.url, token=free_server.token, cwd="sub dir/ü")
    async with provider, AsyncSession(provider) as session:
        result = await session.run("import os; print(os.getcwd()); open('here', 'w').close()")
        assert Path(result.stdout.strip()) == (free_server.root / "sub dir" / "ü").resolve()
        assert [info.path for info in await session.files.list()] == ["here"]
    async with JupyterServer(free_server.url, token=free_server.token, cwd="missing") as provider:
        with pytest.raises(Unsupported, match="no folder 'missing'"):
            await provider.acquire(20)


async def test_the_environment_is_set_without_shifting_line_numbers(free_server: Server) -> None:
    provider = JupyterServer(free_server.url, token=free_server.token, env={"GREETING": 'he said "hi"\n\\x'})
    async with provider, AsyncSession(provider) as session:
        result = await session.run("import os\nprint(repr(os.environ['GREETING']))\n1/0")
        assert result.stdout == repr('he said "hi"\n\\x') + "\n"
        assert result.execution_count == 1
        assert result.error is not None
        assert "----> 3 1/0" in result.error.traceback


async def test_closing_the_session_deletes_the_kernel_and_closing_the_provider_all(free_server: Server) -> None:
    await eventually(lambda: free_server.kernels() == [])  # what the tests before have let go of
    provider = JupyterServer(free_server.url, token=free_server.token)
    one, two = AsyncSession(provider), AsyncSession(provider)
    await one.start()
    await two.start()
    await eventually(lambda: len(free_server.kernels()) == 2)
    await one.aclose()
    await eventually(lambda: len(free_server.kernels()) == 1)
    await provider.aclose()
    await eventually(lambda: free_server.kernels() == [])
    await two.aclose()


@pytest.mark.wide
async def test_warm_kernels_are_ready_used_once_and_gone_afterwards(free_server: Server) -> None:
    await eventually(lambda: free_server.kernels() == [])
    async with JupyterServer(free_server.url, token=free_server.token, warm=2) as provider:
        await provider.ready()
        assert len(free_server.kernels()) == 2
        for number in range(3):
            async with AsyncSession(provider) as session:
                assert (await session.run("'x' in globals(), globals().setdefault('x', 1)")).text == "(False, 1)"
                assert (await session.run("1")).execution_count == 2, number
        await provider.ready()
    await eventually(lambda: free_server.kernels() == [])


@pytest.mark.wide
async def test_many_sessions_share_one_provider(free_server: Server) -> None:
    import asyncio

    async with JupyterServer(free_server.url, token=free_server.token) as provider:

        async def one(number: int) -> str:
            async with AsyncSession(provider, limits=Limits(start_timeout=PROCESS)) as session:
                return (await session.run(f"{number} * 2", timeout=PROCESS)).text

        assert await asyncio.gather(*map(one, range(6))) == [str(number * 2) for number in range(6)]


async def test_what_the_rate_limit_of_a_stock_server_drops_is_said(token_server: Server) -> None:
    provider = JupyterServer(token_server.url, token=token_server.token)
    async with provider, AsyncSession(provider) as session:
        result = await session.run("print('x' * 8_000_000)", timeout=40)
        assert result.ok
        assert result.dropped == ("data_rate: IOPub data rate exceeded.",)
        assert result.stderr == ""
        spoof = await session.run("import sys; print('IOPub data rate exceeded.', file=sys.stderr)")
        assert (spoof.dropped, spoof.stderr) == ((), "IOPub data rate exceeded.\n")
