"""One service with two tenants' keys for each module, and one without keys where a module wants it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.service.running import Service


@dataclass
class Served:
    """A service with keys of the tenants Ada and Bob."""

    service: Service
    ada: str
    bob: str

    @property
    def url(self) -> str:
        return f"{self.service.url}/jupyter/"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    service = Service(
        tmp_path_factory.mktemp("jupyter"), (), {"CELLRUN_INTERFACES": "jupyter", "CELLRUN_LOG_LEVEL": "debug"}
    )
    ada, bob = service.add_key("ada"), service.add_key("bob")
    service.start()
    yield Served(service, ada, bob)
    service.end()
    log = service.log_text()
    assert '"level": "error"' not in log
    assert ada not in log
    assert bob not in log


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address at a service without keys."""
    service = Service(tmp_path_factory.mktemp("local"), (), {"CELLRUN_INTERFACES": "jupyter"}).start()
    yield f"{service.url}/jupyter/"
    service.end()
    assert '"level": "error"' not in service.log_text()
