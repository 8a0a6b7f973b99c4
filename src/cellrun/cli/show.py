"""Events of a run, for a person at a terminal: output where it belongs, pictures, a sign of life."""

from __future__ import annotations

import base64
import os
import sys
from pathlib import Path
from typing import Final, Literal, TextIO

from rich.console import Console

from cellrun.events import (
    Display,
    DisplayUpdate,
    ErrorOutput,
    Event,
    ExecuteResult,
    Finished,
    KernelRestarted,
    OutputDropped,
    Payload,
    Queued,
    Started,
    Stderr,
    Stdout,
)
from cellrun.mime import Image, image_of, readable
from cellrun.terminal import strip_ansi

Images = Literal["auto", "files", "off"]
_CHUNK: Final = 4096


class Shower:
    """`show` each event. Streams keep the cell's own characters; everything else gets a line of its own."""

    def __init__(self, images: Images, stem: str, folder: Path | None = None) -> None:
        self._images = images
        self._stem = stem
        self._folder = folder or Path.cwd()
        self._inline = terminal_protocol() if images == "auto" and sys.stdout.isatty() else None
        self._colour = sys.stderr.isatty() and "NO_COLOR" not in os.environ
        self._at_line_start = True

    def show(self, event: Event) -> None:
        match event:
            case Stdout(text=text):
                self._write(sys.stdout, text)
            case Stderr(text=text):
                self._write(sys.stderr, text)
            case Display() | DisplayUpdate() | ExecuteResult():
                self._bundle(event)
            case ErrorOutput(name="SystemExit", value=value) if value.strip() in ("", "None", "0"):
                pass  # how a script ends well
            case ErrorOutput():
                text = event.traceback or f"{event.name}: {event.value}"
                self._line(sys.stderr, text if self._colour else strip_ansi(text))
            case Payload(source="page", content=content) if isinstance(content.get("data"), dict):
                text = readable(content["data"])
                self._line(sys.stdout, text if sys.stdout.isatty() else strip_ansi(text))
            case KernelRestarted(reason=reason):
                self.say(f"the kernel was restarted and its variables are gone: {reason}")
            case OutputDropped(detail=detail):
                self.say(f"output was dropped on the way: {detail}")
            case Finished(status=status, reason=reason) if status in ("timeout", "kernel_died", "interrupted"):
                self.say(f"{status.replace('_', ' ')}: {reason}" if reason else status)
            case _:
                pass

    def say(self, text: str) -> None:
        """A word of ours, to standard error."""
        self._line(sys.stderr, f"cellrun: {text}")

    def _bundle(self, event: Display | DisplayUpdate | ExecuteResult) -> None:
        image = image_of(event.data)
        if image is not None and self._images != "off":
            self._image(image)
            return
        self._line(sys.stdout, readable(event.data))

    def _image(self, image: Image) -> None:
        if self._inline is not None and image.mime in ("image/png", "image/jpeg", "image/gif"):
            if self._inline == "iterm":
                self._line(sys.stdout, iterm(image))
                return
            if image.mime == "image/png":
                self._line(sys.stdout, kitty(image))
                return
        try:
            path = save(image, self._folder, self._stem)
        except OSError as error:
            self.say(f"a picture could not be saved in {self._folder}: {error.strerror}")
            return
        self.say(f"picture saved as {os.path.relpath(path)}")

    def _line(self, stream: TextIO, text: str) -> None:
        if not self._at_line_start:
            self._write(stream, "\n")
        self._write(stream, text if text.endswith("\n") else text + "\n")

    def _write(self, stream: TextIO, text: str) -> None:
        if text:
            stream.write(text.encode("utf-8", "backslashreplace").decode("utf-8"))
            stream.flush()
            self._at_line_start = text.endswith("\n")


def save(image: Image, folder: Path, stem: str) -> Path:
    """Writes a picture under the first free name `<stem>-<n>.<type>`; nothing is overwritten."""
    number = 1
    while True:
        path = folder / f"{stem}-{number}{image.suffix}"
        try:
            with path.open("xb") as file:
                file.write(image.data)
            return path
        except FileExistsError:
            number += 1


def terminal_protocol() -> Literal["iterm", "kitty"] | None:
    """How this terminal shows pictures, by what it says of itself in the environment."""
    if os.environ.get("TMUX") or os.environ.get("TERM", "").startswith("screen"):
        return None
    if os.environ.get("KITTY_WINDOW_ID") or os.environ.get("TERM") in ("xterm-kitty", "xterm-ghostty"):
        return "kitty"
    if os.environ.get("TERM_PROGRAM") in ("iTerm.app", "WezTerm", "vscode", "mintty"):
        return "iterm"
    return None


def iterm(image: Image) -> str:
    """iTerm2's inline images protocol (iterm2.com, "Images")."""
    payload = base64.b64encode(image.data).decode("ascii")
    return f"\x1b]1337;File=inline=1;size={len(image.data)}:{payload}\x07"


def kitty(image: Image) -> str:
    """kitty's graphics protocol: PNG data, direct, in chunks of at most 4096 (kitty docs, "The transmission")."""
    payload = base64.b64encode(image.data).decode("ascii")
    chunks = [payload[start : start + _CHUNK] for start in range(0, len(payload), _CHUNK)]
    parts = []
    for number, chunk in enumerate(chunks):
        more = int(number < len(chunks) - 1)
        control = f"a=T,f=100,m={more}" if number == 0 else f"m={more}"
        parts.append(f"\x1b_G{control};{chunk}\x1b\\")
    return "".join(parts)


class Spinner:
    """A sign of life on standard error while a run is quiet; only where that is a terminal."""

    def __init__(self) -> None:
        console = Console(stderr=True)
        self._status = console.status("") if console.is_terminal else None
        self._words = ""
        self._shown = False

    def tell(self, event: Event) -> None:
        """What a run is at, for `tick` to show. Output ends the spinner: the line is the cell's."""
        match event:
            case Queued(position=position):
                self._words = f"waiting, place {position}"
            case Started():
                self._words = "running"
            case _:
                self.hide()

    def tick(self, seconds: float) -> None:
        if self._status is not None and seconds >= 1.0:
            self._status.update(f"{self._words or 'starting'} {seconds:.0f} s")
            if not self._shown:
                self._status.start()
                self._shown = True

    def hide(self) -> None:
        if self._status is not None and self._shown:
            self._status.stop()
            self._shown = False
