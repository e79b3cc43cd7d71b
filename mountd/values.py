"""The small texts a person types: sizes, durations, addresses; and numbers in the form a person reads.

Nothing here does I/O. A text that cannot be read raises `ValueError` with a message that shows what is accepted.
"""

import re
from datetime import datetime

SIZE_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}  # `10K` is 10000, `10KiB` is 10240
BINARY_UNITS = {"KI": 2**10, "MI": 2**20, "GI": 2**30, "TI": 2**40}
DURATION_UNITS = {"ms": 0.001, "": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
PORT_MAX = 65535


def parse_size(text: str) -> int:
    """Return the number of bytes that `10G`, `512MiB`, `1.5k` or `4096` stands for."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]I?)?B?", text.strip().upper())
    if match is None:
        raise ValueError(f"{text!r} is not a size: write for example 512MiB or 10G")
    unit = match[2] or ""
    return int(float(match[1]) * (BINARY_UNITS[unit] if unit in BINARY_UNITS else SIZE_UNITS[unit]))


def parse_duration(text: str) -> float:
    """Return the seconds that `30s`, `5m`, `500ms`, `1h` or `30` stands for; more than 0."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)?", text.strip().lower())
    seconds = float(match[1]) * DURATION_UNITS[match[2] or ""] if match else 0.0
    if seconds <= 0:
        raise ValueError(f"{text!r} is not a duration: write for example 30s or 5m")
    return seconds


def parse_address(text: str, *, any_port: bool = False) -> str:
    """Return `HOST:PORT` as it was given, when it can be one; `[v6]:PORT` has brackets. Port 0 needs `any_port`."""
    match = re.fullmatch(r"(\[[0-9A-Fa-f:.%\w]+\]|[^\[\]:\s/]+):(\d{1,5})", text.strip())
    if match is None or not (0 if any_port else 1) <= int(match[2]) <= PORT_MAX:
        raise ValueError(f"{text!r} is not an address: write HOST:PORT, for example 192.168.1.5:4711")
    return text.strip()


def format_size(count: int) -> str:
    """Return `count` bytes for reading: `999 B`, `1.5 KiB`, `3.0 GiB`."""
    if count < 1024:
        return f"{count} B"
    size = float(count)
    for unit in ("KiB", "MiB", "GiB", "TiB"):
        size /= 1024
        if size < 1024 or unit == "TiB":
            break
    return f"{size:.1f} {unit}"


def counted(count: int, name: str, names: str | None = None) -> str:
    """Return `count` with what is counted: "1 file", "2 files"; `names` where the plural has no plain s."""
    return f"{count} {name if count == 1 else names or name + 's'}"


def format_duration(seconds: float) -> str:
    """Return `seconds` for reading, in at most two units: `42s`, `3m 05s`, `2d 04h`."""
    whole = int(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m {whole % 60:02}s"
    if whole < 86400:
        return f"{whole // 3600}h {whole % 3600 // 60:02}m"
    return f"{whole // 86400}d {whole % 86400 // 3600:02}h"


def format_time(time_ms: int | None) -> str:
    """Return a time of a drive, in milliseconds since 1970, for reading; `?` for one that no calendar has."""
    if time_ms is None:
        return ""
    try:
        return datetime.fromtimestamp(time_ms / 1000).strftime("%Y-%m-%d %H:%M")
    except (OverflowError, ValueError, OSError):
        return "?"
