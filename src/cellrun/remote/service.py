"""A service that several sessions use: its address, its key, its connections."""

from __future__ import annotations

from cellrun.providers.base import Shared
from cellrun.remote.address import parse_address, shown
from cellrun.remote.http import ServiceHttp


class CellrunService(Shared):
    """A service that `cellrun serve` runs somewhere: `AsyncSession(CellrunService("cellrun://host:8080", key=…))`. Its sessions share
    one pool of connections.

    url         cellrun://host:port, or cellruns://host:port with TLS; without a port 8080, with TLS 443. `http:` and `https:` are taken too
    key         of `cellrun keys create`, or a token of the issuer that the service trusts; sent in a header, never in a URL
    ca_file     certificate authority of your own (PEM); verify=False trusts any certificate
    reconnect   seconds for which a connection that broke, or a service that is being restarted, is tried again; then ConnectionFailed
    timeout     seconds for one HTTP request

    Proxies are taken from the environment. An async context manager, and a blocking one; closing twice is fine, forgetting warns
    (ResourceWarning). Raises ValueError for an address that cannot be one, and for a key that cannot be sent.

    >>> service = CellrunService("cellrun://localhost", key="ck_1_secret")
    >>> service
    <CellrunService cellrun://localhost:8080>
    """

    def __init__(
        self,
        url: str,
        *,
        key: str | None = None,
        ca_file: str | None = None,
        verify: bool = True,
        reconnect: float = 30.0,
        timeout: float = 10.0,
    ) -> None:
        super().__init__()
        self._base = parse_address(url)
        self._key = key or ""
        if "\n" in self._key or "\r" in self._key:
            raise ValueError("the key holds a line break: was it read from a file with its last newline?")
        if not self._key.isascii() or not self._key.isprintable():
            raise ValueError("the key holds characters that cannot be sent: it is printable ASCII")
        for name, value in (("reconnect", reconnect), ("timeout", timeout)):
            if not value >= 0:
                raise ValueError(f"{name} must be zero or more seconds, not {value!r}")
        self._ca_file = ca_file
        self._verify = verify
        self._reconnect = reconnect
        self._timeout = timeout
        self._http: ServiceHttp | None = None

    def __repr__(self) -> str:
        return f"<CellrunService {shown(self._base)}{', closed' if self._closed else ''}>"

    @property
    def http(self) -> ServiceHttp:
        """Raises SessionLost once it is closed."""
        if self._http is None:
            self._check_open()
            self._http = ServiceHttp(
                self._base,
                self._key,
                ca_file=self._ca_file,
                verify=self._verify,
                timeout=self._timeout,
                reconnect=self._reconnect,
            )
        return self._http

    async def _close(self) -> None:
        http, self._http = self._http, None
        if http is not None:
            await http.aclose()


def service_for(given: CellrunService | str, key: str | None) -> CellrunService:
    """The service that a caller named. Raises ValueError."""
    if isinstance(given, str):
        return CellrunService(given, key=key)
    if key is not None:
        raise ValueError("key= goes with an address; a CellrunService object has its own: CellrunService(url, key=…)")
    return given
