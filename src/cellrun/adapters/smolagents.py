"""An executor for smolagents: `CodeAgent(tools=[…], model=model, executor=CellrunExecutor())`."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final, Self

import PIL.Image
from smolagents import AgentLogger, LogLevel, MultiStepAgent, Tool
from smolagents.default_tools import FinalAnswerTool
from smolagents.local_python_executor import CodeOutput
from smolagents.remote_executors import RemotePythonExecutor
from smolagents.serialization import SerializationError
from smolagents.utils import AgentError

from cellrun.adapters.tools import TIMEOUT, ended
from cellrun.errors import SessionLost, Unsupported
from cellrun.limits import Limits
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

    A kernel that comes after one that has died, and a session that comes after one that a service has ended, get them anew before the next
    step, whose logs say that other variables are gone.

    The kernel is started by the first step, and ends with `cleanup()`, which `CodeAgent` calls at the end of its `with` block, or with the
    process. Raises ValueError for parameters that do not go together; AgentError for code that fails, with what it had printed, which the
    agent tells its model; Unsupported for managed agents; ConnectionFailed, KernelStartError and AuthenticationError where there is no kernel
    to be had.
    """

    def __init__(
        self,
        provider: Provider | CellrunService | str | None = None,
        *,
        key: str | None = None,
        session_id: str | None = None,
        timeout: float | None = TIMEOUT,
        logger: AgentLogger | None = None,
    ) -> None:
        super().__init__([], logger or AgentLogger(level=LogLevel.OFF), allow_pickle=False)
        self.state: dict[str, Any] = {}
        """`_print_outputs`: what the last step printed. The agent looks for it where a step failed."""
        self._make = partial(
            Session, provider, limits=Limits(timeout=timeout), key=key, session_id=session_id, history=False
        )
        self._session = self._make()
        self._sent: dict[str, str] = {}  # the code of the agent's variables, and of its tools, as it sent them last
        self._sending: str | None = None
        self._bare = False  # whether there may be a kernel that lacks some of it
        self._gone: str | None = None  # why an earlier kernel is, where the model has not been told

    def __call__(self, code_action: str) -> CodeOutput:
        self.state["_print_outputs"] = ""
        self._prepare()
        result = self._run(code_action)
        gone, self._gone = self._gone, None
        notes = "" if gone is None else f"[the kernel was restarted and its variables are gone: {gone}]\n"
        if result.restarted and self._sent:
            notes += "[the agent's tools were not there in this step; they are in the next one]\n"
        return self._output(result, notes)

    def run_code_raise_errors(self, code: str) -> CodeOutput:
        """What the base class sends beside the steps."""
        if self._sending is not None:
            self._sent[self._sending] = code
        return self._output(self._run_anywhere(code))

    def send_variables(self, variables: dict[str, Any]) -> None:
        self._send("variables", partial(super().send_variables, variables))

    def send_tools(self, tools: dict[str, Tool]) -> None:
        """Raises Unsupported for managed agents: an agent's model is here, and would have to be called from the kernel."""
        agents = [name for name, tool in tools.items() if isinstance(tool, MultiStepAgent)]
        if agents:
            raise Unsupported(
                f"managed agents cannot go into a kernel, nor into smolagents' own remote executors: {', '.join(agents)}; "
                "give the agent tools alone"
            )
        self._send("tools", partial(super().send_tools, tools))

    def _send(self, what: str, send: Callable[[], object]) -> None:
        self._sending = what
        try:
            send()
        finally:
            self._sending = None

    def _patch_final_answer_with_exception(self, final_answer_tool: FinalAnswerTool) -> None:
        """An agent sends its tools with each of its runs. Patched twice, the answer of the second run would be a NameError (smolagents 1.26)."""
        if not hasattr(final_answer_tool, "_forward"):
            super()._patch_final_answer_with_exception(final_answer_tool)

    def _prepare(self) -> None:
        """A kernel with what the agent sent. Before the step, not after it: there it would have run without."""
        if self._run_anywhere("").status == "kernel_died":  # since the last step
            self._run_anywhere("")
        if not self._bare:
            return
        for what, code in self._sent.items():
            result = self._run(code)
            if result.status != "ok" or result.restarted:
                raise AgentError(f"a new kernel did not take the agent's {what}: {_why(result)}", self.logger)
        self._bare = False

    def _run(self, code: str) -> Result:
        result = self._session.run(code, stdin=())
        if result.restarted:
            self._bare, self._gone = True, result.restarted
        return result

    def _run_anywhere(self, code: str) -> Result:
        """In a fresh session where a service has ended the one that there was."""
        try:
            return self._run(code)
        except SessionLost as error:
            why = ended(error)
            if why is None or self._session.closed:
                raise
            self._session.close()
            self._session = self._make()
            self._bare, self._gone = True, f"{why}; its files may be gone, too"
            return self._run(code)

    def _output(self, result: Result, notes: str = "") -> CodeOutput:
        logs = notes + _printed(result)
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
            raise AgentError(_why(result), self.logger)
        return CodeOutput(output=_value(result), logs=logs, is_final_answer=False)

    def install_packages(self, additional_imports: list[str]) -> list[str]:
        """Those that are not there yet. A contained kernel has no network: there it raises AgentError, and they are to be installed where the
        kernels come from."""
        names = [name for name in additional_imports if name]
        missing = self._missing(names)
        if missing:
            done = self._run(f"%pip install -q --retries 0 --disable-pip-version-check {' '.join(missing)}")
            left = self._missing(missing)
            if left:
                raise AgentError(
                    f"the tools need {', '.join(left)}, which cannot be installed from the kernel; install it where the kernels come "
                    f"from: {done.text[-500:]}",
                    self.logger,
                )
        return names

    def _missing(self, names: list[str]) -> list[str]:
        result = self._run_anywhere(_MISSING.format(names=names))
        try:
            found = json.loads(result.stdout.splitlines()[-1])
            return [name for name in names if name in found]
        except (ValueError, IndexError, TypeError):
            raise AgentError(f"the kernel did not say which packages it has: {_why(result)}", self.logger) from None

    def cleanup(self) -> None:
        """Ends the kernel. A later step raises SessionLost."""
        self._session.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.cleanup()


def _printed(result: Result) -> str:
    notes = [f"[output was dropped: {line}]\n" for line in result.dropped]
    return "".join([*notes, result.stdout, result.stderr])


def _why(result: Result) -> str:
    """It did not come to a good end."""
    if result.error is not None:
        return result.error.traceback or f"{result.error.name}: {result.error.value}"
    return result.reason or result.restarted or result.stderr[-500:]


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
