"""Opening feeds: where they lie, whose they are, what is kept."""

import errno
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import memory_stream_pair

from ddrive import crypto
from ddrive.crypto import KeyPair, discovery_key
from ddrive.dialect import DWEB, HYPERCORE
from ddrive.errors import Closed, DriveError, InvalidKey, InvalidProof, NotFound, NotWritable, StorageLocked, WrongKey
from ddrive.feed.storage import MemoryDirectory, MemoryStorage
from ddrive.protocol import NoiseKeyPair
from ddrive.standalone import open_feed
from tests.standalone.pairs import author_and_copy, join

PAIR = KeyPair.from_seed(b"\x09" * 32)
OTHER = KeyPair.from_seed(b"\x0a" * 32)


async def test_a_path_keeps_the_feed(tmp_path: Path):
    async with open_feed(tmp_path / "feed") as feed:
        await feed.append(b"kept")
    async with open_feed(str(tmp_path / "feed")) as feed:
        assert await feed.get(0) == b"kept"


async def test_a_factory_of_files_keeps_the_feed():
    files: dict[str, bytearray] = {}

    def factory(name: str) -> MemoryStorage:
        return MemoryStorage(files.setdefault(name, bytearray()))

    async with open_feed(factory) as feed:
        await feed.append(b"kept")
    async with open_feed(factory) as feed:
        assert await feed.get(0) == b"kept"
        assert feed.writable


class SixMethods:
    """A file with no more than a factory's files need to have."""

    def __init__(self, content: bytearray) -> None:
        self._content = content

    def read(self, offset: int, size: int) -> bytes:
        return bytes(self._content[offset : offset + size])

    def write(self, offset: int, data: bytes) -> None:
        self._content.extend(bytes(max(0, offset - len(self._content))))
        self._content[offset : offset + len(data)] = data

    def size(self) -> int:
        return len(self._content)

    def truncate(self, size: int) -> None:
        self._content[:] = self._content[:size].ljust(size, b"\x00")

    def sync(self) -> None:
        pass

    def close(self) -> None:
        pass


async def test_a_factory_needs_six_methods():
    files: dict[str, bytearray] = {}
    blocks = [b"%03d" % index * 40 for index in range(300)]

    def factory(name: str) -> SixMethods:
        return SixMethods(files.setdefault(name, bytearray()))

    async with open_feed(factory) as feed:
        await feed.append(list(blocks))
        feed.clear(7, 9)
    assert files["data"] == b"".join(blocks[:7]) + bytes(240) + b"".join(blocks[9:])
    async with open_feed(factory) as feed:
        assert feed.downloaded_count() == 298
        assert await feed.append(b"more") == 300
        assert (await feed.audit()).valid == 299
        assert await feed.get_range(9, 301) == [*blocks[9:], b"more"]
        await feed.destroy_storage()
    assert not any(files.values())


async def test_what_a_factorys_file_can_do_beyond_is_used():
    files: dict[str, bytearray] = {}
    punched: list[tuple[int, int]] = []

    class Punching(SixMethods):
        def punch(self, offset: int, size: int) -> None:
            punched.append((offset, size))

    async with open_feed(lambda name: Punching(files.setdefault(name, bytearray()))) as feed:
        await feed.append([b"abc", b"defg"])
        feed.clear(0)
    assert punched == [(0, 3)]


async def test_a_feed_of_our_own_can_be_written():
    async with open_feed(MemoryDirectory()) as feed:
        assert feed.writable


async def test_a_feed_by_key_is_a_copy():
    async with open_feed(MemoryDirectory(), PAIR.public_key) as feed:
        assert feed.key == PAIR.public_key
        assert not feed.writable


async def test_nothing_appears_when_a_missing_feed_is_an_error(tmp_path: Path):
    with pytest.raises(NotFound):
        async with open_feed(tmp_path / "feed", create_if_missing=False):
            pass
    assert not (tmp_path / "feed").exists()


async def test_overwriting_starts_anew(tmp_path: Path):
    async with open_feed(tmp_path / "feed") as feed:
        await feed.append(b"old")
        old = feed.key
    async with open_feed(tmp_path / "feed", overwrite=True) as feed:
        assert feed.length == 0
        assert feed.key != old


async def test_an_open_feed_is_not_overwritten(tmp_path: Path):
    async with open_feed(tmp_path / "feed") as feed:
        await feed.append(b"in use")
        with pytest.raises(StorageLocked):
            async with open_feed(tmp_path / "feed", overwrite=True):
                pass
        assert await feed.get(0) == b"in use"


async def test_a_secret_key_makes_the_feed(tmp_path: Path):
    async with open_feed(tmp_path / "feed", secret_key=PAIR.secret_key) as feed:
        assert feed.key == PAIR.public_key
    assert (tmp_path / "feed" / "secret_key").read_bytes() == PAIR.secret_key


