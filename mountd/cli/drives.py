"""`list`, `create`, `info`, `stats`, `seed`, `unseed`: the drives that the engine knows."""

from typing import Annotated, Any

import typer

from mountd.cli import options, report
from mountd.cli.options import Common
from mountd.cli.session import Session, named_drive, run
from mountd.values import counted, format_size

Drive = Annotated[str, typer.Argument(metavar="DRIVE", help="Key, URL, or a path inside a mount.", show_default=False)]


def list_drives(state: options.State = None, as_json: options.Json = False, no_start: options.NoStart = False) -> None:
    """List the known drives."""

    async def verb(session: Session) -> None:
        drives = await session.call("list")
        rows = [
            [
                drive["url"],
                drive.get("name") or "-",
                f"version {drive['version']}",
                "writable" if drive["writable"] else "read-only",
                "seeding" if drive["seeding"] else "not seeding",
                format_size(drive.get("byte_length") or 0),
            ]
            for drive in drives
        ]
        session.say(drives, report.columns(rows))

    run(Common(state, as_json, start=not no_start), verb)


def create(
    name: options.Name = None,
    dialect: options.DialectName = None,
    private: options.Private = False,
    state: options.State = None,
    as_json: options.Json = False,
    no_start: options.NoStart = False,
) -> None:
    """Make a new, empty, writable drive and print its key."""

    async def verb(session: Session) -> None:
        made = await session.call("create", name=name, dialect=dialect, private=private)
        session.say(made, [made["key"]])

    run(Common(state, as_json, start=not no_start), verb)


def info(
    drive: Drive, state: options.State = None, as_json: options.Json = False, no_start: options.NoStart = False
) -> None:
    """Show what is known of a drive: version, sizes, what is held here, peers."""

    async def verb(session: Session) -> None:
        ref = await session.find(named)
        value = await session.call("info", key=ref.key.hex())
        session.say(value, _info_lines(value))

    named = named_drive(drive)
    run(Common(state, as_json, start=not no_start), verb)


def stats(
    drive: Annotated[
        str | None, typer.Argument(metavar="[DRIVE]", help="Key, URL, or a path inside a mount.", show_default=False)
    ] = None,
    state: options.State = None,
    as_json: options.Json = False,
    no_start: options.NoStart = False,
) -> None:
    """Show what crossed the network, in total and per peer."""

    async def verb(session: Session) -> None:
        ref = None if named is None else await session.find(named)
        value = await session.call("stats", key=None if ref is None else ref.key.hex())
        session.say(value, _stats_lines(value))

    named = None if drive is None else named_drive(drive)
    run(Common(state, as_json, start=not no_start), verb)


def seed(
    drive: Drive,
    private: options.Private = False,
    state: options.State = None,
    as_json: options.Json = False,
    no_start: options.NoStart = False,
) -> None:
    """Serve a drive to other peers; remembered over restarts."""
    _seeding("seed", drive, Common(state, as_json, start=not no_start), private=private)


def unseed(
    drive: Drive, state: options.State = None, as_json: options.Json = False, no_start: options.NoStart = False
) -> None:
    """Serve a drive no longer; what is held here stays readable."""
    _seeding("unseed", drive, Common(state, as_json, start=not no_start))


def _seeding(method: str, drive: str, common: Common, *, private: bool = False) -> None:
    async def verb(session: Session) -> None:
        ref = await session.find(named)
        await session.call(method, key=ref.key.hex(), private=private)
        session.say({"key": ref.key.hex(), "seeding": method == "seed"}, [])

    named = named_drive(drive)
    run(common, verb)


def _info_lines(value: dict[str, Any]) -> list[str]:
    rows = [
        ["drive", value["url"]],
        ["version", str(value["version"])],
        ["writable", "yes" if value["writable"] else "no"],
        ["peers", str(value["peers"])],
    ]
    for feed in ("metadata", "content"):
        about = value.get(feed)
        if about:
            size = format_size(about["byte_length"])
            rows.append([feed, f"{about['downloaded']} of {counted(about['length'], 'block')} held, {size} in all"])
    if value.get("hostile_names"):
        rows.append(["left out", f"{value['hostile_names']} entries whose names or attributes nothing here can show"])
    if value.get("forked"):
        rows.append(["forked", "yes: its author's key signed two histories"])
    if value.get("private"):
        rows.append(["private", "yes: it is not shown to strangers"])
    if value.get("why"):
        rows.append(["no peer", value["why"]])
    for name, counts in value["discovery"]["asked"].items():
        rows.append([f"look on {name}", ", ".join(f"{what} {count}" for what, count in counts.items())])
    for peer in value["discovery"]["addresses"]:
        state = "connected" if peer["connected"] else peer["last_error"] or "not connected"
        rows.append(["address", f"{peer['address']} ({peer['source']}): {state}"])
    rows += [["mounted at", str(mount)] for mount in value.get("mounts") or []]
    return report.columns(rows)


def _stats_lines(value: dict[str, Any]) -> list[str]:
    rows = [["", "blocks", "bytes"]]
    rows += [[way, str(value[way]["blocks"]), format_size(value[way]["bytes"])] for way in ("downloaded", "uploaded")]
    lines = report.columns(rows)
    lines.append(f"blocks read here: {value['cache']['hits']} held, {value['cache']['misses']} fetched first")
    lines.append(f"timeouts {value['timeouts']}, failed verifications {value['verify_failures']}")
    return lines
