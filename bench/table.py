"""The figures as text and as JSON."""

from __future__ import annotations

import json
import os
import platform
import statistics
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from bench.measure import Check, Measured, Outcome

_LIBRARIES = ("cellrun", "aiohttp", "ipykernel", "jupyter_client", "jupyter_server", "pyzmq")


def row_text(measured: Measured) -> str:
    """One row: its contenders' medians, its ratios."""
    row = measured.row
    lines = [f"{row.name}: {row.title}  [{row.unit}, rounds: {measured.rounds}, {measured.seconds:.0f} s]"]
    for name, values in measured.values.items():
        spread = f"{_number(min(values))}–{_number(max(values))}"
        lines.append(f"    {name:<44} {_number(statistics.median(values)):>8}   {spread}")
    lines += [f"  → {_outcome_text(outcome, row.unit)}" for outcome in measured.outcomes]
    return "\n".join(lines)


def summary_text(rows: Iterable[Measured]) -> str:
    """All the ratios, one a line."""
    lines = ["ratios of medians (in brackets: nine times in ten)"]
    for measured in rows:
        row = measured.row
        lines += [f"{row.name:<18} {_outcome_text(outcome, row.unit)}" for outcome in measured.outcomes]
    return "\n".join(lines)


def _outcome_text(outcome: Outcome, unit: str) -> str:
    own_unit = "" if outcome.check.under else f" {unit}"
    value = f"{_number(outcome.value)}{own_unit}"
    interval = f"({_number(outcome.low)}–{_number(outcome.high)})"
    target = f"target {outcome.check.target}" if outcome.check.target else "no target"
    return f"{outcome.check.title:<58} {value:>9} {interval:<14} {target:<14} {outcome.word}".rstrip()


def _number(value: float) -> str:
    """Three digits that mean something."""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def write_json(path: Path, rows: Iterable[Measured], *, quick: bool) -> None:
    """The same, with every single value."""
    document = {
        "quick": quick,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}, {os.cpu_count()} processors",
        "libraries": {name: version(name) for name in _LIBRARIES},
        "rows": [_row(measured) for measured in rows],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _row(measured: Measured) -> dict[str, Any]:
    return {
        "name": measured.row.name,
        "title": measured.row.title,
        "unit": measured.row.unit,
        "rounds": measured.rounds,
        "seconds": round(measured.seconds, 1),
        "figures": {
            name: {"median": statistics.median(values), "min": min(values), "max": max(values), "values": values}
            for name, values in measured.values.items()
        },
        "checks": [_outcome(outcome) for outcome in measured.outcomes],
    }


def _outcome(outcome: Outcome) -> dict[str, Any]:
    check: Check = outcome.check
    return {
        "over": check.over,
        "under": check.under,
        "value": outcome.value,
        "interval": [outcome.low, outcome.high],
        "at_most": check.at_most,
        "at_least": check.at_least,
        "met": check.holds(outcome.value),
    }
