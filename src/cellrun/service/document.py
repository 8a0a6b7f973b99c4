"""The OpenAPI document, as it is true: FastAPI describes its own answer to a body that is not valid, and ours are problem details."""

from __future__ import annotations

from typing import Any, Final

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from cellrun.service.problem_response import MEDIA_TYPE

_OURS: Final = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/ProblemBody"}}}
_EVERYWHERE: Final = (
    "400",
    "401",
    "403",
    "413",
    "429",
    "507",
)  # what is refused before it is looked at, and a database that fails
_NOT_OURS: Final = ("HTTPValidationError", "ValidationError")


def document(app: FastAPI) -> dict[str, Any]:
    """Made once."""
    if app.openapi_schema is None:
        made = get_openapi(title=app.title, version=app.version, summary=app.summary, routes=app.routes)
        for operations in made["paths"].values():
            for operation in operations.values():
                operation["responses"] = _true(operation["responses"])
                for status in _EVERYWHERE:
                    operation["responses"].setdefault(status, {"description": "A problem", "content": _OURS})
        for name in _NOT_OURS:
            made["components"]["schemas"].pop(name, None)
        made["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
        made["security"] = [{}, {"key": []}]
        app.openapi_schema = made
    return app.openapi_schema


def _true(responses: dict[str, Any]) -> dict[str, Any]:
    found = {}
    for status, response in responses.items():
        if int(status) < 400:
            found[status] = response
        elif "HTTPValidationError" not in str(response):
            found[status] = {"description": response["description"], "content": _OURS}
    return found
