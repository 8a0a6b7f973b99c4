"""A problem as the answer to a request (RFC 9457)."""

from __future__ import annotations

import json
from typing import Final

from starlette.responses import Response

from cellrun.service.problems import Problem

MEDIA_TYPE: Final = "application/problem+json"


def as_response(problem: Problem) -> Response:
    kind = problem.kind
    body = {
        "type": f"urn:cellrun:problem:{problem.code}",
        "title": kind.title,
        "status": kind.status,
        "detail": problem.detail,
        "code": problem.code,
        "retryable": kind.retryable,
        **problem.more,
    }
    headers = dict(problem.headers)
    if problem.retry_after is not None:
        headers["Retry-After"] = str(max(1, round(problem.retry_after)))
    if kind.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    content = json.dumps(body, ensure_ascii=True).encode("ascii")
    return Response(content, kind.status, headers, media_type=MEDIA_TYPE)
