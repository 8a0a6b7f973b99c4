"""Large outputs arrive whole: on this machine and from a server whose rate limit is off."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from cellrun import AsyncSession, JupyterServer, Limits, LocalKernels, Provider, Stdout
from cellrun.limits import MIB
from tests.support.leases import provider_of
from tests.support.servers import Server
from tests.support.waiting import PROCESS

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(
    params=["local", pytest.param("server", marks=pytest.mark.wide)], scope="module", loop_scope="module"
)
async def session(request: pytest.FixtureRequest) -> AsyncIterator[AsyncSession]:
    provider: Provider
    if request.param == "local":
        provider = LocalKernels()
    else:
        server: Server = request.getfixturevalue("free_server")
        provider = JupyterServer(server.url, token=server.token)
    async with provider, AsyncSession(provider, limits=Limits(text=100 * MIB)) as session:
        yield session


async def test_two_hundred_thousand_lines_arrive_in_order(session: AsyncSession) -> None:
    result = await session.run("for i in range(200_000): print(i)", timeout=PROCESS)
    assert result.stdout == "".join(f"{i}\n" for i in range(200_000))
    assert (result.truncated, result.dropped) == (False, ())


async def test_one_print_of_fifty_megabytes_arrives(session: AsyncSession) -> None:
    result = await session.run("print('0123456789' * 5_000_000)", timeout=PROCESS)
    assert result.stdout_size == 50_000_001
    digest = hashlib.sha256(b"0123456789" * 5_000_000 + b"\n").hexdigest()
    assert hashlib.sha256(result.stdout.encode()).hexdigest() == digest


async def test_large_binary_comm_buffers_arrive(session: AsyncSession) -> None:
    from cellrun import Comm

    async with session.stream(
        "from comm import create_comm\nc = create_comm(target_name='t', data={}, buffers=[bytes(range(256)) * 40_000, b'z'])",
        timeout=PROCESS,
    ) as stream:
        comms = [event async for event in stream if isinstance(event, Comm)]
    assert comms[0].buffers == (bytes(range(256)) * 40_000, b"z")


async def test_five_thousand_displays_arrive(session: AsyncSession) -> None:
    result = await session.run(
        "from IPython.display import display\nfor i in range(5000): display({'text/plain': str(i)}, raw=True)",
        timeout=PROCESS,
    )
    assert result.text.split() == [str(i) for i in range(5000)]


async def test_the_result_keeps_head_and_tail_and_the_stream_everything(session: AsyncSession) -> None:
    small = AsyncSession(provider_of(session), limits=Limits(text=10_000))
    async with small, small.stream("for i in range(100_000): print(i)", timeout=PROCESS) as stream:
        everything = "".join([event.text async for event in stream if isinstance(event, Stdout)])
        result = stream.result
    assert everything == "".join(f"{i}\n" for i in range(100_000))
    assert result.truncated
    assert result.stdout_size == len(everything)
    assert result.stdout.startswith(everything[:5000])
    assert result.stdout.endswith(everything[-5000:])
    assert f"{len(everything) - 10_000} bytes" in result.stdout
