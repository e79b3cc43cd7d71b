"""A `key` that is blank or cut off: of a feed that was never made, or of one whose other files show whose it is."""

import pytest

from ddrive import standalone
from ddrive.crypto import KeyPair
from ddrive.dialect import DWEB
from ddrive.errors import AlreadyExists, CorruptStorage, NotFound, StorageError, WrongKey
from ddrive.feed import FeedLog, MemoryDirectory, open_feed
from ddrive.ids import PublicKey
from ddrive.store.store import open_store

OURS, OTHER = KeyPair.from_seed(bytes([1]) * 32), KeyPair.from_seed(bytes([2]) * 32)
BLANK = [bytes(32), b"", bytes(7), OURS.public_key[:20]]


def made(blocks=(), *, keeps_secret=True):
    """Return the files of a feed of ours."""
    directory = MemoryDirectory()
    log = FeedLog.create(directory, key=OURS.public_key, secret_key=OURS.secret_key, store_secret_key=keeps_secret)
    if blocks:
        log.append(blocks)
    log.close()
    return directory


def lost(directory, content, **others):
    """Return the files with another content of `key`, None: without it."""
    directory.files["key"] = bytearray(content or b"")
    for name, other in others.items():
        directory.files[name] = bytearray(other)
    if content is None:
        del directory.files["key"]
    return directory


@pytest.mark.parametrize("content", BLANK)
@pytest.mark.parametrize("secret", [None, b"", bytes(64), bytes(10)])
@pytest.mark.parametrize("open_it", [open_feed, standalone.open_feed])
async def test_a_blank_key_of_a_feed_that_was_never_made_is_none(content, secret, open_it):
    directory = lost(made(keeps_secret=False), content, **({} if secret is None else {"secret_key": secret}))
    with pytest.raises(StorageError, match="no feed"):
        FeedLog.open(directory)
    async with open_it(directory) as feed:
        assert await feed.append([b"x"]) == 0
        key = feed.key
    async with open_it(directory) as feed:
        assert (feed.key, await feed.get(0)) == (key, b"x")


@pytest.mark.parametrize("content", BLANK)
async def test_a_feed_of_somebody_is_made_over_a_blank_key(content):
    directory = lost(made(keeps_secret=False), content, secret_key=bytes(64))
    async with standalone.open_feed(directory, OTHER.public_key) as feed:
        assert (feed.key, feed.writable) == (OTHER.public_key, False)
    with pytest.raises(NotFound):
        async with standalone.open_feed(lost(directory, content), create_if_missing=False):
            pass


@pytest.mark.parametrize("content", [*BLANK, None])
@pytest.mark.parametrize("blocks", [[], [b"a", b"b"]])
async def test_a_secret_key_that_is_there_tells_the_key(content, blocks, caplog):
    directory = lost(made(blocks), content)
    with pytest.raises(AlreadyExists):
        FeedLog.create(directory, key=OTHER.public_key)
    with pytest.raises(WrongKey):
        FeedLog.open(directory, key=OTHER.public_key)
    async with standalone.open_feed(directory) as feed:
        assert (feed.key, feed.length, feed.writable) == (OURS.public_key, len(blocks), True)
    assert bytes(directory.files["key"]) == OURS.public_key
    assert "made anew" in caplog.text


@pytest.mark.parametrize("content", [*BLANK, None])
async def test_no_key_is_made_over_content_that_is_of_another(content, caplog):
    directory = lost(made([b"a", b"b"], keeps_secret=False), content)
    before = {name: bytes(found) for name, found in directory.files.items()}
    for options in ({}, {"key": OTHER.public_key}, {"secret_key": OTHER.secret_key}):
        for open_it in (open_feed, standalone.open_feed):
            with pytest.raises(CorruptStorage, match="key of the feed is damaged"):
                async with open_it(directory, **options):
                    pass
    assert {name: bytes(found) for name, found in directory.files.items()} == before
    async with standalone.open_feed(directory, OURS.public_key) as feed:
        assert await feed.get_range(0, 2) == [b"a", b"b"]
    async with standalone.open_feed(directory) as feed:
        assert feed.key == OURS.public_key


@pytest.mark.parametrize("content", [*BLANK, None])
@pytest.mark.parametrize("blocks", [[], [b"a", b"b"]])
async def test_the_folder_in_a_store_tells_the_key(content, blocks, tmp_path, caplog):
    async with open_store(tmp_path, DWEB) as store:
        feed = await store.open_feed(name="ours")
        if blocks:
            await feed.append(blocks)
        path = store.folder(feed.key) / "key"
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    async with open_store(tmp_path, DWEB) as store:
        feed = await store.open_feed(name="ours")
        assert (feed.length, feed.writable) == (len(blocks), True)
        assert await feed.append([b"more"]) == len(blocks)
        assert path.read_bytes() == feed.key


@pytest.mark.parametrize("keeps_secret", [True, False])
async def test_a_changed_key_is_mended_when_signatures_are_of_another_one(keeps_secret, caplog):
    directory = lost(made([b"a", b"b"], keeps_secret=keeps_secret), bytes([9]) * 32)
    with pytest.raises(WrongKey):
        async with standalone.open_feed(directory, OTHER.public_key):
            pass
    async with standalone.open_feed(directory, None if keeps_secret else OURS.public_key) as feed:
        assert (feed.key, await feed.get(1), feed.writable) == (OURS.public_key, b"b", keeps_secret)
    assert bytes(directory.files["key"]) == OURS.public_key


async def test_a_secret_key_that_is_damaged_leaves_a_feed_to_be_read(caplog):
    directory = made([b"a"])
    directory.files["secret_key"][5] ^= 1
    async with standalone.open_feed(directory) as feed:
        assert (await feed.get(0), feed.writable) == (b"a", False)
    assert "secret key of a feed is damaged" in caplog.text
    async with standalone.open_feed(directory, secret_key=OURS.secret_key) as feed:
        assert await feed.append(b"b") == 1


def test_a_key_of_zeros_that_is_meant_is_one():
    key = PublicKey(bytes(32))
    directory = MemoryDirectory()
    FeedLog.create(directory, key=key).close()
    assert FeedLog.open(directory, key=key).length == 0
