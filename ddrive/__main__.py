"""`python -m ddrive` is the `ddrive` command, found by name: the library does not import the program around it."""

import runpy

runpy.run_module("mountd.cli", run_name="__main__", alter_sys=True)
