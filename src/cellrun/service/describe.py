"""What a model is told of the tools: what the kernels here do, and no more."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from cellrun.service.tool_backend import Promises, within


@dataclass(frozen=True)
class Place:
    """The session that a call is for where it names none. `kind`: "chat": its header names it; "connection": it is that of the
    connection or process; "none": there is none."""

    kind: Literal["chat", "connection", "none"]
    session: str | None = None

    def named(self, name: str | None) -> str | None:
        """The session that an argument means: in a chat one of that chat's, so that a model cannot name another chat's. Raises
        Problem where a name does not fit into the chat's."""
        if not name:
            return self.session
        return within(self.session or "", name) if self.kind == "chat" else name


def described(promises: Promises, place: Place) -> dict[str, str]:
    """By the tools' names."""
    return {
        "run_code": _of_code(promises, place),
        "get_run": "Come back to a run: wait for its end, see its output so far, or read the part of a long text that was cut.",
        "interrupt": "Interrupt a run, as Ctrl-C does. Variables stay.",
        "restart": "Start a fresh kernel in this session: variables and imports go, files stay.",
        "list_files": f"List {_folder(promises)}.",
        "read_file": f"Read a file of {_folder(promises)}: text, or a picture.",
        "write_file": f"Create or replace a file in {_folder(promises)}, for code to use.",
    }


def _of_code(promises: Promises, place: Place) -> str:
    language = {"python": "Python", "": ""}.get(promises.language, promises.language)
    said = [
        f"Run {language} code in a Jupyter kernel and get what it prints, its last value, and figures as pictures.".replace(
            "  ", " "
        )
    ]
    if place.kind == "none":
        said.append("With `session`, variables and files stay for later calls with that name; without, nothing stays.")
    else:
        said.append("Variables, imports and files stay for later calls.")
    if place.kind != "none" and promises.idle is not None:
        goes = ", and variables and files with it" if promises.own_folder else ", and variables with it"
        said.append(f"Not used for {_time(promises.idle)}, the kernel ends{goes}.")
    if promises.timeout is not None:
        longest = (
            f", or `timeout`, up to {_time(promises.longest)}" if promises.longest is not None else ", or `timeout`"
        )
        said.append(f"It may take {_time(promises.timeout)}{longest}.")
    if promises.offline:
        said.append("There is no network: nothing can be downloaded or installed.")
    said.append("input() is not answered.")
    return " ".join(said)


def _folder(promises: Promises) -> str:
    return "the session's working folder" if promises.own_folder else "the working folder"


def _time(seconds: float) -> str:
    if seconds >= 120 and seconds % 60 == 0:
        return f"{seconds / 60:g} minutes"
    return f"{seconds:g} seconds"


def plain(value: dict[str, Any]) -> dict[str, Any]:
    """Without what pydantic adds and no model needs: titles, and the null of an argument that may be left out."""
    for choice in value.pop("anyOf", []):
        if choice.get("type") != "null":
            value |= choice
    value.pop("title", None)
    if value.get("default") is None:
        value.pop("default", None)
    return value
