"""Kernelspecs of our kernel."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.forked import kernelspecs


@pytest.fixture(scope="module", autouse=True)
def our_kernelspecs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with kernelspecs(tmp_path_factory.mktemp("jupyter")):
        yield
