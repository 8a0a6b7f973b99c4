"""The tools as a toolset of Pydantic AI: `Agent(model, toolsets=[CellrunToolset()])`."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Self

from pydantic_ai import BinaryContent, ModelRetry, RunContext, ToolReturn
from pydantic_ai.tools import ToolDefinition
from pydantic_ai.toolsets import AbstractToolset, ToolsetTool
from pydantic_core import SchemaValidator, core_schema

from cellrun.adapters.tools import TIMEOUT, CodeTools
from cellrun.providers import Provider
from cellrun.remote.service import CellrunService

_ANY = SchemaValidator(core_schema.any_schema())


class CellrunToolset(AbstractToolset[Any]):
    """A kernel for an agent, and files in its folder. Parameters as those of CodeTools; `id` as Pydantic AI uses it.

    The kernel ends when the agent's run does, or, where `async with agent:` goes around several runs, when that block does.
    What a tool could not do is told to the model, which may try again; an exception of the code is output like any other.
    `metadata` of a tool's return has the status of the run, its id and the names of files.
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
        self._tools = CodeTools(provider, key=key, session_id=session_id, timeout=timeout, only=only)
        self._id = id
        self._entered = 0

    @property
    def id(self) -> str | None:
        return self._id

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
        if answer.failed:
            raise ModelRetry(answer.text)
        pictures = [BinaryContent(data=image.data, media_type=image.mime) for image in answer.images]
        return ToolReturn(return_value=[answer.text, *pictures] if pictures else answer.text, metadata=answer.told)
