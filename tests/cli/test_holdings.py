"""`clear` and `verify`: what is held can be dropped, checked and fetched again."""

import random
import time
from pathlib import Path

from ddrive.standalone import open_feed
from tests.support.memory_mount import until
from tests.support.program import Program, program


def damage(state: Path, content: bytes) -> None:
    """Change a byte of the block that holds `content` on the disk of a stopped engine."""
    for data in state.glob("dweb/*/*/*/data"):
        held = data.read_bytes()
        place = held.find(content)
        if place >= 0:
            with data.open("r+b") as file:
                file.seek(place + 5)
                file.write(bytes([held[place + 5] ^ 0xFF]))
            return
    raise AssertionError("the content is not on the disk")


def test_held_bytes_are_dropped_and_fetched_again(ddrive: Program, tmp_path: Path) -> None:
    source = tmp_path / "tree"
    (source / "sub").mkdir(parents=True)
    (source / "big").write_bytes(b"b" * 300_000)
    (source / "sub" / "small").write_bytes(b"s" * 1000)
    key = ddrive.ask("import", source)["key"]
    assert ddrive.ask("clear", key, "--yes")["blocks"] == 0
    assert ddrive.ask("du", key)["held"] == 301_000
    with program(tmp_path / "other" / "state") as other:
        other.ask("download", key, "--peer", ddrive.address)
        assert other.run("clear", key).code == 2
        planned = other.ask("clear", key, "sub", "--dry-run")
        assert (planned["blocks"], planned["bytes"]) == (1, 1000)
        assert other.ask("du", key)["held"] == 301_000
        assert other.ask("clear", key, "sub", "--yes") == planned
        assert other.ask("du", key)["held"] == 300_000
        assert other.ask("free", key, "--yes")["bytes"] == 300_000
        assert other.ask("du", key)["held"] == 0
        assert len(other.run("cat", key, "big").out) == 300_000
        assert other.run("clear", key, "missing", "--yes").code == 3


def test_what_is_held_of_a_drive_nested_in_an_own_one_is_dropped(ddrive: Program, tmp_path: Path) -> None:
    theirs, ours = tmp_path / "theirs", tmp_path / "ours"
    for source, size in ((theirs, 300_000), (ours, 5000)):
        source.mkdir()
        (source / "file").write_bytes(b"x" * size)
    key = ddrive.ask("import", theirs)["key"]
    with program(tmp_path / "other" / "state") as other:
        own = other.ask("import", ours)["key"]
        other.ask("peer", "add", ddrive.address)
        other.ask("link", f"{own}:/nested", key)
        assert other.ask("download", own)["held"] == 305_000
        planned = other.ask("clear", own, "--dry-run")
        assert (planned["blocks"], planned["bytes"]) == (5, 300_000)
        assert other.ask("clear", own, "--yes") == planned
        assert other.ask("du", own)["held"] == 5000
        assert len(other.run("cat", own, "nested/file").out) == 300_000  # fetched again


def test_bad_blocks_are_listed_and_repaired(ddrive: Program, tmp_path: Path) -> None:
    source = tmp_path / "tree"
    source.mkdir()
    (source / "a").write_bytes(b"first file " * 100)
    (source / "b").write_bytes(b"second file " * 100)
    key = ddrive.ask("import", source)["key"]
    with program(tmp_path / "other" / "state") as other:
        other.ask("download", key, "--peer", ddrive.address)
        fine = other.ask("verify", key)
        assert fine.keys() >= {"key", "blocks", "valid", "bad", "forked", "repaired"}
        assert (fine["bad"], fine["forked"], fine["valid"]) == ([], False, fine["blocks"])
        assert other.run("stop").code == 0
        address = ddrive.address
        assert ddrive.run("stop").code == 0
        damage(other.state, b"second file")
        for _ in range(2):
            result = other.run("verify", key, "--json")
            assert result.code == 4
            (bad,) = result.json()["bad"]
            assert (bad["feed"], bad["path"]) == ("content", "/b")
            assert result.json()["blocks"] == fine["blocks"]
        assert b"/b" in other.run("verify", key).out
        assert ddrive.run("status", DDRIVE_LISTEN=address).code == 0
        other.ask("peer", "add", address)
        while not any(peer["connected"] for peer in other.ask("peer", "ls")):
            pass
        mended = other.run("verify", key, "--repair", "--json")
        assert mended.code == 0, mended
        assert (mended.json()["repaired"], mended.json()["bad"]) == (1, [bad | {"repaired": True}])
        assert other.ask("verify", key)["bad"] == []
        assert other.run("cat", key, "b").out == b"second file " * 100
    assert ddrive.run("verify", "0" * 64).code == 3


