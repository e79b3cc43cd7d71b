"""The dependency rule of docs/architecture.md, read from the source of every module."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
BASE = {"ids", "errors"}
ALLOWED = {
    "errors": set(),
    "ids": set(),
    "dialect": set(),
    "crypto": BASE,
    "feed": BASE | {"crypto"},
    "protocol": BASE | {"crypto", "dialect"},
    "replication": BASE | {"feed", "protocol"},
    "store": BASE | {"replication", "feed", "protocol", "crypto", "dialect"},
    "standalone": BASE | {"trie", "replication", "feed", "protocol", "crypto", "dialect"},
    "trie": BASE | {"feed", "crypto", "dialect"},
    "drive": BASE | {"trie", "store", "feed"},
    "appdb": BASE | {"trie", "store", "feed", "crypto", "dialect"},
    "graph": {"trie", "errors"},
    "swarm": BASE | {"store", "protocol", "dialect"},
}
LINES_REFUSED = 600
PURE = {
    "ddrive/feed/flat.py",
    "ddrive/feed/hashing.py",
    "ddrive/feed/merkle.py",
    "ddrive/feed/bitfield.py",
    "ddrive/feed/rle.py",
    "ddrive/protocol/varint.py",
    "ddrive/protocol/framing.py",
    "ddrive/protocol/messages.py",
    "ddrive/protocol/handshake.py",
    "ddrive/protocol/cipher.py",
    "ddrive/protocol/channels.py",
    "ddrive/protocol/connection.py",
    "ddrive/protocol/sharing.py",
    "ddrive/replication/demand.py",
    "ddrive/replication/peer.py",
    "ddrive/replication/scheduler.py",
    "ddrive/feed/passing.py",
    "ddrive/store/derive.py",
    "ddrive/store/ledger.py",
    "ddrive/store/runs.py",
    "ddrive/store/rpc.py",
    "ddrive/trie/path.py",
    "ddrive/trie/node.py",
    "ddrive/drive/paths.py",
    "ddrive/drive/stat.py",
    "ddrive/swarm/dht_node.py",
    "ddrive/swarm/dht_peers.py",
    "ddrive/swarm/dht_rpc.py",
    "ddrive/swarm/dht_search.py",
    "ddrive/swarm/dht_table.py",
    "ddrive/swarm/repeating.py",
    "ddrive/swarm/dialing.py",
    "ddrive/swarm/discovery.py",
    "ddrive/swarm/lan_plan.py",
    "ddrive/swarm/mdns.py",
    "ddrive/swarm/networks.py",
    "ddrive/swarm/silence.py",
    "ddrive/swarm/static.py",
    "mountd/inodes.py",
    "mountd/handles.py",
    "mountd/errnos.py",
}
IMPURE_MODULES = {"trio", "os", "socket", "time", "random", "threading", "subprocess", "pathlib"}


def modules() -> list[Path]:
    """Return every hand-written module of both packages."""
    found = [path for top in ("ddrive", "mountd") for path in (ROOT / top).rglob("*.py")]
    return sorted(path for path in found if not path.name.endswith("_pb2.py"))


def run_at_import(tree: ast.Module) -> Iterator[ast.stmt]:
    """Yield the statements of a module, also those that depend on what the machine has."""
    for statement in tree.body:
        yield statement
        if isinstance(statement, ast.If) and "TYPE_CHECKING" not in ast.unparse(statement.test):
            yield from (*statement.body, *statement.orelse)
        elif isinstance(statement, ast.Try):
            yield from statement.body


def imports(tree: ast.AST) -> list[tuple[str, ast.stmt]]:
    """Return the dotted names that `tree` imports, with the statement that does."""
    found: list[tuple[str, ast.stmt]] = []
    for statement in ast.walk(tree):
        if isinstance(statement, ast.Import):
            found += [(alias.name, statement) for alias in statement.names]
        elif isinstance(statement, ast.ImportFrom):
            assert statement.level == 0, "imports name the package in full"
            module = statement.module or ""
            found += [
                (f"{module}.{alias.name}" if module == "ddrive" else module, statement) for alias in statement.names
            ]
    return found


@pytest.mark.parametrize("path", modules(), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_module_keeps_the_rules(path: Path) -> None:
    name = path.relative_to(ROOT).as_posix()
    source = path.read_text()
    tree = ast.parse(source)
    assert source.count("\n") <= LINES_REFUSED
    top_level = {id(statement) for statement in run_at_import(tree)}
    parts = path.relative_to(ROOT).with_suffix("").parts
    room = parts[1] if parts[0] == "ddrive" else "mountd"
    for imported, statement in imports(tree):
        assert id(statement) in top_level, f"{imported} is imported inside a function or for types alone"
        words = imported.split(".")
        if name in PURE:
            assert words[0] not in IMPURE_MODULES, f"{name} is pure and imports {imported}"
        if words[0] == "mountd":
            assert room == "mountd", "the library never imports the program around it"
        if words[0] == "ddrive" and len(words) > 1 and room not in ("mountd", "__init__"):
            assert words[1] == room or words[1] in ALLOWED[room], f"{room} may not import {words[1]}"


@pytest.mark.parametrize("path", modules(), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_functions_stay_short(path: Path) -> None:
    for item in ast.walk(ast.parse(path.read_text())):
        if isinstance(item, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (item.end_lineno or item.lineno) - item.lineno + 1
            assert length <= 60, f"{item.name} has {length} lines"


def test_only_mountd_knows_fuse() -> None:
    for path in modules():
        if "pyfuse3" in {name.split(".")[0] for name, _ in imports(ast.parse(path.read_text()))}:
            assert path.relative_to(ROOT).as_posix() in ("mountd/fuse.py", "mountd/operations.py", "mountd/worker.py")
