"""Who may ask, and what is answered beside the channels."""

from __future__ import annotations

import asyncio

import aiohttp
import pytest

from tests.interfaces.jupyter.conftest import Served
from tests.interfaces.jupyter.talk import http_of, start, talking

_NOBODY = "00000000-0000-0000-0000-000000000000"
# All but `api`, which says without credentials that there is something, and the form that asks for them.
ROUTES = (
    ("GET", "api/status"),
    ("GET", "api/me"),
    ("GET", "api/kernelspecs"),
    ("GET", "api/kernelspecs/python3"),
    ("GET", "api/kernels"),
    ("POST", "api/kernels"),
    ("GET", "api/sessions"),
    ("POST", "api/sessions"),
    ("GET", "api/contents"),
    ("GET", "logout"),
)
OF_KERNEL = (
    ("GET", "api/kernels/{id}"),
    ("DELETE", "api/kernels/{id}"),
    ("POST", "api/kernels/{id}/interrupt"),
    ("POST", "api/kernels/{id}/restart"),
    ("GET", "api/kernels/{id}/channels"),
    ("GET", "api/contents/{id}"),
    ("GET", "api/contents/{id}/data.txt"),
    ("PUT", "api/contents/{id}/data.txt"),
    ("DELETE", "api/contents/{id}/data.txt"),
    ("GET", "files/{id}/data.txt"),
    ("GET", "api/sessions/{session}"),
    ("PATCH", "api/sessions/{session}"),
    ("DELETE", "api/sessions/{session}"),
)


@pytest.mark.parametrize(("method", "path"), ROUTES + OF_KERNEL)
async def test_nothing_is_answered_without_credentials(served: Served, method: str, path: str) -> None:
    path = path.format(id=_NOBODY, session=_NOBODY)
    async with aiohttp.ClientSession() as http:
        for headers in (
            {},
            {"Authorization": "token wrong"},
            {"Authorization": "Basic eDp5"},
            {"Cookie": "cellrun-login=x"},
        ):
            if path.endswith("/channels"):
                with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                    await http.ws_connect(served.url + path, headers=headers)
                assert refused.value.status == 401
                continue
            async with http.request(method, served.url + path, headers=headers, allow_redirects=False) as answer:
                assert answer.status == 401
                assert set(await answer.json()) == {"message", "reason"}


async def test_another_tenants_things_are_not_there(served: Served) -> None:
    async with http_of(served.url, served.ada) as ada, http_of(served.url, served.bob) as bob:
        async with ada.post("api/sessions", json={"path": "a.ipynb", "type": "notebook", "name": "a"}) as answer:
            assert answer.status == 201
            session = await answer.json()
        kernel = session["kernel"]["id"]
        body = {"content": "1", "format": "text", "type": "file"}
        async with ada.put(f"api/contents/{kernel}/data.txt", json=body) as answer:
            assert answer.status == 201
        for method, path in OF_KERNEL:
            address = path.format(id=kernel, session=session["id"])
            if path.endswith("/channels"):
                with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                    await bob.ws_connect(address)
                assert refused.value.status == 404
                continue
            async with bob.request(method, address, json=body if method == "PUT" else {}) as answer:
                assert answer.status == 404, (method, path)
        for path in ("api/kernels", "api/sessions"):
            async with bob.get(path) as answer:
                assert await answer.json() == []
        async with bob.get("api/contents") as answer:
            assert (await answer.json())["content"] == []
        request = {"path": "b.ipynb", "type": "notebook", "name": "b", "kernel": {"id": kernel}}
        async with bob.post("api/sessions", json=request) as answer:
            assert answer.status == 404
        async with ada.get(f"api/kernels/{kernel}") as answer:
            assert answer.status == 200
        async with ada.delete(f"api/sessions/{session['id']}") as answer:
            assert answer.status == 204
        async with ada.get(f"api/kernels/{kernel}") as answer:
            assert answer.status == 404


@pytest.mark.parametrize("scheme", ["token", "Token", "Bearer"])
async def test_a_key_is_taken_from_the_header(served: Served, scheme: str) -> None:
    async with aiohttp.ClientSession() as http:
        async with http.get(f"{served.url}api/me", headers={"Authorization": f"{scheme} {served.ada}"}) as answer:
            assert answer.status == 200
            assert (await answer.json())["identity"]["username"] == "ada"


async def test_a_key_is_taken_from_the_address_on_both_transports(served: Served) -> None:
    async with aiohttp.ClientSession() as http:
        async with http.post(f"{served.url}api/kernels", params={"token": served.ada}) as answer:
            assert answer.status == 201
            assert answer.cookies == {}
            id = (await answer.json())["id"]
        socket = await http.ws_connect(f"{served.url}api/kernels/{id}/channels", params={"token": served.ada})
        await socket.close()
        async with http.delete(f"{served.url}api/kernels/{id}", params={"token": served.ada}) as answer:
            assert answer.status == 204


