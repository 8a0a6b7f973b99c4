"""The cells on which two kernels are compared, by topic."""

from __future__ import annotations

from typing import Final

from tests.differential.cells.awaiting import AWAITING, COMMANDS, PROCESSES, THREADS
from tests.differential.cells.different import DIFFERENT
from tests.differential.cells.drawing import MATPLOTLIB, PANDAS
from tests.differential.cells.errors import ERRORS, INTERRUPTS, WARNINGS
from tests.differential.cells.language import LANGUAGE
from tests.differential.cells.magics import HELP, INPUT, MAGICS
from tests.differential.cells.results import COMMS, DISPLAYS, RESULTS
from tests.differential.cells.shape import Cell, Sequence
from tests.differential.cells.streams import PRINTS, SOURCES, STREAMS
from tests.differential.cells.surroundings import PROCESS, SHELL

SEQUENCES: Final = (
    *PRINTS,
    *STREAMS,
    *SOURCES,
    *RESULTS,
    *DISPLAYS,
    *COMMS,
    *ERRORS,
    *WARNINGS,
    *INTERRUPTS,
    *AWAITING,
    *THREADS,
    *COMMANDS,
    *PROCESSES,
    *MAGICS,
    *INPUT,
    *HELP,
    *PANDAS,
    *MATPLOTLIB,
    *SHELL,
    *PROCESS,
    *LANGUAGE,
    *DIFFERENT,
)

__all__ = ["SEQUENCES", "Cell", "Sequence"]
