"""The settings of an engine: flags before environment (`DDRIVE_*`) before the TOML file before defaults.

Empty text counts as not given. The file is `$XDG_CONFIG_HOME/ddrive/config.toml`; its names are those of `Config`.
What an engine is given by flags and environment holds for the engines after it, too, that verbs start by themselves:
one that has crashed is never followed by one that is more open to the network.
"""

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from ddrive.errors import DriveError
from ddrive.swarm import Address
from mountd.files import load_json
from mountd.values import parse_size

READ_TIMEOUT_S = 30.0  # a mount without its own `--timeout` gives up on a call after this long
ROOT_STATE = Path("/var/lib/ddrive")
UPLOAD_SLOTS = 16  # more peers at a time than a usual line serves at a useful speed each
LEAST_LIMIT = 4096  # bytes a second: less would not even keep 64 links alive
KEY_BYTES = 32
OPPOSITES = ("discovery", "announce", "port_mapping")  # can be turned off by `DDRIVE_NO_…` too
OPTIONS = {"allowed_peers": "ALLOW_PEER", "dht_nodes": "DHT_NODE"}  # settings whose option has another name
LOG_LEVELS = ("debug", "info", "warning", "error")


@dataclass(frozen=True, slots=True)
class Config:
    """What an engine is told at its start.

    `listen` is `HOST:PORT`; port 0 picks a free one each time; None stands for every address and a port that is
    picked once and remembered in the state directory. `discovery` looks for peers at all, `lan_only` on the LAN alone;
    `announce` lets others find us, `port_mapping` asks the router to let them in. `allowed_peers` are public keys (32
    bytes) of all who may connect; empty stands for everybody. Limits are in bytes a second of all links together, None
    is none; `upload_slots` peers are sent blocks at a time. Metrics are served on `metrics_addr` (`HOST:PORT`).
    `cache_size` bytes of others' drives are kept at the most, and `min_free_space` bytes of the disk left free.
    `dht_nodes` and `mainline_nodes` (`HOST:PORT`) are those of private networks; public ones are left alone then.
    """

    state: Path
    listen: str | None = None
    discovery: bool = True
    timeout_s: float = READ_TIMEOUT_S
    log_level: str = "info"
    lan_only: bool = False
    announce: bool = True
    port_mapping: bool = True
    allowed_peers: frozenset[bytes] = frozenset()
    up_limit: int | None = None
    down_limit: int | None = None
    upload_slots: int = UPLOAD_SLOTS
    metrics_addr: str | None = None
    cache_size: int | None = None
    min_free_space: int | None = None
    dht_nodes: tuple[str, ...] = ()
    mainline_nodes: tuple[str, ...] = ()

    @property
    def is_private_network(self) -> bool:
        """Whether peers are looked for among nodes of one's own."""
        return bool(self.dht_nodes or self.mainline_nodes)

    @property
    def socket(self) -> Path:
        """Where the engine of this state directory listens for commands."""
        return self.state / "control.sock"

    @property
    def options_file(self) -> Path:
        """Where it is kept what the last engine was given by flags and environment."""
        return self.state / "options.json"

    @property
    def log_directory(self) -> Path:
        """Where the logs of a background engine and of its mounts go."""
        return self.state / "log"


def load_config(flags: Mapping[str, Any] | None = None, *, environ: Mapping[str, str] | None = None) -> Config:
    """Return the settings; flags that are None are not given.

    Raises: DriveError when a value or the file is unusable.
    """
    environ = os.environ if environ is None else environ
    names = {item.name for item in fields(Config)}
    values = _from_file(_config_file(environ), names)
    for name in names:
        if text := environ.get(f"DDRIVE_{name.upper()}") or environ.get(f"DDRIVE_{OPTIONS.get(name)}"):
            values[name] = text
    for name in OPPOSITES:
        if text := environ.get(f"DDRIVE_NO_{name.upper()}"):
            values[name] = not _boolean(f"no_{name}", text)
    values |= {name: value for name, value in (flags or {}).items() if value is not None}
    state = values.pop("state", None) or default_state(environ)
    return Config(state=Path(os.path.abspath(state)), **{name: _checked(name, value) for name, value in values.items()})


