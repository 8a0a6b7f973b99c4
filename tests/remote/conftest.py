"""A service for each module of tests, and sessions on it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from cellrun import AsyncSession
from tests.service.conftest import own_service, service
from tests.service.running import Service

__all__ = ["own_service", "service"]


@pytest.fixture
def address(service: Service) -> str:
    return address_of(service)


@pytest.fixture
async def session(address: str) -> AsyncIterator[AsyncSession]:
    async with AsyncSession(address) as session:
        yield session


def address_of(service: Service) -> str:
    return service.url.replace("http://", "cellrun://")
