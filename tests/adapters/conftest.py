"""What the frameworks leave to their callers, and a service that ends its sessions."""

from __future__ import annotations

import asyncio
import json
import urllib.request
from collections.abc import Callable, Iterator

import pytest

from tests.service.running import Service
from tests.support.waiting import PROCESS


@pytest.fixture
def loop_for_blocking_runs() -> Iterator[None]:
    """Their blocking calls take the thread's event loop, or make one that nobody closes."""
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    yield
    asyncio.set_event_loop(None)
    loop.close()


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    service = Service(tmp_path_factory.mktemp("service")).start()
    yield service
    service.end()


@pytest.fixture
def address(service: Service) -> str:
    return service.url.replace("http:", "cellrun:")


@pytest.fixture
def end_sessions(service: Service) -> Callable[[], None]:
    """As somebody else with the same key may do."""

    def asked(method: str, path: str) -> bytes:
        request = urllib.request.Request(service.url + path, method=method)
        with urllib.request.urlopen(request, timeout=PROCESS) as answer:
            return bytes(answer.read())

    def end() -> None:
        sessions = json.loads(asked("GET", "/v1/sessions"))["sessions"]
        assert sessions
        for session in sessions:
            asked("DELETE", f"/v1/sessions/{session['id']}")

    return end
