"""The tools over plain HTTP."""
