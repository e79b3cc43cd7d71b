"""A read from several seeders goes at the speed of the good ones, whatever the others do."""

import os
import shutil
from contextlib import ExitStack
from pathlib import Path

from tests.interop.test_bad_peers import lying
from tests.support.line import line
from tests.support.program import Program, program

BLOCK_BYTES = 65536
BLOCKS = 128


def seeder(stack: ExitStack, state: Path, key: str, author: Program) -> Program:
    """Give an engine that has copied the drive from its author and serves it."""
    made = stack.enter_context(program(state))
    made.ask("peer", "add", author.address)
    made.ask("seed", key)
    made.ask("download", key)
    return made


def test_one_that_dies_one_that_lies_and_one_that_is_slow(ddrive: Program, tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    content = os.urandom(BLOCKS * BLOCK_BYTES)
    (tmp_path / "source" / "big.bin").write_bytes(content)
    with ExitStack() as stack:
        good = stack.enter_context(program(tmp_path / "good"))
        key = good.ask("import", tmp_path / "source")["key"]
        store = tmp_path / "store"
        shutil.copytree(good.state / "dweb", store)
        (content_key,) = {path.read_bytes().hex() for path in store.glob("*/*/*/key")} - {key}
        liar = stack.enter_context(lying(store, "dweb", content_key, "corrupt-block"))
        slow_line = line(seeder(stack, tmp_path / "slow", key, good).address, rate=20_000)  # 7 min for all of it
        slow = stack.enter_context(slow_line)
        dying_line = line(seeder(stack, tmp_path / "dying", key, good).address, dead_after=4 * BLOCK_BYTES)
        dying = stack.enter_context(dying_line)
        for address in (liar, slow.address, dying.address, good.address):
            ddrive.ask("peer", "add", address)
        assert ddrive.run("cat", key, "big.bin").out == content
        peers = {peer["address"]: peer for peer in ddrive.ask("peer", "ls")}
        assert peers[liar]["last_error"].startswith("feed "), "what it sent did not verify"
        assert not peers[liar]["connected"]
        stats = ddrive.ask("stats")
        given = {peer["address"]: peer["downloaded"]["blocks"] for peer in stats["peers"]}
        assert given[good.address] > BLOCKS / 2
        assert stats["timeouts"] == 0, "a request waited until its time was up"
        assert slow.passed < len(content) / 4
