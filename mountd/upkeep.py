"""The verbs that work on what is held of a drive: check it, fetch it again, drop it. They run where the files are."""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import trio

from ddrive.drive.address import parse_key
from ddrive.drive.stat import Stat
from ddrive.drive.walks import stat_or_none
from ddrive.errors import CorruptStorage, InvalidProof, LocalProtocolError, NoPeers
from ddrive.feed import Feed
from ddrive.ids import BlockIndex, PublicKey
from ddrive.store.runs import Run, joined
from ddrive.store.store import OwnedStore
from ddrive.trie.node import decode_node
from mountd.collection import Collection
from mountd.control import Params, Tell, Verb
from mountd.space import Space
from mountd.space_pins import blocks_of

REPAIR_S = 30.0  # without a bad block that came from a peer, unless the caller says otherwise
REPAIR_BLOCKS = 256  # are wished for at a time
IN_VAIN_S = 1.0  # for the next ones when none of these came
LOOK_S = 0.05
NAMES = ("metadata", "content")

Bad = tuple[str, int]  # name of the feed, block


class Upkeep:
    """`verify` and `clear`."""

    def __init__(self, collection: Collection, stores: Mapping[str, OwnedStore], space: Space) -> None:
        self._collection = collection
        self._space = space
        self._stores = stores
        self._bad: dict[PublicKey, set[Bad]] = {}  # found bad and not fetched again yet

    def table(self) -> dict[str, Verb]:
        """Return the methods by name."""
        return {"verify": self.verify, "clear": self.clear}

    async def verify(self, params: Params, tell: Tell) -> dict[str, Any]:
        """Check every held block of a drive again; a bad one counts as not held from then on, one of ours stays bad.

        With `repair` the bad ones are fetched again, until none has come for `wait_s` seconds. `restored` are good
        ones that the damaged list of held blocks did not name; which they are, the log tells. `not_kept` are blocks of
        a drive of ours that were cleared: none of them is missed.
        """
        known = self._collection.table.find(parse_key(str(params["key"])).key)
        value: dict[str, Any] = {
            "key": known.key.hex(),
            "blocks": 0,
            "valid": 0,
            "bad": [],
            "forked": False,
            "cut_off": [],
        }
        repaired = restored = not_kept = 0
        if params.get("repair"):
            self._collection.keep(known)
        async with self._collection.feeds(known) as found:
            feeds = dict(zip(NAMES, found[1] if found else [], strict=False))
            remembered = self._bad.setdefault(known.key, set())
            for name, feed in feeds.items():
                good, bad, found_again = await feed.audit()
                remembered |= {(name, index) for index in bad}
                if feed.writable and not feed.behind:
                    not_kept += feed.length - feed.held(0, feed.length) - len(bad)
                value["valid"] += good
                restored += len(found_again)
                value["forked"] = value["forked"] or feed.forked
                value["cut_off"] += [name] * feed.cut_off
            remembered -= {(name, index) for name, index in remembered if feeds[name].has(index)}
            bad_ones = sorted(remembered)
            paths = await _paths(feeds, bad_ones)
            if params.get("repair"):
                repaired = await self._repair(feeds, remembered, params.get("wait_s"), tell)
        value["blocks"] = value["valid"] + len(bad_ones)
        value["bad"] = [
            {
                "feed": name,
                "block": index,
                "path": paths.get((name, index)),
                "repaired": (name, index) not in remembered,
            }
            for name, index in bad_ones
        ]
        return value | {"repaired": repaired, "restored": restored, "not_kept": not_kept}

    async def clear(self, params: Params, tell: Tell) -> dict[str, Any]:
        """Drop these blocks, in which the content of a path lies, pinned or not; with `dry_run` only tell how many.

        Raises: NotFound.
        """
        known = self._collection.table.find(parse_key(str(params["key"])).key)
        path, dry = str(params["path"]), bool(params.get("dry_run"))
        try:
            content = blocks_of(params["blocks"])
        except (AttributeError, TypeError, ValueError) as error:
            raise LocalProtocolError(f"clear: {error}") from error
        dropped = 0
        if known.dialect is not None:
            if not dry:
                await self._space.recount(self._space.pins.drop(known.key, path, content))
            for key, runs in content.items():
                dropped += await _drop(self._stores[known.dialect.name], key, runs, dry=dry)
            if not dry:
                self._space.pins.save()  # last, as there may have been no room for it before
        return {"key": known.key.hex(), "path": path, "blocks": dropped}

    async def _repair(self, feeds: Mapping[str, Feed], bad: set[Bad], wait_s: float | None, tell: Tell) -> int:
        """Fetch the bad blocks again and return how many came; they are not bad any more."""
        before = len(bad)
        for name, feed in feeds.items():
            wanted = sorted(index for named, index in bad if named == name)
            if wanted and not feed.peer_count:
                await feed.refresh()  # a peer that has just come needs a moment
            if wanted and not feed.peer_count:
                tell(str(NoPeers("no peer is connected that could have the bad blocks")))
                break
            patience_s = REPAIR_S if wait_s is None else wait_s
            for number in range(0, len(wanted), REPAIR_BLOCKS):
                came = await _fetched(feed, wanted[number : number + REPAIR_BLOCKS], patience_s)
                bad -= {(name, index) for index in came}
                if not came:  # nobody may have any of the others either
                    patience_s = min(patience_s, IN_VAIN_S)
        return before - len(bad)


