"""What a language model is given of a run."""

from __future__ import annotations

import base64
import io
import json
import os
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image as Pillow

from cellrun.events import Display, Event, Finished, KernelRestarted, Stdout
from cellrun.folding import fold
from cellrun.result import Result
from cellrun.service.model_view import BUDGET, model_view, shortened, text_of
from cellrun.wire import result_to_dict

E = "e"
FULL = "/v1/runs/e"


def result(*outputs: str | dict[str, Any], status: Any = "ok", reason: str | None = None) -> dict[str, Any]:
    """Of a run that printed these texts and showed these bundles, as JSON data."""
    events: list[Event] = []
    for seq, output in enumerate(outputs, 1):
        if isinstance(output, str):
            events.append(Stdout(seq=seq, execution_id=E, text=output))
        else:
            events.append(Display(seq=seq, execution_id=E, data=output, metadata={}))
    end = Finished(seq=99, execution_id=E, status=status, execution_count=1, duration=0.5, reason=reason)
    data: dict[str, Any] = json.loads(json.dumps(result_to_dict(fold([*events, end]))))
    return data


def picture(width: int, height: int, format: str = "PNG", *, noise: bool = False) -> bytes:
    buffer = io.BytesIO()
    made = Pillow.frombytes("RGB", (width, height), os.urandom(width * height * 3)) if noise else None
    (made or Pillow.new("RGB", (width, height), "red")).save(buffer, format)
    return buffer.getvalue()


def shown(data: bytes, mime: str = "image/png") -> dict[str, Any]:
    return {mime: base64.encodebytes(data).decode("ascii"), "text/plain": "<Figure>"}


def opened(view: dict[str, Any], at: int = 0) -> Any:
    image = view["images"][at]
    data = base64.b64decode(image["base64"], validate=True)
    assert len(data) <= 256 * 1024
    found = Pillow.open(io.BytesIO(data))
    assert f"image/{(found.format or '').lower()}" == image["mime"]
    found.load()
    return found


def test_what_fits_is_left_as_it_is() -> None:
    view = model_view(result("a\n", {"text/plain": "42"}))
    assert (view["text"], view["cut"], view["images"], view["images_left_out"]) == ("a\n42", 0, [], 0)
    assert (view["status"], view["execution_id"], view["full"], view["duration"]) == ("ok", E, FULL, 0.5)


def test_of_a_long_text_head_and_tail_remain_with_a_note_between() -> None:
    text = "".join(f"line {i}\n" for i in range(20_000))
    view = model_view(result(text), budget=2_000)
    head, note, tail = view["text"].partition(
        f"[… {view['cut']} of {len(text) - 1} characters left out; the whole is at {FULL} …]"
    )
    assert note
    assert len(view["text"]) <= 2_000 + 200
    assert head.startswith("line 0\nline 1\n")
    assert tail.endswith("\nline 19998\nline 19999")
    assert head.endswith("\n")
    assert tail.startswith("\nline ")  # cut between lines
    assert view["cut"] == len(text) - 1 - len(head.rstrip("\n")) - len(tail[1:])
    assert len(head) > len(tail)


def test_the_budget_holds_without_being_named() -> None:
    assert len(model_view(result("x" * 1_000_000))["text"]) < BUDGET + 200


@given(text=st.text(st.sampled_from("ab\n"), max_size=300), budget=st.integers(0, 320))
def test_what_is_cut_is_exactly_what_is_counted(text: str, budget: int) -> None:
    short, cut = shortened(text, budget, lambda _: f"the whole is at {FULL}")
    if len(text) <= budget:
        assert (short, cut) == (text, 0)
    else:
        head, note, tail = short.partition(
            f"\n[… {cut} of {len(text)} characters left out; the whole is at {FULL} …]\n"
        )
        assert note
        assert text.startswith(head)
        assert text.endswith(tail)
        assert len(head) + cut + len(tail) == len(text)
        assert len(head) + len(tail) <= budget