def test_blocks_that_nobody_has_do_not_keep_the_others_waiting(ddrive: Program, tmp_path: Path) -> None:
    source = tmp_path / "tree"
    source.mkdir()
    texts = [f"text of file {number} ".encode() * 8 for number in range(6)]
    for number, text in enumerate(texts):
        (source / f"{number}").write_bytes(text)
    key = ddrive.ask("import", source)["key"]
    with program(tmp_path / "other" / "state") as other:
        other.ask("download", key, "5", "--peer", ddrive.address)
        other.ask("seed", key)
        address = ddrive.address
        assert ddrive.run("stop").code == 0
        for text in texts:
            damage(ddrive.state, text)
        assert ddrive.run("status", DDRIVE_LISTEN=address).code == 0
        until(lambda: ddrive.ask("info", key)["peers"] == 1)
        began = time.monotonic()
        result = ddrive.run("verify", key, "--repair", "--timeout", "4s")
        assert time.monotonic() - began < 12  # not 4 s for each
        assert (result.code, f"verify {key} --repair" in result.err) == (4, True), result
        again = [line.split()[-3:] == ["/5", "(fetched", "again)"] for line in result.out.decode().splitlines()[:-1]]
        assert again == [False] * 5 + [True], result
        assert len(ddrive.run("verify", key, "--json").json()["bad"]) == 5
        assert ddrive.run("cat", key, "5").out == texts[5]


def test_a_drive_that_lost_all_its_bytes_is_verified_and_fetched_again(ddrive: Program, tmp_path: Path) -> None:
    source = tmp_path / "tree"
    source.mkdir()
    (source / "a").write_bytes(b"first file")
    key = ddrive.ask("import", source)["key"]
    with program(tmp_path / "other" / "state") as other:
        other.ask("download", key, "--peer", ddrive.address)
        assert other.run("stop").code == 0
        for data in other.state.glob("dweb/*/*/*/data"):
            data.write_bytes(b"")
        other.ask("status")  # the engine starts, and opens what is pinned
        assert other.run("verify", key).code in (0, 4)  # 0: all that is missing was fetched meanwhile
        assert other.run("cat", key, "a").out == b"first file"
        other.run("verify", key, "--repair")
        assert other.ask("verify", key)["bad"] == []


def test_blocks_that_a_damaged_list_of_held_blocks_does_not_name_are_told(ddrive: Program, tmp_path: Path) -> None:
    source = tmp_path / "tree"
    source.mkdir()
    (source / "a").write_bytes(bytes(range(256)) * 256 * 40)  # 40 blocks
    key = ddrive.ask("import", source)["key"]
    fine = ddrive.ask("verify", key)
    assert fine["restored"] == 0
    assert b"damaged" not in ddrive.run("verify", key).out
    for as_json in (True, False):
        assert ddrive.run("stop").code == 0
        content = max(ddrive.state.glob("dweb/*/*/*/data"), key=lambda data: data.stat().st_size)
        with content.with_name("bitfield").open("r+b") as file:
            file.seek(32 + 1)
            file.write(bytes(3))  # the bits of 24 blocks: looks as if they had been cleared
        if as_json:
            assert ddrive.ask("verify", key) == fine | {"restored": 24}
        else:
            assert b"24 found that the damaged list of held blocks did not name" in ddrive.run("verify", key).out


async def test_blocks_that_a_program_cleared_are_not_bad(ddrive: Program, tmp_path: Path) -> None:
    source = tmp_path / "tree"
    source.mkdir()
    (source / "a").write_bytes(random.Random(1).randbytes(65536 * 9))
    key = ddrive.ask("import", source)["key"]
    fine = ddrive.ask("verify", key)
    assert fine["not_kept"] == 0
    assert ddrive.run("stop").code == 0
    content = max(ddrive.state.glob("dweb/*/*/*/data"), key=lambda data: data.stat().st_size)
    async with open_feed(content.parent) as feed:
        feed.clear(2, 4)
    with content.open("r+b") as file:
        file.seek(7 * 65536 + 5)
        file.write(b"other")
    bad = [{"feed": "content", "block": 7, "path": "/a", "repaired": False}]
    for _ in range(2):
        result = ddrive.run("verify", key, "--json")
        assert result.json() == fine | {
            "valid": fine["valid"] - 3,
            "blocks": fine["blocks"] - 2,
            "bad": bad,
            "not_kept": 2,
        }
        assert result.code == 4
        assert ddrive.run("stop").code == 0
    assert b"2 not kept" in ddrive.run("verify", key).out
    failed = ddrive.run("cat", key, "a", "--timeout", "2s")
    assert failed.code == 5, failed  # what was cleared may be at a peer
