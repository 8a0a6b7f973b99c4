"""The two kernels that are compared: with nothing around them, which would show in paths, limits and process numbers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping

import pytest
import pytest_asyncio

from cellrun import LocalKernels
from tests.differential.runner import Pair


def stock(env: Mapping[str, str]) -> LocalKernels:
    return LocalKernels(kernel="ipykernel", env=env, sandbox="none")


def ours(env: Mapping[str, str]) -> LocalKernels:
    return LocalKernels(env=env, sandbox="none")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pair(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Pair]:
    """One kernel of each kind for all sequences that do not want a fresh one. Each kind has an IPython folder of its
    own, so that the two do not write one history."""
    providers = [make({"IPYTHONDIR": str(tmp_path_factory.mktemp(make.__name__))}) for make in (stock, ours)]
    pair = Pair(*providers)
    try:
        # A kernel that was forked before all is loaded would differ from the later ones.
        await providers[1].ready()
        yield pair
    finally:
        await pair.aclose()
