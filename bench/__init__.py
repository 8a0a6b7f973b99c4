"""Measurements: `python -m bench`. Ratios between contenders that take turns in one run."""