@pytest.mark.parametrize("mime", ["image/png", "application/pdf", "font/woff2", "image/svg+xml"])
def test_no_base64_gets_into_the_text(mime: str) -> None:
    data = base64.b64encode(os.urandom(3_000)).decode("ascii")
    view = model_view(result(f"before\n<img src='data:{mime};base64,{data}'>\nafter"))
    assert view["text"] == "before\n<img src='(data left out)'>\nafter"
    bundle = model_view(result({"image/png": data}))
    assert data[:100] not in bundle["text"]


def test_a_data_url_with_parameters_is_left_out_as_well() -> None:
    # As maps and plots in pages have it.
    data = base64.b64encode(os.urandom(3_000)).decode("ascii")
    view = model_view(result(f"a data:text/html;charset=utf-8;base64,{data}"))
    assert view["text"] == "a (data left out)"


def test_a_small_picture_is_given_as_it_is_and_a_large_one_is_scaled() -> None:
    small = picture(300, 200)
    view = model_view(result(shown(small), shown(picture(3_000, 1_500))))
    assert base64.b64decode(view["images"][0]["base64"]) == small
    assert opened(view, 0).size == (300, 200)
    assert opened(view, 1).size == (1_024, 512)
    assert view["images_left_out"] == 0


@pytest.mark.parametrize("format", ["PNG", "JPEG", "GIF", "WEBP", "BMP"])
def test_a_picture_that_is_heavy_is_made_light(format: str) -> None:
    buffer = io.BytesIO()
    grain = Pillow.frombytes("RGB", (250, 250), os.urandom(250 * 250 * 3))
    grain.resize((1_000, 1_000)).save(buffer, format, quality=100)
    assert len(buffer.getvalue()) > 256 * 1024
    view = model_view(result(shown(buffer.getvalue(), f"image/{format.lower()}")))
    assert view["images_left_out"] == 0
    assert opened(view).size == (1_000, 1_000)


def test_a_picture_of_which_nothing_can_be_left_out_is_given_with_fewer_pixels() -> None:
    noise = picture(1_024, 1_024, noise=True)
    view = model_view(result(shown(noise)))
    assert view["images_left_out"] == 0
    assert 256 <= opened(view).size[0] < 1_024
    assert len(base64.b64decode(view["images"][0]["base64"])) <= 256 * 1024


def test_what_is_transparent_stands_on_white_in_a_format_that_knows_no_transparency() -> None:
    noise = Pillow.frombytes("RGBA", (900, 900), os.urandom(900 * 900 * 4))
    noise.paste((0, 0, 0, 0), (0, 0, 450, 450))
    buffer = io.BytesIO()
    noise.save(buffer, "PNG")
    image = opened(model_view(result(shown(buffer.getvalue()))))
    assert image.format == "JPEG"
    corner = image.getpixel((20, 20))
    assert isinstance(corner, tuple)
    assert min(corner) > 240


def test_a_small_picture_with_the_colours_of_printers_is_made_one_that_models_take() -> None:
    buffer = io.BytesIO()
    Pillow.new("CMYK", (50, 50)).save(buffer, "JPEG")
    assert opened(model_view(result(shown(buffer.getvalue())))).mode == "RGB"


def test_a_picture_with_transparency_or_a_palette_is_scaled_as_well() -> None:
    for mode in ("RGBA", "P", "LA", "L", "1", "I;16", "CMYK"):
        buffer = io.BytesIO()
        Pillow.new(mode, (2_000, 2_000)).save(buffer, "JPEG" if mode == "CMYK" else "PNG")
        view = model_view(result(shown(buffer.getvalue())))
        assert opened(view).size == (1_024, 1_024), mode


@pytest.mark.parametrize("format", ["JPEG", "GIF", "WEBP", "BMP"])
def test_a_picture_is_called_what_it_is_and_is_one_that_models_take(format: str) -> None:
    view = model_view(result(shown(picture(300, 200, format), "image/png")))
    assert opened(view).size == (300, 200)
    assert view["images"][0]["mime"] == f"image/{'png' if format == 'BMP' else format.lower()}"


