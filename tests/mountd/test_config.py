"""Flags before environment before file before defaults; what is unusable is named."""

from pathlib import Path

import pytest

from ddrive.errors import DriveError
from mountd.config import Config, load_config


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    return {"HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path / "config"), "XDG_DATA_HOME": str(tmp_path / "data")}


def write(environ: dict[str, str], text: str) -> None:
    path = Path(environ["XDG_CONFIG_HOME"], "ddrive", "config.toml")
    path.parent.mkdir(parents=True)
    path.write_text(text)


def test_defaults(environ: dict[str, str]) -> None:
    config = load_config(environ=environ)
    assert config == Config(state=Path(environ["XDG_DATA_HOME"], "ddrive"))
    assert config.socket == config.state / "control.sock"


def test_precedence(environ: dict[str, str]) -> None:
    write(environ, 'listen = "127.0.0.1:1"\ntimeout_s = 5\nstate = "/from/file"\nlog_level = "debug"\n')
    environ |= {"DDRIVE_LISTEN": "127.0.0.1:2", "DDRIVE_STATE": "/from/environment", "DDRIVE_LOG_LEVEL": ""}
    config = load_config({"state": "/from/flag", "listen": None}, environ=environ)
    assert config == Config(Path("/from/flag"), "127.0.0.1:2", True, 5.0, "debug")
    assert load_config(environ=environ).state == Path("/from/environment")


def test_state_becomes_absolute(environ: dict[str, str]) -> None:
    assert load_config({"state": "here"}, environ=environ).state == Path.cwd() / "here"


def test_discovery_can_be_turned_off(environ: dict[str, str]) -> None:
    assert not load_config(environ=environ | {"DDRIVE_NO_DISCOVERY": "1"}).discovery
    assert load_config(environ=environ | {"DDRIVE_NO_DISCOVERY": "0"}).discovery
    assert not load_config({"discovery": False}, environ=environ).discovery


def test_limits_and_lists(environ: dict[str, str]) -> None:
    write(environ, 'up_limit = "2MiB"\nallowed_peers = ["' + "01" * 32 + '"]\n')
    environ |= {"DDRIVE_DOWN_LIMIT": "500K", "DDRIVE_DHT_NODE": "a:1,b:2", "DDRIVE_NO_ANNOUNCE": "1"}
    config = load_config({"upload_slots": 3}, environ=environ)
    assert (config.up_limit, config.down_limit, config.upload_slots) == (2 * 1024 * 1024, 500_000, 3)
    assert (config.dht_nodes, config.announce) == (("a:1", "b:2"), False)
    assert config.allowed_peers == {b"\x01" * 32}
    assert load_config({"up_limit": 0}, environ=environ).up_limit is None


@pytest.mark.parametrize(
    "flags",
    [
        {"listen": "nowhere"},
        {"listen": ":1"},
        {"listen": "::1:80"},
        {"listen": "a:99999"},
        {"timeout_s": 0},
        {"timeout_s": "soon"},
        {"timeout_s": "nan"},
        {"log_level": "loud"},
        {"discovery": "perhaps"},
        {"up_limit": "fast"},
        {"down_limit": "1"},
        {"upload_slots": "0"},
        {"metrics_addr": "9100"},
        {"dht_nodes": "here"},
        {"allowed_peers": "00" * 31},
        {"allowed_peers": "nobody"},
    ],
)
def test_unusable_values_are_named(environ: dict[str, str], flags: dict[str, object]) -> None:
    with pytest.raises(DriveError, match=next(iter(flags))):
        load_config(flags, environ=environ)


@pytest.mark.parametrize("text", ["listen =", "color = true\n", "\0"])
def test_an_unusable_file_is_named(environ: dict[str, str], text: str) -> None:
    write(environ, text)
    with pytest.raises(DriveError, match=r"config\.toml"):
        load_config(environ=environ)