async def test_a_browser_that_is_logged_in_needs_the_xsrf_value_and_our_own_page(served: Served) -> None:
    origin = served.service.url
    async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as http:
        async with http.get(f"{served.url}login") as answer:
            xsrf = answer.cookies["_xsrf"].value
        form = {"password": served.ada, "_xsrf": xsrf}
        async with http.post(f"{served.url}login", data=form, headers={"Origin": "http://evil.example"}) as answer:
            assert answer.status == 403
        async with http.post(f"{served.url}login", data={"password": served.ada}, headers={"Origin": origin}) as answer:
            assert answer.status == 403
        own = {"Origin": origin}
        async with http.post(f"{served.url}login", data=form, headers=own, allow_redirects=False) as answer:
            assert answer.status == 302
            assert answer.cookies["cellrun-login"]["httponly"]
            assert answer.cookies["cellrun-login"]["samesite"] == "strict"
            assert served.ada not in str(answer.headers)
        kernels = f"{served.url}api/kernels"
        for headers, status in (
            ({"Origin": origin}, 403),
            ({"Origin": origin, "X-XSRFToken": "wrong"}, 403),
            ({"Origin": "http://evil.example", "X-XSRFToken": xsrf}, 403),
            ({"Origin": origin, "X-XSRFToken": xsrf}, 201),
            ({}, 201),
        ):
            async with http.post(kernels, headers=headers) as answer:
                assert answer.status == status, headers
        id = (await (await http.get(kernels)).json())[0]["id"]
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await http.ws_connect(f"{kernels}/{id}/channels", origin="http://evil.example")
        assert refused.value.status == 403
        await (await http.ws_connect(f"{kernels}/{id}/channels", origin=origin)).close()
        for kernel in await (await http.get(kernels)).json():
            await http.delete(f"{kernels}/{kernel['id']}")
        async with http.get(f"{served.url}logout", allow_redirects=False) as answer:
            assert answer.status == 302
        async with http.get(kernels) as answer:
            assert answer.status == 401


async def test_without_keys_no_foreign_page_and_no_foreign_name_is_answered(local: str) -> None:
    async with aiohttp.ClientSession() as http:
        id = await start_at(http, local)
        for headers in ({"Origin": "http://evil.example"}, {"Host": "evil.example"}):
            async with http.get(f"{local}api/kernels", headers=headers) as answer:
                assert answer.status == 403
            with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                await http.ws_connect(f"{local}api/kernels/{id}/channels", headers=headers)
            assert refused.value.status == 403
        await http.delete(f"{local}api/kernels/{id}")


async def start_at(http: aiohttp.ClientSession, url: str) -> str:
    async with http.post(f"{url}api/kernels") as answer:
        return str((await answer.json())["id"])


async def test_what_there_is_is_told_as_jupyter_does(local: str) -> None:
    async with http_of(local) as http:
        id = await start(http)
        async with talking(http, id) as talk:
            await talk.run("1")
            async with http.get(f"api/kernels/{id}") as answer:
                model = await answer.json()
            assert set(model) == {"id", "name", "last_activity", "execution_state", "connections"}
            assert (model["execution_state"], model["connections"], model["name"]) == ("idle", 1, "python3")
            async with http.get("api/status") as answer:
                status = await answer.json()
            assert (status["kernels"], status["connections"]) == (1, 1)
        async with http.get("api/kernelspecs") as answer:
            specs = await answer.json()
        assert specs["kernelspecs"][specs["default"]]["spec"]["language"] == "python"
        async with http.get("api") as answer:
            assert "version" in await answer.json()
        async with http.delete(f"api/kernels/{id}") as answer:
            assert answer.status == 204


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "api/kernels", '{"name": "cobol"}', 400),
        ("POST", "api/kernels", "no JSON", 400),
        ("POST", "api/kernels", "[]", 400),
        ("POST", "api/kernels", '{"name": 1}', 400),
        ("GET", f"api/kernels/{_NOBODY}", "", 404),
        ("DELETE", "api/kernels/none", "", 404),
        ("POST", "api/sessions", "{}", 400),
        ("POST", "api/sessions", '{"path": "p", "type": "t", "kernel": 1}', 400),
        ("PUT", "api/contents/x.txt", '{"content": "1"}', 400),
        ("PUT", "api/contents/none/x.txt", '{"content": "1"}', 404),
        ("POST", "login", "password=" + "x" * 20_000, 413),
        ("POST", "login", "&".join(["a=b"] * 100), 400),
        ("GET", "api/contents/../../etc/passwd", "", 404),
    ],
)
async def test_bad_requests_are_told_so(local: str, method: str, path: str, body: str, status: int) -> None:
    async with http_of(local) as http, http.request(method, path, data=body) as answer:
        assert answer.status == status, await answer.text()


