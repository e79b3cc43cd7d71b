"""XSalsa20 against recorded keystreams, by either provider and at any split."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ddrive.protocol import cipher
from ddrive.protocol.cipher import SodiumStream, StreamCipher
from ddrive.protocol.fallback import PycryptodomeStream
from tests.support.vectors import vector

PROVIDERS = [SodiumStream, PycryptodomeStream]
SIZES = st.integers(0, 400) | st.sampled_from([4096, 4097, 10_000])
KEY, NONCE = bytes(range(32)), bytes(range(24))


@pytest.mark.parametrize("provider", PROVIDERS)
def test_recorded_keystream(provider: type) -> None:
    for case in vector("crypto.json")["xsalsa20"]:
        stream = provider(bytes.fromhex(case["key"]), bytes.fromhex(case["nonce"]))
        chunks = [stream.apply(bytes(size)).hex() for size in case["chunkSizes"]]
        assert chunks == case["keystreamChunks"]


@pytest.mark.parametrize("provider", PROVIDERS)
@given(
    sizes=st.lists(st.tuples(st.integers(0, 400) | st.sampled_from([4096, 4097, 10_000]), st.booleans()), max_size=12)
)
def test_any_split_gives_the_same_bytes(provider: type, sizes: list[tuple[int, bool]]) -> None:
    plain = bytes(range(256)) * 480
    whole = StreamCipher(KEY, NONCE).apply(plain)
    stream, place, pieces = provider(KEY, NONCE), 0, []
    for size, in_place in sizes:
        piece = bytearray(plain[place : place + size])
        if in_place:
            stream.apply_in_place(piece)
        pieces.append(piece if in_place else stream.apply(bytes(piece)))
        place += size
    assert b"".join(pieces) == whole[:place]


@pytest.mark.parametrize("size", [4096, 4097, 4160, 300_000])
def test_inputs_larger_than_the_buffer(size: int) -> None:
    sodium, other = SodiumStream(KEY, NONCE), PycryptodomeStream(KEY, NONCE)
    for part in (b"x" * 5, bytes(size), b"y" * 100):
        assert sodium.apply(part) == other.apply(part)


def test_other_provider_is_used_where_libsodium_cannot_be_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cipher, "_salsa20", None)
    with pytest.raises(RuntimeError):
        SodiumStream(KEY, NONCE)
    monkeypatch.setattr("nacl._sodium.__file__", "no-such-library.so")
    assert cipher._salsa20_of_libsodium() is None
