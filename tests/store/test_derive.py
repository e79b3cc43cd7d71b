"""Key derivation against the recorded values of both npm stores."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ddrive.crypto import discovery_key
from ddrive.dialect import DIALECTS, DWEB
from ddrive.errors import InvalidKey
from ddrive.ids import PublicKey
from ddrive.store.derive import (
    DEFAULT_NAME,
    child_namespace,
    content_name,
    decode_name,
    derive_pair,
    derive_seed,
    encode_name,
    feed_folder,
    name_bytes,
)
from tests.support.vectors import vector


@pytest.mark.parametrize("dialect", DIALECTS.values(), ids=lambda dialect: dialect.name)
def test_derived_feeds_match_the_recorded_ones(dialect):
    for case in vector(f"keys-{dialect.name}.json")["derived"]:
        master_key, name = bytes.fromhex(case["masterKey"]), bytes.fromhex(case["nameHex"])
        pair = derive_pair(master_key, name, dialect)
        assert derive_seed(master_key, name, dialect).hex() == case["seed"]
        assert pair.public_key.hex() == case["publicKey"]
        assert pair.secret_key.hex() == case["secretKey"]
        found = discovery_key(pair.public_key, dialect.discovery_ns)
        assert found.hex() == case["discoveryKey"]
        assert feed_folder(found) == case["dir"]
        assert encode_name(name).hex() == case["nameFile"]
        assert decode_name(bytes.fromhex(case["nameFile"])) == name


@pytest.mark.parametrize("dialect", DIALECTS.values(), ids=lambda dialect: dialect.name)
def test_default_feeds_of_namespaces_match_the_recorded_ones(dialect):
    vectors = vector(f"keys-{dialect.name}.json")
    master_key = bytes.fromhex(vectors["namespaceMasterKey"])
    for case in vectors["namespaces"]:
        name = None
        for step in case["chain"]:
            name = child_namespace(name, step if isinstance(step, str) else bytes.fromhex(step["hex"]))
        name = DEFAULT_NAME if name is None else name
        assert name == case["name"]
        assert derive_pair(master_key, name_bytes(name), dialect).public_key.hex() == case["defaultKey"]


def test_a_namespace_given_as_bytes_is_spelt_in_hex():
    assert child_namespace("a", b"\xff\x01") == "a:ff01"


def test_the_content_feed_is_named_after_the_metadata_key():
    assert content_name(PublicKey(bytes(31) + b"\x01")) == "00" * 31 + "01-content"


def test_a_master_key_of_the_wrong_size_is_refused():
    with pytest.raises(InvalidKey):
        derive_pair(bytes(31), b"a", DWEB)


@given(st.binary(max_size=300))
def test_name_files_round_trip(name):
    assert decode_name(encode_name(name)) == name


@given(st.binary(max_size=300), st.binary(min_size=1, max_size=3))
def test_a_name_file_with_trailing_bytes_is_ignored(name, tail):
    assert decode_name(encode_name(name) + tail) is None


@given(st.binary(max_size=20))
def test_a_damaged_name_file_never_raises(content):
    name = decode_name(content)
    assert name is None or content.endswith(name)
