"""A service for one test."""

from __future__ import annotations

from tests.service.conftest import own_service

__all__ = ["own_service"]
