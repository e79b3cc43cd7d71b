"""Random changes, large files among them, do in a mount what they do in a local directory; also when it is killed.

`ROUNDS` in the environment sets how often it is killed (50 for a long run).
"""

import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

from tests.fuse.test_writing_crashes import ROUNDS
from tests.support.program import kill
from tests.support.writing import writable_mount

CHANGES = 60  # between two kills
LARGE = 24 * 1024 * 1024  # takes some time to be stored: directories move meanwhile
NAMES = "abcd"


class Pair:
    """The same directory twice: in the mount, and on a local disk."""

    def __init__(self, mounted: Path, local: Path, dice: random.Random) -> None:
        self.roots = (mounted, local)
        self.dice = dice

    def change(self) -> None:
        """Do one random thing to both; it ends alike."""
        change = self.dice.choice(
            (self.write, self.write, self.patch, self.cut, self.mkdir, self.mkdir, self.move, self.move, self.remove)
        )
        seed = self.dice.random()
        ends = []
        for root in self.roots:
            self.dice = random.Random(seed)
            try:
                ends.append(change(root))
            except OSError as error:
                ends.append(error.errno)
        assert ends[0] == ends[1], (change, ends)
        self.dice = random.Random(seed + 1)
        mounted, local = (sorted(path.relative_to(root) for path in root.rglob("*")) for root in self.roots)
        assert mounted == local

    def path(self, root: Path) -> Path:
        """Return a random place, three deep at most; its directory may be missing."""
        return root.joinpath(*(self.dice.choice(NAMES) for _ in range(self.dice.randint(1, 3))))

    def write(self, root: Path) -> None:
        size = self.dice.choice((0, 10, 70_000, LARGE))
        with self.path(root).open("wb") as file:
            file.truncate(size)
            file.write(self.dice.randbytes(min(size, 1000)))

    def patch(self, root: Path) -> None:
        with self.path(root).open("r+b") as file:
            file.seek(self.dice.randrange(200_000))
            file.write(self.dice.randbytes(1000))

    def cut(self, root: Path) -> None:
        os.truncate(self.path(root), self.dice.randrange(100_000))

    def mkdir(self, root: Path) -> None:
        self.path(root).mkdir()

    def move(self, root: Path) -> None:
        self.path(root).rename(self.path(root))

    def remove(self, root: Path) -> None:
        path = self.path(root)
        if path.is_dir():
            path.rmdir()
        else:
            path.unlink()

    def check(self) -> None:
        """Both hold the same."""
        there, expected = (tree(root) for root in self.roots)
        assert there.keys() == expected.keys()
        assert [name for name in there if there[name] != expected[name]] == []


def tree(root: Path) -> dict[str, bytes | None]:
    """Return all that is in a directory: paths and contents, None for directories."""
    return {str(path.relative_to(root)): None if path.is_dir() else path.read_bytes() for path in root.rglob("*")}


def test_random_changes_survive_kills(tmp_path: Path) -> None:
    local = tmp_path / "local"
    local.mkdir()
    with writable_mount(tmp_path) as mount:
        pair = Pair(mount.path, local, random.Random(os.environ.get("SEED", "1")))
        victims: list[Callable[[], int]] = [lambda: mount.pids()["worker"], lambda: mount.pids()["engine"]]
        for number in range(ROUNDS):
            for _ in range(CHANGES):
                pair.change()
            kill(victims[number % 2]())
            mount.heal()
            pair.check()
        mount.remount()
        pair.check()
        mount.program.ask("export", mount.key, tmp_path / "exported")
        exported = Pair(tmp_path / "exported", local, pair.dice)
        exported.check()
        shutil.rmtree(local)
