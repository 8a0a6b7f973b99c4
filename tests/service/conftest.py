"""One service for each module of tests; tests of its end start their own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import aiohttp
import pytest

from tests.service.running import Service, client


@pytest.fixture(scope="module")
def service(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Without keys, as it is by default; with the flags that the module names in `FLAGS`."""
    service = Service(tmp_path_factory.mktemp("service"), getattr(request.module, "FLAGS", ())).start()
    yield service
    service.end()
    assert '"level": "error"' not in service.log_text()


@pytest.fixture
async def http(service: Service) -> AsyncIterator[aiohttp.ClientSession]:
    async with client(service) as session:
        yield session


@pytest.fixture
def own_service(tmp_path: Path) -> Iterator[Service]:
    """For one test, which starts it, and may kill it."""
    service = Service(tmp_path / "own")
    yield service
    if service.process is not None and service.process.poll() is None:
        service.kill()
