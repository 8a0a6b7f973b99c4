"""What clients without the v1 subprotocol are given: frames that they can read, pictures that they can show."""

from __future__ import annotations

import base64
import io
import itertools
import json
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from cellrun.protocol.message import Message
from cellrun.service.jupyter.plain import LARGEST, encode, frames, is_slow, shorter, split
from cellrun.service.jupyter.replay import says

PARENT = {"msg_id": "p", "session": "s"}


def picture(size: int, kind: str = "PNG", *, noise: bool = False) -> str:
    """Base64 of a square picture with sides of `size`."""
    made = Image.effect_noise((size, size), 100).convert("RGB") if noise else Image.new("RGB", (size, size), "red")
    file = io.BytesIO()
    made.save(file, kind)
    return base64.b64encode(file.getvalue()).decode()


def shown(data: dict[str, Any], **more: Any) -> Message:
    return says("display_data", {"data": data, "metadata": {}, **more}, PARENT)


def sent(message: Message) -> list[dict[str, Any]]:
    found = frames(message)
    assert all(isinstance(frame, str) and len(frame) <= LARGEST for frame in found)
    return [json.loads(frame) for frame in found]


def bundle(message: Message) -> dict[str, Any]:
    (frame,) = sent(message)
    data: dict[str, Any] = frame["content"]["data"]
    return data


def test_a_frame_has_id_and_type_beside_the_header() -> None:
    frame = json.loads(encode(says("status", {"execution_state": "idle"}, PARENT)))
    assert frame["msg_id"] == frame["header"]["msg_id"]
    assert (frame["msg_type"], frame["channel"], frame["parent_header"]) == ("status", "iopub", PARENT)


def test_buffers_follow_their_message_in_a_binary_frame_and_are_kept_from_who_cannot_read_one() -> None:
    message = Message("iopub", {"msg_id": "m", "msg_type": "comm_msg"}, PARENT, {}, {}, (b"ab", b"", b"xyz"))
    (frame,) = frames(message)
    assert isinstance(frame, bytes)
    count = struct.unpack_from(">I", frame)[0]
    offsets = [*struct.unpack_from(f">{count}I", frame, 4), len(frame)]
    parts = [frame[start:end] for start, end in itertools.pairwise(offsets)]
    assert json.loads(parts[0])["msg_type"] == "comm_msg"
    assert parts[1:] == [b"ab", b"", b"xyz"]
    assert frames(message, buffers=False) == []


@given(st.lists(st.sampled_from(["x" * 50_000, "\x00" * 50_000, "é" * 50_000, "\ud800" * 9_000]), max_size=30))
def test_a_stream_is_split_into_frames_that_fit_and_nothing_of_it_is_lost(parts: list[str]) -> None:
    text = "".join(parts)
    pieces = split(text)
    assert "".join(pieces) == text
    found = sent(says("stream", {"name": "stdout", "text": text}, PARENT))
    assert "".join(frame["content"]["text"] for frame in found) == text


@given(st.text(min_size=1).map(lambda text: text * 5_000), st.integers(1_000, 50_000))
def test_a_long_text_keeps_its_head_and_tail_and_says_what_is_missing(text: str, most: int) -> None:
    cut = shorter(text, most)
    assert len(json.dumps(cut)) <= max(most, 1_500)
    if cut != text:
        assert f"of {len(text)} characters left out" in cut
        assert text.startswith(cut.partition("\n[… ")[0])


def test_html_alone_has_its_text_beside_it() -> None:
    data = bundle(shown({"text/html": "<b>7</b> <i>apples</i>"}))
    assert data["text/html"] == "<b>7</b> <i>apples</i>"
    assert "7" in data["text/plain"]
    assert "apples" in data["text/plain"]
    assert "<" not in data["text/plain"]


def test_a_name_that_says_nothing_is_replaced_and_one_that_does_stays() -> None:
    table = "<table><tr><td>41</td></tr></table>"
    assert "41" in bundle(shown({"text/html": table, "text/plain": "<IPython.core.display.HTML object>"}))["text/plain"]
    assert bundle(shown({"text/html": table, "text/plain": "   a\n0  41"}))["text/plain"] == "   a\n0  41"


def test_a_plotly_figure_is_told_in_words() -> None:
    figure = {"data": [{"type": "bar"}, {}, 7], "layout": {"title": {"text": "Sales"}}}
    data = bundle(shown({"application/vnd.plotly.v1+json": figure, "text/plain": "Figure(…)"}))
    assert data["text/plain"] == "plotly figure 'Sales': bar, scatter"
    assert data["application/vnd.plotly.v1+json"] == figure


