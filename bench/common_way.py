"""What chat applications do for every snippet: a fresh kernel, a plain JSON WebSocket, the token in the query."""

from __future__ import annotations

import asyncio
import json
import uuid
from typing import Any, Final, Self

import aiohttp

from bench.servers import Server

# The applications give up the handshake after 10 s and so lose some of 32 calls at once on a slow
# machine. Here these may finish: times are compared, not failures.
_HANDSHAKE_TIMEOUT: Final = 30.0
_FRAME_LIMIT: Final = 1024 * 1024


async def run_snippet(server: Server, code: str) -> dict[str, str]:
    """POST a kernel, run the code, DELETE the kernel."""
    async with aiohttp.ClientSession(base_url=server.url) as http:
        kernel_id = await _create(http, server)
        try:
            async with await _connect(http, server, kernel_id) as ws:
                return await _execute(ws, code)
        finally:
            await _delete(http, server, kernel_id)


class PlainSession:
    """The same client with a kernel that is kept: what state per chat costs without anything cured."""

    def __init__(self, server: Server) -> None:
        self._server = server

    async def __aenter__(self) -> Self:
        self._http = aiohttp.ClientSession(base_url=self._server.url)
        try:
            self._kernel_id = await _create(self._http, self._server)
            self._ws = await _connect(self._http, self._server, self._kernel_id)
        except BaseException:
            await self._http.close()
            raise
        return self

    async def run(self, code: str) -> dict[str, str]:
        return await _execute(self._ws, code)

    async def __aexit__(self, *exc_info: object) -> None:
        try:
            await self._ws.close()
            await _delete(self._http, self._server, self._kernel_id)
        finally:
            await self._http.close()


async def _create(http: aiohttp.ClientSession, server: Server) -> str:
    async with http.post("api/kernels", params={"token": server.token}) as response:
        response.raise_for_status()
        return str((await response.json())["id"])


async def _connect(http: aiohttp.ClientSession, server: Server, kernel_id: str) -> aiohttp.ClientWebSocketResponse:
    async with asyncio.timeout(_HANDSHAKE_TIMEOUT):
        return await http.ws_connect(
            f"api/kernels/{kernel_id}/channels", params={"token": server.token}, max_msg_size=_FRAME_LIMIT
        )


async def _delete(http: aiohttp.ClientSession, server: Server, kernel_id: str) -> None:
    async with http.delete(f"api/kernels/{kernel_id}", params={"token": server.token}) as response:
        response.raise_for_status()


async def _execute(ws: aiohttp.ClientWebSocketResponse, code: str) -> dict[str, str]:
    msg_id = uuid.uuid4().hex
    request = {
        "header": {
            "msg_id": msg_id,
            "msg_type": "execute_request",
            "username": "user",
            "session": uuid.uuid4().hex,
            "date": "",
            "version": "5.3",
        },
        "parent_header": {},
        "metadata": {},
        "content": {
            "code": code,
            "silent": False,
            "store_history": True,
            "user_expressions": {},
            "allow_stdin": False,
            "stop_on_error": True,
        },
        "channel": "shell",
    }
    await ws.send_str(json.dumps(request))
    stdout, stderr, shown = "", "", []
    while True:
        message: dict[str, Any] = await ws.receive_json()
        if message.get("parent_header", {}).get("msg_id") != msg_id:
            continue
        content = message["content"]
        match message["msg_type"]:
            case "stream" if content["name"] == "stdout":
                stdout += content["text"]
            case "stream":
                stderr += content["text"]
            case "execute_result" | "display_data":
                data = content["data"]
                png = data.get("image/png")
                shown.append(f"data:image/png;base64,{png}" if png else data.get("text/plain", ""))
            case "error":
                stderr += "\n".join(content["traceback"])
            case "status" if content["execution_state"] == "idle":
                return {"stdout": stdout.strip(), "stderr": stderr.strip(), "result": "\n".join(shown).strip()}
