"""What cannot be is refused at once, by an error that says what is wrong; what is as good as right is taken."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest
from trio.testing import memory_stream_pair

from ddrive.crypto import KeyPair
from ddrive.errors import InvalidKey, TimedOut
from ddrive.feed.storage import MemoryDirectory, MemoryStorage
from ddrive.protocol import NoiseKeyPair
from ddrive.standalone import FeedExtension, Replication, StandaloneFeed, open_feed, open_trie
from tests.standalone.pairs import author_and_copy, join

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


WRONG_CALLS = {
    "replication add": (lambda at: at.link.add(5), "feeds that open_feed"),
    "replication remove": (lambda at: at.link.remove(None), "feeds that open_feed"),
    "replication add options": (lambda at: at.link.add(at.copy, 5), "PeerOptions"),
    "replication refuse": (lambda at: at.link.refuse(None), "discovery key"),
    "extension send": (lambda at: at.talk.send(b"x", None), "feed.peers"),
    "extension message": (lambda at: at.talk.send(None, at.author.peers[0]), "bytes or text"),
    "put proof": (lambda at: at.copy.put(3, b"x", None), "`proof`"),
    "put block": (lambda at: at.copy.put(3, "x", at.author.proof(3)), "bytes, or None"),
    "put index": (lambda at: at.copy.put("3", b"x", at.author.proof(3)), "number"),
    "proof digest": (lambda at: at.author.proof(3, digest=None), "digest is a number"),
    "has": (lambda at: at.author.has(None), "number"),
    "has float": (lambda at: at.author.has(1.5), "number"),
    "clear end": (lambda at: at.author.clear(1, "2"), "number"),
    "root hashes": (lambda at: at.author.root_hashes(1.0), "number"),
    "verify": (lambda at: at.author.verify(1, None), "signature is bytes"),
    "download end": (lambda at: at.copy.download(0, "5"), "number"),
    "download list": (lambda at: at.copy.download(blocks=5), "list of their numbers"),
    "download listed": (lambda at: at.copy.download(blocks=["a"]), "number"),
    "undownload": (lambda at: at.copy.undownload(5), "start and end"),
    "read stream batch": (lambda at: at.copy.read_stream(batch=None), "batch is a number"),
    "write stream": (lambda at: at.author.write_stream(max_block_size="x"), "max_block_size is a number"),
    "events": (lambda at: at.author.events("grew"), "classes"),
    "set uploading": (lambda at: at.author.set_uploading({}), "True or False"),
    "initiator": (lambda at: at.author.replicate(memory_stream_pair()[0], None), "initiator"),
    "link timeout": (lambda at: at.author.replicate(memory_stream_pair()[0], True, timeout="1"), "seconds"),
    "peer has": (lambda at: at.copy.peers[0].has(None), "number"),
}
WRONG_AWAITS = {
    "get": (lambda at: at.copy.get(None), "number"),
    "get timeout": (lambda at: at.copy.get(3, timeout="1"), "seconds"),
    "get range": (lambda at: at.copy.get_range(0, None), "number"),
    "seek": (lambda at: at.copy.seek("3"), "number"),
    "update": (lambda at: at.copy.update("3"), "number"),
    "head timeout": (lambda at: at.author.head(timeout=b"1"), "seconds"),
    "append": (lambda at: at.author.append(5), "bytes or text"),
    "append blocks": (lambda at: at.author.append_blocks(5), "list of blocks"),
    "append once": (lambda at: at.author.append_blocks(block for block in [b"x"]), "list of blocks"),
    "append block": (lambda at: at.author.append_blocks(b""), "list of blocks"),
    "trie": (lambda at: open_trie(5), "trie lies"),
}


@dataclass
class At:
    author: StandaloneFeed
    copy: StandaloneFeed
    link: Replication
    talk: FeedExtension


@asynccontextmanager
async def everything() -> AsyncIterator[At]:
    async with author_and_copy(joined=False) as (author, copy):
        link, _ = join(author, copy)
        talk = author.register_extension("talk")
        await copy.get(0)
        yield At(author, copy, link, talk)


@pytest.mark.parametrize("call", WRONG_CALLS)
async def test_what_is_wrong_is_refused_by_an_error_that_says_what_to_pass(call, autojump_clock):
    wrong, message = WRONG_CALLS[call]
    async with everything() as at:
        with pytest.raises(TypeError, match=message):
            wrong(at)
        assert await at.copy.get(1), "nothing has ended"


@pytest.mark.parametrize("call", WRONG_AWAITS)
async def test_what_is_wrong_is_refused_when_it_is_awaited(call, autojump_clock):
    wrong, message = WRONG_AWAITS[call]
    async with everything() as at:
        length = at.author.length
        with pytest.raises(TypeError, match=message):
            await wrong(at)
        assert at.author.length == length


async def test_the_size_of_the_cache_is_a_number():
    with pytest.raises(TypeError, match="storage_cache_size is a number"):
        async with open_feed(MemoryDirectory(), storage_cache_size="x"):  # type: ignore[arg-type]
            pass
