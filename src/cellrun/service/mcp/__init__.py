"""The Model Context Protocol: over standard input and output (`cellrun mcp`), and in the service at `/mcp`."""
