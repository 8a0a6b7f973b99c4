"""E2B's SDK from PyPI, as it is, in its debug mode: against the service, by its public API alone."""
