"""The device that mounts are made with."""

import os

from ddrive.errors import MountFailed

DEVICE = "/dev/fuse"


def check_device() -> None:
    """Make sure that mounts can be made. Raises: MountFailed with the reason and the next step."""
    if not os.access(DEVICE, os.R_OK | os.W_OK):
        why = "cannot be opened" if os.path.exists(DEVICE) else "is missing"
        raise MountFailed(f"{DEVICE} {why}: load the fuse module or install fuse3, and check its permissions")
