"""A systemd of its own for one script: the manager of a user's services, away from that of this machine.

It runs in namespaces of processes, mounts and control groups, which end with the script.
"""

import os
import shlex
import subprocess
from collections.abc import Mapping, Sequence
from itertools import count
from pathlib import Path

from tests.support.program import Result

RUN_S = 90.0  # a safety net

_numbers = count()

# systemd wants to see that the machine was booted with it, and has control groups below /sys/fs/cgroup for its services
_BEGIN = """
set -e
mount --make-rprivate /
mount -t tmpfs tmpfs /run
mkdir -p /run/systemd/system "$XDG_RUNTIME_DIR"
chmod 700 "$XDG_RUNTIME_DIR"
if grep -q :name=systemd: /proc/self/cgroup; then
    mount -t tmpfs tmpfs /sys/fs/cgroup
    mkdir /sys/fs/cgroup/systemd /sys/fs/cgroup/unified
    mount -t cgroup -o none,name=systemd,xattr cgroup /sys/fs/cgroup/systemd
    mount -t cgroup2 cgroup2 /sys/fs/cgroup/unified
else
    mount -t cgroup2 cgroup2 /sys/fs/cgroup
fi
mount -t overlay overlay -o "lowerdir=/usr/local/bin,upperdir=$PROGRAMS,workdir=$PROGRAMS.work" /usr/local/bin
/lib/systemd/systemd --user --unit=basic.target &
until [ -S "$XDG_RUNTIME_DIR/systemd/private" ]; do sleep 0.05; done
"""
_END = """
systemctl --user exit
wait
"""


def run_with_systemd(
    directory: Path,
    script: Sequence[str],
    units: Mapping[str, str],
    programs: Mapping[str, Sequence[str]],
    environment: Mapping[str, str],
) -> Result:
    """Run the lines of a shell script until one fails, with `units` known to `systemctl --user`.

    `programs` are commands by their name in /usr/local/bin. `directory` is for the files of all this.
    """
    for name in ("units", "programs", "programs.work"):
        (directory / name).mkdir(parents=True)
    for name, text in units.items():
        (directory / "units" / name).write_text(text)
    for name, words in programs.items():
        program = directory / "programs" / name
        program.write_text(f'#!/bin/sh\nexec {shlex.join(words)} "$@"\n')
        program.chmod(0o755)
    settings = {
        "XDG_RUNTIME_DIR": "/run/user/test",
        "SYSTEMD_UNIT_PATH": f"{directory}/units:",
        "PROGRAMS": str(directory / "programs"),
    }
    group = _hierarchy() / f"ddrive-test-{os.getpid()}-{next(_numbers)}"
    group.mkdir()
    try:
        words = ["unshare", "--mount", "--pid", "--cgroup", "--fork", "--kill-child", "--mount-proc"]
        text = _BEGIN + "\n".join(script) + _END
        enter = f'echo $$ > {shlex.quote(str(group))}/cgroup.procs && exec {shlex.join(words)} sh -c "$0"'
        return Result(
            subprocess.run(
                ["sh", "-c", enter, text],
                capture_output=True,
                timeout=RUN_S,
                env={**environment, **settings},
                stdin=subprocess.DEVNULL,
            )
        )
    finally:
        for path, _, _ in os.walk(group, topdown=False):
            os.rmdir(path)


def _hierarchy() -> Path:
    """Return the directory of control groups that systemd uses here."""
    named = Path("/sys/fs/cgroup/systemd")
    return named if named.is_dir() else Path("/sys/fs/cgroup")
