"""The service's log: one line of JSON for each record, on standard error, with the ids of tenant and run where there are any."""

from __future__ import annotations

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


def log_to_stderr(*, level: str) -> None:
    """All of the service, and of uvicorn but for its own lines about requests, which ours replace."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter())
    for name in ("cellrun", "uvicorn"):
        logger = logging.getLogger(name)
        logger.handlers[:] = [handler]
        logger.setLevel(level.upper())
        logger.propagate = False
    logging.getLogger("uvicorn.access").disabled = True
