"""Who may ask: every route with no key, with another tenant's, from another site's page; and bodies that are none."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import aiohttp
import pytest
from e2b import NotFoundException, SandboxException
from e2b.connection_config import ConnectionConfig
from e2b_code_interpreter import Sandbox
from packaging.version import Version

from tests.service.running import Service, client

ROUTES = [
    ("POST", "/execute", {"code": "print('ran')"}),
    ("GET", "/contexts", None),
    ("POST", "/contexts", {}),
    ("POST", "/contexts/{}/restart", None),
    ("DELETE", "/contexts/{}", None),
]


@dataclass
class Served:
    """A service with keys of the tenants Ada and Bob."""

    service: Service
    ada: str
    bob: str

    def sandbox(self, *, traffic: str | None = None, access: str | None = None) -> Sandbox:
        """As the SDK makes it of what E2B's own API has answered."""
        return Sandbox(
            sandbox_id="any",
            sandbox_domain=None,
            envd_version=Version("0.4.0"),
            envd_access_token=access,
            traffic_access_token=traffic,
            connection_config=ConnectionConfig(debug=True, sandbox_url=self.service.url),
        )


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    service = Service(tmp_path_factory.mktemp("keyed"), (), {"CELLRUN_INTERFACES": "e2b", "CELLRUN_LOG_LEVEL": "debug"})
    ada, bob = service.add_key("ada"), service.add_key("bob")
    service.start()
    yield Served(service, ada, bob)
    service.end()
    log = service.log_text()
    assert '"level": "error"' not in log
    assert '"tenant": "ada"' in log
    for secret in (ada, bob, "of-the-environment"):
        assert secret not in log


async def ask(
    http: aiohttp.ClientSession, method: str, path: str, body: Any, headers: dict[str, str] | None = None
) -> tuple[int, str]:
    async with http.request(method, path, json=body, headers=headers) as response:
        return response.status, await response.text()


@pytest.mark.parametrize(("method", "path", "body"), ROUTES)
async def test_no_route_answers_without_a_key(served: Served, method: str, path: str, body: Any) -> None:
    async with client(served.service) as http:
        for headers in (
            {},
            {"X-Access-Token": "cr_wrong"},
            {"E2B-Traffic-Access-Token": ""},
            {"Authorization": "Bearer x"},
        ):
            status, told = await ask(http, method, path.format("e2b"), body, headers)
            assert (status, "key" in told) == (401, True)
        assert await ask(http, "GET", "/health", None) == (200, "")


def test_the_sdk_sends_a_key_as_a_token_of_its_own(served: Served) -> None:
    sandbox = served.sandbox(traffic=served.ada)
    context = sandbox.create_code_context()
    assert sandbox.run_code("1 + 1", context=context, envs={"SECRET": "of-the-environment"}).text == "2"
    sandbox.remove_code_context(context)
    assert served.sandbox(access=served.ada).run_code("1 + 1").text == "2"  # only with executions
    with pytest.raises(SandboxException, match=r"401 .* E2B-Traffic-Access-Token"):
        served.sandbox().run_code("1")


def test_contexts_are_their_tenants(served: Served) -> None:
    ada, bob = served.sandbox(traffic=served.ada), served.sandbox(traffic=served.bob)
    context = ada.create_code_context()
    ada.run_code("mine = 1")
    ada.run_code("mine = 1", context=context)
    with pytest.raises(NotFoundException):
        bob.run_code("mine", context=context)
    for act in (bob.remove_code_context, bob.restart_code_context):
        with pytest.raises(NotFoundException):
            act(context)
    assert context.id not in [one.id for one in bob.list_code_contexts()]
    missing = bob.run_code("mine").error  # the default context is one for each tenant
    assert missing is not None
    assert missing.name == "NameError"
    assert ada.run_code("mine", context=context).text == "1"
    ada.remove_code_context(context)


async def test_no_other_session_of_the_tenant_is_a_context(served: Served) -> None:
    async with client(served.service, served.ada) as http:
        async with http.post("/v1/sessions/notes/runs", json={"code": "1"}) as response:
            assert response.status == 200
        assert (await ask(http, "POST", "/execute", {"code": "1", "context_id": "notes"}))[0] == 404
        assert (await ask(http, "DELETE", "/contexts/notes", None))[0] == 404
        listed = json.loads((await ask(http, "GET", "/contexts", None))[1])
        assert "notes" not in [one["id"] for one in listed]


@pytest.mark.parametrize(("method", "path", "body"), [*ROUTES, ("GET", "/health", None)])
async def test_without_keys_no_page_of_another_site_is_answered(
    service: Service, method: str, path: str, body: Any
) -> None:
    async with client(service) as http:
        for headers in ({"Origin": "https://example.com"}, {"Host": "example.com"}):
            status, _ = await ask(http, method, path.format("e2b"), body, headers)
            assert status == 403


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"{", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"[]", "dictionary"),
        (b"{}", "code"),
        (b'{"code": 1}', "code"),
        (b'{"code": "\\ud800"}', "surrogate"),
        (b'{"code": "1", "context_id": "e2b", "language": "python"}', "not both"),
        (b'{"code": "1", "language": "R "}', "'r'"),
        (b'{"code": "1", "env_vars": {"A=B": "c"}}', "neither = nor"),
        (b'{"code": "1", "env_vars": {"": "c"}}', "empty"),
        (b'{"code": "1", "env_vars": {"A": "\\u0000"}}', "null character"),
        (b'{"code": "1", "env_vars": {"A": 1}}', "string"),
    ],
)
async def test_what_cannot_be_understood_is_said_in_a_sentence(service: Service, body: bytes, why: str) -> None:
    async with client(service) as http, http.post("/execute", data=body) as response:
        assert (response.status, response.content_type) == (400, "text/plain")
        assert why in await response.text()
