"""Large pieces of a file that pass through the kernel's page cache without staying there.

What is downloaded or appended is seldom read back soon, and a mount caches it as a part of the mounted file. Pages that
are given back at once are used again for the next piece: that is several times quicker than taking fresh ones, above
all in a virtual machine, and leaves the cache to the programs of the user. Source: pwritev2(2), RWF_DONTCACHE, since
Linux 6.14; its faults were mended in 6.16.
"""

import errno
import os
import re
from collections.abc import Sequence

from ddrive.feed.hashing import Buffer

UNCACHED_BYTES = 64 * 1024  # from here on: small pieces share their pages with what is written next

_RWF_DONTCACHE = 0x80  # of <linux/fs.h>
_FIRST_SOUND = (6, 16)
_REFUSALS = (errno.EOPNOTSUPP, errno.ENOSYS)  # of a file system; of a sandbox


def write_pieces(fd: int, pieces: Sequence[Buffer], offset: int) -> int:
    """Write pieces one after the other from `offset` on, as far as one call goes, and return how many bytes that was.

    Where the kernel or the file system cannot do without the cache, it is used. Raises: OSError.
    """
    try:
        return os.pwritev(fd, pieces, offset, _flags)
    except OSError as error:
        if error.errno not in _REFUSALS:
            raise
        return os.pwritev(fd, pieces, offset)


def read_into(fd: int, buffer: memoryview, offset: int) -> int:
    """Fill `buffer` from `offset` on, as far as one call goes; returns with how many bytes, 0 at the end of the file.

    What is in the cache already stays there. Raises: OSError.
    """
    try:
        return os.preadv(fd, [buffer], offset, _flags)
    except OSError as error:
        if error.errno not in _REFUSALS:
            raise
        return os.preadv(fd, [buffer], offset)


def is_sound(release: str) -> bool:
    """Tell whether a Linux kernel of some release (as in `uname -r`) can do without its cache, and without faults."""
    return tuple(map(int, re.findall(r"\d+", release)[:2])) >= _FIRST_SOUND


_flags = _RWF_DONTCACHE if is_sound(os.uname().release) else 0
