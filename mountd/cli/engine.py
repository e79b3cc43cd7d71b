"""`daemon`, `status`, `stop`: the engine itself."""

import os
import signal
import subprocess
import sys
import time
from typing import Annotated, Any

import trio
import typer

from ddrive.errors import DriveError, EngineError, StorageLocked
from mountd import locks, owning
from mountd.cli import options, report
from mountd.cli.mounting import tell_left
from mountd.cli.options import Common
from mountd.cli.session import Session, run
from mountd.client import package_environment
from mountd.config import load_config
from mountd.values import format_duration

POLL_S = 0.1  # between two attempts to reach an engine that is starting
STOP_LIMIT_S = 20.0  # for the answer to `stop`, when the mounts have ended: 8 s unless the engine stands still


def daemon(
    state: options.State = None,
    listen: options.Listen = None,
    no_discovery: Annotated[
        bool, typer.Option("--no-discovery", envvar="DDRIVE_NO_DISCOVERY", help="Look for no peers, and tell nobody.")
    ] = False,
    lan_only: Annotated[
        bool, typer.Option("--lan-only", envvar="DDRIVE_LAN_ONLY", help="Look for peers on the local network alone.")
    ] = False,
    no_announce: Annotated[
        bool, typer.Option("--no-announce", envvar="DDRIVE_NO_ANNOUNCE", help="Look for peers, but tell nobody of us.")
    ] = False,
    no_port_mapping: Annotated[
        bool, typer.Option("--no-port-mapping", envvar="DDRIVE_NO_PORT_MAPPING", help="Ask the router for nothing.")
    ] = False,
    allow_peer: options.AllowedPeers = None,
    dht_node: options.DhtNodes = None,
    up_limit: options.UpLimit = None,
    down_limit: options.DownLimit = None,
    upload_slots: Annotated[
        int | None,
        typer.Option(
            "--upload-slots", envvar="DDRIVE_UPLOAD_SLOTS", min=1, help="Peers sent to at a time.", show_default=False
        ),
    ] = None,
    metrics_addr: options.MetricsAddress = None,
    cache_size: options.CacheSize = None,
    min_free_space: options.MinFreeSpace = None,
    as_json: options.Json = False,
) -> None:
    """Run the engine in the foreground until SIGTERM or SIGINT; its log goes to stderr."""
    config = load_config({"state": state})
    switches = {
        "NO_DISCOVERY": no_discovery,
        "LAN_ONLY": lan_only,
        "NO_ANNOUNCE": no_announce,
        "NO_PORT_MAPPING": no_port_mapping,
    }
    values = {
        "LISTEN": listen,
        "ALLOWED_PEERS": ",".join(allow_peer or []) or None,
        "DHT_NODES": ",".join(dht_node or []) or None,
        "UP_LIMIT": up_limit,
        "DOWN_LIMIT": down_limit,
        "UPLOAD_SLOTS": upload_slots,
        "METRICS_ADDR": metrics_addr,
        "CACHE_SIZE": cache_size,
        "MIN_FREE_SPACE": min_free_space,
    } | {name: "1" for name, wanted in switches.items() if wanted}
    environment = package_environment()
    environment |= {f"DDRIVE_{name}": str(value) for name, value in values.items() if value is not None}
    try:
        load_config({"state": state}, environ=environment)  # what is wrong is told here, not in a log
    except DriveError as error:
        raise typer.BadParameter(str(error)) from error
    command = [sys.executable, "-P", "-m", "mountd.engine_start", "--state", str(config.state)]
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # the engine takes it once it has been loaded
    if not as_json:
        os.execve(sys.executable, command, environment)  # the engine takes this process over: nobody in between
    raise typer.Exit(_announced(command, environment, Common(config.state, as_json, start=False)))


def _announced(command: list[str], environment: dict[str, str], common: Common) -> int:
    """Run the engine, show its status on stdout once it answers, and return its exit code."""

    async def announce(session: Session) -> None:
        session.say(await session.call("status"), [])

    with subprocess.Popen(command, env=environment) as engine:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda number, _: engine.send_signal(number))
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        while engine.poll() is None:
            try:
                run(common, announce)
                break
            except* EngineError:
                time.sleep(POLL_S)
        code = engine.wait()
        return code if code >= 0 else 128 - code  # as shells report a signal


def status(state: options.State = None, as_json: options.Json = False, no_start: options.NoStart = False) -> None:
    """Show the engine: address, uptime, mounts and peers."""

    async def verb(session: Session) -> None:
        value = await session.call("status")
        session.say(value, _status_lines(value))

    run(Common(state, as_json, start=not no_start), verb)


def stop(
    state: options.State = None,
    as_json: options.Json = False,
    no_start: options.NoStart = False,  # it never does; so that the common options go before every verb
) -> None:
    """Stop the engine; its mounts end cleanly. Nothing happens when none runs."""

    async def verb(session: Session) -> None:
        directory = load_config({"state": state}).state
        engine = locks.holder(directory)
        answer: dict[str, Any] | None = None
        with trio.move_on_after(STOP_LIMIT_S):
            answer = await session.call("stop")
            tell_left(answer)
        if answer is None or not await owning.ended(directory, engine):
            raise StorageLocked(
                f"the engine in {directory} (pid {engine or 'unknown'}) is told to end and has not ended: "
                "do not copy or remove its state yet; if it hangs, kill it"
            )
        session.say({"stopped": True} | answer, [])

    try:
        run(Common(state, as_json, start=False), verb)
    except* EngineError:
        report.say({"stopped": False, "left": []}, [], as_json=as_json)


def _status_lines(value: dict[str, Any]) -> list[str]:
    rows = [
        ["version", value["version"]],
        ["process", str(value["pid"])],
        ["state", value["state"]],
        ["listening on", ", ".join(value["listen"]) or "nothing"],
        ["up for", format_duration(value["uptime_s"])],
        ["drives", str(value["drives"])],
        ["peers", str(value["peers"])],
        ["our peer key", value["peer_key"]],
    ]
    if value["options"]:
        given = ", ".join(f"{name}={text}" for name, text in value["options"].items())
        rows.append(["options", f"{given} (until ddrive stop)"])
    rows += [[f"look on {name}", _mechanism(about)] for name, about in value["discovery"].items()]
    rows += [["mount", f"{mount['mountpoint']}  {mount['state']}  {mount['url']}"] for mount in value["mounts"]]
    return report.columns(rows)


def _mechanism(about: dict[str, Any]) -> str:
    """Return how a mechanism of discovery is doing, on one line."""
    if not about["running"]:
        return f"no: {about.get('why') or about.get('last_error') or 'not ready yet'}"
    counts = ", ".join(
        f"{name} {about[name]}"
        for name in ("asked", "answered", "found", "dialled", "connected", "refused", "announced")
    )
    remarks = [about["detail"], counts, about["last_error"] and f"last error: {about['last_error']}"]
    return "; ".join(remark for remark in remarks if remark)
