"""What programs that know of chats say of theirs, and what a browser must be told before it lets a page call us."""

from __future__ import annotations

from typing import Final

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from cellrun.service.context import Context
from cellrun.service.identity import Caller

# The first is ours to name in any client's settings; the second Open WebUI sends by itself.
_SESSION: Final = ("x-session-id", "x-openwebui-chat-id")


def session_of(headers: Headers) -> str | None:
    """The session that a request's headers name; None where none does."""
    return next((value for name in _SESSION if (value := headers.get(name, "").strip())), None)


async def caller_of(scope: Scope, context: Context) -> Caller:
    """Who sent it, which the log is told. Raises Problem."""
    caller = await context.identify(Headers(scope=scope).get("authorization"))
    state = scope.setdefault("state", {})
    state["caller"], state["tenant"] = caller, caller.tenant
    return caller


class Cors:
    """Lets pages of other sites call `app`, where that is safe: who calls must send a key, which no page has unless it was given one.
    Without keys it is not: then Guard answers no page but our own."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._open = CORSMiddleware(
            app,
            allow_origins=["*"],
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=["*"],
            expose_headers=["Mcp-Session-Id", "WWW-Authenticate"],
            max_age=600,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        context: Context = scope["app"].state.context
        await (self._app if context.local else self._open)(scope, receive, send)