def given_options(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that give an engine settings, all but its state directory."""
    names = {item.name.upper() for item in fields(Config)} - {"STATE"} | set(OPTIONS.values())
    names |= {f"NO_{name.upper()}" for name in OPPOSITES}
    return {f"DDRIVE_{name}": text for name in sorted(names) if (text := environ.get(f"DDRIVE_{name}"))}


def next_environment(config: Config) -> dict[str, str]:
    """Return the environment of an engine that a verb starts: with what the last engine was given, if we do not say.

    Raises: StorageError when that cannot be read.
    """
    before = {name: text for name, text in load_json(config.options_file, {}).items() if isinstance(text, str)}
    return package_environment() | given_options(before) | given_options(os.environ)


def default_state(environ: Mapping[str, str]) -> Path:
    """Return the state directory that is used when none is named."""
    if home := environ.get("XDG_DATA_HOME"):
        return Path(home) / "ddrive"
    return ROOT_STATE if os.geteuid() == 0 else _home(environ) / ".local" / "share" / "ddrive"


def _config_file(environ: Mapping[str, str]) -> Path:
    base = environ.get("XDG_CONFIG_HOME")
    return (Path(base) if base else _home(environ) / ".config") / "ddrive" / "config.toml"


def _home(environ: Mapping[str, str]) -> Path:
    return Path(environ.get("HOME") or os.path.expanduser("~"))


def _from_file(path: Path, names: set[str]) -> dict[str, Any]:
    try:
        values = tomllib.loads(path.read_text())
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return {}
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise DriveError(f"{path}: not a TOML file: {error}") from error
    if unknown := sorted(values.keys() - names):
        raise DriveError(f"{path}: unknown setting {unknown[0]!r}: use {', '.join(sorted(names))}")
    return values


def _checked(name: str, value: Any) -> Any:
    match name:
        case "listen" | "metrics_addr":
            return _address(name, value, lowest_port=0)
        case "dht_nodes" | "mainline_nodes":
            return tuple(_address(name, item) for item in _items(value))
        case "up_limit" | "down_limit":
            return _rate(name, value)
        case "cache_size" | "min_free_space":
            try:
                return parse_size(str(value))
            except ValueError as error:
                raise DriveError(f"{name}: {error}") from error
        case "upload_slots":
            if not str(value).isdecimal() or not int(value):
                raise DriveError(f"upload_slots: {value!r} is not a number above 0")
            return int(value)
        case "allowed_peers":
            return _keys(name, value)
        case "timeout_s":
            return _seconds(name, value)
        case "log_level":
            if str(value).lower() not in LOG_LEVELS:
                raise DriveError(f"log_level: {value!r} is none of {', '.join(LOG_LEVELS)}")
            return str(value).lower()
        case _:
            return _boolean(name, value)


def _address(name: str, value: Any, *, lowest_port: int = 1) -> str:
    try:
        return str(Address.parse(str(value), lowest_port=lowest_port))
    except ValueError as error:
        raise DriveError(f"{name}: {error}") from error


def _items(value: Any) -> list[str]:
    """Return the items of a list, or of a text with commas or spaces in between."""
    return [str(item) for item in (value if isinstance(value, list) else str(value).replace(",", " ").split())]


def _rate(name: str, value: Any) -> int | None:
    try:
        rate = parse_size(str(value))
    except ValueError as error:
        raise DriveError(f"{name}: {error}") from error
    if 0 < rate < LEAST_LIMIT:
        raise DriveError(
            f"{name}: {value!r} is too little: use at least {LEAST_LIMIT} bytes a second, or 0 for no limit"
        )
    return rate or None


def _keys(name: str, value: Any) -> frozenset[bytes]:
    keys = set()
    for text in _items(value):
        try:
            key = bytes.fromhex(text)
        except ValueError:
            key = b""
        if len(key) != KEY_BYTES:
            raise DriveError(f"{name}: {text!r} is no key of {2 * KEY_BYTES} hex digits, as ddrive status shows")
        keys.add(key)
    return frozenset(keys)


def _seconds(name: str, value: Any) -> float:
    try:
        seconds = float(value)
    except (TypeError, ValueError):
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise DriveError(f"{name}: {value!r} is not a number of seconds above 0")
    return seconds


def _boolean(name: str, value: Any) -> bool:
    text = str(value).lower()
    if text in ("1", "true", "yes", "on"):
        return True
    if text in ("0", "false", "no", "off", ""):
        return False
    raise DriveError(f"{name}: {value!r} is neither true nor false")


def package_environment() -> dict[str, str]:
    """Return our environment, from which a child finds this package whatever its directory is."""
    package = str(Path(__file__).resolve().parent.parent)
    path = os.environ.get("PYTHONPATH")
    return {**os.environ, "PYTHONPATH": f"{package}{os.pathsep}{path}" if path else package}
