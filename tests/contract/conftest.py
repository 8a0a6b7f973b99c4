"""What the one suite runs over: every way to a kernel."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass

import pytest
import pytest_asyncio

from cellrun import AsyncSession, CellrunService, JupyterServer, Limits, LocalKernels, Provider
from tests.service.running import Service
from tests.support.proxy import FaultProxy
from tests.support.waiting import HANG

KINDS = ["local", "server-v1", "service"]
MORE = ["local-tcp", "spawned", "server-json", "gateway"]


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """How time limits, interrupts and deaths go over a Jupyter server is for `make soak`: it takes the longest."""
    for item in items:
        if item.path.name == "test_control.py" and "[server-v1" in item.name:
            item.add_marker(pytest.mark.wide)


@dataclass
class Way:
    """A provider of one kind, or a service."""

    kind: str
    provider: Provider | CellrunService

    @property
    def local(self) -> bool:
        return self.kind in ("local", "local-tcp", "spawned")

    @property
    def service(self) -> bool:
        return self.kind == "service"


@pytest_asyncio.fixture(
    params=[*KINDS, *(pytest.param(kind, marks=pytest.mark.wide) for kind in MORE)], scope="module", loop_scope="module"
)
async def way(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Way]:
    """Shared by the tests of a module: kernels are what takes time."""
    kind = request.param
    async with AsyncExitStack() as stack:
        provider: Provider | CellrunService
        if kind == "local":
            provider = LocalKernels()
        elif kind == "local-tcp":
            provider = LocalKernels(transport="tcp")
        elif kind == "spawned":
            provider = LocalKernels(kernel="ipykernel")
        elif kind == "service":
            service = Service(tmp_path_factory.mktemp("service")).start()
            stack.callback(service.end)
            provider = CellrunService(service.url)
        elif kind == "gateway":
            server = request.getfixturevalue("gateway")
            provider = JupyterServer(server.url, token=server.token)
        else:
            server = request.getfixturevalue("free_server")
            url = server.url
            if kind == "server-json":
                proxy = await stack.enter_async_context(FaultProxy(server.port, hide_v1=True))
                url = proxy.url(url)
            provider = JupyterServer(url, token=server.token)
        yield Way(kind, await stack.enter_async_context(provider))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(way: Way) -> AsyncIterator[AsyncSession]:
    """One session for all tests of a module that leave nothing behind."""
    # A cell that a busy machine is slow to interrupt must not cost the others their kernel.
    async with AsyncSession(way.provider, limits=Limits(grace=HANG)) as session:
        yield session


@pytest_asyncio.fixture(loop_scope="module")
async def session(way: Way) -> AsyncIterator[AsyncSession]:
    """A session of the test's own."""
    async with AsyncSession(way.provider, limits=Limits(grace=1.5)) as session:
        yield session
