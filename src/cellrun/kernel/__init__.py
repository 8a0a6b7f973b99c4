"""The kernel that runs in a process of its own: ipykernel's IPythonKernel with a lean loop around it.

It speaks the Jupyter messaging protocol whole, so any Jupyter client can use it. What stock ipykernel spends on
five threads, two hops per message and an SQLite file is taken out; what it does with a cell is ipykernel's
and IPython's own code. Nothing here knows the rest of cellrun: this package is what a kernel process imports.

`python -m cellrun.kernel -f CONNECTION_FILE` is an ordinary kernel; `launch/forkserver_process.py` forks it.
"""
