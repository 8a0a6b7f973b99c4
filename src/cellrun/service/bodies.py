"""Bodies of requests and answers, as the OpenAPI document describes them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from cellrun.limits import UNSET, Unset
from cellrun.service.runs import OnDisconnect, RunRequest


def _whole(text: str) -> str:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise ValueError("half a surrogate pair is no text") from None
    return text


Text = Annotated[str, AfterValidator(_whole)]


class RunBody(BaseModel):
    """A run that is asked for."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    code: Annotated[Text, Field(description="The cell")]
    timeout: Annotated[
        float | None, Field(ge=0, description="Seconds that it may run; left out: the service's own limit; null: none")
    ] = None
    stdin: Annotated[
        list[Text] | None, Field(description="Lines for input(); left out: they are asked for by input_request events")
    ] = None
    on_disconnect: Annotated[
        OnDisconnect | None, Field(description="What becomes of it when its starter goes away and nobody else watches")
    ] = None
    wait: Annotated[bool, Field(description="false: the answer comes at once and says where the run is")] = True

    def request(self, on_disconnect: OnDisconnect) -> RunRequest:
        """`on_disconnect`: what holds if nothing is said."""
        timeout: float | Unset | None = self.timeout if "timeout" in self.model_fields_set else UNSET
        stdin = None if self.stdin is None else tuple(self.stdin)
        return RunRequest(
            code=self.code, timeout=timeout, stdin=stdin, on_disconnect=self.on_disconnect or on_disconnect
        )


class InputBody(BaseModel):
    """The line that input() gets."""

    model_config = ConfigDict(extra="forbid")

    line: Annotated[Text, Field(max_length=1_000_000)]


class RunState(BaseModel):
    """A run, without what it put out."""

    execution_id: str
    session: str | None
    status: Annotated[
        str,
        Field(
            description="queued, running, waiting_for_input; or how it ended: ok, error, timeout, interrupted, kernel_died"
        ),
    ]
    created: Annotated[float, Field(description="Seconds since the epoch")]
    last: Annotated[int, Field(description="Number of its newest event")]


class SessionState(BaseModel):
    """A session."""

    id: str
    state: Literal["new", "idle", "running"]
    created: Annotated[float, Field(description="Seconds since the epoch")]
    used: Annotated[float, Field(description="Seconds since the epoch, to about a minute")]
    containment: Annotated[
        str | None, Field(description="What walls hold its kernel; null: unknown, or it has none yet")
    ]


class ListedRun(RunState):
    """A run of a session."""

    code: Annotated[
        str | None,
        Field(description="The cell; null: not asked for, or longer than 16384 characters: it is in the notebook"),
    ]


class SessionDetail(SessionState):
    """A session and its newest runs, newest first."""

    runs: list[ListedRun]


class SessionList(BaseModel):
    sessions: list[SessionState]


class FileState(BaseModel):
    path: str
    size: int | None
    modified: float
    is_dir: bool


class FileList(BaseModel):
    files: list[FileState]


class ProblemBody(BaseModel):
    """Problem details (RFC 9457)."""

    model_config = ConfigDict(extra="allow")

    type: str
    title: str
    status: int
    detail: str
    code: str
    retryable: bool


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """What else an address may answer, for the document."""
    content = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/ProblemBody"}}}
    return {status: {"description": "A problem", "model": ProblemBody, "content": content} for status in statuses}
