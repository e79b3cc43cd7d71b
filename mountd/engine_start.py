"""The first thing that an engine does: start the workers that its mounts lack, which load while the engine does.

So this module loads little itself. Started as `python -m mountd.engine_start --state DIRECTORY`.
"""

import argparse
import os
from contextlib import suppress

import mountd
from ddrive.errors import DriveError
from mountd.children import Spares, start_spares
from mountd.config import load_config
from mountd.interpreter import become_service


def main() -> None:
    """Run an engine as a process of its own, and end that with its exit code."""
    parser = argparse.ArgumentParser(prog="python -m mountd.engine_start")
    parser.add_argument("--state", required=True)
    state = os.path.abspath(parser.parse_args().state)
    become_service()
    spares = Spares()
    with suppress(DriveError):  # the engine comes across that again, and says so
        spares = start_spares(load_config({"state": state}))
    mountd.engine.run(state, spares)


if __name__ == "__main__":
    main()
