"""One service without keys for each module, and the SDK's sandbox on it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from e2b_code_interpreter import Sandbox

from tests.service.running import Service


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    service = Service(tmp_path_factory.mktemp("e2b"), (), {"CELLRUN_INTERFACES": "e2b"}).start()
    yield service
    service.end()
    assert '"level": "error"' not in service.log_text()


@pytest.fixture(scope="module")
def sandbox(service: Service) -> Sandbox:
    """Its address apart, which is not port 49999: several modules are tested at once."""
    return Sandbox.create(debug=True, sandbox_url=service.url)
