"""The page at `/`: for people who try the service in a browser. It is built from `web/` into `assets/`, and holds no secret.

What user code shows is hostile. The page itself shows text and pictures; all else goes into frames of the one document `frame-….html`,
which is sandboxed by its own policy too. What each line here is for is in docs/decisions/0020-frames-for-output.md.
"""

from __future__ import annotations

import asyncio
import base64
import gzip
import hashlib
import re
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fastapi import APIRouter, Request
from starlette.responses import HTMLResponse, Response

from cellrun.service.problems import Problem

router: Final = APIRouter(include_in_schema=False)
FOLDER: Final = Path(__file__).parent / "assets"
_TYPES: Final = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_NAME: Final = re.compile(r"[a-z]+-[0-9a-f]{12}\.(?:css|html|js|svg)")
_PAGE: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'nonce-@nonce@'; img-src 'self' data: blob:; connect-src 'self'; "
    "frame-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
)
# No source has a host: nothing in a frame can send a request, also not to us. Its own script is known by its hash; that evaluates
# those of user code.
_FRAME: Final = (
    "sandbox allow-scripts; default-src 'none'; script-src '@hash@' 'unsafe-eval'; style-src 'unsafe-inline'; "
    "img-src data: blob:; media-src data: blob:; font-src data:; frame-ancestors 'self'; base-uri 'none'; form-action 'none'"
)
_PART: Final = "default-src 'none'; sandbox"
# No policy of content covers `<link rel=preconnect>`; this does. Browsers that do not know the header yet do without.
_ALLOWED: Final = "Connection-Allowlist"
_OTHERS: Final = {
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(), clipboard-read=(), display-capture=(), geolocation=(), microphone=(), payment=(), usb=()",
    "X-DNS-Prefetch-Control": "off",
}
_MISSING: Final = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>cellrun</title>
<h1>cellrun</h1>
<p>The service works, but it was installed without its page: building that needs Node.js 18 or later and npm.
<p>In a checkout <code>make page</code> builds it; then start the service again. Or install cellrun where <code>npm</code> is found.
<p>The addresses of the service are described at <a href="/openapi.json">/openapi.json</a>.
</html>
"""


@dataclass(frozen=True)
class _Asset:
    content: bytes
    packed: bytes
    media_type: str
    policy: str


class _Assets:
    """What the build has made, in memory, by name; read when it is first asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._found: dict[str, _Asset] = {}

    async def get(self, name: str) -> _Asset | None:
        if name not in self._found:
            try:
                self._found[name] = await asyncio.to_thread(self._read, name)
            except FileNotFoundError:
                return None
        return self._found[name]

    def _read(self, name: str) -> _Asset:
        content = (self.folder / name).read_bytes()
        policy = _frame_policy(content) if name.startswith("frame-") else _PART
        return _Asset(content, gzip.compress(content, 6, mtime=0), _TYPES[Path(name).suffix], policy)


def _frame_policy(document: bytes) -> str:
    script = document.partition(b"<script>")[2].rpartition(b"</script>")[0]
    return _FRAME.replace("@hash@", f"sha256-{base64.b64encode(hashlib.sha256(script).digest()).decode('ascii')}")


ASSETS: Final = _Assets(FOLDER)


@router.get("/")
async def page(request: Request) -> Response:
    """Asked for anew each time: it names the others by their content. The nonce is for the style sheet that the editor makes."""
    asset = await ASSETS.get("index.html")
    nonce = secrets.token_urlsafe(18)
    policy = _PAGE.replace("@nonce@", nonce)
    headers = {"Cache-Control": "no-store", "Content-Security-Policy": policy, **_OTHERS}
    # Chromium 156 never finishes loading a page that says this from an IPv6 address.
    if not request.headers.get("host", "").startswith("["):
        headers[_ALLOWED] = "(response-origin)"
    if asset is None:
        return HTMLResponse(_MISSING, 501, headers)
    return HTMLResponse(asset.content.replace(b"@nonce@", nonce.encode("ascii")), headers=headers)


@router.get("/page/{name}")
async def asset(request: Request, name: str) -> Response:
    """What the page is made of: never another content under the same name."""
    asset = await ASSETS.get(name) if _NAME.fullmatch(name) else None
    if asset is None:
        raise Problem("not_found", f"the page has no part {name[:100]!r}")
    headers = {
        "Cache-Control": "public, max-age=31536000, immutable",
        "Content-Security-Policy": asset.policy,
        _ALLOWED: "()",
        **_OTHERS,
    }
    return _answer(request, asset, headers)


def _answer(request: Request, asset: _Asset, headers: dict[str, str]) -> Response:
    headers["Vary"] = "Accept-Encoding"
    if re.search(r"\bgzip\b", request.headers.get("accept-encoding", "")):
        return Response(asset.packed, headers={**headers, "Content-Encoding": "gzip"}, media_type=asset.media_type)
    return Response(asset.content, headers=headers, media_type=asset.media_type)
