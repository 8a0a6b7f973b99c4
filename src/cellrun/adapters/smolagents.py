"""An executor for smolagents: `CodeAgent(tools=[…], model=model, executor=CellrunExecutor())`."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any, Final, Self

import PIL.Image
from smolagents import AgentLogger, LogLevel
from smolagents.local_python_executor import CodeOutput
from smolagents.remote_executors import RemotePythonExecutor
from smolagents.serialization import SerializationError
from smolagents.utils import AgentError

from cellrun.limits import UNSET, Limits, Unset
from cellrun.mime import image_of, joined
from cellrun.providers import Provider
from cellrun.remote.service import CellrunService
from cellrun.result import DisplayOutput, Result
from cellrun.service.model_view import scaled
from cellrun.sync import Session

# What a tool needs is the names of the modules that it imports, or of packages where its author says so: `yaml` and `PyYAML` are both there.
_MISSING: Final = """
import importlib.metadata as _metadata, importlib.util as _util, json as _json
def _missing(names):
    for name in names:
        try:
            _metadata.distribution(name)
        except _metadata.PackageNotFoundError:
            if _util.find_spec(name.partition(".")[0]) is None:
                yield name
print(_json.dumps(list(_missing({names!r}))))
del _missing, _metadata, _util, _json
"""


class CellrunExecutor(RemotePythonExecutor):
    """Runs a CodeAgent's code in a kernel: contained, with its variables kept between steps.

    provider, key, session_id: as for AsyncSession; `timeout`: seconds for one step (None: no limit), after which it is interrupted. The
    agent's tools and the variables that it is given go into the kernel as source and JSON; nothing that comes from there is unpickled.

    The kernel is started by the first step, and ends with `cleanup()`, which `CodeAgent` calls at the end of its `with` block, or with the
    process. Raises AgentError for code that fails, with what it had printed; the agent tells its model.
    """

    def __init__(
        self,
        provider: Provider | CellrunService | str | None = None,
        *,
        key: str | None = None,
        session_id: str | None = None,
        timeout: float | Unset | None = UNSET,
        logger: AgentLogger | None = None,
    ) -> None:
        super().__init__([], logger or AgentLogger(level=LogLevel.OFF), allow_pickle=False)
        self.state: dict[str, Any] = {}
        """`_print_outputs`: what the last step printed. The agent looks for it where a step failed."""
        limits = Limits() if isinstance(timeout, Unset) else Limits(timeout=timeout)
        self._session = Session(provider, limits=limits, key=key, session_id=session_id, history=False)

    def run_code_raise_errors(self, code: str) -> CodeOutput:
        result = self._session.run(code, stdin=())
        logs = _printed(result)
        self.state["_print_outputs"] = logs
        error = result.error
        if error is not None and error.name == self.FINAL_ANSWER_EXCEPTION:
            try:
                answer = self._deserialize_final_answer(error.value)
            except (SerializationError, ValueError, KeyError, TypeError, AttributeError, OSError) as problem:
                raise AgentError(f"the final answer could not be read: {problem}", self.logger) from None
            return CodeOutput(output=answer, logs=logs, is_final_answer=True)
        if result.status not in ("ok", "error"):
            raise AgentError(f"the code was not run to its end ({result.status}): {result.reason}", self.logger)
        if error is not None:
            raise AgentError(error.traceback or f"{error.name}: {error.value}", self.logger)
        return CodeOutput(output=_value(result), logs=logs, is_final_answer=False)

    def install_packages(self, additional_imports: list[str]) -> list[str]:
        """Those that are not there yet. A contained kernel has no network: there it raises AgentError, and they are to be installed where the
        kernels come from."""
        import json

        names = [name for name in additional_imports if name]
        missing = json.loads(self.run_code_raise_errors(_MISSING.format(names=names)).logs)
        if missing:
            done = self._session.run(
                f"%pip install -q --retries 0 --disable-pip-version-check {' '.join(missing)}", stdin=()
            )
            left = json.loads(self.run_code_raise_errors(_MISSING.format(names=missing)).logs)
            if left:
                raise AgentError(
                    f"the tools need {', '.join(left)}, which cannot be installed from the kernel; install it where the kernels come "
                    f"from: {done.text[-500:]}",
                    self.logger,
                )
        return names

    def cleanup(self) -> None:
        """Ends the kernel. A later step raises SessionLost."""
        self._session.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.cleanup()


def _printed(result: Result) -> str:
    notes = [f"[output was dropped: {line}]\n" for line in result.dropped]
    if result.restarted:
        notes.insert(0, f"[the kernel was restarted and its variables are gone: {result.restarted}]\n")
    return "".join([*notes, result.stdout, result.stderr])


def _value(result: Result) -> Any:
    """The value of the last line, as a picture where it is one, else as text; else the last picture that was shown."""
    shown = [output for output in result.outputs if isinstance(output, DisplayOutput)]
    values = [output for output in shown if output.kind == "execute_result"]
    if values:
        picture = _picture(values[-1].data)
        return picture or joined(values[-1].data.get("text/plain", ""))
    return next((picture for output in reversed(shown) if (picture := _picture(output.data)) is not None), None)


def _picture(data: Mapping[str, Any]) -> PIL.Image.Image | None:
    image = image_of(data)
    small = None if image is None else scaled(image)
    return None if small is None else PIL.Image.open(io.BytesIO(small.data))
