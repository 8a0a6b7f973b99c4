"""What a policy takes and refuses."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellrun import LocalKernels, SandboxPolicy
from cellrun.launch.sandbox.policy import FIELDS, policy_from, policy_of, size_text


def test_a_policy_is_frozen_and_compares_by_value() -> None:
    assert SandboxPolicy(read_only=["/data"]) == SandboxPolicy(read_only=(Path("/data"),))
    assert len({SandboxPolicy(), SandboxPolicy()}) == 1
    with pytest.raises(AttributeError):
        SandboxPolicy().network = "full"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("fields", "error", "words"),
    [
        ({"memory": 1000}, ValueError, "memory=1000.*too little"),
        ({"processes": 1}, ValueError, "processes=1.*too little: a kernel needs 16"),
        ({"processes": 10**9}, ValueError, "no limit"),
        ({"files": None}, ValueError, "files=None"),
        ({"cpu": 0}, ValueError, "cpu=0.*above 0"),
        ({"cpu": float("inf")}, ValueError, "cpu=inf"),
        ({"open_files": 64}, ValueError, "open_files=64.*needs 80"),
        ({"memory": 2.5e9}, TypeError, "memory=2500000000.0.*whole number"),
        ({"read_only": [""]}, ValueError, "read_only.*empty path"),
        ({"lifetime": -1}, ValueError, "lifetime=-1"),
        ({"lifetime": float("nan")}, ValueError, "lifetime=nan"),
        ({"network": "some"}, ValueError, "network='some'.*none.*full"),
        ({"form": "weak"}, ValueError, "form='weak'"),
        ({"read_only": "/data"}, TypeError, "takes several"),
        ({"environment": "HOME"}, TypeError, "takes several"),
    ],
)
def test_a_value_that_makes_no_sense_is_named(fields: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        SandboxPolicy(**fields)


def test_a_path_may_begin_with_a_tilde() -> None:
    assert SandboxPolicy(read_only=["~/data"]).read_only == (Path.home() / "data",)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"pool": 1.5}, "pool must be a whole number"),
        ({"pool": -1}, "pool must be at least 0"),
        ({"max_kernels": 0}, "max_kernels must be at least 1"),
        ({"preload": "numpy"}, "preload=\\['numpy'\\]"),
        ({"preload": None}, "preload must be"),
        ({"kernel": ""}, "kernel must be the name"),
        ({"transport": "udp"}, "transport must be"),
        ({"env": {"A": 1}}, "env must have texts"),
        ({"queue_timeout": -1}, "queue_timeout must be zero or more"),
    ],
)
def test_an_argument_of_a_provider_that_makes_no_sense_is_named_at_once(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises((TypeError, ValueError), match=words):
        LocalKernels(**arguments)


def test_the_argument_of_a_provider_is_a_policy_or_one_of_two_words() -> None:
    assert policy_of("auto") == SandboxPolicy()
    assert policy_of("none") is None
    with pytest.raises(TypeError, match='must be "auto", "none" or a SandboxPolicy'):
        LocalKernels(sandbox="strong")  # type: ignore[arg-type]


def test_a_policy_is_read_from_texts() -> None:
    texts = {"memory": "1.5 GB", "disk": "none", "cpu": "0.5", "read_only": ["/a", "/b"], "environment": "HOME"}
    assert policy_from(texts) == SandboxPolicy(
        memory=1536 * 2**20, disk=None, cpu=0.5, read_only=("/a", "/b"), environment=("HOME",)
    )


@pytest.mark.parametrize(
    ("texts", "words"),
    [
        ({"memroy": "1"}, "nothing named 'memroy' to allow: there are read_only, "),
        ({"memory": "much"}, "memory='much' cannot be understood: a size such as 512MB"),
        ({"memory": "1 XB"}, "memory='1 XB'"),
        ({"processes": "few"}, "a whole number"),
        ({"cpu": "all"}, "a number, or none"),
        ({"network": "none of it"}, "must be one of"),
    ],
)
def test_a_text_that_is_no_value_is_named(texts: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        policy_from(texts)


@given(
    st.dictionaries(st.sampled_from(FIELDS) | st.text(max_size=5), st.text(max_size=8) | st.integers() | st.floats())
)
def test_any_texts_give_a_policy_or_a_value_error(texts: dict[str, Any]) -> None:
    with contextlib.suppress(ValueError):
        assert isinstance(policy_from(texts), SandboxPolicy)


def test_sizes_are_told_as_they_were_written() -> None:
    assert [size_text(n) for n in (512 * 2**20, 300_000_000, 3 * 2**19, 99)] == [
        "512 MB",
        "300 MB",
        "1.5 MB",
        "99 bytes",
    ]
