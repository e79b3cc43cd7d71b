"""What the command line says: results to stdout, errors and progress to stderr, and the exit code that goes with them.

With `--json` stdout carries JSON alone. Colours, progress bars and questions appear on terminals only.
"""

import json
import os
import re
import sys
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import mountd.cli
from ddrive import errors
from mountd.cli.starting import EXIT_INTERRUPTED
from mountd.errnos import EXIT_OTHER, is_expected, to_exit_code, told

EXIT_BROKEN_PIPE = 141  # 128 + SIGPIPE, as `cat` ends when its reader has gone
SHOWN_REFUSALS = 10  # more are only counted; --json lists them all
DEBUG = "DDRIVE_DEBUG"  # set in the environment: internal errors show their traceback

ADVICE: dict[type[BaseException], str] = {
    errors.NoPeers: "start a peer that has it, or name one with --peer HOST:PORT",
    errors.TimedOut: "check that a peer that has it is running (ddrive peer ls), then try again",
    errors.NotHeld: "start a peer that has it, or name one with --peer HOST:PORT",
    errors.NotFound: "check the spelling; ddrive list shows the drives, ddrive ls and ddrive tag ls what is in one",
    errors.InvalidName: "choose another name",
    errors.NameTooLong: "choose a shorter name",
    errors.InvalidKey: "give 64 hex digits or a URL such as dweb://KEY/",
    errors.NotWritable: "only the one who made it can change it; a copy of your own can be changed",
    errors.Forked: "its author's key signed two histories; do not trust it",
    errors.Misauthored: "its author stored that; only he can mend it",
    errors.InvalidProof: "a peer sent wrong bytes; nothing of it was kept, try again",
    errors.CorruptStorage: "bytes on this disk are damaged; reading with a peer connected fetches them again",
    errors.ImpossibleEntry: "its author stored that; only he can mend it",
    errors.DiskFull: "free some space on the disk of the state directory",
    errors.StorageLocked: "another program uses this state directory; end it, or choose another with --state",
    errors.EngineError: "see engine.log in the log folder of the state directory",
    errors.MountFailed: "see the mount's log in the log folder of the state directory",
    errors.Closed: "the engine ended meanwhile; try again",
    errors.AlreadyExists: "choose another name, or work with what is there",
    errors.IsADirectory: "name a file in it; ddrive ls shows them",
    errors.NotADirectory: "name a directory",
    errors.TooManyLinks: "links lead in a circle there; name the target itself",
    errors.Unsupported: "such entries can only be listed",
}
ADVISED = re.compile(r": [a-z`]\S* \S")  # a message that tells already, after a colon, what to do


def say(value: Any, lines: Iterable[str], *, as_json: bool) -> None:
    """Write a result to stdout: `value` as one line of JSON, else `lines` for a person."""
    text = json.dumps(value) + "\n" if as_json else "".join(f"{line}\n" for line in lines)
    sys.stdout.write(text)
    sys.stdout.flush()


def note(text: str) -> None:
    """Tell a person something that is neither result nor error, on stderr, if anything can be written there."""
    with suppress(OSError):
        sys.stderr.write(f"ddrive: {printable(text)}\n")
        sys.stderr.flush()


def note_refused(refused: Sequence[Mapping[str, str]]) -> None:
    """Tell a person which paths were left out, and why."""
    for one in refused[:SHOWN_REFUSALS]:
        note(f"left out ({one['path']}): {one['why']}")
    if len(refused) > SHOWN_REFUSALS:
        note(f"left out {len(refused) - SHOWN_REFUSALS} more: --json lists them")


def columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return `rows` as lines with aligned columns; the last one is left as it is."""
    widths = [max(len(row[number]) for row in rows) for number in range(len(rows[0]) - 1)] if rows else []
    return [
        "  ".join([cell.ljust(width) for cell, width in zip(row, widths, strict=False)] + [row[-1]]) for row in rows
    ]


def printable(text: str) -> str:
    """Return `text` on one line and without characters that would steer a terminal."""
    return "".join(character if character.isprintable() else " " if character.isspace() else "?" for character in text)


def fail(error: BaseException, *, as_json: bool) -> int:
    """Report `error` in one line (with JSON: as one value on stdout too); return the exit code."""
    error = errors.first_cause(error)
    if isinstance(error, KeyboardInterrupt):
        return EXIT_INTERRUPTED
    if isinstance(error, BrokenPipeError):
        silence_stdout()
        return EXIT_BROKEN_PIPE
    message = _message(error)
    code = to_exit_code(error) if is_expected(error) else EXIT_OTHER
    if as_json:
        _say_error(type(error).__name__, message, code)
    note(message)
    if not is_expected(error) and os.environ.get(DEBUG):
        traceback.print_exception(error)
    return code


def fail_usage(message: str, *, as_json: bool, code: int) -> int:
    """Report a wrong call in one line; return its exit code."""
    if as_json:
        _say_error("Usage", message, code)
    note(message)
    return code


def _say_error(name: str, message: str, code: int) -> None:
    """Write an error to stdout as JSON, unless stdout is what fails."""
    try:
        say({"error": {"code": name, "message": message, "exit": code}}, [], as_json=True)
    except OSError:
        silence_stdout()


def silence_stdout() -> None:
    """Send what is still buffered for a reader that has gone nowhere, so that the interpreter ends quietly."""
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), sys.stdout.fileno())


def _message(error: BaseException) -> str:
    if isinstance(error, OSError) and (error.strerror or not ADVISED.search(str(error))):
        return printable(told(error))
    text = " ".join(str(error).split())
    if not is_expected(error):
        return printable(f"internal error ({type(error).__name__}: {text}): set {DEBUG}=1 for details and report it")
    advice = next((ADVICE[kind] for kind in type(error).__mro__ if kind in ADVICE), "")
    text = text or (type(error).__doc__ or type(error).__name__).split("\n")[0].rstrip(".")
    return printable(text if ADVISED.search(text) or not advice else f"{text}: {advice}")


class Meter:
    """Shows how many bytes a long verb has moved, on a terminal; counts silently elsewhere."""

    def __init__(self, progress: "mountd.cli.bar.Progress | None", label: str, total: int | None) -> None:
        self._progress = progress
        self._task = progress.add_task(label, total=total) if progress else None

    @property
    def visible(self) -> bool:
        """Whether somebody can see it."""
        return self._progress is not None

    def update(self, done: int, total: int | None = None) -> None:
        """Show that `done` bytes have been moved, of `total` when that is known by now."""
        if self._progress is None or self._task is None:
            return
        if total is None:
            self._progress.update(self._task, completed=done)
        else:
            self._progress.update(self._task, completed=done, total=total)


@contextmanager
def meter(label: str, *, total: int | None = None, quiet: bool = False) -> Iterator[Meter]:
    """Show a progress bar on stderr while the block runs, when stderr is a terminal and `quiet` is not set."""
    if quiet or not sys.stderr.isatty():
        yield Meter(None, label, total)
        return
    with mountd.cli.bar.new_bar() as bar:
        yield Meter(bar, label, total)
