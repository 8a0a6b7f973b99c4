"""What the tests of exhaustion and of ends have in common: two sessions side by side, and what is left of one."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any, Final

from cellrun.launch.sandbox import marks
from tests.abuse.conftest import Host, Inmate
from tests.support.waiting import HANG, PROCESS, process_exists

MB: Final = 2**20
_NAME: Final = "Max msgqueue size"


def until(condition: Callable[[], object], seconds: float = HANG) -> None:
    """Bounded waiting; AssertionError when the time is up."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.02)


@contextlib.contextmanager
def opened(host: Host, policy: str | dict[str, Any], **more: Any) -> Iterator[Inmate]:
    """A session, closed at the end, of which then nothing is left: no process, no room."""
    session = host.open(policy, **more)
    mark = mark_of(session) if policy != "none" else None
    try:
        yield session
    finally:
        session.close()
    if mark is not None:
        until(lambda: not living(mark))
        until(lambda: not os.path.exists(session.facts["room"]))


def mark_of(session: Inmate) -> int:
    """By which its processes are known, whatever they call themselves."""
    pid = session.facts["pid"]
    ours = _limit(os.getpid())
    return next(mark for mark in map(_limit, (pid, *marks.descendants(pid))) if mark not in (ours, -1))


def _limit(pid: int) -> int:
    with contextlib.suppress(OSError, ValueError), open(f"/proc/{pid}/limits", encoding="ascii") as file:
        for line in file:
            if line.startswith(_NAME):
                return int(line[len(_NAME) :].split()[1])
    return -1


def living(mark: int) -> list[int]:
    """Processes with this mark, wherever they are; no zombies."""
    return [pid for pid in marks.marked(None, mark) if process_exists(pid)]


def both(
    host: Host, form: str, code: str, small: dict[str, Any], large: dict[str, Any], **more: Any
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The same code under a small limit and under a larger one, at the same time. Nothing of either session is left. HOLD in it keeps
    what it got for as long as it takes to be looked at, where the system does not hold the limit itself: under the small one, where
    it should be ended for it, for as long as a busy machine may take."""
    with (
        opened(host, {"form": form, **small}, **more) as first,
        opened(host, {"form": form, **large}, **more) as second,
    ):
        one, other = first.begin(code.replace("HOLD", hold(host, HANG))), second.begin(code.replace("HOLD", hold(host)))
        return answer(one), answer(other)


def answer(future: Future[dict[str, Any]]) -> dict[str, Any]:
    """The result, without what would fill a page of an assertion's message."""
    result = future.result(PROCESS + 20)
    return {
        **{name: result.get(name) for name in ("status", "reason", "error", "duration", "truncated")},
        **{name: (result.get(name) or "")[:2000] for name in ("stdout", "stderr")},
        **{name: result.get(name) for name in ("stdout_size", "stderr_size")},
    }


def held(result: dict[str, Any]) -> bool:
    """Whether an attack says that it got all that it wanted. Its last line is "held" then."""
    return result["status"] == "ok" and bool(result["stdout"].endswith("held\n"))


def hold(host: Host, seconds: float = 1.2) -> str:
    """Code that keeps what it got for so long, where the system does not hold the limit itself."""
    return f"import time; time.sleep({seconds})" if host.user == "ordinary" else "pass"