async def test_a_secret_key_that_is_not_stored_has_to_be_given_again(tmp_path: Path):
    async with open_feed(tmp_path / "feed", secret_key=PAIR.secret_key, store_secret_key=False) as feed:
        assert feed.writable
    async with open_feed(tmp_path / "feed") as feed:
        assert not feed.writable
    async with open_feed(tmp_path / "feed", secret_key=PAIR.secret_key) as feed:
        assert feed.writable


async def test_a_secret_key_of_another_feed_is_refused():
    with pytest.raises(WrongKey):
        async with open_feed(MemoryDirectory(), PAIR.public_key, secret_key=OTHER.secret_key):
            pass


async def test_a_key_of_another_feed_is_refused(tmp_path: Path):
    async with open_feed(tmp_path / "feed", PAIR.public_key):
        pass
    with pytest.raises(WrongKey):
        async with open_feed(tmp_path / "feed", OTHER.public_key):
            pass


async def test_a_key_of_the_wrong_length_is_refused():
    with pytest.raises(InvalidKey):
        async with open_feed(MemoryDirectory(), b"short"):
            pass


async def test_a_feed_that_has_to_be_writable_fails_without_its_secret_key():
    directory = MemoryDirectory()
    with pytest.raises(NotWritable):
        async with open_feed(directory, PAIR.public_key, writable=True):
            pass
    async with open_feed(directory):
        pass  # the lock is free again


async def test_own_signatures_need_no_secret_key(autojump_clock):
    def sign(message: bytes) -> bytes:
        return crypto.sign(b"mine" + message, PAIR.secret_key)

    def verify(message: bytes, signature: bytes, key: bytes) -> bool:
        return crypto.verify(b"mine" + message, signature, PAIR.public_key)

    async with (
        open_feed(MemoryDirectory(), PAIR.public_key, sign=sign, verify=verify) as author,
        open_feed(MemoryDirectory(), PAIR.public_key, verify=verify) as copy,
    ):
        await author.append(b"signed otherwise")
        join(author, copy)
        assert await copy.get(0) == b"signed otherwise"


async def test_own_signatures_need_a_key():
    with pytest.raises(InvalidKey):
        async with open_feed(MemoryDirectory(), sign=lambda message: bytes(64)):
            pass


@pytest.mark.parametrize("sign", [lambda message: b"short", lambda message: bytes(64)])
async def test_an_own_signature_that_does_not_verify_is_not_stored(sign):
    directory = MemoryDirectory()
    async with open_feed(directory, PAIR.public_key, secret_key=PAIR.secret_key) as feed:
        await feed.append(b"good")
    async with open_feed(directory, PAIR.public_key, sign=sign) as feed:
        with pytest.raises(InvalidProof, match="sign"):
            await feed.append(b"lost")
        assert feed.length == 1
    async with open_feed(directory, secret_key=PAIR.secret_key) as feed:
        assert await feed.append(b"next") == 1


async def test_options_that_are_wrong_leave_nothing_behind(tmp_path: Path):
    place = tmp_path / "feed"
    with pytest.raises(ValueError, match="encoding"):
        async with open_feed(place, value_encoding="none"):
            pass
    with pytest.raises(NotWritable):
        async with open_feed(place, PAIR.public_key, writable=True):
            pass
    with pytest.raises(InvalidKey, match="fromhex"):
        async with open_feed(place, PAIR.public_key.hex()):  # type: ignore[arg-type]
            pass
    assert not place.exists()


async def _hook(index: int, block: bytes, peer: object) -> None:
    """A hook that is not a plain function."""


@pytest.mark.parametrize(
    "options",
    [
        {"secret_key": b"short"},
        {"key": b"short"},
        {"key": PAIR.public_key, "writable": True},
        {"key": PAIR.public_key, "secret_key": KeyPair.generate().secret_key},
        {"sign": lambda message: bytes(64)},
        {"key_pair": bytes(32)},
        {"key_pair": b""},
        {"dialect": "dweb"},
        {"storage_cache_size": -1},
        {"value_encoding": object()},
        {"on_write": _hook},
        {"key": PAIR.public_key, "sign": _hook},
        {"verify": _hook},
    ],
)
async def test_options_that_are_wrong_cost_no_feed_that_is_there(tmp_path: Path, options: dict[str, Any]):
    async with open_feed(tmp_path) as feed:
        await feed.append(b"cannot be made again")
    with pytest.raises((DriveError, ValueError, TypeError)):
        async with open_feed(tmp_path, overwrite=True, **options):
            pass
    async with open_feed(tmp_path) as feed:
        assert feed.writable
        assert await feed.get(0) == b"cannot be made again"


class _FullDisk(MemoryStorage):
    """A file that has no room when the feed is closed."""

    full = False

    def sync(self) -> None:
        if _FullDisk.full:
            raise OSError(errno.ENOSPC, "no space left on device")


@pytest.mark.parametrize("raised", [None, KeyError("of the program")])
async def test_what_fails_at_the_end_is_no_group(raised: Exception | None, monkeypatch, caplog):
    files: dict[str, bytearray] = {}
    with pytest.raises(OSError if raised is None else KeyError):  # noqa: PT012
        async with open_feed(lambda name: _FullDisk(files.setdefault(name, bytearray()))) as feed:
            await feed.append(b"x", durable=False)
            monkeypatch.setattr(_FullDisk, "full", True)
            if raised is not None:
                raise raised
    assert feed.closed
    assert ("cannot close" in caplog.text) == (raised is not None)
    caplog.clear()


