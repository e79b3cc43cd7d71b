"""A plain in-memory pyfuse3 file system over an existing tree: the ceiling of what a Python mount can reach.

`python memfs.py TREE MOUNTPOINT` loads the whole tree, mounts it and prints one line when the mount answers.
"""

import errno
import os
import stat
import sys

import pyfuse3
import trio


class MemoryTree(pyfuse3.Operations):
    """Serves what `load` read, from dictionaries, with nothing verified."""

    def __init__(self, tree: str) -> None:
        super().__init__()
        self.attributes: dict[int, pyfuse3.EntryAttributes] = {}
        self.children: dict[int, dict[bytes, int]] = {}
        self.content: dict[int, bytes] = {}
        self.last = 0
        self.load(tree)

    def load(self, path: str) -> int:
        """Read `path` and everything below it; return its inode."""
        self.last += 1
        inode = self.last
        status = os.lstat(path)
        entry = pyfuse3.EntryAttributes()
        entry.st_ino, entry.st_mode, entry.st_size = inode, status.st_mode, status.st_size
        entry.st_nlink, entry.st_uid, entry.st_gid = 1, os.getuid(), os.getgid()
        entry.st_atime_ns = entry.st_mtime_ns = entry.st_ctime_ns = status.st_mtime_ns
        entry.entry_timeout = entry.attr_timeout = 60
        self.attributes[inode] = entry
        if stat.S_ISDIR(status.st_mode):
            self.children[inode] = {
                os.fsencode(name): self.load(os.path.join(path, name)) for name in sorted(os.listdir(path))
            }
        elif stat.S_ISREG(status.st_mode):
            with open(path, "rb") as file:
                self.content[inode] = file.read()
        return inode

    async def lookup(self, parent_inode, name, ctx=None):
        inode = self.children[parent_inode].get(name)
        if inode is None:
            raise pyfuse3.FUSEError(errno.ENOENT)
        return self.attributes[inode]

    async def getattr(self, inode, ctx=None):
        return self.attributes[inode]

    async def opendir(self, inode, ctx):
        return inode

    async def readdir(self, fh, start_id, token):
        for number, (name, inode) in enumerate(list(self.children[fh].items())[start_id:], start_id + 1):
            if not pyfuse3.readdir_reply(token, name, self.attributes[inode], number):
                return

    async def open(self, inode, flags, ctx):
        return pyfuse3.FileInfo(fh=inode, keep_cache=True)

    async def read(self, fh, off, size):
        return self.content[fh][off : off + size]


def main() -> None:
    tree, mountpoint = sys.argv[1:]
    operations = MemoryTree(tree)
    options = set(pyfuse3.default_options) | {"fsname=memfs"}
    pyfuse3.init(operations, mountpoint, options)
    print('{"ready": true}', flush=True)
    try:
        trio.run(pyfuse3.main)
    finally:
        pyfuse3.close()


if __name__ == "__main__":
    main()
