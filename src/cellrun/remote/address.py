"""The address of a service: `cellrun://host:port` for HTTP, `cellruns://host` for HTTPS, as `ws:` and `wss:` are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from cellrun.errors import public_url

if TYPE_CHECKING:
    from yarl import URL

PORT: Final = 8080
"""Where `cellrun serve` listens unless it is told otherwise."""
_SCHEMES: Final = {"cellrun": "http", "cellruns": "https", "http": "http", "https": "https"}


def is_service(url: str) -> bool:
    """Whether an address is that of a service, by its scheme.

    >>> is_service("cellrun://localhost"), is_service("http://localhost:8888/")
    (True, False)
    """
    return url.strip().lower().startswith(("cellrun:", "cellruns:"))


def parse_address(url: str) -> URL:
    """The base of the service's addresses, ending in "/". Without a port it is 8080 after `cellrun:`, the scheme's own after all others.
    Raises ValueError, with nothing secret in it, for what is no such address.

    >>> parse_address("cellrun://localhost"), parse_address("cellruns://run.example/base")
    (URL('http://localhost:8080/'), URL('https://run.example/base/'))
    """
    expected = "expected cellrun://host:port, or cellruns://host with TLS"
    if not isinstance(url, str) or not url.strip():
        raise ValueError(f"the address of the service is empty; {expected}")
    url = url.strip()
    try:
        parts = urlsplit(url)
        port, host = parts.port, parts.hostname
    except ValueError:
        raise ValueError(f"the address of the service cannot be read: {public_url(url)}; {expected}") from None
    scheme = _SCHEMES.get(parts.scheme)
    if scheme is None:
        raise ValueError(f"the address of the service begins with {parts.scheme[:20]!r}:; {expected}")
    if parts.username is not None or parts.password is not None or "@" in parts.path:
        raise ValueError("the address of the service holds a user name, password or key; pass key= instead")
    if parts.query or parts.fragment:
        raise ValueError(f"the address of the service has a query or fragment; {expected}, and the key by key=")
    if not host or any(character.isspace() for character in parts.netloc):
        raise ValueError(f"the address of the service has no valid host; {expected}")
    if port is None and parts.scheme == "cellrun":
        port = PORT
    path = parts.path.rstrip("/") + "/"
    from yarl import URL  # of the HTTP library, which a session on a kernel here does not load

    return URL.build(scheme=scheme, host=host, port=port, path=path, encoded="%" in path)


def shown(base: URL) -> str:
    """The address as a user writes it."""
    return public_url(str(base)).replace("http", "cellrun", 1).rstrip("/")