async def test_a_missing_feed_is_named_by_its_place(tmp_path: Path):
    with pytest.raises(NotFound, match=str(tmp_path / "feed")):
        async with open_feed(tmp_path / "feed", create_if_missing=False):
            pass


@pytest.mark.parametrize("dialect", [DWEB, HYPERCORE])
async def test_the_discovery_key_is_that_of_the_dialect(dialect):
    async with open_feed(MemoryDirectory(), PAIR.public_key, dialect=dialect) as feed:
        assert feed.discovery_key == discovery_key(PAIR.public_key, dialect.discovery_ns)


async def test_a_small_cache_reads_the_same(tmp_path: Path):
    async with open_feed(tmp_path / "feed", storage_cache_size=1) as feed:
        await feed.append([bytes([index % 256]) for index in range(2000)])
        assert [await feed.get(index) for index in (1999, 0, 1000)] == [bytes([1999 % 256]), b"\0", bytes([1000 % 256])]


async def test_without_stats_nothing_is_counted():
    async with open_feed(MemoryDirectory(), stats=False) as feed:
        assert feed.stats is None


async def test_the_key_pair_is_what_peers_see(autojump_clock):
    pair = NoiseKeyPair.from_seed(b"\x01" * 32)
    async with author_and_copy(joined=False, key_pair=pair) as (author, copy):
        join(author, copy)
        await copy.update(1)
        assert author.peers[0].public_key == pair.public_key


async def test_what_the_body_raises_comes_out_as_it_is():
    with pytest.raises(KeyError, match="mine"):
        async with open_feed(MemoryDirectory()):
            raise KeyError("mine")


async def test_after_the_block_the_feed_is_closed():
    async with open_feed(MemoryDirectory()) as feed:
        pass
    assert not feed.readable
    with pytest.raises(Closed):
        await feed.get(0)


async def test_a_closed_feed_acts_no_more_and_still_tells_what_it_was(caplog):
    async with open_feed(MemoryDirectory()) as feed, open_feed(MemoryDirectory()) as other:
        await feed.append([b"one", b"two"])
        download = feed.download()
        link = other.replicate(memory_stream_pair()[0], initiator=True)
        await feed.aclose()
        assert (feed.length, feed.downloaded_count(), feed.has(0), feed.has(0, 3)) == (2, 2, True, False)
        assert (feed.uploading, feed.downloading, feed.closed) == (True, False, True)
        assert [event async for event in feed.events()] == []
        acts = [
            lambda: feed.cancel(0),
            lambda: feed.undownload(download),
            lambda: feed.undownload((0, None)),
            lambda: feed.set_downloading(True),
            lambda: feed.set_uploading(False),
            lambda: link.add(feed),
            lambda: feed.replicate(memory_stream_pair()[0], initiator=True),
        ]
        for act in acts:
            with pytest.raises(Closed):
                act()
        for wait in (feed.flush, feed.head, feed.refresh):
            with pytest.raises(Closed):
                await wait()
        await trio.sleep(1.6)  # what looks after the feed meanwhile has nothing to complain of
        link.close()
    assert not caplog.text


@pytest.mark.parametrize("place", [None, 7, b"feed", object()])
async def test_what_is_no_place_is_told(place: Any):
    with pytest.raises(TypeError, match="a feed lies in a path"):
        async with open_feed(place):
            pass


async def test_what_is_no_dialect_or_key_pair_is_told():
    with pytest.raises(TypeError, match="dialect is"):
        async with open_feed(MemoryDirectory(), dialect="dweb"):  # type: ignore[arg-type]
            pass
    with pytest.raises(TypeError, match="key_pair is") as told:
        async with open_feed(MemoryDirectory(), key_pair=b"secret"):  # type: ignore[arg-type]
            pass
    assert "secret" not in str(told.value)


@pytest.mark.parametrize("stream", [None, b"", 7])
async def test_what_is_no_stream_is_told_at_the_call(stream: Any):
    async with open_feed(MemoryDirectory()) as feed:
        with pytest.raises(TypeError, match="stream"):
            feed.replicate(stream, initiator=True)
        with pytest.raises(TypeError, match="key_pair"):
            feed.replicate(memory_stream_pair()[0], initiator=True, key_pair=bytes(32))  # type: ignore[arg-type]


async def test_closing_twice_does_no_harm():
    async with open_feed(MemoryDirectory()) as feed:
        await feed.aclose()
        await feed.aclose()
    assert feed.closed


async def test_a_destroyed_feed_leaves_nothing(tmp_path: Path):
    async with open_feed(tmp_path / "feed") as feed:
        await feed.append(b"gone")
        await feed.destroy_storage()
    assert not (tmp_path / "feed").exists()
