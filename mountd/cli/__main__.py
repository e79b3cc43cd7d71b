"""`python -m mountd.cli` and `python -m ddrive` are the `ddrive` command."""

from mountd.cli import main

main()
