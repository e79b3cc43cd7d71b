"""What cannot be is refused at once, by an error that says what is wrong; what is as good as right is taken."""

import pytest
from trio.testing import memory_stream_pair

from ddrive.crypto import KeyPair
from ddrive.errors import InvalidKey, TimedOut
from ddrive.feed.storage import MemoryDirectory, MemoryStorage
from ddrive.protocol import NoiseKeyPair
from ddrive.standalone import open_feed
from tests.standalone.pairs import author_and_copy

PAIR = KeyPair.from_seed(bytes([3]) * 32)


@pytest.mark.parametrize("convert", [bytes, bytearray, memoryview])
async def test_a_secret_key_is_any_kind_of_bytes(convert):
    async with open_feed(MemoryDirectory(), secret_key=convert(PAIR.secret_key)) as feed:
        assert feed.key == PAIR.public_key


@pytest.mark.parametrize("secret_key", [PAIR.secret_key.hex(), 5, [1] * 64, b"short"])
async def test_a_secret_key_that_is_none_is_refused_and_not_shown(secret_key):
    with pytest.raises(InvalidKey) as caught:
        async with open_feed(MemoryDirectory(), secret_key=secret_key):
            pass
    assert str(secret_key) not in str(caught.value)


@pytest.mark.parametrize("hook", ["on_write", "sign", "verify"])
async def test_a_hook_is_a_function(hook):
    with pytest.raises(TypeError, match=hook):
        async with open_feed(MemoryDirectory(), PAIR.public_key, **{hook: 5}):
            pass


async def test_a_check_of_peers_is_a_function(autojump_clock):
    async with author_and_copy(joined=False) as (author, _):
        with pytest.raises(TypeError, match="on_authenticate"):
            author.replicate(memory_stream_pair()[0], True, on_authenticate=5)  # type: ignore[arg-type]


async def test_what_is_called_before_a_wait_is_a_plain_function(autojump_clock):
    async def wait(index: int) -> None: ...

    async with author_and_copy(joined=False) as (_, copy):
        with pytest.raises(ValueError, match="on_wait"):
            await copy.get(0, timeout=1, on_wait=wait)
        with pytest.raises(TimedOut):
            await copy.get(0, timeout=1, on_wait=print)


@pytest.mark.parametrize("place", [MemoryDirectory, lambda name: None, lambda name: {}])
async def test_a_place_that_gives_no_storage_is_refused(place):
    with pytest.raises(TypeError, match=r"Directory|lacks read, write"):
        async with open_feed(place):
            pass


async def test_a_factory_is_not_awaited():
    async def make(name: str) -> MemoryStorage:
        return MemoryStorage()

    with pytest.raises(TypeError, match="lacks read"):
        async with open_feed(make):  # type: ignore[arg-type]
            pass


@pytest.mark.parametrize(("public", "secret"), [(b"", b""), (bytes(32), bytes(31)), ("x" * 32, bytes(32))])
def test_a_noise_key_pair_is_two_keys(public, secret):
    with pytest.raises(ValueError, match="32 bytes"):
        NoiseKeyPair(public, secret)


async def test_a_truth_value_is_no_number_of_a_block(autojump_clock):
    async with author_and_copy() as (_, copy):
        with pytest.raises(TypeError):
            await copy.get(True)
        with pytest.raises(TypeError):
            copy.download(0, True)


async def test_the_name_of_an_extension_is_text():
    async with open_feed(MemoryDirectory()) as feed:
        with pytest.raises(TypeError, match="text"):
            feed.register_extension(b"talk")  # type: ignore[arg-type]


@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "ucs2"])
@pytest.mark.parametrize("convert", [bytes, bytearray, memoryview])
async def test_bytes_are_the_text_that_they_stand_for(encoding, convert):
    async with open_feed(MemoryDirectory(), value_encoding=encoding) as feed:
        await feed.append(convert(b"text"))
        assert await feed.get(0) == "text"
        with pytest.raises(UnicodeDecodeError):
            await feed.append(convert(b"\xff"))


async def test_what_json_has_no_form_for_is_refused():
    async with open_feed(MemoryDirectory(), value_encoding="json") as feed:
        with pytest.raises(ValueError, match="JSON"):
            await feed.append({"share": float("nan")})
        assert not feed.length
