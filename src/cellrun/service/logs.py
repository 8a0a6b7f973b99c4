"""The service's log: one line of JSON for each record, on standard error, with the ids of tenant and run where there are any."""

from __future__ import annotations

import asyncio
import json
import logging
from datetime import UTC, datetime
from typing import Any, Final

_EXTRA: Final = ("tenant", "run", "method", "path", "status", "seconds")


class JsonFormatter(logging.Formatter):
    """`time` (RFC 3339), `level`, `logger`, `message`, and what the record has of the ids and numbers above."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= {name: value for name in _EXTRA if (value := getattr(record, name, None)) is not None}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=True)


class CutOff(logging.Filter):
    """A request is cancelled by uvicorn only when the service ends, for a client that does not take its answer: no failure of ours. It is
    told once, not as two errors."""

    def filter(self, record: logging.LogRecord) -> bool:
        if record.name == "uvicorn.error" and str(record.msg).startswith("Cancel %s running task"):
            return False
        if record.name == "uvicorn.error" and '"WebSocket %s"' in str(record.msg):
            return False  # it names the address with its query, in which a token may stand; ours is the line about requests
        if record.name == "uvicorn.error" and str(record.msg).startswith("ASGI callable returned without completing"):
            return False  # said of each handshake that was answered with a refusal, after that was sent
        if record.exc_info and record.exc_info[0] is asyncio.CancelledError:
            record.levelno, record.levelname = logging.INFO, "INFO"
            record.msg, record.args, record.exc_info = "a client that did not take its answer was cut off", (), None
        return True


def log_to_stderr(*, level: str) -> None:
    """All of the service, and of uvicorn but for its own lines about requests, which ours replace."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter())
    handler.addFilter(CutOff())
    for name in ("cellrun", "uvicorn", "opentelemetry"):
        logger = logging.getLogger(name)
        logger.handlers[:] = [handler]
        # What uvicorn and websockets say for debugging has headers and addresses as they came, credentials among them.
        logger.setLevel(max(logging.INFO, logging.getLevelName(level.upper())) if name == "uvicorn" else level.upper())
        logger.propagate = False
    logging.getLogger("uvicorn.access").disabled = True
