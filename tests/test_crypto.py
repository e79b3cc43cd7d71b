"""Keys, signatures and capabilities agree with the values recorded from the npm packages."""

import pytest

from ddrive.crypto import KeyPair, capability, discovery_key, sign, siphash, verify
from ddrive.dialect import DIALECTS, Dialect
from ddrive.errors import InvalidKey
from ddrive.ids import PublicKey
from tests.support.vectors import vector

KEYS = [(DIALECTS[name], case) for name in DIALECTS for case in vector("crypto.json")[name]["keys"]]


@pytest.mark.parametrize(("dialect", "case"), KEYS)
def test_keys_and_capabilities_match_the_vectors(dialect: Dialect, case: dict[str, object]) -> None:
    value = {name: bytes.fromhex(text) for name, text in case.items() if isinstance(text, str)}
    split = case["split"]
    assert isinstance(split, dict)
    tx, rx = bytes.fromhex(split["tx"]), bytes.fromhex(split["rx"])
    pair = KeyPair.from_seed(value["seed"])
    assert pair == KeyPair(PublicKey(value["publicKey"]), value["secretKey"])
    assert discovery_key(pair.public_key, dialect.discovery_ns) == value["discoveryKey"]
    assert capability(pair.public_key, dialect.capability_ns, tx_key=tx, rx_key=rx) == value["capability"]
    assert capability(pair.public_key, dialect.capability_ns, tx_key=rx, rx_key=tx) == value["remoteCapability"]
    assert sign(value["message"], pair.secret_key) == value["signature"]
    assert verify(value["message"], value["signature"], pair.public_key)


def test_verify_refuses_without_raising() -> None:
    pair = KeyPair.generate()
    good = sign(b"text", pair.secret_key)
    assert verify(b"text", good, pair.public_key)
    assert not verify(b"other", good, pair.public_key)
    assert not verify(b"text", good[:-1], pair.public_key)
    assert not verify(b"text", bytes(64), pair.public_key)
    assert not verify(b"text", good, PublicKey(b"short"))


def test_secret_key_halves_must_belong_together() -> None:
    pair = KeyPair.generate()
    assert KeyPair.from_secret_key(pair.secret_key) == pair
    with pytest.raises(InvalidKey):
        KeyPair.from_secret_key(pair.secret_key[:32] + bytes(32))
    with pytest.raises(InvalidKey):
        KeyPair.from_secret_key(b"")


def test_siphash_of_nothing_is_the_published_value() -> None:
    assert siphash(b"")[::-1].hex() == "1e924b9d737700d7"  # SipHash-2-4 under the zero key, little endian
