"""A feed that stands alone: one that a program opens, fills and exchanges without a store, a drive or an engine."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from types import NoneType
from typing import Any

import trio

from ddrive.errors import NotHeld
from ddrive.feed.hashing import Buffer
from ddrive.feed.log import FeedLog, Stored
from ddrive.feed.merkle import Proof, RemoteTree
from ddrive.feed.storage import Directory
from ddrive.feed.subscription import Subscription
from ddrive.ids import BlockIndex, Node
from ddrive.protocol.handshake import Authenticate
from ddrive.protocol.keys import NoiseKeyPair
from ddrive.protocol.link import FLUSH_S
from ddrive.protocol.running import HANDSHAKE_TIMEOUT_S, TIMEOUT_S
from ddrive.replication.asking import ENDLESS
from ddrive.replication.observing import PeerOptions
from ddrive.standalone.arguments import check_blocks, check_kind, check_number, check_seconds
from ddrive.standalone.carrying import Carrying, LinkOptions
from ddrive.standalone.encodings import Encoding
from ddrive.standalone.extending import FeedExtension
from ddrive.standalone.getting import Readable
from ddrive.standalone.host import FeedOptions
from ddrive.standalone.peers import Peer
from ddrive.standalone.replicating import Replication, check_stream, static_secret_of
from ddrive.standalone.streams import ReadStream, WriteStream
from ddrive.standalone.telling import Event


@dataclass(frozen=True, slots=True)
class AuditReport:
    """What reading every held block again has shown; blocks in `invalid` do not count as held any more.

    Those in `restored` are held and valid, but the list of held blocks, the bitfield, did not say so: it was damaged,
    or nothing had to be stored for them, as they are empty.
    """

    valid: int
    invalid: tuple[int, ...]
    restored: tuple[int, ...] = ()


class StandaloneFeed(Readable):
    """One feed. Made by `open_feed`.

    `feed` is the inner feed of blocks, for what is built on feeds (`open_trie`); `session` its exchange with peers.
    """

    def __init__(self, log: FeedLog, directory: Directory, options: FeedOptions, nursery: trio.Nursery) -> None:
        super().__init__(log, directory, options, nursery)
        self._extensions: dict[str, FeedExtension] = {}
        self._started: list[Replication] = []  # links that end with this feed

    # -- appending -------------------------------------------------------------------------------------------------

    async def append(self, value: Any, *, durable: bool = True) -> int:
        """Append one value, or each value of a list under one signature; return the index of the first block.

        (A JSON value that is itself a list is appended inside one: `append([[1, 2]])`.)

        Returns when the blocks are durable, and only then do peers hear of them. Without `durable` it returns when
        they can be read here; peers hear of them, and power may fail, after the next `flush`, at most a second later.
        Raises: NotWritable, TooLarge for a block over 8 MiB less 8 KiB, Forked, CorruptStorage, Behind, Closed, OSError
        of the disk, and what the encoding (mostly TypeError or ValueError), `on_write` or `sign` raises.
        """
        values = value if isinstance(value, list) else [value]
        return await self.append_blocks([self.encode(one) for one in values], durable=durable)

    async def append_blocks(self, blocks: Sequence[Buffer], *, durable: bool = True) -> int:
        """Append blocks as they are, without encoding; otherwise, also for `durable`, as `append`."""
        self._check_open()
        return await self.feed.append(blocks, durable=durable)

    def encode(self, value: Any) -> bytes:
        """Return the block that stands for a value."""
        return self._options.encoding.encode(value)

    async def flush(self) -> None:
        """Return when everything appended or received so far is durable. Raises: Closed, OSError of the disk."""
        self._check_open()
        await self.feed.flush()

    # -- proofs ----------------------------------------------------------------------------------------------------

    def signature(self, index: int | None = None) -> tuple[int, bytes]:
        """Return the last block that the first signature at or after block `index` covers, and that signature.

        By default the signature of the whole feed. Raises: NotHeld when there is none.
        """
        self._check_open()
        if index is not None:
            check_blocks(index)
        return self._log.signature(index)

    def verify(self, index: int, signature: bytes) -> None:
        """Return when `signature` is the author's for all blocks up to and including `index`.

        Raises: InvalidProof when it is not, NotHeld when the tree up to there is not held.
        """
        self._check_open()
        check_blocks(index)
        check_kind("a signature is bytes", signature, (bytes, bytearray, memoryview))
        self._log.verify(index, bytes(signature))

    def root_hashes(self, index: int) -> list[Node]:
        """Return the roots of the tree of all blocks up to and including `index`.

        Raises: NotHeld when one is missing.
        """
        self._check_open()
        check_blocks(index)
        return self._log.root_hashes(index)

    def proof(self, index: int, *, digest: int = 0, hash: bool = False) -> Proof:
        """Return what proves block `index` to somebody who holds the nodes that `digest` says, by default none.

        With `hash` the proof begins with the leaf and needs no block. Raises: NotHeld when it cannot be proven here.
        """
        self._check_open()
        check_blocks(index)
        check_number("a digest", digest)
        proof = self._log.proof(index, digest=digest, hash_only=hash, remote=RemoteTree())
        if proof is None:
            raise NotHeld(f"block {index} of feed {self.feed.name} cannot be proven here")
        return proof

    def digest(self, index: int) -> int:
        """Return the number that tells a peer which nodes for block `index` are held here."""
        self._check_open()
        check_blocks(index)
        return self._log.digest(index)

    def put(self, index: int, block: bytes | None, proof: Proof) -> Stored:
        """Verify and store block `index`, or without one its leaf, that came in some other way than from a peer.

        `proof` is what `proof` of another feed gave, for the `digest` of this one or none.
        Raises: InvalidProof, Forked; nothing is stored then.
        """
        self._check_open()
        check_blocks(index)
        check_kind("a block is bytes, or None for its leaf alone", block, (bytes, bytearray, memoryview, NoneType))
        check_kind("a proof is what `proof` of a feed gave", proof, Proof)
        return self.feed.put(index, block, proof)

    async def audit(self) -> AuditReport:
        """Read every held block again and return which are good; the others are not held any more.

        Blocks that are on disk although the bitfield does not list them are found, and held again.
        """
        self._check_open()
        valid, invalid, restored = await self.feed.audit()
        return AuditReport(valid, tuple(invalid), tuple(restored))

    def clear(self, start: int, end: int | None = None) -> None:
        """Free the space of block `start`, or of the blocks `start` up to `end`; they can be fetched again.

        Peers are told that we do not hold them any more; a feed that is not sparse asks them for the blocks again.
        """
        self._check_open()
        check_blocks(start, end)
        self.feed.clear(start, start + 1 if end is None else end)

    # -- streams ---------------------------------------------------------------------------------------------------

    def read_stream(
        self,
        start: int = 0,
        end: int | None = None,
        *,
        snapshot: bool = True,
        tail: bool = False,
        live: bool = False,
        wait: bool = True,
        timeout: float | None = None,
        batch: int = 1,
        if_available: bool | None = None,
        value_encoding: str | Encoding | None = None,
    ) -> ReadStream:
        """Return an iterator over the values from block `start` up to `end`.

        Without `end` it stops at the length that the feed has now; without `snapshot`, where the feed ends when the
        reader gets there; with `live`, never. `tail`: start where the feed ends now. `batch` blocks are asked for
        together, with `value_encoding`; `wait`, `timeout` and `if_available` hold for each of these steps and mean the
        same as for `get`, but for a block that does not exist yet a `live` stream waits even with `if_available`.
        """
        self._check_open()
        check_blocks(start, end)
        check_number("batch", batch)
        check_seconds("timeout", timeout)
        first = self.length if tail else start
        if end is None and snapshot and not live and not tail:
            end = self.length
        return ReadStream(
            self,
            first,
            end,
            live=live,
            wait=wait,
            timeout=timeout,
            batch=batch,
            if_available=if_available,
            value_encoding=value_encoding,
        )

    def write_stream(self, *, max_block_size: int | None = None, durable: bool = True) -> WriteStream:
        """Return a channel whose values are appended; use it in `async with`.

        Values longer than `max_block_size` bytes become several blocks; `durable` is as for `append`.
        Raises: NotWritable, Closed, ValueError for a size that no block has.
        """
        self._check_open()
        self._check_writable()
        if max_block_size is not None:
            check_number("max_block_size", max_block_size)
        return WriteStream(self, max_block_size, durable=durable)

    async def wait_for_length(self, length: int, timeout: float | None) -> None:
        """Return when the feed has `length` blocks. Raises: TimedOut, Closed."""
        await self.update(length, timeout=timeout, if_available=False)

    def wish(self, start: int, end: int) -> AbstractContextManager[None]:
        """Ask peers for the blocks `start` up to `end` while the `with` block lasts."""
        return self.feed.want(start, end)

    # -- peers -----------------------------------------------------------------------------------------------------

    def replicate(
        self,
        stream: trio.abc.Stream,
        initiator: bool,
        *,
        live: bool = True,
        ack: bool = False,
        download: bool = True,
        upload: bool = True,
        key_pair: NoiseKeyPair | None = None,
        address: str = "",
        timeout: float | None = TIMEOUT_S,
        handshake_timeout: float | None = HANDSHAKE_TIMEOUT_S,
        keep_alive: float | None = None,
        on_authenticate: Authenticate | None = None,
        encrypted: bool = True,
        noise: bool = True,
        keep_unknown: bool = False,
    ) -> Replication:
        """Exchange the feed with the peer at the other end of `stream`, in the background, and return that link.

        `initiator`: whether we dialled; one side must have. The stream is closed with the link, the link with the feed.
        `live` false: the link ends when each side has what it wants, which an eager feed knows. `ack`: have the peer
        confirm blocks (`Acknowledged` events). `download`, `upload`: which way blocks may go on this link. `address`:
        what messages call the peer. `key_pair`: by which this peer knows us. `on_authenticate(remote_public_key)`:
        refuses a peer by False or an exception. `timeout`: seconds without a sign of life after which the link ends,
        None for never, as for `handshake_timeout`; ours is sent after `keep_alive` seconds, by default half of
        `timeout`. More feeds are carried after `add` of the result; with `keep_unknown` those that the peer asks for
        are kept for the program to decide on (`requests`). `encrypted` and `noise` are false only in tests, on both
        sides. Raises: ValueError for options that exclude each other, TypeError for no stream or no pair, Closed.
        """
        self._check_open()
        check_stream(stream)
        check_kind("initiator is True or False: whether we dialled", initiator, bool)
        check_kind("the address of a peer is text", address, str)
        options = LinkOptions(
            static_secret=self._options.static_secret if key_pair is None else static_secret_of(key_pair),
            address=address,
            timeout_s=timeout,
            handshake_timeout_s=handshake_timeout,
            keep_alive_s=keep_alive,
            authenticate=on_authenticate,
            encrypted=encrypted,
            noise=noise,
        )
        carrying = Carrying([self], PeerOptions(live, ack, download, upload), keep_unknown=keep_unknown)
        replication = Replication(carrying)
        self._started = [other for other in self._started if other.end is None] + [replication]
        self._nursery.start_soon(partial(carrying.run, stream, initiator=initiator, options=options))
        return replication

    def set_downloading(self, downloading: bool) -> None:
        """Ask peers for blocks or not, from now on; they are told.

        A feed of our own that does so (one from a backup, say) fetches what peers have more of it, and cannot be
        appended to before: `Behind`. Raises: Closed.
        """
        self._check_open()
        check_kind("downloading is True or False", downloading, bool)
        self.session.downloading = downloading
        if self.writable:
            self._log.claimed = self.session.claimed_length if downloading else lambda: 0
            if downloading:
                self.session.set_eager_length()  # a claim that is not proven does not count for long

    def set_uploading(self, uploading: bool) -> None:
        """Answer the requests of peers or not, from now on; they are told. Raises: Closed."""
        self._check_open()
        check_kind("uploading is True or False", uploading, bool)
        self.session.uploading = uploading

    @property
    def downloading(self) -> bool:
        """Whether peers are asked for blocks."""
        return self.session.downloading

    @property
    def uploading(self) -> bool:
        """Whether the requests of peers are answered."""
        return self.session.uploading

    def register_extension(self, name: str, encoding: str | Encoding = "binary") -> FeedExtension:
        """Return the extension `name`: messages of the program itself to peers that register the same name.

        `encoding` is that of the messages, as for values; `json` has no line end here.
        One that was registered under this name before has come to its end. Raises: ValueError for a name over 255 bytes
        or an encoding that is not known, Closed.
        """
        self._check_open()
        extension = FeedExtension(self.session.extensions, name, encoding, self._telling.peer)
        if (before := self._extensions.get(name)) is not None:
            before.close()
        self._extensions[name] = extension
        return extension

    def events(self, *kinds: type[Event]) -> Subscription[Any]:
        """Return an iterator over what happens from now on, of the given `kinds` (classes) or of all.

        Leave it with `close` or use it in `with`.
        """
        return self._telling.subscribe(*kinds)

    @property
    def giver(self) -> Peer | None:
        """The peer whose block is being stored right now."""
        link = self.session.giver
        return None if link is None else self._telling.peer(link)

    def follow(self, *, everything: bool, length: bool) -> None:
        """Fetch all that peers announce, or have the length of the feed proven as it grows; for `open_feed`."""
        self.session.wants_all = everything
        if everything:
            self.session.want_blocks(BlockIndex(0), BlockIndex(ENDLESS), urgent=False)
        if length:
            self.session.want_length(ENDLESS)

    # -- the end ---------------------------------------------------------------------------------------------------

    async def close_links(self) -> None:
        """End the links that this feed started, when what is queued on them is sent, after a second at the latest."""
        for replication in self._started:
            replication.close()
        with trio.move_on_after(FLUSH_S):
            for replication in self._started:
                await replication.wait()

    async def aclose(self) -> None:
        """Make everything durable, leave all peers and give the files back. Further calls do nothing."""
        if self.feed.closed:
            await trio.lowlevel.checkpoint()
            return
        for carrying in list(self._links):
            carrying.remove(self)
        self.session.close()
        try:
            await self.feed.aclose()
        finally:
            self._telling.stop()
            for download in self.downloads:
                download.finish()
            for extension in self._extensions.values():
                extension.close()
            self._telling.close()

    async def destroy_storage(self) -> None:
        """Close the feed and delete its files, the secret key with them: nobody can ever append to it again."""
        await self.aclose()
        if self._directory.blocking:
            await trio.to_thread.run_sync(self._directory.remove)
        else:
            self._directory.remove()
