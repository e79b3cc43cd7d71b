"""What /proc tells of a process."""

from pathlib import Path


def start_time(pid: int) -> int | None:
    """Return when a process started, in clock ticks since boot: with the pid it names one process only."""
    try:
        return int(_status(pid)[19])
    except (OSError, ValueError, IndexError):
        return None


def is_defunct(pid: int) -> bool:
    """Tell whether the first thread of a process has ended, and nobody has asked for its exit status yet."""
    try:
        return _status(pid)[0] == b"Z"
    except (OSError, IndexError):
        return False


def command_line(pid: int) -> list[bytes]:
    """Return the words that a process was started with; none when it is gone, or defunct."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return []


def _status(pid: int) -> list[bytes]:
    """Return the fields that follow the name of the program. Source: proc_pid_stat(5)."""
    return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
