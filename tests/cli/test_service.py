"""The engine under a service manager, and mounts out of /etc/fstab by way of mount(8)."""

import fcntl
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.program import Program, Result, mounted
from tests.support.systemd import run_with_systemd

ROOT = Path(__file__).parents[2]
HELPER = [sys.executable, "-m", "mountd.cli.mount_helper"]
OPTIONS = "defaults,_netdev,nofail,x-systemd.automount,x-systemd.requires=ddrive.service"  # as the docs have them
WAIT_S = 30.0  # a safety net


def made(ddrive: Program, tmp_path: Path) -> str:
    """Make a drive with one file and return its key."""
    (tmp_path / "tree").mkdir(parents=True)
    (tmp_path / "tree" / "greeting.txt").write_text("hello\n")
    key: str = ddrive.ask("import", tmp_path / "tree")["key"]
    return key


def helped(ddrive: Program, *arguments: str | Path) -> Result:
    """Run the helper of mount(8)."""
    command = [*HELPER, *map(str, arguments)]
    return Result(subprocess.run(command, capture_output=True, env=ddrive.environment(), timeout=WAIT_S))


def test_the_service_manager_is_told_when_the_mounts_are_back(ddrive: Program, tmp_path: Path) -> None:
    place = tmp_path / "mnt"
    ddrive.mount(made(ddrive, tmp_path), place)
    ddrive.ask("stop")
    assert not mounted(place)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(WAIT_S)
        ddrive.settings["NOTIFY_SOCKET"] = str(tmp_path / "notify")
        with ddrive.running("daemon") as engine:
            assert manager.recv(100) == b"READY=1"
            assert (place / "greeting.txt").read_text() == "hello\n"
            assert ddrive.pid == engine.pid  # the unit's main process
            engine.send_signal(signal.SIGTERM)
            assert manager.recv(100) == b"STOPPING=1"
            assert engine.wait(WAIT_S) == 0


def test_a_state_can_be_removed_when_stop_has_returned(ddrive: Program, tmp_path: Path) -> None:
    for _ in range(3):
        made(ddrive, tmp_path / "once")
        ddrive.ask("stop")
        with (ddrive.state / "engine.lock").open() as held:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(ddrive.state)
        shutil.rmtree(tmp_path / "once")


def test_a_line_of_fstab_mounts_a_drive(ddrive: Program, tmp_path: Path) -> None:
    """In a mount namespace of its own, where mount(8) finds the helper at its place."""
    key, place = made(ddrive, tmp_path), tmp_path / "mnt"
    ddrive.ask("stop")  # the engine that the helper starts belongs to that namespace
    for name in ("mnt", "upper", "work"):
        (tmp_path / name).mkdir()
    helper = tmp_path / "upper" / "mount.fuse.ddrive"
    helper.write_text(f'#!/bin/sh\nexec {shlex.join(HELPER)} "$@"\n')
    helper.chmod(0o755)
    (tmp_path / "fstab").write_text(f"{key} {place} fuse.ddrive {OPTIONS} 0 0\n")
    steps = [
        f"mount -t overlay overlay -o lowerdir=/usr/sbin,upperdir={tmp_path}/upper,workdir={tmp_path}/work /usr/sbin",
        f"mount -T {tmp_path}/fstab {place}",
        f"mount -T {tmp_path}/fstab -a",  # it is there already
        f"cat {place}/greeting.txt",
        f"umount {place}",
    ]
    try:
        done = subprocess.run(
            ["unshare", "--mount", "sh", "-c", " && ".join(steps)],
            capture_output=True,
            timeout=WAIT_S,
            env=ddrive.environment() | {"PYTHONPATH": str(ROOT)},
        )
        assert (done.returncode, done.stdout) == (0, b"hello\n"), done.stderr
    finally:
        ddrive.run("stop")


def test_the_helper_ends_as_mount_expects(ddrive: Program, tmp_path: Path) -> None:
    key = made(ddrive, tmp_path)
    failed = helped(ddrive, key, tmp_path / "missing", "-o", "rw")
    assert failed.code == 32
    assert "mkdir -p" in failed.err
    (tmp_path / "mnt").mkdir()
    assert helped(ddrive, key, tmp_path / "mnt", "-o", "noexec").code == 1
    assert helped(ddrive, key).code == 1
    assert helped(ddrive, key, tmp_path / "mnt", "-N", "x").code == 1
    assert helped(ddrive, key, tmp_path / "mnt", "-f").code == 0
    assert not mounted(tmp_path / "mnt")
    ddrive.mountpoints.append(tmp_path / "mnt")
    assert helped(ddrive, key, tmp_path / "mnt", "-n", "-v", "-r", "-t", "fuse.ddrive").code == 0
    with pytest.raises(OSError, match="Read-only"):
        (tmp_path / "mnt" / "new").write_text("x")


@pytest.mark.parametrize("name", ["ddrive.service", "ddrive-user.service"])
def test_the_units_are_sound(name: str, tmp_path: Path) -> None:
    text = (ROOT / "systemd" / name).read_text()
    assert "ExecStart=ddrive daemon" in text
    unit = tmp_path / name
    unit.write_text(text.replace("ExecStart=ddrive", f"ExecStart={sys.executable} -m mountd.cli"))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(unit)],
        capture_output=True,
        text=True,
        timeout=WAIT_S,
        env={**os.environ, "SYSTEMD_LOG_LEVEL": "warning"},
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("name", ["ddrive.service", "ddrive-user.service"])
def test_systemd_runs_the_unit(ddrive: Program, tmp_path: Path, name: str) -> None:
    """It is started when the mounts are back, restarted when it dies, and no mount is left when it is stopped."""
    place = tmp_path / "mnt"
    ddrive.mount(made(ddrive, tmp_path), place)
    ddrive.ask("stop")
    shown = "systemctl --user show -P"
    script = [
        "systemctl --user start ddrive",
        f"cat {place}/greeting.txt",
        f"stat -c %a {ddrive.state} $(find {ddrive.state} -name control.sock)",
        f"pid=$({shown} MainPID ddrive)",
        'ddrive status | grep -q "$pid"',
        "kill -9 $pid",
        f"cat {place}/greeting.txt",
        f"until again=$({shown} MainPID ddrive); [ $again != 0 ] && [ $again != $pid ]; do sleep 0.1; done",
        "until systemctl --user --quiet is-active ddrive; do sleep 0.1; done",
        f"cat {place}/greeting.txt",
        "systemctl --user stop ddrive",
        f"{shown} ActiveState ddrive",
        f"{shown} Result ddrive",
        f"! grep -q ' {place} ' /proc/self/mountinfo",
    ]
    ran = run_with_systemd(
        tmp_path / "systemd",
        script,
        {"ddrive.service": (ROOT / "systemd" / name).read_text()},
        {"ddrive": [sys.executable, "-m", "mountd.cli"]},
        ddrive.environment() | {"PYTHONPATH": str(ROOT)},
    )
    assert ran.code == 0, ran
    assert ran.out.decode().split() == ["hello", "700", "600", "hello", "hello", "inactive", "success"]
