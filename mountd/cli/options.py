"""The options that several verbs share; each can be given as `DDRIVE_<OPTION>` in the environment too."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from ddrive.dialect import DIALECTS
from mountd import values

Parsed = TypeVar("Parsed")


@dataclass(frozen=True, slots=True)
class Common:
    """What every verb is told: which state directory, how to answer, whether an engine may be started."""

    state: Path | None
    as_json: bool
    start: bool = True


def _option_parser(parse: Callable[[str], Parsed]) -> Callable[[str], Parsed]:
    def parse_option(text: str) -> Parsed:
        try:
            return parse(text)
        except ValueError as error:
            raise typer.BadParameter(str(error)) from None

    return parse_option


address = _option_parser(values.parse_address)


def _listen_address(text: str) -> str:
    return values.parse_address(text, any_port=True)


def _dialect(text: str) -> str:
    if text not in DIALECTS:
        raise ValueError(f"{text!r} is not a dialect: choose {' or '.join(DIALECTS)}")
    return text


State = Annotated[
    Path | None,
    typer.Option("--state", envvar="DDRIVE_STATE", metavar="DIR", help="Directory of the engine.", show_default=False),
]
Json = Annotated[bool, typer.Option("--json", envvar="DDRIVE_JSON", help="Answer with JSON on stdout.")]
NoStart = Annotated[
    bool, typer.Option("--no-start", envvar="DDRIVE_NO_START", help="Do not start an engine when none runs.")
]
Peers = Annotated[
    list[str] | None,
    typer.Option(
        "--peer",
        envvar="DDRIVE_PEER",
        metavar="HOST:PORT",
        parser=address,
        help="Address of a peer that has the drive; may be repeated.",
        show_default=False,
    ),
]
Timeout = Annotated[
    float | None,
    typer.Option(
        "--timeout",
        envvar="DDRIVE_TIMEOUT",
        metavar="DURATION",
        parser=_option_parser(values.parse_duration),
        help="Give up after this long without progress (default 30s).",
        show_default=False,
    ),
]
DialectName = Annotated[
    str | None,
    typer.Option(
        "--dialect",
        envvar="DDRIVE_DIALECT",
        metavar="|".join(DIALECTS),
        parser=_option_parser(_dialect),
        help="Family of peers that can read the new drive (default dweb).",
        show_default=False,
    ),
]
Name = Annotated[
    str | None,
    typer.Option("--name", envvar="DDRIVE_NAME", metavar="NAME", help="Name of the drive here.", show_default=False),
]
Listen = Annotated[
    str | None,
    typer.Option(
        "--listen",
        envvar="DDRIVE_LISTEN",
        metavar="HOST:PORT",
        parser=_option_parser(_listen_address),
        help="Address to accept peers on; port 0 picks a free one.",
        show_default=False,
    ),
]
DhtNodes = Annotated[
    list[str] | None,
    typer.Option(
        "--dht-node",
        metavar="HOST:PORT",
        parser=address,
        help="Node of the DHT to begin at; may be repeated.",
        show_default=False,
    ),
]
MetricsAddress = Annotated[
    str | None,
    typer.Option(
        "--metrics-addr",
        envvar="DDRIVE_METRICS_ADDR",
        metavar="HOST:PORT",
        parser=_option_parser(_listen_address),
        help="Serve metrics for Prometheus there.",
        show_default=False,
    ),
]
AllowedPeers = Annotated[
    list[str] | None,
    typer.Option(
        "--allow-peer",
        metavar="PEERKEY",
        help="Connect to nobody but the peers with these keys (see ddrive status); may be repeated.",
        show_default=False,
    ),
]


def _limit(name: str, what: str) -> Any:
    return typer.Option(
        f"--{name}-limit",
        envvar=f"DDRIVE_{name.upper()}_LIMIT",
        metavar="SIZE",
        parser=_option_parser(values.parse_size),
        help=f"{what} at most this much a second, such as 500K or 2MiB.",
        show_default=False,
    )


CacheSize = Annotated[
    int | None,
    typer.Option(
        "--cache-size",
        envvar="DDRIVE_CACHE_SIZE",
        metavar="SIZE",
        parser=_option_parser(values.parse_size),
        help="Keep at most this much of others' drives (default 20G); what is pinned does not count.",
        show_default=False,
    ),
]
MinFreeSpace = Annotated[
    int | None,
    typer.Option(
        "--min-free-space",
        envvar="DDRIVE_MIN_FREE_SPACE",
        metavar="SIZE",
        parser=_option_parser(values.parse_size),
        help="Leave this much of the disk free (default 20G or a tenth of it, whichever is less).",
        show_default=False,
    ),
]
UpLimit = Annotated[int | None, _limit("up", "Send")]
DownLimit = Annotated[int | None, _limit("down", "Receive")]
Private = Annotated[
    bool,
    typer.Option("--private", envvar="DDRIVE_PRIVATE", help="Never show this drive to strangers."),
]
DryRun = Annotated[bool, typer.Option("--dry-run", envvar="DDRIVE_DRY_RUN", help="Only tell what would be done.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", envvar="DDRIVE_YES", help="Do not ask.")]


class Unconfirmed(typer.BadParameter):
    """Something that would be asked for on a terminal, and there is none."""

    def format_message(self) -> str:
        """Return the message alone: no value is wrong."""
        return self.message


def confirm(deed: str, *, yes: bool) -> None:
    """Ask on a terminal whether to do `deed`, such as "forget it"; elsewhere `--yes` is needed.

    Raises: Unconfirmed, typer.Abort when the answer is no.
    """
    if yes:
        return
    check_askable(deed)
    typer.confirm(f"{deed}?", abort=True, err=True)


def check_askable(deed: str) -> None:
    """Raise Unconfirmed when nobody can be asked whether to do `deed`."""
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise Unconfirmed(f"this would {deed}: add --yes to go on, or --dry-run to look first")
