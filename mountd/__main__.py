"""`python -m mountd` is the `ddrive` command."""

from mountd.cli import main

main()
