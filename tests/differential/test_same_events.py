"""The same cells give the same events on stock ipykernel and on ours."""

from __future__ import annotations

import sys
from typing import Final

import pytest

from tests.differential.cells import SEQUENCES, Sequence
from tests.differential.runner import Pair, difference

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.skipif(sys.platform != "linux", reason="kernels are forked on Linux only; elsewhere both are stock"),
]


# What is meant to differ, and why. Each has a small sequence of its own in cells/different.py.
INTENDED: Final[dict[str, str]] = {
    "lone surrogates that are printed": "stock loses all the text, with a traceback of its own; ours sends it",
    "lone surrogates that are displayed": "stock fails to send it; ours does",
    "lone surrogates in an error": "stock fails to send the error, and says only that; ours does",
    "undecodable bytes": "stock sends what is no UTF-8, so no JSON; ours sends a lone surrogate",
    "the descriptors of the streams": "stock's lead to the log of the process; ours to the front end",
    "a child that is given a stream": "stock's output of it goes to the log of the process; ours to the front end",
    "a write of one's own over cells": "IPython's recorder of output puts back the write of before; we have no recorder",
    "a hook of the stream": "a hook belongs to a thread; in stock another thread sends, which knows none",
    "the number in the name of a cell's file": "a hash in C instead of one in Python",
    "a warning of the compiler": "stock compiles a cell three times, and each time warns",
    "a call without parentheses": "stock transforms a cell twice, and each time says so",
    "the application": "there is no IPKernelApp",
    "what can be configured": "there is no IPKernelApp; the inline backend is loaded already",
    "the configuration of the shell": "the history keeps to memory; no connection file in it",
    "subshells": "they are stock's",
    "a breakpoint": "debugpy takes breakpoint() and does nothing with it; without debugpy it is IPython's debugger",
    "debuggers that are loaded": "debugpy is stock's",
    "libraries that are loaded": "they are loaded before the fork",
    "objects that the collector leaves alone": "what was there before the fork is frozen",
    "variables for debuggers and parents": "no debugpy, and the parent is watched by a pipe",
    "the name of the process": "a forked process has a name of its own",
    "the backend": "the inline backend is loaded already, and with it matplotlib is interactive",
    "a figure without pyplot": "the inline backend is loaded already, so a figure without pyplot is drawn, too",
    "the threads": "one thread besides the main one instead of eight",
    "the frames below a cell": "a loop of our own",
    "the file of the kernel's code": "a class of our own",
    "the hash of a text": "forked kernels share the hash seed of their parent; stock has another one in each",
}

SAME: Final = [sequence for sequence in SEQUENCES if sequence.topic != "different"]
# A tenth of them all over the topics, and the rest where there is more time.
CHOSEN: Final = [
    pytest.param(sequence, id=sequence.title, marks=[] if number % 10 == 0 else pytest.mark.wide)
    for number, sequence in enumerate(SAME)
]
DIFFERENT: Final = [sequence for sequence in SEQUENCES if sequence.topic == "different"]


@pytest.mark.parametrize("sequence", CHOSEN)
async def test_both_kernels_give_the_same_events(pair: Pair, sequence: Sequence) -> None:
    stock, ours = await pair.run(sequence)
    if stock != ours:
        pytest.fail(difference(stock, ours), pytrace=False)


@pytest.mark.parametrize("sequence", DIFFERENT, ids=lambda sequence: sequence.title)
async def test_what_is_meant_to_differ_does(pair: Pair, sequence: Sequence) -> None:
    stock, ours = await pair.run(sequence, same=False)
    assert stock != ours, f"no difference any more: {INTENDED[sequence.name]}"


async def test_every_difference_that_is_meant_has_its_cells() -> None:
    assert set(INTENDED) == {sequence.name for sequence in DIFFERENT}
    assert len({sequence.title for sequence in SEQUENCES}) == len(SEQUENCES)