async def _fetched(feed: Feed, blocks: Sequence[int], patience_s: float) -> list[int]:
    """Return which of these blocks came from peers, when all are here or none has come for `patience_s` seconds."""
    missing, came = list(blocks), 0
    with ExitStack() as wishes, trio.move_on_after(patience_s) as patience:
        for start, end in joined((index, index + 1) for index in blocks):
            wishes.enter_context(feed.want(start, end, urgent=True))
        while missing := [index for index in missing if not feed.has(BlockIndex(index))]:
            if len(blocks) - len(missing) > came:
                came = len(blocks) - len(missing)
                patience.deadline = trio.current_time() + patience_s
            await trio.sleep(LOOK_S)
    return [index for index in blocks if feed.has(BlockIndex(index))]


async def _paths(feeds: Mapping[str, Feed], bad: list[Bad]) -> dict[Bad, str]:
    """Return which files the bad content blocks belong to, as far as the entries are held; the newest entry counts."""
    wanted = [index for name, index in bad if name == "content"]
    found: dict[Bad, str] = {}
    if not wanted:
        return found
    metadata = feeds["metadata"]
    for number, (start, end) in enumerate(metadata.runs(1, metadata.length)):
        for seq in range(start, end):
            entry = _entry(metadata, seq)
            if entry is not None:
                path, stat = entry
                inside = [index for index in wanted if stat.offset <= index < stat.offset + stat.blocks]
                found |= {("content", index): path for index in inside}
            if (seq + number) % 64 == 0:
                await trio.lowlevel.checkpoint()
    return found


def _entry(metadata: Feed, seq: int) -> tuple[str, Stat] | None:
    try:
        block = metadata.get_held(seq)
        node = None if block is None else decode_node(seq, block, metadata.name)
    except (CorruptStorage, InvalidProof):
        return None
    stat = None if node is None or node.hidden else stat_or_none(node)
    return (f"/{node.key}", stat) if node is not None and stat is not None else None


async def _drop(store: OwnedStore, key: PublicKey, runs: Iterable[Run], *, dry: bool) -> int:
    """Drop what is held of these blocks of a feed, unless `dry`; return how many that are.

    Of a feed of ours nothing is dropped: it is held nowhere else for sure.
    """
    feed = await store.open_feed(key=key)
    dropped = 0
    try:
        for start, end in runs:
            if not feed.writable:
                dropped += feed.held(start, end)
                if not dry:
                    feed.clear(start, end)
            await trio.lowlevel.checkpoint()
    finally:
        with trio.CancelScope(shield=True):
            await store.release(feed)
    return dropped
