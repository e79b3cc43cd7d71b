"""`adopt`: take over a store directory of the npm packages."""

import os
from pathlib import Path
from typing import Annotated

import typer

from mountd.cli import options, report
from mountd.cli.options import Common
from mountd.cli.session import Session, run
from mountd.errnos import EXIT_UNVERIFIED
from mountd.values import counted, format_size


def adopt(
    directory: Annotated[
        Path,
        typer.Argument(metavar="DIR", help="Store directory of ddrive, hyperdrive or a daemon.", show_default=False),
    ],
    dry_run: options.DryRun = False,
    state: options.State = None,
    as_json: options.Json = False,
    no_start: options.NoStart = False,
) -> None:
    """Take over the drives of the npm packages with their keys; the directory itself is left as it is."""

    async def verb(session: Session) -> None:
        done = await session.call("adopt", path=str(place), dry_run=dry_run or None)
        word = "would take over" if dry_run else "took over"
        was = "was" if len(done["present"]) == 1 else "were"
        lines = [f"{drive['url']}  {'writable' if drive['writable'] else 'read-only'}" for drive in done["drives"]]
        here = f"; {present} of them {was} here already" if (present := len(done["present"])) else ""
        size = format_size(done["bytes"])
        session.say(done, [*lines, f"{word} {counted(done['feeds'], 'feed')}, {size}, {done['own']} your own{here}"])
        if done["refused"]:
            report.note_refused(done["refused"])
            session.exit_code = EXIT_UNVERIFIED

    place = Path(os.path.realpath(directory))
    run(Common(state, as_json, start=not no_start), verb)