async def test_files_of_a_kernel(local: str) -> None:
    async with http_of(local) as http:
        id = await start(http)
        base = f"api/contents/{id}"
        for name, body, status in (
            ("a.txt", {"content": "text é", "format": "text", "type": "file"}, 201),
            ("a.txt", {"content": "text ö", "format": "text", "type": "file"}, 200),
            ("deep/b.bin", {"content": "AAH/", "format": "base64", "type": "file"}, 201),
            ("n.ipynb", {"content": {"cells": []}, "format": "json", "type": "notebook"}, 201),
            ("c.txt", {"content": 1, "format": "text", "type": "file"}, 400),
            ("c.txt", {"content": "é", "format": "base64", "type": "file"}, 400),
            ("c.txt", {"content": "1", "format": "text", "type": "file", "chunk": 1}, 501),
        ):
            async with http.put(f"{base}/{name}", json=body) as answer:
                assert answer.status == status, (name, await answer.text())
        async with talking(http, id) as talk:
            await talk.run("assert open('a.txt').read() == 'text ö'; import os; os.symlink('/etc/passwd', 'link')")
        async with http.get(base) as answer:
            found = (await answer.json())["content"]
        assert [(one["name"], one["type"]) for one in found] == [
            ("a.txt", "file"),
            ("deep", "directory"),
            ("n.ipynb", "notebook"),
        ]
        async with http.get(f"{base}/deep/b.bin") as answer:
            assert ((told := await answer.json())["format"], told["content"]) == ("base64", "AAH/")
        async with http.get(f"{base}/n.ipynb") as answer:
            assert (await answer.json())["content"] == {"cells": []}
        async with http.get(f"files/{id}/deep/b.bin") as answer:
            assert await answer.read() == b"\x00\x01\xff"
            assert answer.headers["Content-Disposition"] == "attachment"
        for path in (f"{base}/link", f"files/{id}/link", f"{base}/%2e%2e/x", f"{base}/missing"):
            async with http.get(path) as answer:
                assert answer.status in (400, 404), path
        async with http.delete(f"{base}/a.txt") as answer:
            assert answer.status == 204
        async with http.get(f"{base}/a.txt") as answer:
            assert answer.status == 404
        await http.delete(f"api/kernels/{id}")


async def test_odd_files_are_listed_with_the_others(local: str) -> None:
    async with http_of(local) as http:
        id = await start(http)
        async with talking(http, id) as talk:
            await talk.run(
                "import os; open(b'\\xff', 'w'); open('late', 'w'); os.utime('late', (0, 10**12)); open('plain', 'w')"
            )
        async with http.get(f"api/contents/{id}") as answer:
            assert answer.status == 200
            found = (await answer.json())["content"]
        assert {"late", "plain"} <= {one["name"] for one in found}
        assert len(found) == 3
        await http.delete(f"api/kernels/{id}")


async def test_one_path_has_one_session_also_where_two_ask_at_once(local: str) -> None:
    async with http_of(local) as http:
        body = {"path": "both.ipynb", "type": "notebook", "name": None}

        async def make() -> str:
            async with http.post("api/sessions", json=body) as answer:
                assert answer.status == 201, await answer.text()
                return str((await answer.json())["id"])

        one, other = await asyncio.gather(make(), make())
        assert one == other
        async with http.get("api/kernels") as answer:
            assert len(await answer.json()) == 1
        await http.delete(f"api/sessions/{one}")


async def test_a_session_is_a_name_for_a_kernel(local: str) -> None:
    async with http_of(local) as http:
        body = {"path": "n.ipynb", "type": "notebook", "name": "n", "kernel": {"name": "python3"}}
        async with http.post("api/sessions", json=body) as answer:
            session = await answer.json()
        async with http.post("api/sessions", json=body) as answer:
            assert (await answer.json())["id"] == session["id"]
        async with http.patch(f"api/sessions/{session['id']}", json={"path": "m.ipynb"}) as answer:
            assert (await answer.json())["path"] == "m.ipynb"
        async with http.patch(f"api/sessions/{session['id']}", json={"kernel": {"name": "python3"}}) as answer:
            other = (await answer.json())["kernel"]["id"]
        assert other != session["kernel"]["id"]
        async with http.get("api/kernels") as answer:
            assert [kernel["id"] for kernel in await answer.json()] == [other]
        async with http.delete(f"api/sessions/{session['id']}") as answer:
            assert answer.status == 204
        async with http.get("api/kernels") as answer:
            assert await answer.json() == []
