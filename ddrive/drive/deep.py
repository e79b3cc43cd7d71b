"""Places further below a directory than the kernel takes in one path (PATH_MAX)."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

PATH_MAX = 4096  # bytes, with the NUL at its end
_ROOM_BYTES = 512  # left for what is named from there: a name has 255 at most
_STEP_BYTES = 2048  # opened at once
_WAYPOINT = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC


@contextmanager
def reachable(root: str, path: str) -> Iterator[str]:
    """Give a path that every system call takes to what is at `path` below `root`, for as long as the block lasts.

    What lies directly in it can be named from there as well.
    Raises: OSError when a directory on the way cannot be passed.
    """
    place = f"{root}/{path}" if path else root
    if fits(place):
        yield place
        return
    rest = os.fsencode(path)
    at = os.open(root, _WAYPOINT)
    try:
        while len(rest) > _STEP_BYTES and (end := rest.rfind(b"/", 0, _STEP_BYTES)) > 0:
            following = os.open(rest[:end], _WAYPOINT, dir_fd=at)
            os.close(at)
            at, rest = following, rest[end + 1 :]
        yield f"/proc/self/fd/{at}/{os.fsdecode(rest)}"
    finally:
        os.close(at)


def fits(place: str) -> bool:
    """Tell whether every system call takes a path, and those of what lies directly in it."""
    room = PATH_MAX - _ROOM_BYTES
    return len(place) * 4 < room or len(os.fsencode(place)) < room
