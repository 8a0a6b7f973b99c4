"""From the messages that carry output to the events that say it. Source: Messaging in Jupyter,
"Messages on the IOPub (PUB/SUB) channel" and "Messages on the stdin (ROUTER/DEALER) channel"."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal

from cellrun.events import (
    ClearOutput,
    Comm,
    Display,
    DisplayUpdate,
    ErrorOutput,
    Event,
    ExecuteResult,
    InputRequest,
    OutputDropped,
    Stderr,
    Stdout,
)
from cellrun.protocol.message import Message

Translation = tuple[type[Event], dict[str, Any]]

_COMM_KINDS: Final = {"comm_open": "open", "comm_msg": "message", "comm_close": "close"}

# What jupyter_server writes into the stream "stderr" when its rate limits drop output (its
# services/kernels/connection/channels.py). There is no other sign of it.
_RATE_NOTICES: Final[Mapping[str, Literal["data_rate", "message_rate"]]] = {
    "IOPub data rate exceeded": "data_rate",
    "IOPub message rate exceeded": "message_rate",
}


def translate(message: Message) -> Translation | None:
    """The event class and fields of an output, input or comm message; None for every other type.

    Content that breaks the specification is read as far as it goes and never raises.
    """
    content = message.content
    match message.msg_type:
        case "stream":
            text = _text(content.get("text"))
            if content.get("name") != "stderr":
                return Stdout, {"text": text}
            reason = _rate_notice(message, text)
            if reason is not None:
                return OutputDropped, {"reason": reason, "detail": text.strip().partition("\n")[0]}
            return Stderr, {"text": text}
        case "display_data":
            return Display, {**_bundle(content), "display_id": _display_id(content)}
        case "update_display_data":
            return DisplayUpdate, {**_bundle(content), "display_id": _display_id(content)}
        case "execute_result":
            count = integer(content.get("execution_count"))
            return ExecuteResult, {**_bundle(content), "execution_count": count, "display_id": _display_id(content)}
        case "clear_output":
            return ClearOutput, {"wait": bool(content.get("wait"))}
        case "error":
            return error(content)
        case "input_request":
            return InputRequest, {"prompt": _text(content.get("prompt")), "password": bool(content.get("password"))}
        case "comm_open" | "comm_msg" | "comm_close" as kind:
            return Comm, {
                "kind": _COMM_KINDS[kind],
                "comm_id": _text(content.get("comm_id")),
                "target_name": content.get("target_name") if isinstance(content.get("target_name"), str) else None,
                "data": _mapping(content.get("data")),
                "metadata": message.metadata,
                "buffers": tuple(bytes(buffer) for buffer in message.buffers),
            }
    return None


def error(content: Mapping[str, Any]) -> Translation:
    """The ErrorOutput of an `error` message or of a reply with status "error": both have these keys."""
    lines = content.get("traceback")
    traceback = "\n".join(_text(line) for line in lines) if isinstance(lines, list) else _text(lines)
    return ErrorOutput, {
        "name": _text(content.get("ename")),
        "value": _text(content.get("evalue")),
        "traceback": traceback,
    }


def integer(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _rate_notice(message: Message, text: str) -> Literal["data_rate", "message_rate"] | None:
    # The server makes the notice with the client's own session id, so what the kernel prints, which
    # has the kernel's, cannot pass for one.
    session = message.header.get("session")
    if not session or session != message.parent_header.get("session"):
        return None
    return next((reason for start, reason in _RATE_NOTICES.items() if text.lstrip().startswith(start)), None)


def _bundle(content: Mapping[str, Any]) -> dict[str, Any]:
    return {"data": _mapping(content.get("data")), "metadata": _mapping(content.get("metadata"))}


def _display_id(content: Mapping[str, Any]) -> str | None:
    value = _mapping(content.get("transient")).get("display_id")
    return value if isinstance(value, str) else None


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _text(value: Any) -> str:
    return value if isinstance(value, str) else "" if value is None else str(value)
