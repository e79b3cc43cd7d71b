"""`doctor`: look at everything that ddrive needs, and say what to do about what is missing. Each check is bounded."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Literal

import trio
import typer

from ddrive.errors import DriveError
from ddrive.swarm import Address
from ddrive.swarm.watching import look_around
from mountd.cli import options, report
from mountd.client import connect_engine
from mountd.config import Config, load_config
from mountd.values import counted, format_size

CHECK_S: Final = 15.0  # for each check; they run at the same time
DISCOVERY_S: Final = 8.0  # in which a mechanism should have come up
ANSWER_S: Final = 3.0  # for one answer of a program, a mount or a port
LEAST_FREE_BYTES: Final = 1 << 30
LEAST_DESCRIPTORS: Final = 1024
BUILT_S: Final = 1_700_000_000.0  # seconds since 1970: ddrive is younger, so is every right clock
FUSE: Final = Path("/dev/fuse")
TITLES: Final = {"ok": "ok", "warning": "warn", "failed": "FAILED"}

State = Literal["ok", "warning", "failed"]


@dataclass(frozen=True, slots=True)
class Finding:
    """What came of one check, and what to do unless all is well."""

    check: str
    state: State
    detail: str
    advice: str | None = None


Check = Callable[[Config], Awaitable[list[Finding]]]


def doctor(state: options.State = None, as_json: options.Json = False, no_start: options.NoStart = False) -> None:
    """Check all that ddrive needs, and tell what to do about what is missing; exit 1 when something fails."""
    config = load_config({"state": state})
    findings = trio.run(_examine, config, not no_start)
    rows = [[TITLES[item.state], item.check, item.detail] for item in findings]
    lines = []
    for line, item in zip(report.columns(rows), findings, strict=True):
        lines += [report.printable(line)] + ([f"        -> {item.advice}"] if item.advice else [])
    report.say([asdict(item) for item in findings], lines, as_json=as_json)
    if any(item.state == "failed" for item in findings):
        raise typer.Exit(1)


async def _examine(config: Config, may_start: bool) -> list[Finding]:
    async def engine(config: Config) -> list[Finding]:
        return await _engine(config, may_start)

    checks: dict[str, Check] = {
        "fuse": _fuse,
        "disk": _disk,
        "clock": _clock,
        "limits": _limits,
        "network": _network,
        "engine": engine,
    }
    found: dict[str, list[Finding]] = {}

    async def run(name: str, check: Check) -> None:
        found[name] = [Finding(name, "failed", f"no answer in {CHECK_S:g} s", "the machine is overloaded or hangs")]
        with trio.move_on_after(CHECK_S):
            found[name] = await check(config)

    async with trio.open_nursery() as nursery:
        for name, check in checks.items():
            nursery.start_soon(run, name, check)
    return [item for name in checks for item in found[name]]


async def _fuse(config: Config) -> list[Finding]:
    found = []
    try:
        os.close(os.open(FUSE, os.O_RDWR | os.O_CLOEXEC))
        found.append(Finding("fuse device", "ok", str(FUSE)))
    except OSError as error:
        advice = "load it with `modprobe fuse`; in a container, pass the device in"
        found.append(Finding("fuse device", "failed", f"{FUSE}: {error.strerror}", advice))
    program = shutil.which("fusermount3")
    if program is None:
        found.append(Finding("fusermount3", "failed", "not found", "install the package fuse3"))
    elif os.geteuid() and not os.stat(program).st_mode & 0o4000:
        found.append(Finding("fusermount3", "failed", f"{program} is not setuid", "reinstall the package fuse3"))
    else:
        found.append(Finding("fusermount3", "ok", program))
    return found


async def _disk(config: Config) -> list[Finding]:
    place = next(path for path in (config.state, *config.state.parents) if path.exists())
    try:
        usage = await trio.to_thread.run_sync(shutil.disk_usage, place, abandon_on_cancel=True)
    except OSError as error:
        return [Finding("disk", "failed", f"{place}: {error.strerror}", "choose another directory with --state")]
    detail = f"{format_size(usage.free)} free of {format_size(usage.total)} ({place})"
    if not os.access(place, os.W_OK):
        return [Finding("disk", "failed", f"{place} cannot be written", "choose another directory with --state")]
    if usage.free < LEAST_FREE_BYTES:
        return [Finding("disk", "warning", detail, "make room: what is read is kept here (ddrive clear drops it)")]
    return [Finding("disk", "ok", detail)]


async def _clock(config: Config) -> list[Finding]:
    shown = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())
    if time.time() < BUILT_S:
        return [Finding("clock", "failed", f"it is {shown}?", "set it: files and versions get wrong times")]
    answer = await _output("timedatectl", "show", "--property=NTPSynchronized", "--value")
    if answer == "no":
        return [Finding("clock", "warning", f"{shown}, not synchronised", "turn on time synchronisation")]
    return [Finding("clock", "ok", shown + (", synchronised" if answer == "yes" else ""))]


async def _limits(config: Config) -> list[Finding]:
    most = os.sysconf("SC_OPEN_MAX")
    if 0 < most < LEAST_DESCRIPTORS:
        return [Finding("open files", "warning", f"at most {most}", "raise the limit, for example with ulimit -n")]
    return [Finding("open files", "ok", f"at most {most}")]


async def _network(config: Config) -> list[Finding]:
    networks = [network for network in look_around().networks if not network.is_loopback]
    if running := [network for network in networks if network.is_running]:
        addresses = (f"{network.name} {own.ip}" for network in running for own in network.addresses)
        return [Finding("network", "ok", ", ".join(addresses))]
    detail = f"no connection at {', '.join(network.name for network in networks)}" if networks else "there is none"
    return [Finding("network", "warning", detail, "join one to reach peers; what is held here can be read without")]


async def _output(*command: str) -> str | None:
    """Return what a program says, None when it is not there or takes too long."""
    if shutil.which(command[0]) is None:
        return None
    with trio.move_on_after(ANSWER_S), suppress(OSError, subprocess.CalledProcessError):
        done = await trio.run_process(command, capture_stdout=True, capture_stderr=True)
        return done.stdout.decode(errors="replace").strip()
    return None


async def _engine(config: Config, may_start: bool) -> list[Finding]:
    try:
        async with connect_engine(config.state, start=may_start) as engine:
            status = await engine.call("status")
            with trio.move_on_after(DISCOVERY_S):
                while any(_is_coming(about) for about in status["discovery"].values()):
                    await trio.sleep(0.5)
                    status = await engine.call("status")
    except DriveError as error:
        state: State = "failed" if may_start else "warning"
        return [Finding("engine", state, str(error), "see engine.log in the log folder of the state directory")]
    found = [
        Finding("engine", "ok", f"version {status['version']}, pid {status['pid']}, {counted(status['peers'], 'peer')}")
    ]
    for address in status["listen"]:
        found.append(await _port(address))
    found += [_mechanism(name, about) for name, about in status["discovery"].items()]
    for mount in status["mounts"]:
        found.append(await _mount(mount["mountpoint"]))
    return found


def _is_coming(about: dict[str, Any]) -> bool:
    """Tell whether a mechanism is on and not up yet; one that nobody asks for anything has no reason to come up."""
    return not about["running"] and bool(about.get("topics"))


async def _port(address: str) -> Finding:
    host, port = Address.parse(address)
    here = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    with trio.move_on_after(ANSWER_S), suppress(OSError):
        await (await trio.open_tcp_stream(here, port)).aclose()
        return Finding("port", "ok", f"{address} takes in peers")
    return Finding("port", "failed", f"{address} does not answer", "is a firewall in the way? allow incoming TCP there")


def _mechanism(name: str, about: dict[str, Any]) -> Finding:
    check = f"look on {name}"
    if about["running"]:
        return Finding(check, "ok", f"{about['detail']}; found {about['found']}, announced {about['announced']}")
    if "topics" not in about:
        return Finding(check, "ok", f"off: {about['why']}")
    if not about["topics"]:
        return Finding(check, "ok", "on; there is nothing to look for yet")
    advice = "is there a network, and are UDP packets let out?" if name != "lan" else "is there a network?"
    return Finding(check, "warning", about["last_error"] or "no answer yet", advice)


async def _mount(mountpoint: str) -> Finding:
    """Check that a mount answers; another process asks, so that a dead one does not hold us."""
    with trio.move_on_after(ANSWER_S):
        command = [sys.executable, "-c", "import os, sys; os.stat(sys.argv[1])", mountpoint]
        done = await trio.run_process(command, capture_stderr=True, check=False)
        if done.returncode == 0:
            return Finding("mount", "ok", mountpoint)
    return Finding("mount", "failed", f"{mountpoint} does not answer", "ddrive unmount --force it, and mount it again")
