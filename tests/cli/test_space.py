"""The cache of others' drives stays within its limits, and what is used or pinned stays in it."""

import random
from pathlib import Path

from tests.support.memory_mount import until
from tests.support.program import Program, program

MIB = 1 << 20


def content(size: int, seed: int) -> bytes:
    """Return bytes that nothing can compress or share."""
    return random.Random(seed).randbytes(size)


def disk(state: Path) -> int:
    """Return how much disk the bytes of an engine's feeds take."""
    return sum(path.stat().st_blocks * 512 for path in state.glob("*/*/*/*/data"))


def test_the_cache_keeps_to_its_size_also_inside_an_open_file(ddrive: Program, tmp_path: Path) -> None:
    source, mount = tmp_path / "tree", tmp_path / "mount"
    source.mkdir()
    whole = content(12 * MIB, 1)
    (source / "large").write_bytes(whole)
    key = ddrive.ask("import", source)["key"]
    with program(tmp_path / "other" / "state", cache_size="3MiB") as other:
        other.mount(key, mount, "--peer", ddrive.address)
        with (mount / "large").open("rb") as file:
            for start in range(0, len(whole), MIB):
                assert file.read(MIB) == whole[start : start + MIB]
                assert disk(other.state) <= 3 * MIB + 256 * 1024
        space = other.ask("status")["space"]
        assert space["cache_size"] == 3 * MIB
        assert 2 * MIB <= space["cached"] <= 3 * MIB
        for start in random.Random(2).sample(range(0, len(whole), 4096), 200):  # again, in no order
            with (mount / "large").open("rb") as file:
                file.seek(start)
                assert file.read(4096) == whole[start : start + 4096]
        assert disk(other.state) <= 3 * MIB + 256 * 1024


def test_what_was_used_last_is_kept_and_what_is_pinned(ddrive: Program, tmp_path: Path) -> None:
    source = tmp_path / "tree"
    source.mkdir()
    for number, name in enumerate("abcdp"):
        (source / name).write_bytes(content(2 * MIB, number))
    key = ddrive.ask("import", source)["key"]

    with program(tmp_path / "other" / "state", cache_size="5MiB") as other:

        def held(name: str) -> int:
            return round(int(other.ask("du", key, name)["held"]) / MIB)

        other.ask("download", key, "p", "--peer", ddrive.address)
        for name in ("a", "b", "a", "c"):
            assert other.run("cat", key, name).out == (source / name).read_bytes()
        assert [held(name) for name in "abcp"] == [2, 1, 2, 2]
        other.ask("stop")  # uses and pins are remembered
        for name in ("c", "d"):
            assert other.run("cat", key, name).out == (source / name).read_bytes()
        assert [held(name) for name in "abcdp"] == [1, 0, 2, 2, 2]
        other.ask("clear", key, "p", "--yes")
        assert other.run("cat", key, "p").out == (source / "p").read_bytes()
        for name in ("a", "b", "d"):
            assert other.run("cat", key, name).out == (source / name).read_bytes()
        assert held("p") == 0
        own = other.ask("import", source)["key"]
        assert other.ask("du", own)["held"] == 10 * MIB
        assert other.ask("status")["space"]["cached"] <= 5 * MIB


def test_a_pin_follows_its_path(ddrive: Program, tmp_path: Path) -> None:
    source, mount = tmp_path / "tree", tmp_path / "mount"
    (source / "kept").mkdir(parents=True)
    for number, name in enumerate(("kept/p", "kept/q", "a", "b", "c")):
        (source / name).write_bytes(content(2 * MIB, number))
    key = ddrive.ask("import", source)["key"]
    with program(tmp_path / "other" / "state", cache_size="3MiB") as other:
        other.mount(key, mount, "--peer", ddrive.address)
        other.ask("download", key, "kept")
        for seed in (10, 11):
            (source / "kept" / "p").write_bytes(content(2 * MIB, seed))
            (source / "kept" / "new").write_bytes(content(MIB, seed + 10))
            ddrive.ask("import", source, key)
            for name in ("kept/p", "kept/new"):
                until(lambda name=name: (mount / name).exists() and same(mount / name, source / name))  # type: ignore[misc]
            for name in ("a", "b", "c", "a"):
                assert same(mount / name, source / name)
            assert held_all(other, key, "kept/p", "kept/q", "kept/new")
            assert not held_all(other, key, "a", "b", "c")
        other.ask("unmount", mount)
        other.ask("stop")  # it is found out anew
        for name in ("b", "c", "a"):
            assert other.run("cat", key, name).out == (source / name).read_bytes()
        assert held_all(other, key, "kept/p", "kept/q", "kept/new")
        other.ask("clear", key, "kept", "--yes")
        for name in ("kept/p", "kept/new", "b", "c", "a"):
            assert other.run("cat", key, name).out == (source / name).read_bytes()
        assert not held_all(other, key, "kept/p")


def same(one: Path, other: Path) -> bool:
    return one.read_bytes() == other.read_bytes()


def held_all(program: Program, key: str, *names: str) -> bool:
    """Tell whether all bytes of these files are held."""
    return all(told["held"] == told["bytes"] for told in (program.ask("du", key, name) for name in names))
