"""Lets `python -m containerfs` do what the installed command does."""

from containerfs.cli.main import main

main()
