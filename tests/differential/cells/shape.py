"""What a cell and a sequence of cells are, and the short ways to write them down."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass, replace
from typing import Literal

Order = Literal["exact", "apart", "lines"]


@dataclass(frozen=True, kw_only=True)
class Cell:
    """Code, how it is run, and what of its output cannot be compared.

    ==============  ==========================================================================
    `stdin`         lines for input(); None: the cell may not ask
    `interrupt_at`  the cell is interrupted when this text has come on standard output
    `late_until`    after the cell, late output is waited for until this text is in it
    `order`         "exact"; "apart": what comes on the two streams has no order between them;
                    "lines": nor have the lines of one stream, since they take different ways
                    (sys.stdout and the descriptor 1, or several threads or processes)
    `mask`          regular expressions whose matches differ from run to run, times for instance
    ==============  ==========================================================================
    """

    code: str
    stdin: tuple[str, ...] | None = None
    silent: bool = False
    store_history: bool = True
    interrupt_at: str | None = None
    late_until: str | None = None
    order: Order = "exact"
    mask: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Sequence:
    """Cells that run in order in one kernel. `fresh`: in one that has run nothing before, and that is
    thrown away afterwards."""

    name: str
    cells: tuple[Cell, ...]
    fresh: bool = False
    topic: str = ""

    @property
    def title(self) -> str:
        return f"{self.topic}: {self.name}"


def cell(
    code: str,
    *,
    stdin: tuple[str, ...] | None = None,
    silent: bool = False,
    store_history: bool = True,
    interrupt_at: str | None = None,
    late_until: str | None = None,
    order: Order = "exact",
    mask: tuple[str, ...] = (),
) -> Cell:
    """A cell of a text block: without the common indentation and without newlines at both ends."""
    return Cell(
        code=textwrap.dedent(code).strip("\n"),
        stdin=stdin,
        silent=silent,
        store_history=store_history,
        interrupt_at=interrupt_at,
        late_until=late_until,
        order=order,
        mask=mask,
    )


def one(
    name: str,
    code: str,
    *,
    fresh: bool = False,
    stdin: tuple[str, ...] | None = None,
    order: Order = "exact",
    mask: tuple[str, ...] = (),
) -> Sequence:
    """A sequence of one cell."""
    return Sequence(name=name, cells=(cell(code, stdin=stdin, order=order, mask=mask),), fresh=fresh)


def several(name: str, *cells: Cell | str, fresh: bool = False) -> Sequence:
    """A sequence of cells; those without options are given as text."""
    made = tuple(each if isinstance(each, Cell) else cell(each) for each in cells)
    return Sequence(name=name, cells=made, fresh=fresh)


def topic(
    name: str, *more: Sequence, sequences: tuple[Sequence, ...] = (), order: Order = "exact"
) -> tuple[Sequence, ...]:
    """Sequences under a name. `order` is that of the cells that say nothing else."""

    def placed(sequence: Sequence) -> Sequence:
        cells = tuple(replace(cell, order=order) if cell.order == "exact" else cell for cell in sequence.cells)
        return replace(sequence, cells=cells, topic=name)

    return tuple(map(placed, (*sequences, *more)))
