"""A drive as the worker of a mount has it, without FUSE, and how that worker ends."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from ddrive.dialect import DWEB
from ddrive.drive import Drive, open_drive
from ddrive.drive.stat import FILE_MODE, Stat
from ddrive.errors import NotFound
from ddrive.store.store import OwnedStore, open_store
from mountd.committing import Committer
from mountd.nodes import Node
from mountd.spool import open_spools
from mountd.staged import StagedDrive

OWNER = {"key": "00", "dialect": "dweb"}


class Mounted:
    """A drive as a worker has it, and how a worker ends."""

    def __init__(self, store: OwnedStore, drive: Drive, root: Path) -> None:
        self.store = store
        self.drive = drive
        self._root = root
        self._start()

    def _start(self) -> None:
        self.spool = open_spools(self._root, OWNER, "/mnt")[0]
        self.staged = StagedDrive(self.drive, self.spool)
        self.committer = Committer(self.staged)

    async def die(self) -> None:
        """Let another worker go on from what is on the disk."""
        self.spool.close(remove=False)
        self._start()
        await self.committer.resolve()

    async def write(self, path: str, data: bytes, *, close: bool = True) -> Node:
        """Store a file as a mount does."""
        node = self.staged.node(path)
        if node is None:
            try:
                node = self.staged.pin(path, await self.drive.lstat(path))
            except NotFound:
                node = self.staged.add(path, Stat(FILE_MODE, mtime_ms=1, ctime_ms=1), sealed=False)
        node.writers += 1
        draft = node.edit(path)
        await draft.truncate(0)
        await draft.write(0, data)
        node.stat = Stat(node.stat.mode, size=draft.size, mtime_ms=node.stat.mtime_ms + 1, ctime_ms=2)
        if close:
            self.staged.released(node)
        return node

    async def read(self, path: str) -> bytes:
        reader = await self.staged.open(path)
        return await reader.read(0, reader.size)


@asynccontextmanager
async def mounted(place: Path) -> AsyncIterator[Mounted]:
    async with open_store(place / "store", DWEB) as store:
        made = Mounted(store, await open_drive(store, name="x", create=True), place / "spool")
        try:
            yield made
        finally:
            made.spool.close(remove=False)
