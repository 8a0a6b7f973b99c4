"""The Result of an execution: everything it showed, in order, and how it ended."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from cellrun.errors import ExecutionFailed
from cellrun.events import Status
from cellrun.mime import Image, image_of, readable
from cellrun.terminal import render, strip_ansi


@dataclass(frozen=True)
class StreamOutput:
    """Text of one stream, "stdout" or "stderr", as the kernel sent it."""

    name: str
    text: str


@dataclass(frozen=True)
class DisplayOutput:
    """A displayed MIME bundle in its last state. `kind` is "display", or "execute_result" with the
    cell's `execution_count`. `of_earlier`: it is the update of a display of an earlier execution."""

    data: Mapping[str, Any]
    metadata: Mapping[str, Any]
    kind: str = "display"
    execution_count: int | None = None
    display_id: str | None = None
    of_earlier: bool = False


@dataclass(frozen=True)
class PageOutput:
    """The text of a pager (`len?`), a MIME bundle."""

    data: Mapping[str, Any]


@dataclass(frozen=True)
class Omission:
    """At this place the Result left something out to keep within its limits: bytes of text by
    stream, and a number of displays."""

    stdout: int = 0
    stderr: int = 0
    displays: int = 0

    def note(self, what: str) -> str:
        size = getattr(self, what)
        return (
            f"\n[… {size} {'displays' if what == 'displays' else f'bytes of {what}'} left out here …]\n" if size else ""
        )


@dataclass(frozen=True)
class ErrorInfo:
    """The exception that ended the cell. `traceback` has no ANSI sequences, `traceback_ansi` has
    those that the kernel sent."""

    name: str
    value: str
    traceback_ansi: str

    @cached_property
    def traceback(self) -> str:
        return strip_ansi(self.traceback_ansi)


Output = StreamOutput | DisplayOutput | PageOutput | Omission | ErrorInfo


@dataclass(frozen=True)
class Result:
    """What `run()` gives back and `fold()` makes of the events of one execution.

    `status` is "ok", "error", "timeout", "interrupted" or "kernel_died"; `reason` says why where the
    status alone does not. `duration` is in seconds. `truncated` is True where the Result left
    something out; `stdout_size` and `stderr_size` are the true sizes in bytes of UTF-8. `dropped`
    holds a line for each report of output that was lost on the way. `restarted` is the reason why
    this run found a new kernel, else None. `files`: names of the files in the session's folder that
    the execution created or changed, None where the provider cannot know.
    """

    execution_id: str
    status: Status
    outputs: tuple[Output, ...] = ()
    error: ErrorInfo | None = None
    execution_count: int | None = None
    duration: float = 0.0
    reason: str | None = None
    truncated: bool = False
    stdout_size: int = 0
    stderr_size: int = 0
    dropped: tuple[str, ...] = ()
    restarted: str | None = None
    files: tuple[str, ...] | None = None
    payloads: tuple[Mapping[str, Any], ...] = field(default=(), repr=False)

    @property
    def ok(self) -> bool:
        return self.status == "ok"

    @cached_property
    def stdout(self) -> str:
        """All text of standard output, as sent."""
        return self._stream("stdout")

    @cached_property
    def stderr(self) -> str:
        """All text of standard error, as sent. An exception is in `error`, not here."""
        return self._stream("stderr")

    def _stream(self, name: str) -> str:
        parts = []
        for output in self.outputs:
            if isinstance(output, StreamOutput) and output.name == name:
                parts.append(output.text)
            elif isinstance(output, Omission):
                parts.append(output.note(name))
        return "".join(parts)

    @cached_property
    def text(self) -> str:
        """The whole as a person reads it: streams as a terminal leaves them, the readable form of
        each display, the pager's text, the traceback; in order, without ANSI, without a final newline."""
        blocks: list[str] = []
        stream: list[str] = []

        def end_stream() -> None:
            if stream:
                blocks.append(render("".join(stream)))
                stream.clear()

        for output in self.outputs:
            if isinstance(output, StreamOutput):
                stream.append(output.text)
                continue
            if isinstance(output, Omission) and not output.displays:
                stream.append(f"\n[… {output.stdout + output.stderr} bytes left out here …]\n")
                continue
            end_stream()
            if isinstance(output, Omission):
                blocks.append(output.note("displays").strip("\n"))
            elif isinstance(output, ErrorInfo):
                blocks.append(output.traceback or f"{output.name}: {output.value}")
            else:
                blocks.append(render(readable(output.data)))
        end_stream()
        text = ""
        for block in blocks:
            text += block if not text or text.endswith("\n") else "\n" + block
        return text.rstrip("\n")

    @cached_property
    def images(self) -> tuple[Image, ...]:
        """The pictures, one for each display that holds one."""
        bundles = (o.data for o in self.outputs if isinstance(o, DisplayOutput))
        return tuple(image for image in map(image_of, bundles) if image is not None)

    def raise_for_error(self) -> Result:
        """The result itself if the status is "ok"; otherwise ExecutionFailed with it inside."""
        if self.ok:
            return self
        what = f"{self.error.name}: {self.error.value}" if self.error else (self.reason or "no reason is known")
        raise ExecutionFailed(f"The execution ended with status {self.status!r}: {what}", self)

    def to_dict(self) -> dict[str, Any]:
        """The result as JSON-ready data, spelled as on the wire (see `cellrun.wire`)."""
        from cellrun.wire import result_to_dict

        return result_to_dict(self)