def test_pictures_weigh_no_more_together_than_clients_take_and_the_newest_are_given() -> None:
    heavy = [picture(280 + i, 280, noise=True) for i in range(4)]  # of about 230 KiB each
    view = model_view(result(*map(shown, heavy)), pictures="ask for them")
    assert [opened(view, at).size[0] for at in range(len(view["images"]))] == [282, 283]
    assert sum(len(image["base64"]) for image in view["images"]) + 4 * BUDGET < 1_000_000
    assert view["text"].endswith("[2 of 4 pictures left out; ask for them]")


def test_only_the_last_pictures_are_given_and_the_others_are_told() -> None:
    view = model_view(result(*(shown(picture(10 + i, 10)) for i in range(7))))
    assert [opened(view, at).size[0] for at in range(4)] == [13, 14, 15, 16]
    assert view["images_left_out"] == 3
    assert f"[3 of 7 pictures left out; they are at {FULL}]" in view["text"]


def _bomb() -> bytes:
    """A PNG of 400 megapixels in a few kilobytes."""
    buffer = io.BytesIO()
    Pillow.new("1", (20_000, 20_000)).save(buffer, "PNG")
    return buffer.getvalue()


HOSTILE = {
    "nothing": b"",
    "no picture": b"nonsense" * 100,
    "cut off": picture(2_000, 2_000, noise=True)[:5_000],
    "small, and cut off": picture(200, 200, noise=True)[:5_000],
    "bomb": _bomb(),
    "eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_picture_is_left_out_and_does_no_harm_to_the_next(name: str) -> None:
    view = model_view(result("text\n", shown(HOSTILE[name]), shown(picture(5, 5))))
    assert [opened(view).size, len(view["images"])] == [(5, 5), 1]
    if name != "nothing":  # which is not counted as a picture
        assert view["images_left_out"] == 1
        assert "1 of 2 pictures left out" in view["text"]


def test_svg_is_no_picture_that_a_model_is_given() -> None:
    view = model_view(result({"image/svg+xml": "<svg onload='alert(1)'/>"}))
    assert (view["images"], view["images_left_out"]) == ([], 1)


@pytest.mark.parametrize(
    ("status", "reason", "note"),
    [
        ("timeout", "the time limit of 2 s was reached", "[timeout: the time limit of 2 s was reached]"),
        ("kernel_died", "out of memory", "[kernel_died: out of memory]"),
        ("interrupted", None, "[interrupted: no reason is known]"),
    ],
)
def test_an_end_that_the_text_does_not_show_is_told_after_it(status: str, reason: str | None, note: str) -> None:
    view = model_view(result("a" * 1_000, status=status, reason=reason), budget=300)
    assert view["text"].endswith(f"\n{note}")
    assert model_view(result(status=status, reason=reason))["text"] == note


def test_a_kernel_that_is_new_is_told() -> None:
    restarted = KernelRestarted(seq=1, execution_id=E, reason="it died")
    end = Finished(seq=2, execution_id=E, status="ok", execution_count=1, duration=0.0)
    view = model_view(result_to_dict(fold([restarted, end])))
    assert view["text"] == "[the kernel was restarted and its variables are gone: it died]"
    assert model_view(result_to_dict(Result(E, "ok")))["text"] == ""


@pytest.mark.parametrize("after", ["42", "x" * 100, "done\nand more"])
def test_what_stands_below_a_data_url_is_no_part_of_it(after: str) -> None:
    result = {
        "execution_id": "e",
        "status": "ok",
        "text": f"data:image/png;base64,{'A' * 3_000}\n{after}",
        "outputs": [],
        "stdout": "",
        "stderr": "",
    }
    assert model_view(result)["text"] == f"(data left out)\n{after}"


def test_the_note_says_where_the_text_goes_on_as_the_model_has_seen_it() -> None:
    lines = [f"line {number}" for number in range(10_000)]
    told = result(f"data:image/png;base64,{'A' * 3_000}\n" + "\n".join(lines))
    view = model_view(told, more=lambda head: f"ask for offset={head}")
    head, _, rest = view["text"].partition("\n[… ")
    assert f"ask for offset={len(head)} …]" in rest
    assert text_of(told)[: len(head)] == head
    assert text_of(told)[len(head) :].startswith("\nline ")
