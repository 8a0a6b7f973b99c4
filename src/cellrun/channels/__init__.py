"""The ways to a running kernel: a WebSocket of a Jupyter server, ZeroMQ on this machine, a transcript."""
