"""What the service tells Prometheus. Names, labels and units are documented in docs/reference/service.md."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from cellrun.events import ErrorOutput, Event, Stderr, Stdout

_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
_CAUSES: Final = (
    ("out of memory", "out_of_memory"),
    ("the service", "service"),
    ("killed by", "signal"),
    ("was killed", "killed"),
    ("exited with code", "exit"),
)


class Metrics:
    """One registry for each service."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        of: Any = {"registry": self.registry}
        self.runs = Gauge("cellrun_runs_active", "Runs that wait or go on", **of)
        self._ended = Counter("cellrun_runs", "Runs that have ended, by status", ["status"], **of)
        self._seconds = Histogram("cellrun_run_seconds", "From the request to the end", buckets=_SECONDS, **of)
        self._deaths = Counter("cellrun_kernel_deaths", "Runs that ended with their kernel, by cause", ["cause"], **of)
        self._output = Counter("cellrun_output_bytes", "Text that runs have written", **of)
        self._errors = Counter("cellrun_code_errors", "Exceptions of the users' code", **of)
        self._requests = Histogram(
            "cellrun_http_seconds",
            "Answers, to their first byte",
            ["method", "route", "status"],
            buckets=_SECONDS,
            **of,
        )
        self.kernels = Gauge("cellrun_kernels", "Kernels of this machine, by state", ["state"], **of)
        self.waiting = Gauge("cellrun_kernels_waited_for", "Sessions that wait for a kernel", **of)
        self.containment = Gauge("cellrun_containment", "1, with the form of containment", ["form"], **of)
        self.watchers = Gauge("cellrun_watchers", "Streams that are being read", **of)

    def count(self, events: Sequence[Event]) -> None:
        for event in events:
            if isinstance(event, Stdout | Stderr):
                self._output.inc(
                    len(event.text) if event.text.isascii() else len(event.text.encode("utf-8", "replace"))
                )
            elif isinstance(event, ErrorOutput):
                self._errors.inc()

    def ended(self, status: str, reason: str | None, seconds: float) -> None:
        self._ended.labels(status).inc()
        self._seconds.observe(seconds)
        if status == "kernel_died":
            self._deaths.labels(cause_of(reason)).inc()

    def answered(self, method: str, route: str, status: int, seconds: float) -> None:
        self._requests.labels(method, route, str(status)).observe(seconds)

    def text(self) -> bytes:
        """The text format of Prometheus."""
        return generate_latest(self.registry)


def cause_of(reason: str | None) -> str:
    """One word of a few for why a kernel died.

    >>> (
    ...     cause_of("out of memory, limit 512 MB: …"),
    ...     cause_of("the kernel process was killed by SIGSEGV …"),
    ...     cause_of(None),
    ... )
    ('out_of_memory', 'signal', 'other')
    """
    return next((word for text, word in _CAUSES if reason is not None and text in reason), "other")
