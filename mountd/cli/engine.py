"""`daemon`, `status`, `stop`: the engine itself."""

import os
import signal
import subprocess
import sys
import time
from typing import Annotated, Any

import typer

from ddrive.errors import EngineError
from mountd.cli import options, report
from mountd.cli.options import Common
from mountd.cli.session import Session, run
from mountd.cli.values import format_duration
from mountd.client import package_environment
from mountd.config import load_config

POLL_S = 0.1  # between two attempts to reach an engine that is starting


def daemon(
    state: options.State = None,
    listen: options.Listen = None,
    no_discovery: Annotated[
        bool, typer.Option("--no-discovery", envvar="DDRIVE_NO_DISCOVERY", help="Do not look for peers.")
    ] = False,
    as_json: options.Json = False,
) -> None:
    """Run the engine in the foreground until SIGTERM or SIGINT; its log goes to stderr."""
    config = load_config({"state": state})
    environment = package_environment()
    if listen is not None:
        environment["DDRIVE_LISTEN"] = listen
    if no_discovery:
        environment["DDRIVE_NO_DISCOVERY"] = "1"
    command = [sys.executable, "-P", "-m", "mountd.engine", "--state", str(config.state)]
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
        while engine.poll() is None:
            try:
                run(common, announce)
                break
            except* EngineError:
                time.sleep(POLL_S)
        return engine.wait()


def status(state: options.State = None, as_json: options.Json = False, no_start: options.NoStart = False) -> None:
    """Show the engine: address, uptime, mounts and peers."""

    async def verb(session: Session) -> None:
        value = await session.call("status")
        session.say(value, _status_lines(value))

    run(Common(state, as_json, start=not no_start), verb)


def stop(state: options.State = None, as_json: options.Json = False) -> None:
    """Stop the engine; its mounts end cleanly. Nothing happens when none runs."""

    async def verb(session: Session) -> None:
        await session.call("stop")

    try:
        run(Common(state, as_json, start=False), verb)
    except* EngineError:
        report.say({"stopped": False}, [], as_json=as_json)
    else:
        report.say({"stopped": True}, [], as_json=as_json)


def _status_lines(value: dict[str, Any]) -> list[str]:
    rows = [
        ["version", value["version"]],
        ["process", str(value["pid"])],
        ["state", value["state"]],
        ["listening on", ", ".join(value["listen"]) or "nothing"],
        ["up for", format_duration(value["uptime_s"])],
        ["drives", str(value["drives"])],
        ["peers", str(value["peers"])],
    ]
    rows += [["mount", f"{mount['mountpoint']}  {mount['state']}  {mount['url']}"] for mount in value["mounts"]]
    return report.columns(rows)
