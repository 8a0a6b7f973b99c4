from __future__ import annotations

import base64
from typing import Any

import pytest

from cellrun.mime import Image, image_of, image_url, is_opaque, joined, readable, size_of, text_of_html

PNG = b"\x89PNG\r\n"
PNG64 = base64.b64encode(PNG).decode()


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("a", "a"),
        (["a\n", "b"], "a\nb"),
        ([], ""),
        ({"a": "é"}, '{"a": "é"}'),
        ([1], "[1]"),
        (["a", 1], '["a", 1]'),
        (None, "null"),
        (True, "true"),
    ],
)
def test_a_value_of_a_bundle_has_a_text(value: Any, text: str) -> None:
    assert joined(value) == text


# -- pictures ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "image"),
    [
        ({}, None),
        ({"text/plain": "x"}, None),
        ({"image/png": PNG64}, Image("image/png", PNG)),
        ({"image/png": PNG64 + "\n"}, Image("image/png", PNG)),
        ({"image/png": [PNG64[:4] + "\n", PNG64[4:]]}, Image("image/png", PNG)),
        ({"image/svg+xml": "<svg>é</svg>"}, Image("image/svg+xml", "<svg>é</svg>".encode())),
        ({"image/svg+xml": ["<svg>", "</svg>"]}, Image("image/svg+xml", b"<svg></svg>")),
        ({"image/svg+xml": "\ud800"}, Image("image/svg+xml", b"?")),
        ({"image/svg+xml": "<svg/>", "image/png": PNG64}, Image("image/png", PNG)),
        ({"image/gif": PNG64, "image/jpeg": PNG64}, Image("image/jpeg", PNG)),
        ({"image/avif": PNG64}, Image("image/avif", PNG)),
        ({"image/avif": PNG64, "image/bmp": PNG64}, Image("image/bmp", PNG)),
        ({"image/png": "x", "image/jpeg": PNG64}, Image("image/jpeg", PNG)),
        ({"image/png": "é"}, None),
        ({"image/png": "abc"}, None),
    ],
)
def test_the_best_picture_is_taken(data: dict[str, Any], image: Image | None) -> None:
    assert image_of(data) == image


@pytest.mark.parametrize("value", [None, {"abcd": 1234}, 12345678, True, [1234], ""])
def test_what_is_no_base64_text_is_no_picture(value: Any) -> None:
    assert image_of({"image/png": value}) is None


@pytest.mark.parametrize(
    ("mime", "suffix"),
    [
        ("image/png", ".png"),
        ("image/jpeg", ".jpg"),
        ("image/svg+xml", ".svg"),
        ("image/gif", ".gif"),
        ("image/webp", ".webp"),
    ],
)
def test_a_picture_has_the_usual_suffix(mime: str, suffix: str) -> None:
    assert Image(mime, b"").suffix == suffix


@pytest.mark.parametrize(
    "mime", ["image/../../x", "image//x", "image/a\x00b", "image/x; charset=a/b", "image/", "image/" + "x" * 300]
)
def test_a_suffix_is_safe_in_a_file_name_whatever_the_kernel_says(mime: str) -> None:
    suffix = Image(mime, b"").suffix
    assert suffix[0] == "."
    assert 1 < len(suffix) < 50
    assert all(part not in suffix for part in ("/", "\\", "..", "\x00", " "))


def test_a_picture_shows_its_size_instead_of_its_bytes() -> None:
    assert repr(Image("image/png", PNG)) == "Image('image/png', 6 bytes)"


@pytest.mark.parametrize(
    ("data", "url"),
    [
        ({}, None),
        ({"text/plain": "x"}, None),
        ({"image/png": PNG64}, f"data:image/png;base64,{PNG64}"),
        ({"image/png": f"{PNG64[:4]}\n{PNG64[4:]}\n"}, f"data:image/png;base64,{PNG64}"),
        ({"image/png": [PNG64[:4] + "\n", PNG64[4:]]}, f"data:image/png;base64,{PNG64}"),
        ({"image/gif": PNG64, "image/jpeg": PNG64 + "\n"}, f"data:image/jpeg;base64,{PNG64}"),
        ({"image/svg+xml": "<svg/>"}, "data:image/svg+xml;base64,PHN2Zy8+"),
        ({"image/gif": "é"}, None),
    ],
)
def test_a_picture_is_a_url_on_one_line(data: dict[str, Any], url: str | None) -> None:
    assert image_url(data) == url