@pytest.mark.parametrize("figure", [None, [], {}, {"data": 7, "layout": 7}, {"data": {"a": 1}, "layout": {"title": 3}}])
def test_a_figure_that_is_none_is_told_as_well(figure: Any) -> None:
    assert bundle(shown({"application/vnd.plotly.v1+json": figure}))["text/plain"].startswith("plotly figure")


def test_a_jpeg_has_a_png_beside_it_and_a_broken_one_stays_as_it_is() -> None:
    jpeg = shown({"image/jpeg": picture(20, "JPEG")})
    assert is_slow(jpeg)
    with Image.open(io.BytesIO(base64.b64decode(bundle(jpeg)["image/png"]))) as made:
        assert (made.format, made.size) == ("PNG", (20, 20))
    broken = base64.b64encode(b"\xff\xd8\xff no picture").decode()
    assert "image/png" not in bundle(shown({"image/jpeg": broken, "text/plain": "a"}))


def test_a_picture_that_does_not_fit_is_made_smaller_and_keeps_its_form() -> None:
    large = picture(1_000, noise=True)
    assert len(large) > LARGEST
    data = bundle(shown({"image/png": large, "text/plain": "<Figure size 1000x1000>"}))
    with Image.open(io.BytesIO(base64.b64decode(data["image/png"]))) as made:
        assert made.width == made.height < 1_000
    assert data["text/plain"] == "<Figure size 1000x1000>"


def test_of_a_bundle_that_does_not_fit_the_small_parts_are_kept_and_the_others_named() -> None:
    data = bundle(shown({"text/plain": "x" * 2_000_000, "text/html": "y" * 2_000_000, "text/latex": "z"}))
    assert data["text/latex"] == "z"
    assert "characters left out" in data["text/plain"]
    assert "text/html of 2000002 bytes left out" in data["text/plain"]


def test_a_traceback_an_input_and_what_is_carried_along_are_cut() -> None:
    long = "x" * 1_500_000
    (error,) = sent(says("error", {"ename": "E", "evalue": long, "traceback": [long, long]}, PARENT))
    assert "characters left out" in error["content"]["evalue"]
    assert "characters left out" in error["content"]["traceback"][0]
    (reply,) = sent(
        says("execute_reply", {"status": "ok", "payload": [{"a": long}], "user_expressions": {"a": long}}, PARENT)
    )
    assert (reply["content"]["payload"], reply["content"]["user_expressions"]) == ([], {})


def test_what_cannot_be_made_smaller_is_left_out_and_that_is_said() -> None:
    (frame,) = sent(says("comm_msg", {"data": "x" * 2_000_000}, PARENT))
    assert (frame["msg_type"], frame["parent_header"]) == ("stream", PARENT)
    assert "a comm_msg message of 2000" in frame["content"]["text"]
    (reply,) = sent(says("inspect_reply", {"status": "ok", "found": "x" * 2_000_000}, PARENT, "shell"))
    assert (reply["msg_type"], reply["content"]["status"], reply["content"]["ename"]) == (
        "inspect_reply",
        "error",
        "TooLarge",
    )


@pytest.mark.parametrize("plain", [{}, {"text/plain": "<IPython.core.display.SVG object>"}])
def test_an_svg_alone_is_told_in_words_and_stays(plain: dict[str, str]) -> None:
    svg = "<svg><style>a {}</style><title>Sales</title><text>May</text><rect/></svg>"
    data = bundle(shown({"image/svg+xml": svg, **plain}))
    assert data["image/svg+xml"] == svg
    assert data["text/plain"].startswith("an SVG picture;")
    assert data["text/plain"].endswith("; the text in it: Sales May")
    assert bundle(shown({"image/svg+xml": "<svg/>", **plain}))["text/plain"].endswith("can make a PNG of it")
    assert len(bundle(shown({"image/svg+xml": f"<text>{'x' * 5_000}</text>", **plain}))["text/plain"]) < 1_200


def test_what_is_said_beside_an_svg_is_kept() -> None:
    svg = {"image/svg+xml": "<svg/>"}
    assert bundle(shown({**svg, "text/plain": "<Figure size 640x480 with 1 Axes>"}))["text/plain"].startswith("<Figure")
    assert bundle(shown({**svg, "text/html": "<b>7</b>", "text/plain": "<a.B at 0x7f>"}))["text/plain"] == "7"
    assert "an SVG" not in bundle(shown({**svg, "image/jpeg": picture(20, "JPEG"), "text/plain": "<a.B at 0x7f>"}))


def test_a_long_question_is_cut_and_can_be_answered() -> None:
    (frame,) = sent(says("input_request", {"prompt": "x" * 1_500_000, "password": False}, PARENT, "stdin"))
    assert (frame["msg_type"], frame["channel"], set(frame["content"])) == (
        "input_request",
        "stdin",
        {"prompt", "password"},
    )
    assert "characters left out" in frame["content"]["prompt"]
