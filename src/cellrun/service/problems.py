"""What a caller is told when a request cannot be answered: problem details (RFC 9457), with a code that stays the same.

Programs look at `code`; `detail` is for people; `retryable` says whether the same request may succeed later.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from cellrun.errors import CellrunError


@dataclass(frozen=True)
class Kind:
    """One code: its HTTP status, what it means, whether waiting helps."""

    status: int
    title: str
    retryable: bool = False


KINDS: Final = {
    "bad_request": Kind(400, "The request cannot be understood"),
    "unauthenticated": Kind(401, "A key is needed, and this one is not valid or there is none"),
    "forbidden_host": Kind(403, "The request came under a name or from a page that is not this service's"),
    "not_found": Kind(404, "There is no such session, run, file or address"),
    "method_not_allowed": Kind(405, "This address does not know the method"),
    "not_acceptable": Kind(406, "There is no answer of the type that was asked for"),
    "conflict": Kind(409, "What was asked for does not fit the state of the run or session"),
    "too_large": Kind(413, "The request is larger than is allowed"),
    "range_not_satisfiable": Kind(416, "The file does not have the part that was asked for"),
    "key_reused": Kind(422, "The Idempotency-Key was used for another request"),
    "quota_exceeded": Kind(429, "A limit of this tenant was reached", retryable=True),
    "internal": Kind(500, "The service has failed"),
    "unsupported": Kind(501, "The kernels of this service cannot do that"),
    "upstream": Kind(502, "The Jupyter server behind this service did not answer as it should", retryable=True),
    "kernel_start": Kind(503, "No kernel could be started", retryable=True),
    "draining": Kind(503, "The service is about to end and takes no new runs", retryable=True),
    "storage": Kind(507, "The service cannot keep what it would have to", retryable=True),
}

_OF_ERROR: Final = {
    "authentication": "upstream",
    "connection_failed": "upstream",
    "kernel_start": "kernel_start",
    "limit_exceeded": "quota_exceeded",
    "protocol": "upstream",
    "session_lost": "conflict",
    "unsupported": "unsupported",
}


class Problem(Exception):
    """Ends a request with this answer. `retry_after`: seconds. `headers`: of the answer; `more`: its further members."""

    def __init__(
        self,
        code: str,
        detail: str,
        *,
        retry_after: float | None = None,
        headers: Mapping[str, str] | None = None,
        **more: Any,
    ) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.retry_after = retry_after
        self.headers = dict(headers or {})
        self.more = more

    @property
    def kind(self) -> Kind:
        return KINDS[self.code]


def problem_of(error: CellrunError) -> Problem:
    """What is said for an error of the plumbing."""
    return Problem(_OF_ERROR.get(error.code, "internal"), str(error), retry_after=1 if error.retryable else None)
