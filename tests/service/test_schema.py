"""The service keeps to its own document, whatever it is asked (schemathesis)."""

from __future__ import annotations

import re
from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.service.running import Service
from tests.support.waiting import HANG

CHECKS: Any = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]


@pytest.mark.timeout(400)
def test_no_request_gets_an_answer_that_the_document_does_not_have(service: Service) -> None:
    schema: Any = schemathesis.openapi.from_dict(requests.get(f"{service.url}/openapi.json", timeout=HANG).json())
    schema.config.base_url = service.url
    asked = 0
    for result in schema.get_all_operations():
        operation: Any = result.ok()

        @settings(
            max_examples=15,
            database=None,
            derandomize=True,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        def ask(case: Any) -> None:
            nonlocal asked
            asked += 1
            if isinstance(case.body, dict) and "code" in case.body:
                # What code does is not the question here, and a stream would be waited for.
                case.body["code"] = re.sub(r"[^ \n]", "1", str(case.body["code"])[:20]) or "1"
            case.call_and_validate(checks=CHECKS, timeout=HANG)

        given(operation.as_strategy())(ask)()  # type: ignore[no-untyped-call]
    assert asked >= 100
