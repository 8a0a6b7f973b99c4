"""The tools over MCP, asked by the `mcp` package's own client."""
