"""What a service answers when it cannot do what was asked (RFC 9457), as errors of the library."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Final

from cellrun.errors import (
    AuthenticationError,
    CellrunError,
    ConnectionFailed,
    KernelStartError,
    LimitExceeded,
    ProtocolError,
    SessionLost,
    Unsupported,
)

_LONGEST: Final = 500


class Refused(Exception):
    """An answer that is a problem. `error` is what a caller of the library gets, unless whoever asked knows better."""

    AGAIN: ClassVar = frozenset({"draining", "unreachable"})

    def __init__(self, status: int, code: str, detail: str, error: Exception) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = detail
        self.error = error

    @property
    def passing(self) -> bool:
        """Whether the service, or a proxy before it, is only away for a moment: it ends, or is started again."""
        return self.code in self.AGAIN


_Make = Callable[[str, str], Exception]
_OF_CODE: Final[Mapping[str, _Make]] = {
    "bad_request": lambda where, said: ValueError(f"the service at {where} does not take this: {said}"),
    "forbidden_host": lambda where, said: AuthenticationError(
        f"the service at {where} does not answer under this name: {said}"
    ),
    "not_found": lambda where, said: SessionLost(
        f"the service at {where} does not have this any more: {said}; make a new session"
    ),
    "conflict": lambda where, said: SessionLost(f"the service at {where} could not do this: {said}"),
    "too_large": lambda where, said: LimitExceeded(f"the service at {where} refused what is too large: {said}"),
    "key_reused": lambda where, said: ProtocolError(f"the service at {where} took a run for another one: {said}"),
    "quota_exceeded": lambda where, said: LimitExceeded(f"a quota of the service at {where}: {said}", retryable=True),
    "internal": lambda where, said: ConnectionFailed(
        f"the service at {where} has failed: {said}; its log says why", retryable=False
    ),
    "unsupported": lambda where, said: Unsupported(f"the kernels of the service at {where} cannot do this: {said}"),
    "upstream": lambda where, said: ConnectionFailed(f"the service at {where} has trouble behind it: {said}"),
    "kernel_start": lambda where, said: KernelStartError(
        f"the service at {where} could not start a kernel: {said}", retryable=True
    ),
    "draining": lambda where, said: ConnectionFailed(f"the service at {where} is about to end: {said}"),
    "unreachable": lambda where, said: ConnectionFailed(f"there is no service behind {where} at the moment: {said}"),
    "storage": lambda where, said: ConnectionFailed(
        f"the service at {where} cannot keep what it would have to: {said}"
    ),
}


def refused(where: str, what: str, status: int, body: Any, *, retry_after: str | None, has_key: bool) -> Refused:
    """`where`: the service's address as it may be shown; `what`: the request, for people; `body`: of the answer, if it was JSON, with nothing
    secret in it."""
    told = body if isinstance(body, dict) else {}
    code, detail = str(told.get("code", "")), str(told.get("detail", ""))[:_LONGEST]
    if status == 401:
        error: CellrunError = AuthenticationError(
            f"the service at {where} refused the key; `cellrun keys list` on its machine shows which there are"
            if has_key
            else f"the service at {where} wants a key: pass key= (`cellrun keys create` on its machine makes one)"
        )
        return Refused(status, code, detail, error)
    if code in _OF_CODE:
        if retry_after and retry_after.isdigit():
            detail = f"{detail} (again in {retry_after} s)"
        return Refused(status, code, detail, _OF_CODE[code](where, detail))
    if status in (502, 503, 504):
        said = f"{what} was answered with {status}"
        return Refused(status, "unreachable", said, _OF_CODE["unreachable"](where, said))
    if status in (301, 302, 303, 307, 308):
        words = f"{what} was answered with a redirect, which is not followed: pass the address that it leads to"
    else:
        words = f"{what} was answered with {status} {detail}".rstrip() + ": is this the address of a cellrun service?"
    return Refused(status, code, detail, ConnectionFailed(f"{where}: {words}", retryable=False))
