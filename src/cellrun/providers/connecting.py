"""What all HTTP of ours has in common: certificates, proxies, and errors of the HTTP library in our words."""

from __future__ import annotations

import base64
import contextlib
import ssl
import urllib.request
from collections.abc import Iterator

import aiohttp
from yarl import URL

from cellrun.errors import ConnectionFailed


@contextlib.contextmanager
def errors_of(client: aiohttp.ClientSession, method: str, where: str, limit: float) -> Iterator[None]:
    """The one place where errors of the HTTP library become ours. Their own texts are not used: they
    can hold the whole URL and headers. `where`: the address as it may be shown; `limit`: seconds, for the text alone."""
    try:
        yield
    except aiohttp.ClientConnectorCertificateError as error:
        why = getattr(error.certificate_error, "verify_message", "") or "it cannot be verified"
        raise ConnectionFailed(
            f"the TLS certificate of {where} was refused: {why}; pass ca_file= with the authority that "
            "signed it, or verify=False to trust any",
            retryable=False,
        ) from None
    except aiohttp.ClientProxyConnectionError as error:
        raise ConnectionFailed(f"the proxy for {where} cannot be reached: {_os_words(error.os_error)}") from None
    except aiohttp.ClientHttpProxyError as error:
        raise ConnectionFailed(f"the proxy for {where} refused: it answered {error.status}") from None
    except aiohttp.ClientSSLError:
        raise ConnectionFailed(f"TLS with {where} failed: does it speak https?", retryable=False) from None
    except aiohttp.ClientConnectorError as error:
        raise ConnectionFailed(f"{where} cannot be reached: {_os_words(error.os_error)}") from None
    except TimeoutError:
        # A server that does not speak TLS may wait for more instead of hanging up.
        hint = "; does it speak https?" if where.startswith("https:") else ""
        raise ConnectionFailed(f"{method} {where} was not answered within {limit:g} s{hint}") from None
    except aiohttp.ClientResponseError as error:
        raise ConnectionFailed(f"{where} did not answer in HTTP (status {error.status})") from None
    except (aiohttp.ClientError, OSError) as error:
        raise ConnectionFailed(f"the connection to {where} broke: {type(error).__name__}") from None
    except RuntimeError:
        if not client.closed:
            raise
        raise ConnectionFailed("the provider was closed during the request", retryable=False) from None
    except ValueError as error:
        if type(error) is not ValueError:
            raise
        raise ConnectionFailed(f"the request to {where} could not be made: a header is not valid") from None


def _os_words(error: OSError) -> str:
    return error.strerror or type(error).__name__


def tls_of(ca_file: str | None, verify: bool) -> ssl.SSLContext | bool:
    if not verify:
        return False
    if ca_file is None:
        return True
    try:
        return ssl.create_default_context(cafile=ca_file)
    except (OSError, ssl.SSLError) as error:
        raise ValueError(f"ca_file cannot be used as a certificate authority: {ca_file} ({error.strerror})") from None


def proxy_for(base: URL) -> tuple[URL | None, dict[str, str] | None]:
    """The proxy that the environment names for this host (http_proxy, https_proxy, all_proxy, no_proxy), and
    the header with its credentials, which aiohttp renames to Proxy-Authorization."""
    host = base.host or ""
    proxies = urllib.request.getproxies()
    proxy = proxies.get(base.scheme) or proxies.get("all")
    if not proxy or urllib.request.proxy_bypass(f"{host}:{base.port}" if base.port else host):
        return None, None
    url = URL(proxy if "://" in proxy else f"http://{proxy}")
    if not url.user:
        return url, None
    pair = base64.b64encode(f"{url.user}:{url.password or ''}".encode()).decode("ascii")
    return url.with_user(None), {"Authorization": f"Basic {pair}"}
