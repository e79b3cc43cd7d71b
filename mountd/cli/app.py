"""The `ddrive` command: its verbs, and what happens when one fails."""

import io
import operator
import os
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer

import mountd.cli
from ddrive.version import VERSION
from mountd.cli import report
from mountd.cli.calls import arranged
from mountd.cli.starting import loaded

PARSER_ERROR: type[Exception] = typer.BadParameter.__mro__[2]  # typer exports no base class of all wrong calls

VERBS = {
    "daemon": "engine.daemon",
    "status": "engine.status",
    "stop": "engine.stop",
    "list": "drives.list_drives",
    "create": "drives.create",
    "import": "transfer.import_",
    "export": "transfer.export",
    "mount": "mounting.mount",
    "unmount": "mounting.unmount",
    "info": "drives.info",
    "stats": "drives.stats",
    "ls": "look.ls",
    "cat": "look.cat",
    "du": "keeping.du",
    "download": "keeping.fetch",
    "clear": "holdings.clear",
    "verify": "holdings.verify",
    "rm": "removing.rm",
    "gc": "removing.gc",
    "adopt": "adopting.adopt",
    "log": "history.log",
    "diff": "versions.diff",
    "link": "linking.link",
    "unlink-drive": "linking.unlink_drive",
    "seed": "drives.seed",
    "unseed": "drives.unseed",
    "bootstrap": "bootstrap.bootstrap",
    "doctor": "doctor.doctor",
}
OTHER_NAMES = {"umount": "unmount", "pin": "download", "free": "clear"}
GROUPS = {"peer": "peers.app", "tag": "versions.tags", "keys": "keys.app", "db": "db.app", "graph": "graph.app"}


def _print_version(wanted: bool) -> None:
    if wanted:
        sys.stdout.write(f"ddrive {VERSION}\n")
        raise typer.Exit


def _ddrive(
    show_version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Mount drives by their key and read them on demand; make, serve and copy drives."""


def _program(word: str) -> typer.Typer:
    """Return the program for a call that begins with `word`: with that verb or group alone, with all for other words.

    Only what it consists of is loaded.
    """
    app = typer.Typer(
        name="ddrive",
        add_completion=False,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_ddrive)
    is_known = word in VERBS or word in OTHER_NAMES or word in GROUPS
    for name, place in VERBS.items():
        if name == word or not is_known:
            app.command(name)(_loaded(place))
    for name, verb in OTHER_NAMES.items():
        if name == word or not is_known:
            app.command(name, hidden=True)(_loaded(VERBS[verb]))
    for name, place in GROUPS.items():
        if name == word or not is_known:
            app.add_typer(_loaded(place), name=name)
    return app


def _loaded(place: str) -> Any:
    """Return what is called so in one of the modules of verbs."""
    return operator.attrgetter(place)(mountd.cli)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and end the process with its exit code."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    _open_streams()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors="surrogateescape")
    code = _run(arguments)
    try:
        sys.stdout.flush()
    except OSError:  # reported already; the interpreter would try once more
        report.silence_stdout()
    sys.exit(code)


def _open_streams() -> None:
    """Open the standard streams that the caller has closed, so that no other file gets their numbers.

    What is written to stdout then is an error as for every program, what is written to stderr is lost.
    """
    while (descriptor := os.open(os.devnull, os.O_RDONLY)) < 2:
        continue
    if descriptor > 2:
        os.close(descriptor)
    if sys.stdout is None:
        sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115 - for the whole life of the process
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115


def _run(arguments: Sequence[str]) -> int:
    """Return the exit code of one call."""
    arguments = arranged(arguments, GROUPS)
    as_json = "--json" in arguments
    command: Any = typer.main.get_command(_program(arguments[0]))
    loaded()
    try:
        code = command.main(args=list(arguments), prog_name="ddrive", standalone_mode=False)
        sys.stdout.flush()
    except PARSER_ERROR as error:
        return _wrong_call(error, as_json=as_json)
    except typer.Abort:
        return report.fail(KeyboardInterrupt(), as_json=as_json)
    except SystemExit:  # what prints the help ends so when nobody reads it
        report.silence_stdout()
        return report.EXIT_BROKEN_PIPE
    except (Exception, KeyboardInterrupt, BaseExceptionGroup) as error:
        return report.fail(error, as_json=as_json)
    return code if isinstance(code, int) else 0


def _wrong_call(error: Any, *, as_json: bool) -> int:
    path = error.ctx.command_path if getattr(error, "ctx", None) is not None else "ddrive"
    message = " ".join(str(error.format_message()).split()).rstrip(".") or "a verb is missing"
    advice = "" if report.ADVISED.search(message) else f": see {path} --help"
    return report.fail_usage(f"{message}{advice}", as_json=as_json, code=error.exit_code)
