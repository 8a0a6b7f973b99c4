"""`python -m cellrun` is the command."""

from cellrun.cli import main

main()
