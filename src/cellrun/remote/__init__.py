"""Sessions on a cellrun service, over its HTTP API."""
