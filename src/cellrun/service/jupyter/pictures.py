"""For clients that show PNG and nothing else: code that has a Python kernel make one beside a picture that is none, where it can; and PNG of
what other pictures there are."""

from __future__ import annotations

import base64
import io
import re
from typing import Any, Final

from cellrun.mime import Image

_READ: Final = ("PNG", "JPEG", "GIF", "WEBP", "BMP")
_PIXELS: Final = 16_000_000  # of four bytes, several times over while it is made smaller
_SIDE: Final = 1_600
_LEAST: Final = 64
_WANTS: Final = re.compile(r"svg|plotly", re.IGNORECASE)
# matplotlib draws its own figures; other SVG wants cairosvg, a plotly figure kaleido. Nothing is imported that the user's code has not.
_CODE: Final = """
def _cellrun_pictures():
    import importlib.util, os, sys
    from IPython import get_ipython

    def there(name):
        return importlib.util.find_spec(name) is not None

    if there("plotly") and there("kaleido"):
        os.environ.setdefault("PLOTLY_RENDERER", "plotly_mimetype+png")
    shell = get_ipython()
    if shell is None:
        return
    formatter = shell.display_formatter
    plain = formatter.format

    def png(obj, svg):
        figure = sys.modules.get("matplotlib.figure")
        if figure is not None and isinstance(obj, figure.Figure):
            from IPython.core.pylabtools import print_figure
            return print_figure(obj, "png", base64=True)
        if there("cairosvg"):
            import base64, cairosvg
            return base64.b64encode(cairosvg.svg2png(bytestring=svg.encode())).decode()
        return None

    def format(obj, include=None, exclude=None):
        data, metadata = plain(obj, include, exclude)
        if "image/svg+xml" in data and "image/png" not in data and not include and not exclude:
            try:
                made = png(obj, data["image/svg+xml"])
            except Exception:
                made = None
            if made:
                data = {**data, "image/png": made}
        return data, metadata

    formatter.format = format

_cellrun_pictures()
del _cellrun_pictures
"""
PRELUDE: Final[dict[str, Any]] = {
    "code": _CODE,
    "silent": True,
    "store_history": False,
    "user_expressions": {},
    "allow_stdin": False,
    "stop_on_error": False,
}


def wants_pictures(code: Any) -> bool:
    """Whether this code may show a picture that is no PNG.

    >>> wants_pictures("%config InlineBackend.figure_formats = ['svg']"), wants_pictures("print(1)")
    (True, False)
    """
    return isinstance(code, str) and _WANTS.search(code) is not None


def as_png(image: Image, most: int | None = None) -> str | None:
    """A picture as PNG in base64, of at most `most` bytes of that: with fewer pixels, fewer colours. None where it cannot be read, or not
    be made so small. Slow: for a thread."""
    from PIL import Image as Pillow

    try:
        with Pillow.open(io.BytesIO(image.data), formats=_READ) as picture:
            if picture.width * picture.height > _PIXELS:
                return None
            picture.load()
            shown: Any = picture if picture.mode in ("RGB", "RGBA", "L", "LA", "P", "1") else picture.convert("RGB")
            side = max(picture.size)
            if most is not None:
                side = min(side, _SIDE)
            least = min(_LEAST, side)
            while side >= least:
                small = shown.copy()
                if side < max(picture.size):
                    small = small.convert("RGBA" if "A" in small.mode or small.mode == "P" else "RGB")
                    small.thumbnail((side, side))
                for attempt in (small, None if small.mode in ("L", "1", "P", "LA") else small.quantize(256)):
                    if attempt is None:
                        continue
                    buffer = io.BytesIO()
                    attempt.save(buffer, "PNG")
                    if most is None or buffer.tell() * 4 // 3 + 4 <= most:
                        return base64.b64encode(buffer.getvalue()).decode("ascii")
                side = side * 3 // 4
    except Exception:  # whatever a decoder makes of bytes that user code wrote
        return None
    return None
