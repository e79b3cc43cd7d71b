"""The kernel's mount table is read with all its escapes."""

from hypothesis import given
from hypothesis import strategies as st

from mountd.mountinfo import Mounted, mounted_at, parse

TABLE = rb"""22 1 0:21 / / rw,relatime shared:1 - ext4 /dev/vda rw
31 22 0:40 / /mnt/a\040b\011\134 rw,nosuid - fuse.ddrive ddrive:0123abcd rw,user_id=0
32 22 0:41 / /mnt/x rw,nosuid shared:7 master:2 unbindable - tmpfs none rw
broken line
33 22 0:42 / /mnt/half rw -
"""


def test_lines_are_parsed() -> None:
    assert parse(TABLE) == [
        Mounted("/", "ext4", "/dev/vda", "0:21", "22", "1"),
        Mounted("/mnt/a b\t\\", "fuse.ddrive", "ddrive:0123abcd", "0:40", "31", "22"),
        Mounted("/mnt/x", "tmpfs", "none", "0:41", "32", "22"),
    ]


@given(st.binary())
def test_nothing_makes_it_stumble(table: bytes) -> None:
    assert isinstance(parse(table), list)


def test_the_root_is_mounted_and_the_rest_of_nowhere_is_not() -> None:
    assert mounted_at("/") is not None
    assert mounted_at("/no/such/place") is None
