"""The command line: one module per group of verbs."""

from mountd.cli.app import main

__all__ = ["main"]
