"""Listing a directory again: the same as the first time, for every version, and never more than a bounded memory."""

from ddrive.drive.drive import Drive, open_drive
from ddrive.drive.listings import ListedAt, Listings
from ddrive.drive.stat import Stat
from ddrive.drive.walks import DirEntry
from ddrive.drive.writer import NewEntry
from ddrive.ids import PublicKey
from ddrive.store.store import OwnedStore

KEY = PublicKey(bytes(32))


def test_listings_unused_for_longest_go_first() -> None:
    entries = [DirEntry(str(number), Stat(0o100644)) for number in range(4)]
    places = [ListedAt(KEY, "d", number) for number in range(4)]
    listings = Listings(limit=10)
    for place in places[:2]:
        listings.put(place, entries)
    assert listings.get(places[0]) == entries
    listings.put(places[2], entries)
    listings.put(places[3], entries * 3)
    assert [listings.get(place) is not None for place in places] == [True, False, True, False]


async def test_a_listing_follows_every_change(own: Drive, own_store: OwnedStore) -> None:
    await own.batch([NewEntry(f"d/{number}", Stat(0o100644)) for number in range(5)])
    seen = {own.version: await own.names("d")}
    (await own.list("d")).clear()
    await own.write_file("other", b"")
    assert await own.names("d") == seen[own.version - 1]
    await own.unlink("d/2")
    seen[own.version] = await own.names("d")
    await own.set_stat("d/3", mode=0o600)
    assert (await own.list("d"))[2].stat.mode == 0o100600
    await own.write_file("d/sub/file", b"")
    before = (await own.list("d"))[-1]
    await own.write_file("later", b"", mtime_ms=7)
    assert (await own.list("d"))[-1] != before  # the times of a directory without entry are those of its drive
    await own.rename("d", "e")
    assert await own.names("e") == ["0", "1", "3", "4", "sub"]
    for version, names in seen.items():
        assert await own.checkout(version).names("d") == names
    second = await open_drive(own_store, name="second", create=True)
    await own.mount("in", second.key)
    assert await own.names("in") == []
    await second.write_file("x", b"")
    assert await own.names("in") == ["x"]
    assert await second.names() == ["x"]
