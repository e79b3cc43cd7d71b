"""The `ddrive` command: its verbs, and what happens when one fails."""

import io
import os
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import Annotated, Any

import typer

from mountd.cli import (
    adopting,
    bootstrap,
    db,
    doctor,
    drives,
    engine,
    graph,
    history,
    holdings,
    keeping,
    keys,
    linking,
    look,
    mounting,
    peers,
    removing,
    report,
    transfer,
    versions,
)
from mountd.cli.calls import arranged

PARSER_ERROR: type[Exception] = typer.BadParameter.__mro__[2]  # typer exports no base class of all wrong calls

app = typer.Typer(
    name="ddrive",
    help="Mount drives by their key and read them on demand; make, serve and copy drives.",
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
tag = typer.Typer(help="Names for versions of a drive.", pretty_exceptions_enable=False)
peer = typer.Typer(help="Known addresses of peers.", pretty_exceptions_enable=False)

VERBS: dict[str, Callable[..., None]] = {
    "daemon": engine.daemon,
    "status": engine.status,
    "stop": engine.stop,
    "list": drives.list_drives,
    "create": drives.create,
    "import": transfer.import_,
    "export": transfer.export,
    "mount": mounting.mount,
    "unmount": mounting.unmount,
    "info": drives.info,
    "stats": drives.stats,
    "ls": look.ls,
    "cat": look.cat,
    "du": keeping.du,
    "download": keeping.fetch,
    "clear": holdings.clear,
    "verify": holdings.verify,
    "rm": removing.rm,
    "gc": removing.gc,
    "adopt": adopting.adopt,
    "log": history.log,
    "diff": versions.diff,
    "link": linking.link,
    "unlink-drive": linking.unlink_drive,
    "seed": drives.seed,
    "unseed": drives.unseed,
    "bootstrap": bootstrap.bootstrap,
    "doctor": doctor.doctor,
}
for name, verb in VERBS.items():
    app.command(name)(verb)
app.command("umount", hidden=True)(mounting.unmount)
app.command("pin", hidden=True)(keeping.fetch)
app.command("free", hidden=True)(holdings.clear)
peer.command("add")(peers.add)
peer.command("rm")(peers.rm)
peer.command("ls")(peers.ls)
app.add_typer(peer, name="peer")
tag.command("add")(versions.add_tag)
tag.command("rm")(versions.remove_tag)
tag.command("ls")(versions.list_tags)
app.add_typer(tag, name="tag")
app.add_typer(keys.app, name="keys")
app.add_typer(db.app, name="db")
app.add_typer(graph.app, name="graph")


def _print_version(wanted: bool) -> None:
    if wanted:
        sys.stdout.write(f"ddrive {version('ddrive')}\n")
        raise typer.Exit


@app.callback()
def _ddrive(
    show_version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Mount drives by their key and read them on demand; make, serve and copy drives."""


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
    arguments = arranged(arguments, {group.name for group in app.registered_groups if group.name})
    as_json = "--json" in arguments
    command: Any = typer.main.get_command(app)
    try:
        code = command.main(args=list(arguments), prog_name="ddrive", standalone_mode=False)
        sys.stdout.flush()
    except PARSER_ERROR as error:
        return _wrong_call(error, as_json=as_json)
    except typer.Abort:
        return report.fail(KeyboardInterrupt(), as_json=as_json)
    except (Exception, KeyboardInterrupt, BaseExceptionGroup) as error:
        return report.fail(error, as_json=as_json)
    return code if isinstance(code, int) else 0


def _wrong_call(error: Any, *, as_json: bool) -> int:
    path = error.ctx.command_path if getattr(error, "ctx", None) is not None else "ddrive"
    message = " ".join(str(error.format_message()).split()).rstrip(".") or "a verb is missing"
    advice = "" if report.ADVISED.search(message) else f": see {path} --help"
    return report.fail_usage(f"{message}{advice}", as_json=as_json, code=error.exit_code)
