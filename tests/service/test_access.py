"""Who may do what: keys, tenants that know nothing of each other, pages of other sites, quotas."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import socket
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
import pytest

from cellrun.service.identity import new_key
from cellrun.service.serve import Address, is_loopback, listen
from tests.service.running import Service, answer, begin, client, problem, run, until
from tests.support.waiting import HANG, PROCESS, eventually


@dataclass
class Shared:
    """A service with keys of two tenants."""

    service: Service
    ann: str
    bob: str


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shared]:
    service = Service(tmp_path_factory.mktemp("access"))
    ann, bob = service.keys("create", "of ann", "--tenant", "ann").stdout.strip(), service.add_key("bob")
    service.start()
    yield Shared(service, ann, bob)
    service.end()
    told = service.log_text()
    assert '"tenant": "ann"' in told
    for key in (ann, bob):
        assert key not in told
        assert key.rpartition("_")[2] not in told
    assert '"level": "error"' not in told


@asynccontextmanager
async def of(shared: Shared, key: str) -> AsyncIterator[aiohttp.ClientSession]:
    async with client(shared.service, key) as http:
        yield http


def test_a_key_is_printed_once_and_what_is_kept_is_not_it(shared: Shared) -> None:
    assert re.fullmatch(r"cr_[0-9a-f]{12}_[A-Za-z0-9_-]{43}", shared.ann)
    listed = shared.service.keys("list")
    assert listed.returncode == 0
    lines = {line.split("\t")[1]: line.split("\t") for line in listed.stdout.splitlines()}
    assert lines["ann"][0] == shared.ann.split("_")[1]
    assert lines["ann"][2] == "of ann"
    secret = shared.ann.split("_", 2)[2].encode()
    assert secret not in listed.stdout.encode()
    files = [path for path in shared.service.data.iterdir() if path.is_file()]
    assert files
    for path in files:
        assert secret not in path.read_bytes()
        assert path.stat().st_mode & 0o077 == 0, path


def test_a_tenant_that_is_no_plain_word_is_refused(shared: Shared) -> None:
    for tenant in ("", "a b", "a/b", "../a", "é", "x" * 65, "a\n"):
        with pytest.raises(ValueError, match="a tenant is named with"):
            new_key(tenant, "name")
    done = shared.service.keys("create", "name", "--tenant", "a/b")
    assert (done.returncode, done.stdout) == (2, "")


async def test_without_a_key_or_with_a_wrong_one_nothing_is_done(shared: Shared) -> None:
    id, secret = shared.ann.split("_", 2)[1:]
    wrong = [
        None,
        "",
        "Bearer",
        "Bearer ",
        f"Basic {shared.ann}",
        shared.ann,
        f"Bearer cr_{id}_{'A' * 43}",
        f"Bearer cr_{'0' * 12}_{secret}",
        f"Bearer {shared.ann}x",
        f"Bearer {shared.bob[:16]}{shared.ann[16:]}",
        "Bearer é",
    ]
    async with client(shared.service) as http:
        for header in wrong:
            headers = {} if header is None else {"Authorization": header}
            _, told = await problem(
                http, "POST", "/v1/sessions/s/runs", "unauthenticated", 401, json={"code": "1"}, headers=headers
            )
            assert told["www-authenticate"] == "Bearer"
        headers = {"Authorization": f"bearer {shared.ann}"}  # the scheme's case does not matter
        await answer(http, "GET", "/v1/sessions", headers=headers)


async def test_a_body_is_not_looked_at_before_the_key_is(shared: Shared) -> None:
    async with client(shared.service) as http:
        await problem(http, "POST", "/v1/run", "unauthenticated", 401, json={"nonsense": 1})


async def test_every_address_but_those_of_operation_wants_a_key(shared: Shared) -> None:
    async with client(shared.service) as http:
        document = await answer(http, "GET", "/openapi.json")
        for path, methods in document["paths"].items():
            where = re.sub(r"\{\w+\}", "x", path)
            for method in methods:
                if path in {"/healthz", "/readyz"}:
                    await answer(http, method, where)
                else:
                    body = {"line": ""} if path.endswith("/input") else {"code": "1"}
                    await problem(http, method.upper(), where, "unauthenticated", 401, json=body)


@pytest.mark.wide
async def test_a_revoked_key_is_worthless_within_three_seconds(shared: Shared) -> None:
    key = shared.service.add_key("ann")  # one that was made while the service runs
    async with client(shared.service, key) as http:
        async with of(shared, shared.ann) as ann:
            await run(ann, "both", "x = 1")
        await _until_status(http, 200)
        assert (await run(http, "both", "x"))["text"] == "1"
        done = shared.service.keys("revoke", key.split("_")[1])
        assert done.returncode == 0
        await _until_status(http, 401)
    again = shared.service.keys("revoke", key.split("_")[1])
    assert again.returncode == 2
    assert "no key" in again.stderr
    assert "revoked" in next(line for line in shared.service.keys("list").stdout.splitlines() if key[3:15] in line)


async def _until_status(http: aiohttp.ClientSession, status: int) -> None:
    async with asyncio.timeout(HANG):
        while True:
            async with http.get("/v1/sessions") as response:
                if response.status == status:
                    return


async def test_a_tenant_cannot_reach_anything_of_another_by_any_address(shared: Shared) -> None:
    async with of(shared, shared.ann) as ann, of(shared, shared.bob) as bob:
        await run(ann, "secret", "mine = 'of ann'")
        await answer(ann, "PUT", "/v1/sessions/secret/files/f.txt", status=204, data=b"of ann")
        shows = "from IPython.display import publish_display_data; publish_display_data({'text/html': 'x' * 70_000})"
        found = await run(ann, "secret", f"print(mine); {shows}")
        ended = found["execution_id"]
        slim = await answer(ann, "GET", f"/v1/runs/{ended}", params={"blobs": "reference"})
        (sha256,) = [output["blobs"]["text/html"]["sha256"] for output in slim["outputs"] if "blobs" in output]
        live = await begin(ann, "secret", "input()")
        await until(ann, live, "waiting_for_input")

        document = await answer(bob, "GET", "/openapi.json")
        tried = 0
        for path, methods in document["paths"].items():
            for method in set(methods) & {"get", "put", "post", "delete", "patch"}:
                if "{" not in path or (method, path) in MAKES_ITS_OWN:
                    continue
                for id in (live, ended):
                    where = path.format(session="secret", run=id, path="f.txt", sha256=sha256)
                    body = {"json": {"line": "stolen"}} if path.endswith("/input") else {}
                    told, _ = await problem(bob, method.upper(), where, "not_found", 404, **body)
                    # Nothing tells whether it is there for somebody else.
                    other = path.format(session="nowhere", run="0" * 32, path="f.txt", sha256="0" * 64)
                    absent, _ = await problem(bob, method.upper(), other, "not_found", 404, **body)
                    assert set(told) == set(absent)
                    tried += 1
        assert tried >= 2 * 10

        # The same name is another session, where a tenant makes one.
        await answer(bob, "PUT", "/v1/sessions/secret")
        assert (await run(bob, "secret", "'mine' in globals()"))["text"] == "False"
        assert (await answer(bob, "GET", "/v1/sessions/secret/files"))["files"] == []
        await answer(bob, "PUT", "/v1/sessions/secret/files/f.txt", status=204, data=b"of bob")
        assert len((await answer(bob, "GET", "/v1/sessions/secret"))["runs"]) == 1
        await answer(bob, "DELETE", "/v1/sessions/secret", status=204)

        assert [found["id"] for found in (await answer(bob, "GET", "/v1/sessions"))["sessions"]] == []
        await answer(ann, "POST", f"/v1/runs/{live}/input", status=202, json={"line": "own"})
        assert (await until(ann, live, "ok", "interrupted"))["text"] == "'own'"
        async with ann.get("/v1/sessions/secret/files/f.txt") as response:
            assert await response.read() == b"of ann"


MAKES_ITS_OWN = {
    ("put", "/v1/sessions/{session}"),
    ("post", "/v1/sessions/{session}/runs"),
    ("put", "/v1/sessions/{session}/files/{path}"),
}


async def test_a_key_of_one_tenant_is_a_run_of_its_own_for_another(shared: Shared) -> None:
    request: Any = {"json": {"code": "1"}, "headers": {"Idempotency-Key": "shared"}}
    async with of(shared, shared.ann) as ann, of(shared, shared.bob) as bob:
        first = await answer(ann, "POST", "/v1/run", **request)
        second = await answer(bob, "POST", "/v1/run", **{**request, "json": {"code": "2"}})
    assert first["execution_id"] != second["execution_id"]
    assert second["text"] == "2"


async def test_with_keys_the_name_of_the_service_does_not_matter(shared: Shared) -> None:
    async with of(shared, shared.ann) as http:
        await answer(http, "GET", "/v1/sessions", headers={"Host": "cells.example", "Origin": "http://page.example"})


# -- without keys ------------------------------------------------------------------------------------


def test_without_keys_it_does_not_listen_for_others_and_says_what_to_do(own_service: Service) -> None:
    command = own_service.command("serve", "--port", "0", "--host", "0.0.0.0")  # noqa: S104 - what is refused
    done = subprocess.run(command, capture_output=True, text=True, timeout=PROCESS, env=own_service.env, check=False)
    assert (done.returncode, done.stdout) == (3, "")
    assert "cellrun keys create" in done.stderr
    assert "0.0.0.0" in done.stderr  # noqa: S104 - what is refused
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("localhost", True),
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("::", False),
        ("192.0.2.1", False),
        ("localhost.example", False),
        ("", False),
    ],
)
def test_what_is_no_address_of_this_machine_alone_is_not_taken_for_one(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback


# -- quotas ------------------------------------------------------------------------------------------


@pytest.mark.wide
async def test_each_quota_is_told_with_the_time_to_wait(own_service: Service) -> None:
    own_service.variables |= {
        "CELLRUN_QUOTA_SESSIONS": "1",
        "CELLRUN_QUOTA_RUNS": "1",
        "CELLRUN_QUOTA_REQUESTS": "200",
    }
    ann, bob = own_service.add_key("ann"), own_service.add_key("bob")
    service = own_service.start()

    async def refused(http: aiohttp.ClientSession, method: str, path: str, what: str, **request: Any) -> None:
        told, headers = await problem(http, method, path, "quota_exceeded", 429, **request)
        assert told["retryable"]
        assert what in told["detail"]
        assert 1 <= int(headers["retry-after"]) <= 60

    async with client(service, ann) as http, client(service, bob) as other:
        body: Any = {"json": {"code": "input()", "wait": False}, "headers": {"Idempotency-Key": "k"}}
        path = "/v1/sessions/first/runs"
        live = await answer(http, "POST", path, status=202, **body)
        await refused(http, "PUT", "/v1/sessions/second", "1 sessions are the limit")
        await refused(http, "POST", "/v1/sessions/first/runs", "1 runs at once are the limit", json={"code": "1"})
        assert (await run(other, "first", "1"))["status"] == "ok"
        # A retry starts nothing: it is given what there is.
        assert (await answer(http, "POST", path, status=202, **body))["execution_id"] == live["execution_id"]
        await until(http, live["execution_id"], "waiting_for_input")
        await answer(http, "POST", f"/v1/runs/{live['execution_id']}/input", status=202, json={"line": ""})
        await until(http, live["execution_id"], "ok")
        await answer(http, "DELETE", "/v1/sessions/first", status=204)
        assert (await run(http, "second", "1"))["status"] == "ok"

        statuses = []
        for _ in range(220):
            async with http.get("/v1/sessions") as response:
                statuses.append(response.status)
        assert statuses[-1] == 429
        assert statuses[0] == 200
        await refused(http, "GET", "/v1/sessions", "200 requests in a minute are the limit")
        await answer(other, "GET", "/v1/sessions")
        await answer(http, "GET", "/healthz")
        # Nor does a service whose keys are all revoked become one without keys.
        for key in (ann, bob):
            assert service.keys("revoke", key.split("_")[1]).returncode == 0
        await _until_status(http, 401)
        await _until_status(other, 401)
    async with client(service) as nobody:
        await problem(nobody, "GET", "/v1/sessions", "unauthenticated", 401)
    service.end()


async def test_a_key_in_an_address_does_not_get_into_the_log(shared: Shared) -> None:
    async with of(shared, shared.ann) as http:
        await answer(http, "GET", f"/v1/sessions?key={shared.bob}")
    await eventually(lambda: json.dumps("/v1/sessions") in shared.service.log_text())
    assert shared.bob not in shared.service.log_text()


def test_a_second_service_on_the_same_data_is_refused(shared: Shared) -> None:
    """It would give an end to the runs of the first."""
    command = shared.service.command("serve", "--port", "0")
    done = subprocess.run(command, capture_output=True, text=True, timeout=PROCESS, env=shared.service.env, check=False)
    assert done.returncode == 3
    assert "another service uses it" in done.stderr


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="Linux has it")
def test_a_connection_that_takes_nothing_is_not_kept_for_ever() -> None:
    with contextlib.closing(listen(Address(port=0))) as listener:
        with socket.create_connection(listener.getsockname()):
            listener.settimeout(5)
            connection, _ = listener.accept()
            with connection:
                assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 300_000
