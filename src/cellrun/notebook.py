"""What was run on a session, kept to make a notebook of."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from cellrun.limits import MIB
from cellrun.mime import size_of
from cellrun.result import DisplayOutput, ErrorInfo, Omission, Output, PageOutput, Result, StreamOutput

if TYPE_CHECKING:
    import nbformat

_KEPT: Final = 256 * MIB
_CELLS_KEPT: Final = 10_000


class History:
    """Cells and their results, the newest ones up to `keep` bytes; older cells lose their outputs,
    the oldest go."""

    def __init__(self, keep: int = _KEPT) -> None:
        self._keep = keep
        self._cells: deque[tuple[str, Result, int]] = deque(maxlen=_CELLS_KEPT)
        self._forgotten: deque[str] = deque(maxlen=_CELLS_KEPT)
        self._size = 0

    def add(self, code: str, result: Result) -> None:
        size = sum(_size(output) for output in result.outputs)
        if len(self._cells) == _CELLS_KEPT:
            self._forget()
        self._cells.append((code, result, size))
        self._size += size
        while self._size > self._keep and len(self._cells) > 1:
            self._forget()

    def _forget(self) -> None:
        code, _, size = self._cells.popleft()
        self._size -= size
        self._forgotten.append(code)

    def to_notebook(self, language_info: Mapping[str, Any]) -> nbformat.NotebookNode:
        """An nbformat 4 notebook. Updates of displays are applied to the cell that showed them."""
        import nbformat

        notebook: nbformat.NotebookNode = nbformat.v4.new_notebook()
        if language_info:
            notebook.metadata["language_info"] = dict(language_info)
        for code in self._forgotten:
            notebook.cells.append(nbformat.v4.new_code_cell(code))
        displays: dict[str, list[Any]] = {}
        for code, result, _ in self._cells:
            cell = nbformat.v4.new_code_cell(code, execution_count=result.execution_count)
            cell.outputs = outputs_of(result, displays)
            notebook.cells.append(cell)
        return notebook


def outputs_of(result: Result, displays: dict[str, list[Any]] | None = None) -> list[Any]:
    """The outputs of a result as nbformat 4 has them. `displays` gathers displays by id over several
    results: an update of an earlier one changes that one in place."""
    from nbformat.v4 import new_output

    displays = {} if displays is None else displays
    outputs: list[Any] = []
    for output in result.outputs:
        match output:
            case StreamOutput(name=name, text=text):
                outputs.append(new_output("stream", name=name, text=text))
            case DisplayOutput(data=data, metadata=metadata, display_id=display_id):
                earlier = displays.get(display_id or "", []) if output.of_earlier else []
                for node in earlier:
                    node["data"], node["metadata"] = dict(data), dict(metadata)
                if earlier:
                    continue
                kind = "execute_result" if output.kind == "execute_result" else "display_data"
                node = new_output(kind, data=dict(data), metadata=dict(metadata))
                if kind == "execute_result":
                    node["execution_count"] = output.execution_count
                if display_id is not None:
                    displays.setdefault(display_id, []).append(node)
                outputs.append(node)
            case PageOutput(data=data):
                outputs.append(new_output("display_data", data=dict(data)))
            case Omission():
                note = output.note("stdout") + output.note("stderr") + output.note("displays")
                outputs.append(new_output("stream", name="stderr", text=note))
            case ErrorInfo():
                lines = output.traceback_ansi.split("\n")
                outputs.append(new_output("error", ename=output.name, evalue=output.value, traceback=lines))
    if result.status in ("timeout", "kernel_died") and result.reason:
        outputs.append(new_output("stream", name="stderr", text=f"[{result.status}: {result.reason}]\n"))
    return outputs


def _size(output: Output) -> int:
    match output:
        case StreamOutput(text=text):
            return len(text)
        case DisplayOutput(data=data) | PageOutput(data=data):
            return size_of(data)
        case ErrorInfo(traceback_ansi=traceback):
            return len(traceback)
        case _:
            return 0
