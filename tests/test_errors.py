from __future__ import annotations

import pytest

import cellrun
from cellrun.errors import (
    AuthenticationError,
    CellrunError,
    ConnectionFailed,
    ExecutionFailed,
    KernelStartError,
    LimitExceeded,
    ProtocolError,
    SessionLost,
    Unsupported,
    public_url,
)
from cellrun.result import Result

PLUMBING: list[tuple[type[CellrunError], str, bool]] = [
    (AuthenticationError, "authentication", False),
    (ConnectionFailed, "connection_failed", True),
    (KernelStartError, "kernel_start", False),
    (SessionLost, "session_lost", False),
    (LimitExceeded, "limit_exceeded", False),
    (ProtocolError, "protocol", False),
    (Unsupported, "unsupported", False),
]


@pytest.mark.parametrize(("cls", "code", "retryable"), PLUMBING)
def test_every_error_has_its_code_and_says_whether_a_retry_may_help(
    cls: type[CellrunError], code: str, retryable: bool
) -> None:
    error = cls("what was wrong")
    assert (str(error), error.code, error.retryable) == ("what was wrong", code, retryable)
    assert isinstance(error, CellrunError)


@pytest.mark.parametrize(("cls", "code", "retryable"), PLUMBING)
def test_where_it_is_raised_an_error_may_know_better(cls: type[CellrunError], code: str, retryable: bool) -> None:
    assert cls("x", retryable=not retryable).retryable is not retryable
    assert cls("x").retryable is retryable


def test_codes_are_unlike_each_other() -> None:
    # The command's own; known here only once they are imported.
    from cellrun.service.serve import ServeError
    from cellrun.settings import SettingsError

    classes: list[type[CellrunError]] = [CellrunError, *CellrunError.__subclasses__()]
    assert len({cls.code for cls in classes}) == len(classes)
    assert {cls for cls, _, _ in PLUMBING} | {ExecutionFailed, SettingsError, ServeError} == set(
        CellrunError.__subclasses__()
    )


@pytest.mark.parametrize("cls", [CellrunError, ExecutionFailed, *(cls for cls, _, _ in PLUMBING)])
def test_every_error_can_be_imported_from_the_front_door(cls: type[CellrunError]) -> None:
    assert getattr(cellrun, cls.__name__) is cls


def test_a_failed_execution_carries_its_result() -> None:
    result = Result("e", "error")
    error = ExecutionFailed("it failed", result)
    assert error.result is result
    assert (error.code, error.retryable) == ("execution_failed", False)


@pytest.mark.parametrize(
    ("url", "public"),
    [
        ("http://host", "http://host"),
        ("http://host:8888/base/", "http://host:8888/base/"),
        ("https://host/a/b", "https://host/a/b"),
        ("http://host/?token=SECRET", "http://host/"),
        ("http://host/#SECRET", "http://host/"),
        ("http://me:SECRET@host:1/x", "http://host:1/x"),
        ("http://SECRET@host/", "http://host/"),
        ("http://me:SEC@RET@host/", "http://host/"),
        ("http://[::1]:8888/x?token=SECRET", "http://[::1]:8888/x"),
        ("ws://host/api/kernels/1/channels?token=SECRET&session_id=2", "ws://host/api/kernels/1/channels"),
        ("HTTP://Host/", "http://host/"),
    ],
)
def test_an_address_is_shown_without_its_secrets(url: str, public: str) -> None:
    assert public_url(url) == public


@pytest.mark.parametrize(
    "url",
    [
        "",
        "SECRET",
        "host:8888/?token=SECRET",
        "http:///?token=SECRET",
        "/x?token=SECRET",
        "http://host:99999/?token=SECRET",
        "http://host:SECRET/",
        "http://[SECRET/",
        "http://me:SEC/RET@host/",
        "http://me:SEC?RET@host/",
        "http://me:SEC#RET@host/",
    ],
)
def test_an_address_that_cannot_be_read_is_not_shown(url: str) -> None:
    shown = public_url(url)
    assert shown.startswith("(an address")
    assert "SEC" not in shown


def test_a_password_with_a_slash_after_digits_is_not_shown() -> None:
    # To a parser the port is 123 and the rest of the password begins the path.
    assert "SECRET" not in public_url("http://me:123/SECRET@host/")
