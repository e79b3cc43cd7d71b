"""Places further below a directory than the kernel takes in one path (PATH_MAX)."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

PATH_MAX = 4096  # bytes, with the NUL at its end
_STEP_BYTES = 2048  # opened at once; a name has 255 at most
_WAYPOINT = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC


@contextmanager
def reachable(root: str, path: str) -> Iterator[str]:
    """Give a path that every system call takes to what is at `path` below `root`, for as long as the block lasts.

    Raises: OSError when a directory on the way cannot be passed.
    """
    place = f"{root}/{path}" if path else root
    if len(place) * 4 < PATH_MAX or len(os.fsencode(place)) < PATH_MAX:
        yield place
        return
    at = os.open(root, _WAYPOINT)
    try:
        names = path.split("/")
        step: list[str] = []
        for name in names[:-1]:
            step.append(name)
            if sum(map(len, step)) * 4 >= _STEP_BYTES:
                at, step = _passed(at, step), []
        yield f"/proc/self/fd/{at}/{'/'.join([*step, names[-1]])}"
    finally:
        os.close(at)


def _passed(at: int, step: list[str]) -> int:
    """Return the directory that some names lead to from an open one, which is closed."""
    following = os.open("/".join(step), _WAYPOINT, dir_fd=at)
    os.close(at)
    return following
