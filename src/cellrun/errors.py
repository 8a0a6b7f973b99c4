"""The errors of the plumbing. Errors of the user's code are data and are found on the Result.

    CellrunError
    ├── AuthenticationError   the server refused the credentials, or wants some
    ├── ConnectionFailed      no server there, TLS refused, a proxy in the way, a timeout of the network
    ├── KernelStartError      the kernel did not come up
    ├── SessionLost           the session has ended; a new one is needed
    ├── LimitExceeded         too many runs wait on one session
    ├── ProtocolError         the other side said something that the protocol does not know
    ├── Unsupported           this provider or kernel cannot do what was asked
    ├── SettingsError         a setting of the command is not valid (in `cellrun.settings`)
    ├── ServeError            the service cannot be started so (in `cellrun.service.serve`)
    └── ExecutionFailed       raised by Result.raise_for_error() and by nothing else

Every message says what was wrong, what was expected and what to do. None holds a secret: URLs pass
through `public_url` first, and credentials are never formatted into a text.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from cellrun.result import Result


class CellrunError(Exception):
    """Base of everything that cellrun raises on purpose.

    `code` is a stable word for programs. `retryable` says whether the same call may succeed later
    without anything being changed.
    """

    code: ClassVar[str] = "error"
    retryable: bool = False

    def __init__(self, message: str, *, retryable: bool | None = None) -> None:
        super().__init__(message)
        if retryable is not None:
            self.retryable = retryable


class AuthenticationError(CellrunError):
    """The server refused the credentials or asked for some that were not given."""

    code = "authentication"


class ConnectionFailed(CellrunError):
    """The server could not be reached or stopped answering. Usually worth another try."""

    code = "connection_failed"
    retryable = True


class KernelStartError(CellrunError):
    """The kernel process did not start or did not become ready in time."""

    code = "kernel_start"


class SessionLost(CellrunError):
    """The session is closed or its kernel is gone for good."""

    code = "session_lost"


class LimitExceeded(CellrunError):
    """A limit was reached; the message names the limit and its value."""

    code = "limit_exceeded"


class ProtocolError(CellrunError):
    """A message does not follow the Jupyter messaging specification."""

    code = "protocol"


class Unsupported(CellrunError):
    """The provider or the kernel cannot do this."""

    code = "unsupported"


class ExecutionFailed(CellrunError):
    """Raised by `Result.raise_for_error()`; the whole result is in `.result`."""

    code = "execution_failed"

    def __init__(self, message: str, result: Result) -> None:
        super().__init__(message)
        self.result = result


def public_url(url: str) -> str:
    """The part of an address that may be shown: no user, password, query or fragment.

    >>> public_url("http://me:pw@host:8888/base/?token=secret#x")
    'http://host:8888/base/'
    """
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
        port = f":{parts.port}" if parts.port is not None else ""
    except ValueError:
        return "(an address that cannot be read)"
    if "@" in parts.path:  # most likely the rest of a password that holds a slash
        return "(an address that cannot be read)"
    if not parts.scheme or not host:
        return "(an address without scheme or host)"
    if ":" in host:
        host = f"[{host}]"
    return f"{parts.scheme}://{host}{port}{parts.path}"
