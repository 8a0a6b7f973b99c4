"""Jupyter messaging as state machines: no I/O, no clock, no randomness. Ids and times are passed in.

The specification meant throughout is "Messaging in Jupyter", protocol version 5.4, of jupyter_client's
documentation; sections are named by their headings.
"""