# -- texts -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "<IPython.core.display.HTML object>",
        "<__main__.Thing at 0x7f0123456789>",
        "<__main__.Thing object at 0x7f0123456789>",
        " <a.b.C at 0xABC>\n",
        "<__main__.f.<locals>.Thing at 0x7f0123456789>",
        "<__main__.f.<locals>.Thing object at 0x7f0123456789>",
    ],
)
def test_a_default_repr_says_nothing(text: str) -> None:
    assert is_opaque(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "<b>bold</b>",
        "a <b at 0x12>",
        "<a at 0x12> and more",
        "<a at 0x12>\n<b at 0x12>",
        "<a at 0x12> <b at 0x12>",
        "<Response [200]>",
        "<Figure size 640x480 with 1 Axes>",
        "<Table length=3>\nname\n----",
        "<at 0xyz>",
        "[<matplotlib.lines.Line2D at 0x7f0123456789>]",
        "Name: <x at 0x12>",
    ],
)
def test_any_other_text_says_something(text: str) -> None:
    assert not is_opaque(text)


@pytest.mark.parametrize(
    ("html", "text"),
    [
        ("", ""),
        ("plain", "plain"),
        ("a &amp; b &lt; &#233;", "a & b < é"),
        ("<b>bold</b> <i>it</i>", "bold it"),
        ("<p>one</p><p>two</p>", "one\ntwo"),
        ("one<br>two<br/>three", "one\ntwo\nthree"),
        ("<table><tr><th>a</th><td>1</td></tr><tr><th>b</th><td>2</td></tr></table>", "a\t1\nb\t2"),
        ("<style>p {}</style><script>x()</script>shown", "shown"),
        ("<head><title>t</title></head>shown", "shown"),
        ("<template><p>hidden</p></template>shown", "shown"),
        ("</style>shown", "shown"),
        ("a\n   b", "a b"),
        ("<!-- comment -->shown<!DOCTYPE html>", "shown"),
        ("<ul><li>a</li><li>b</li></ul>", "a\nb"),
        ("<p>unclosed", "unclosed"),
    ],
)
def test_html_has_a_readable_text(html: str, text: str) -> None:
    assert text_of_html(html) == text


def test_preformatted_text_keeps_its_lines() -> None:
    assert text_of_html("<pre>one\n  two</pre>three") == "one\n  two\nthree"


@pytest.mark.parametrize(
    "html", ["<![x[y]]>", "a<![x[", "<![foo bar]>b", "<!x", "<!>", "</>", "<a b=", "&#xffffffff;", "&#;"]
)
def test_broken_html_is_read_as_far_as_it_goes(html: str) -> None:
    assert isinstance(text_of_html(html), str)


@pytest.mark.parametrize("begun", ["<!--", "<a ", "<a b='", "<![CDATA[", "<?", "<script>", "</", "<"])
def test_html_that_ends_nothing_it_begins_is_read_once(begun: str) -> None:
    """Read again from each beginning it would take minutes."""
    assert isinstance(text_of_html(begun * (300_000 // len(begun))), str)


OPAQUE = "<a.B at 0x12>"


@pytest.mark.parametrize(
    ("data", "text"),
    [
        ({}, ""),
        ({"text/plain": "x", "text/html": "<b>y</b>"}, "x"),
        ({"text/plain": ["x\n", "y"]}, "x\ny"),
        ({"text/plain": OPAQUE, "text/markdown": "**m**", "text/latex": "$l$", "text/html": "<b>h</b>"}, "**m**"),
        ({"text/plain": OPAQUE, "text/latex": "$l$", "text/html": "<b>h</b>"}, "$l$"),
        ({"text/plain": OPAQUE, "text/html": "<b>h</b>", "application/json": [1]}, "h"),
        ({"text/plain": OPAQUE, "text/markdown": " ", "text/html": "<b>h</b>"}, "h"),
        ({"text/plain": " ", "text/html": "<b>h</b>"}, "h"),
        ({"text/html": "<b>h</b>"}, "h"),
        ({"application/json": {"a": 1}}, '{"a": 1}'),
        ({"text/plain": OPAQUE}, OPAQUE),
        ({"text/plain": OPAQUE, "image/png": PNG64}, OPAQUE),
        ({"text/plain": OPAQUE, "text/html": "<script>x</script>"}, OPAQUE),
        ({"image/png": PNG64, "image/gif": PNG64}, "<image/png, image/gif>"),
        ({"text/plain": ""}, "<text/plain>"),
        ({"text/plain": None}, "null"),
        ({"text/plain": {"a": 1}}, '{"a": 1}'),
    ],
)
def test_the_most_readable_of_a_bundle_is_taken(data: dict[str, Any], text: str) -> None:
    assert readable(data) == text


def test_a_default_repr_gives_way_to_json() -> None:
    assert readable({"text/plain": OPAQUE, "application/json": {"a": 1}}) == '{"a": 1}'


@pytest.mark.parametrize(
    ("data", "size"),
    [
        ({}, 0),
        ({"a": "xyz"}, 3),
        ({"a": b"xyz", "b": memoryview(b"xy")}, 5),
        ({"a": {"k": 1}}, 8),
        ({"a": ["x", "y"]}, 10),
        ({"a": None}, 4),
        ({"a": {1, 2}}, len('"{1, 2}"')),
    ],
)
def test_a_bundle_has_a_size(data: dict[str, Any], size: int) -> None:
    assert size_of(data) == size
