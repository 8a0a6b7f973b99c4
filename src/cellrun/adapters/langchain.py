"""The tools for LangChain and LangGraph: `create_agent(model, CellrunToolkit().get_tools())`."""

from __future__ import annotations

import base64
from typing import Any, Literal

from langchain_core.tools import BaseTool, ToolException
from pydantic import PrivateAttr

from cellrun.adapters.tools import CodeTools
from cellrun.service.tool_backend import Answer
from cellrun.service.tool_calls import Tool


class CellrunToolkit(CodeTools):
    """A kernel for an agent, and files in its folder. Parameters and life as those of CodeTools."""

    def get_tools(self) -> list[BaseTool]:
        """For `bind_tools`, `create_agent` or a `ToolNode`. Their results are text, with pictures as image blocks; the artifact is a dict
        with the status of the run, its id and the names of files. A tool that could not do its work gives a message with status "error".
        """
        return [CellrunTool.of(self, tool) for tool in self.tools]


class CellrunTool(BaseTool):
    """One of the tools; `CellrunToolkit.get_tools()` makes them."""

    response_format: Literal["content", "content_and_artifact"] = "content_and_artifact"
    handle_tool_error: Any = True
    _toolkit: CellrunToolkit = PrivateAttr()

    @classmethod
    def of(cls, toolkit: CellrunToolkit, tool: Tool) -> CellrunTool:
        made = cls(name=tool.name, description=tool.description, args_schema=tool.schema)
        made._toolkit = toolkit
        return made

    def _run(self, **arguments: Any) -> tuple[Any, dict[str, Any]]:
        return _as_content(self._toolkit.call_blocking(self.name, arguments))

    async def _arun(self, **arguments: Any) -> tuple[Any, dict[str, Any]]:
        return _as_content(await self._toolkit.call(self.name, arguments))


def _as_content(answer: Answer) -> tuple[Any, dict[str, Any]]:
    if answer.failed:
        raise ToolException(answer.text)
    if not answer.images:
        return answer.text, answer.told
    blocks: list[dict[str, Any]] = [{"type": "text", "text": answer.text}]
    blocks += [
        {"type": "image", "base64": base64.b64encode(image.data).decode("ascii"), "mime_type": image.mime}
        for image in answer.images
    ]
    return blocks, answer.told
