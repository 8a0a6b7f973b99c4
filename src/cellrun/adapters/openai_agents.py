"""The tools for OpenAI's Agents SDK: `Agent(name=…, tools=CellrunTools().function_tools())`."""

from __future__ import annotations

import base64
import json
from typing import Any

from agents import FunctionTool, ToolOutputImage, ToolOutputText
from agents.tool_context import ToolContext

from cellrun.adapters.tools import CodeTools
from cellrun.service.tool_calls import Tool


class CellrunTools(CodeTools):
    """A kernel for an agent, and files in its folder. Parameters and life as those of CodeTools."""

    def function_tools(self) -> list[FunctionTool]:
        """For `Agent(tools=…)`. They give text, and pictures as images. A tool that could not do its work says so in its text."""
        return [self._function_tool(tool) for tool in self.tools]

    def _function_tool(self, tool: Tool) -> FunctionTool:
        async def invoke(context: ToolContext[Any], text: str) -> Any:
            try:
                arguments = json.loads(text or "{}")
            except ValueError:
                arguments = None
            if not isinstance(arguments, dict):
                return "The arguments are no JSON object."
            answer = await self.call(tool.name, arguments)
            if not answer.images:
                return answer.text
            return [
                ToolOutputText(text=answer.text),
                *(
                    ToolOutputImage(
                        image_url=f"data:{image.mime};base64,{base64.b64encode(image.data).decode('ascii')}"
                    )
                    for image in answer.images
                ),
            ]

        # Not strict: there every argument must be given, and these may be left out.
        return FunctionTool(
            name=tool.name,
            description=tool.description,
            params_json_schema=tool.schema,
            on_invoke_tool=invoke,
            strict_json_schema=False,
        )
