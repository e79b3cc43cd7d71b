"""Changes files in a directory at random until it is killed or a call fails, and tells before and after each change.

Run as `python busy_writer.py DIRECTORY LOG SEED`. Each line of the log is one JSON value, in the page cache before the
next call is made. `states` says which trees may be there when the last lines of a log are known.
"""

import json
import os
import random
import sys
from pathlib import Path
from typing import Any

NAMES = [f"f{number}" for number in range(6)] + [f"d/f{number}" for number in range(4)]
PIECE_BYTES = 30_000  # written at once
APPENDED_BYTES = 1000
SIZES = (0, 10, 5000, 65_536, 65_537, 200_000)

Tree = dict[str, tuple[int, int]]  # path → seed and size of its content


def content(seed: int, size: int) -> bytes:
    """Return bytes that tell which they are wherever one looks."""
    return b"".join(b"%08x%08x" % (seed, position) for position in range(0, size, 16))[:size]


def choose(dice: random.Random, tree: Tree, number: int) -> list[Any]:
    """Return a change that makes sense now: what to do, and with which path."""
    path = dice.choice(NAMES)
    kind = dice.choice(["write", "write", "replace", "sync", "append", "unlink", "rename"])
    if kind in ("append", "unlink", "rename") and path not in tree:
        kind = "write"
    if kind == "rename":
        return [kind, path, dice.choice([name for name in NAMES if name != path])]
    return [kind, path, number, dice.choice(SIZES)]


def applied(tree: Tree, change: list[Any]) -> Tree:
    """Return the tree after a change."""
    kind, path, *rest = change
    after = dict(tree)
    if kind == "unlink":
        del after[path]
    elif kind == "rename":
        after[rest[0]] = after.pop(path)
    elif kind == "append":
        after[path] = (after[path][0], after[path][1] + APPENDED_BYTES)
    else:
        after[path] = (rest[0], rest[1])
    return after


def states(lines: list[str], sizes: dict[str, int] | None = None) -> list[Tree]:
    """Return the tree after all changes that had ended, and those that there may be while the next one is under way.

    `sizes`: what files there have, when the one that was being written may have been closed at any point.
    """
    tree: Tree = {}
    begun: list[Any] | None = None
    for line in lines:
        value = json.loads(line)
        if value == "done" and begun is not None:
            tree, begun = applied(tree, begun), None
        else:
            begun = value
    if begun is None:
        return [tree]
    found = [tree, applied(tree, begun)]
    if sizes is not None and begun[0] in ("write", "sync", "append"):
        kind, path, seed, size = begun
        has = sizes.get(path, 0)
        if kind != "append" and has < size:
            found.append(applied(tree, [kind, path, seed, has]))
        elif kind == "append" and tree[path][1] < has < tree[path][1] + APPENDED_BYTES:
            found.append(tree | {path: (tree[path][0], has)})
    return found


def perform(directory: Path, tree: Tree, change: list[Any]) -> None:
    """Make a change."""
    kind, name, *rest = change
    path = directory / name
    if kind == "unlink":
        path.unlink()
    elif kind == "rename":
        path.rename(directory / rest[0])
    elif kind == "append":
        seed, size = tree[name]
        with path.open("ab", buffering=0) as file:
            file.write(content(seed, size + APPENDED_BYTES)[size:])
    elif kind == "replace":
        fresh = path.with_name(f".{path.name}.new")
        fresh.write_bytes(content(rest[0], rest[1]))
        fresh.rename(path)
    else:
        with path.open("wb") as file:
            for start in range(0, rest[1], PIECE_BYTES):
                file.write(content(rest[0], rest[1])[start : start + PIECE_BYTES])
                file.flush()
            if kind == "sync":
                os.fsync(file.fileno())


def main() -> None:
    directory, log, seed = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    dice = random.Random(seed)
    told = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    tree = states(Path(log).read_text().splitlines())[0]
    (directory / "d").mkdir(exist_ok=True)
    number = seed * 100_000
    while True:
        number += 1
        change = choose(dice, tree, number)
        os.write(told, json.dumps(change).encode() + b"\n")
        perform(directory, tree, change)
        os.write(told, b'"done"\n')
        tree = applied(tree, change)


if __name__ == "__main__":
    main()
