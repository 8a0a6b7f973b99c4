"""Who asks, and what a refusal looks like: the SDK puts the text of an answer into its exception, and 502 means to it that its sandbox is gone."""

from __future__ import annotations

import json
from typing import Any, Final, TypeVar

from pydantic import BaseModel, ValidationError
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from cellrun.errors import CellrunError
from cellrun.service.context import Context
from cellrun.service.e2b.contexts import Contexts
from cellrun.service.problems import Problem, problem_of

# The SDK sends these two where it has tokens, in the order of their strength here; an Authorization header comes from what is between.
_TOKENS: Final = ("e2b-traffic-access-token", "x-access-token")
_GONE: Final = 502
Body = TypeVar("Body", bound=BaseModel)


class Refused(Exception):
    """Ends a request with the problem's sentence as plain text."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.detail)
        self.problem = problem


async def answer_refusal(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refused)
    problem = error.problem
    status = 503 if problem.kind.status == _GONE else problem.kind.status
    headers = {} if problem.retry_after is None else {"Retry-After": str(max(1, round(problem.retry_after)))}
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return PlainTextResponse(problem.detail, status, headers)


def refused(error: Problem | CellrunError) -> Refused:
    return Refused(error if isinstance(error, Problem) else problem_of(error))


async def asked(request: Request) -> tuple[Contexts, str]:
    """What all requests begin with: the contexts, and the tenant. Raises Refused."""
    context: Context = request.app.state.context
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    tokens = [token.strip() if scheme.lower() == "bearer" else "", *(request.headers.get(name, "") for name in _TOKENS)]
    try:
        caller = await context.caller_of(next((one.strip() for one in tokens if one.strip()), ""))
    except Problem as problem:
        if problem.code == "unauthenticated":
            problem = Problem("unauthenticated", "send a key of this service as E2B-Traffic-Access-Token")
        raise Refused(problem) from None
    request.state.caller, request.state.tenant = caller, caller.tenant
    contexts: Contexts = request.app.state.e2b
    return contexts, caller.tenant


async def body_of(request: Request, kind: type[Body]) -> Body:
    """Of this kind; keys that it does not have are passed over. Raises Refused."""
    text = await request.body()
    try:
        found: Any = json.loads(text) if text.strip() else {}
    except (ValueError, RecursionError):
        raise Refused(Problem("bad_request", "the body is not JSON")) from None
    try:
        return kind.model_validate(found)
    except ValidationError as error:
        told = (f"{'.'.join(map(str, one['loc'])) or 'the body'}: {one['msg']}" for one in error.errors()[:5])
        raise Refused(Problem("bad_request", "; ".join(told))) from None
