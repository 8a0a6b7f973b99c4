from __future__ import annotations

import pytest

from cellrun.terminal import render, strip_ansi


@pytest.mark.parametrize(
    ("text", "stripped"),
    [
        ("plain", "plain"),
        ("\x1b[1;31mred\x1b[0m", "red"),
        ("\x1b[m", ""),
        ("a\x1b[38;2;1;2;3mb", "ab"),
        ("a\x1b[38:5:1mb", "ab"),
        ("a\x1b[?25lb", "ab"),
        ("a\x1b[1 qb", "ab"),
        ("a\x1b]0;title\x07b", "ab"),
        ("a\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\b", "alinkb"),
        ("a\x1bPq#0\x1b\\b", "ab"),
        ("a\x1b_apc\x1b\\b", "ab"),
        ("a\x1b(Bb", "ab"),
        ("a\x1b7b\x1b8c", "abc"),
        ("a\x1bcb", "ab"),
        ("cut\x1b", "cut"),
        ("cut\x1b[", "cut"),
        ("cut\x1b[1;3", "cut"),
        ("cut\x1b]0;tit", "cut"),
        ("cut\x1bPq", "cut"),
        ("cut\x1b(", "cut"),
        ("a\rb\x08\n\tc", "a\rb\x08\n\tc"),
        ("[0m and ] stay", "[0m and ] stay"),
        ("a\x1b\x1b[0mb", "ab"),
        ("a\x1b\nb", "a\nb"),
        ("a\x1b\x7fb", "a\x7fb"),
        ("a\x1bé", "aé"),
        ("a\x1b]0;t\x1b[31mb", "a0;tb"),
        ("a\x1b[1\nb", "a1\nb"),
    ],
)
def test_escape_sequences_are_taken_out_and_nothing_else(text: str, stripped: str) -> None:
    assert strip_ansi(text) == stripped


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("", ""),
        ("plain\n\ttabbed", "plain\n\ttabbed"),
        ("10%\r50%\r100%\ndone", "100%\ndone"),
        ("long line\rshort", "shortline"),
        ("100%\r\x1b[Kok", "ok"),
        ("abc\r", "abc"),
        ("a\r\nb\r\n", "a\nb\n"),
        ("a\r\r\nb", "a\nb"),
        ("abc\b\bX", "aXc"),
        ("\b\bx", "x"),
        ("a\x07b\x00c\x0bd\x7fe", "abcde"),
        ("\x1b[31mred\x1b[0m\rblu", "blu"),
        ("abcdef\x1b[3D\x1b[K", "abcdef"),
        ("abc\rX\x1b[K", "X"),
        ("abc\rX\x1b[0K", "X"),
        ("abc\rXY\x1b[1K", "  c"),
        ("abc\x1b[1K", "   "),
        ("abc\x1b[2K\rX", "X"),
        ("abc\x1b[2KX", "   X"),
        ("abc\x1b[9K", "abc"),
        ("one\ntwo\x1b[A\rONE", "ONE\ntwo"),
        ("one\ntwo\x1b[1A\rONE", "ONE\ntwo"),
        ("one\ntwo\x1b[0A\rONE", "ONE\ntwo"),
        ("one\ntwo\x1b[FONE", "ONE\ntwo"),
        ("one\ntwo\nthree\x1b[2FONE\x1b[ETWO\x1b[BX", "ONE\nTWO\nthrXe"),
        ("one\x1b[99A\rX", "Xne"),
        ("one\x1b[99B\rX", "Xne"),
        ("one\x1b[99999999999B\rX", "Xne"),
        ("a\nlonger\x1b[AX", "a     X\nlonger"),
        ("0%\n0%\x1b[A\r50%\n50%\x1b[A\r99%\n99%", "99%\n99%"),
        ("a\x1b[1;1Hb", "ab"),
        ("cut\x1b[3", "cut"),
        ("a\x1b]0;title\x07b", "ab"),
    ],
)
def test_text_is_shown_as_a_terminal_would_leave_it(text: str, shown: str) -> None:
    assert render(text) == shown


@pytest.mark.parametrize("text", ["\x1b\x1b", "a\x1b\x1b[0mb", "a\x1b\nb", "\x1b\x7f", "\x1bé", "\x1b\x07", "\x1b\r"])
def test_an_escape_that_begins_nothing_is_taken_out(text: str) -> None:
    assert "\x1b" not in render(text)


def test_a_few_cursor_moves_cannot_make_much_of_little() -> None:
    size = 2_000
    text = "\n" * size + "x" * size + "\x1b[Ay" * size
    assert len(render(text)) < 20 * len(text)


def test_a_long_line_is_kept_whole() -> None:
    assert render("x" * 100_000 + "\x1b[0m") == "x" * 100_000
