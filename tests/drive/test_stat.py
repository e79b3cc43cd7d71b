"""Attributes ↔ bytes, against what the npm peers wrote."""

import operator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ddrive.drive.stat import Mount, Stat, decode_stat, encode_stat
from ddrive.errors import CorruptStorage, DriveError, ImpossibleEntry, InvalidPath
from tests.support.vectors import vector

CASES = [(dialect, case) for dialect in ("dweb", "hypercore") for case in vector(f"stat-{dialect}.json")["stats"]]


def stat_of(case: dict[str, Any]) -> Stat:
    """Return the value that a vector (of `stat-*.json` or `drive-*.json`) describes."""
    mount = case["mount"]
    return Stat(
        mode=case["mode"],
        uid=case["uid"],
        gid=case["gid"],
        size=case["size"],
        blocks=case["blocks"],
        offset=case["offset"],
        byte_offset=case["byteOffset"],
        mtime_ms=case["mtime"],
        ctime_ms=case["ctime"],
        linkname=case["linkname"],
        mount=mount and Mount(bytes.fromhex(mount["key"]), mount["version"] or None, mount["feed"]),
        metadata={name: bytes.fromhex(value) for name, value in (case["metadata"] or {}).items()},
    )


@pytest.mark.parametrize(
    ("dialect", "case"), CASES, ids=lambda value: value if isinstance(value, str) else value["what"]
)
def test_recorded_values_read_and_write_the_same(dialect: str, case: dict[str, Any]) -> None:
    stat = decode_stat(bytes.fromhex(case["hex"]))
    assert stat == stat_of(case)
    assert encode_stat(stat).hex() == case["hex"]


def test_kinds_exclude_each_other() -> None:
    kinds = [(Stat(mode).is_file, Stat(mode).is_dir, Stat(mode).is_symlink) for mode in (0o100644, 0o40755, 0o120777)]
    assert kinds == [(True, False, False), (False, True, False), (False, False, True)]


def test_metadata_without_value_counts_as_removed() -> None:
    known = encode_stat(Stat(0o100644, metadata={"a": b"1", "b": b""}))
    removed = known + bytes.fromhex("62030a0161")
    assert decode_stat(known).metadata == {"a": b"1", "b": b""}
    assert decode_stat(removed).metadata == {"b": b""}


def test_link_targets_keep_bytes_that_are_not_utf8() -> None:
    data = encode_stat(Stat(0o120777)) + bytes.fromhex("5203ff2f61")
    assert decode_stat(data).linkname == "\udcff/a"
    assert encode_stat(decode_stat(data)) == data


@pytest.mark.parametrize(
    "data", [b"", None, b"\xff", b"\x08", bytes.fromhex("1001"), encode_stat(Stat(0o100644)) + b"\x5a\x03\x0a\x01\x00"]
)
def test_what_is_no_stat_is_refused(data: bytes | None) -> None:
    with pytest.raises(CorruptStorage):
        decode_stat(data)


@pytest.mark.parametrize("stat", [Stat(-1), Stat(0o100644, size=-1), Stat(0o100644, size=1 << 64), Stat(1 << 32)])
def test_numbers_that_do_not_fit_are_refused(stat: Stat) -> None:
    with pytest.raises(InvalidPath):
        encode_stat(stat)


@pytest.mark.parametrize("mode", [0o030644, 0o170644, 1 << 16 | 0o100644, (1 << 32) - 1])
def test_a_mode_of_no_kind_of_file_is_impossible(mode: int) -> None:
    with pytest.raises(ImpossibleEntry, match="no kind of file"):
        decode_stat(encode_stat(Stat(mode)))


def test_times_before_1970_become_zero() -> None:
    assert decode_stat(encode_stat(Stat(0o100644, mtime_ms=-5))).mtime_ms == 0


uint64 = st.integers(0, (1 << 64) - 1)
uint32 = st.integers(0, (1 << 32) - 1)
permissions = st.integers(0, 0o7777)
stats = st.builds(
    Stat,
    mode=st.builds(operator.or_, st.sampled_from([kind << 12 for kind in (1, 2, 4, 6, 8, 10, 12)]), permissions),
    uid=uint32,
    gid=uint32,
    size=uint64,
    blocks=uint64,
    offset=uint64,
    byte_offset=uint64,
    mtime_ms=uint64,
    ctime_ms=uint64,
    linkname=st.none() | st.text(min_size=1),
    mount=st.none()
    | st.builds(Mount, st.binary(min_size=32, max_size=32), st.none() | st.integers(1, 1 << 60), st.booleans()),
    metadata=st.dictionaries(st.text(), st.binary()),
)


@given(stats)
def test_every_stat_reads_back(stat: Stat) -> None:
    assert decode_stat(encode_stat(stat)) == stat


@given(stats)
def test_equal_stats_have_one_hash(stat: Stat) -> None:
    same = decode_stat(encode_stat(stat))
    assert {stat: 1}[same._replace(metadata=dict(reversed(same.metadata.items())))] == 1


@given(st.binary())
def test_any_bytes_give_a_stat_or_one_error(data: bytes) -> None:
    try:
        decode_stat(data)
    except DriveError:
        return
