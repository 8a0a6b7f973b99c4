"""The tools as a toolset of Pydantic AI: `Agent(model, toolsets=[CellrunToolset()])`."""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping
from functools import partial
from typing import Any, Self

from pydantic import ValidationError
from pydantic_ai import BinaryContent, ModelRetry, RunContext, ToolReturn
from pydantic_ai.tools import ToolDefinition
from pydantic_ai.toolsets import AbstractToolset, ToolsetTool
from pydantic_core import SchemaValidator, core_schema

from cellrun.adapters.tools import TIMEOUT, CodeTools
from cellrun.providers import Provider
from cellrun.remote.service import CellrunService
from cellrun.service import tool_calls

_ANY = SchemaValidator(core_schema.any_schema())


class CellrunToolset(AbstractToolset[Any]):
    """A kernel for an agent, and files in its folder. Parameters as those of CodeTools; `id` as Pydantic AI uses it.

    Each of the agent's runs has a kernel of its own, which ends with it. Where `async with agent:` goes around several runs, they share one,
    which ends with the block. Wrong arguments are a retry, of which the agent sets the number; what else a tool could not do is told in
    what it returns, as an exception of the code is. `metadata` of a tool's return has the status of the run, its id and the names of files.
    """

    def __init__(
        self,
        provider: Provider | CellrunService | str | None = None,
        *,
        key: str | None = None,
        session_id: str | None = None,
        timeout: float | None = TIMEOUT,
        only: Collection[str] | None = None,
        id: str | None = None,
    ) -> None:
        self._make = partial(CodeTools, provider, key=key, session_id=session_id, timeout=timeout, only=only)
        self._tools = self._make()
        self._id = id
        self._entered = 0

    @property
    def id(self) -> str | None:
        return self._id

    async def for_run(self, ctx: RunContext[Any]) -> Self:
        """This one where a block holds it, else a fresh one: runs that overlap are not each other's business."""
        if self._entered:
            return self
        fresh = copy.copy(self)
        fresh._tools = self._make()
        return fresh

    async def __aenter__(self) -> Self:
        self._entered += 1
        return self

    async def __aexit__(self, *args: Any) -> bool | None:
        self._entered -= 1
        if self._entered == 0:
            await self._tools.aclose()
        return None

    async def get_tools(self, ctx: RunContext[Any]) -> dict[str, ToolsetTool[Any]]:
        return {
            tool.name: ToolsetTool(
                toolset=self,
                tool_def=ToolDefinition(
                    name=tool.name, description=tool.description, parameters_json_schema=tool.schema, strict=False
                ),
                max_retries=ctx.max_retries,
                args_validator=_ANY,  # the tools check their arguments themselves, and say what is wrong
            )
            for tool in self._tools.tools
        }

    async def call_tool(
        self, name: str, tool_args: dict[str, Any], ctx: RunContext[Any], tool: ToolsetTool[Any]
    ) -> Any:
        answer = await self._tools.call(name, tool_args)
        if answer.failed and not _fit(name, tool_args):
            raise ModelRetry(answer.text)
        pictures = [BinaryContent(data=image.data, media_type=image.mime) for image in answer.images]
        return ToolReturn(return_value=[answer.text, *pictures] if pictures else answer.text, metadata=answer.told)


def _fit(name: str, arguments: Mapping[str, Any]) -> bool:
    try:
        tool_calls.ARGUMENTS[name].model_validate(arguments)
    except ValidationError:
        return False
    return True
