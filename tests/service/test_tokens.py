"""Tokens of another issuer: whose are taken, and what they open."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from joserfc import jwt
from joserfc.jwk import ECKey, OctKey, RSAKey

from cellrun.service import tokens
from cellrun.service.problems import Problem
from cellrun.service.tokens import Issuer, Tokens
from tests.service.running import Service, answer, client, problem, run

ISSUER = "https://login.example/"


def jwks(*keys: ECKey | RSAKey) -> str:
    return json.dumps({"keys": [key.as_dict(private=False) for key in keys]})


def signed(key: Any, alg: str = "ES256", *, kid: str = "one", **claims: Any) -> str:
    """For ann, for an hour, unless it is said otherwise; None leaves a claim out."""
    all_claims = {"iss": ISSUER, "aud": "cellrun", "sub": "ann", "exp": int(time.time()) + 3600, **claims}
    told = {name: value for name, value in all_claims.items() if value is not None}
    return jwt.encode({"alg": alg, "kid": kid}, told, key, algorithms=[alg])


@dataclass
class Shared:
    """A service that takes tokens and keys, the issuer's key, and a tenant's key of the service itself."""

    service: Service
    issuer: ECKey
    key: str


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shared]:
    folder = tmp_path_factory.mktemp("tokens")
    issuer = ECKey.generate_key("P-256", {"kid": "one"})
    (folder / "jwks.json").write_text(jwks(issuer))
    variables = {
        "CELLRUN_JWT_ISSUER": ISSUER,
        "CELLRUN_JWT_AUDIENCE": "cellrun",
        "CELLRUN_JWT_KEYS": str(folder / "jwks.json"),
    }
    service = Service(folder / "service", variables=variables)
    (folder / "service").mkdir()
    key = service.add_key("ann")
    service.start()
    yield Shared(service, issuer, key)
    service.end()
    told = service.log_text()
    assert '"tenant": "jwt:ann"' in told
    assert "eyJ" not in told  # how every token begins
    assert '"level": "error"' not in told


async def test_each_person_has_sessions_of_their_own_and_so_has_each_key(shared: Shared) -> None:
    ann, bob = signed(shared.issuer), signed(shared.issuer, sub="bob")
    async with client(shared.service, ann) as http:
        await run(http, "s", "x = 'of ann'")
        assert (await run(http, "s", "x"))["text"] == "'of ann'"
    for other in (bob, shared.key):  # the key's tenant is named ann, too
        async with client(shared.service, other) as http:
            assert await answer(http, "GET", "/v1/sessions") == {"sessions": []}
            await problem(http, "GET", "/v1/sessions/s", "not_found", 404)


@pytest.mark.parametrize(
    "claims",
    [
        {"exp": 1_700_000_000},
        {"exp": None},
        {"aud": "another"},
        {"aud": None},
        {"iss": "https://another.example/"},
        {"sub": None},
        {"sub": 7},
        {"sub": ""},
        {"sub": "x" * 201},
        {"sub": "two\nlines"},
        {"nbf": 9_000_000_000},
    ],
    ids=str,
)
async def test_a_token_that_is_not_for_us_opens_nothing(shared: Shared, claims: dict[str, Any]) -> None:
    async with client(shared.service, signed(shared.issuer, **claims)) as http:
        await problem(http, "GET", "/v1/sessions", "unauthenticated", 401)


async def test_a_token_that_the_issuer_did_not_sign_opens_nothing(shared: Shared) -> None:
    stranger = ECKey.generate_key("P-256", {"kid": "one"})
    public = OctKey.import_key(jwks(shared.issuer))  # what everybody knows, taken for a secret
    good = signed(shared.issuer)
    head, body, signature = good.split(".")
    for token in (
        signed(stranger),
        signed(stranger, kid="two"),
        signed(public, "HS256"),
        f"{head}.{body}.",
        f"eyJhbGciOiJub25lIn0.{body}.",
        f"{head}.{signed(shared.issuer, sub='bob').split('.')[1]}.{signature}",
        "a.b.c",
        "no token",
    ):
        async with client(shared.service, token) as http:
            await problem(http, "GET", "/v1/sessions", "unauthenticated", 401)


async def test_a_new_key_of_the_issuer_is_asked_for_and_not_too_often(monkeypatch: pytest.MonkeyPatch) -> None:
    old, new = RSAKey.generate_key(2048, {"kid": "old"}), ECKey.generate_key("P-256", {"kid": "new"})
    published, asked = [jwks(old)], 0

    async def keys(request: web.Request) -> web.Response:
        nonlocal asked
        asked += 1
        return web.Response(text=published[0])

    app = web.Application()
    app.router.add_get("/jwks", keys)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    try:
        found = Tokens(Issuer(issuer=ISSUER, audience="cellrun", keys=f"http://127.0.0.1:{port}/jwks"))
        await found.load()
        assert (await found.caller(signed(old, "RS256", kid="old"))).tenant == "jwt:ann"
        published[0] = jwks(new)
        for _ in range(3):  # within the minute
            with pytest.raises(Problem):
                await found.caller(signed(new, kid="new"))
        assert asked == 1
        monkeypatch.setattr(tokens, "_AGAIN", 0.0)
        assert (await found.caller(signed(new, kid="new"))).tenant == "jwt:ann"
        with pytest.raises(Problem):
            await found.caller(signed(old, "RS256", kid="old"))
    finally:
        await runner.cleanup()


async def test_keys_that_cannot_be_fetched_anew_are_not_asked_for_with_each_token(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, other = ECKey.generate_key("P-256", {"kid": "one"}), ECKey.generate_key("P-256", {"kid": "other"})
    (tmp_path / "jwks").write_text(jwks(own))
    found = Tokens(Issuer(issuer=ISSUER, audience="cellrun", keys=str(tmp_path / "jwks")))
    await found.load()
    (tmp_path / "jwks").write_text("broken")
    asked = 0
    load = found.load

    async def counted() -> None:
        nonlocal asked
        asked += 1
        await load()

    monkeypatch.setattr(found, "load", counted)
    monkeypatch.setattr(tokens, "_OLD", 0.0)  # the keys that it has are old from now on
    found._tried = float("-inf")
    for _ in range(5):
        assert (await found.caller(signed(own))).tenant == "jwt:ann"
        with pytest.raises(Problem):
            await found.caller(signed(other, kid="other"))
    assert asked == 1


def test_keys_are_not_asked_for_where_others_could_answer() -> None:
    with pytest.raises(ValueError, match="https"):
        Issuer(issuer=ISSUER, audience="cellrun", keys="http://login.example/jwks.json")


async def test_keys_that_cannot_be_had_are_named(tmp_path: Path) -> None:
    for text in ("", "[]", '{"keys": [{"kty": "none"}]}'):
        (tmp_path / "jwks").write_text(text)
        with pytest.raises(ValueError, match="keys of the issuer cannot be had"):
            await Tokens(Issuer(issuer=ISSUER, audience="cellrun", keys=str(tmp_path / "jwks"))).load()
    with pytest.raises(ValueError, match="FileNotFoundError"):
        await Tokens(Issuer(issuer=ISSUER, audience="cellrun", keys=str(tmp_path / "missing"))).load()
