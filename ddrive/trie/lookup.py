"""Finding an entry: from the newest node along the digits of a key.

Each hop follows one pointer to a node that shares more digits with the key. The blocks come from the `Load` that is
handed in; a hop to a block that is there already is a plain call.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Protocol

from ddrive.trie.node import TrieNode
from ddrive.trie.path import COMPONENT_DIGITS, END, KeyPath, divergence, is_check_point, parting

_LONGEST_NAME: Final = 255  # of a file system, in characters of the shortest kind


class Load(Protocol):
    """Where the algorithms get nodes from. A reset marker is handed out like any node; its key is ""."""

    def peek(self, seq: int) -> TrieNode | None:
        """Return node `seq` if its block is held here."""

    async def node(self, seq: int) -> TrieNode:
        """Return node `seq`, waiting for its block when it is not held."""

    def want(self, seqs: Sequence[int], first: int = 0, end: int = 0) -> None:
        """Take note that these nodes will be loaded soon: what is missing may be asked for at once.

        Then the pointers in their rows `first` to `end - 1` will be followed.
        """

    async def give_way(self) -> None:
        """Let other tasks have their turn; called now and then within a long piece of work."""


Head = Callable[[], Awaitable[TrieNode | None]]  # gives the newest node of the version that is looked at


async def lookup(
    load: Load, head: TrieNode | None, path: KeyPath, *, prefix: bool = False, closest: bool = False
) -> TrieNode | None:
    """Return the node at `path`, None when the database holds none.

    With `prefix` the newest node at or below `path`; with `closest`, instead of None, the node at which the walk ended
    (None when it ended between keys of equal hashes).
    Raises: InvalidNode when a node points to one that does not lie where the pointer says.
    """
    goal = path.length - 1 if prefix else path.length
    node = head
    index = 0
    peek = load.peek
    while node is not None and node.key:
        if node.garbled:
            if prefix and (index >= goal or await _leads_below(load, node, goal, path)):
                return node
            node, index = await _through(load, node, index, goal, path)
            continue
        place = parting(node, path)
        stop = place >> 3
        if stop >= goal:
            return node
        if stop < index:
            distrust(node)
            continue
        if stop & 31 or not stop:
            seq = node.pointer(stop, place & 7)
            if not seq:
                return node if closest else None
            node = peek(seq) or await load.node(seq)
        else:
            node = await collision_step(load, node, stop, path)
        index = stop + 1
    return None


async def _through(load: Load, node: TrieNode, index: int, end: int, path: KeyPath) -> tuple[TrieNode | None, int]:
    """Return where to go on from a node whose own digits nobody knows: what it points to shows where `path` leaves it.

    Also the index up to which the digits are settled then. Only rows `index` to `end - 1` count.
    """
    await load.give_way()  # the table may be long, and another such node come next
    rows, starts = node.rows()
    for row, start in zip(rows, starts, strict=True):
        if index <= row < end:
            digit = path.digit(row)
            for seq in [seq for slot, seq in node.pointers_at(start) if slot % (END + 1) == digit]:
                candidate = load.peek(seq) or await load.node(seq)
                if candidate.garbled or (candidate.key and divergence(candidate, path) > row):
                    return candidate, row + 1
    return None, end


async def _leads_below(load: Load, node: TrieNode, goal: int, path: KeyPath) -> bool:
    """Tell whether something that shares `goal` digits with `path` lies behind a later row of a garbled node."""
    rows, starts = node.rows()
    for row, start in zip(rows, starts, strict=True):
        if row >= goal:
            for _, seq in node.pointers_at(start):
                candidate = load.peek(seq) or await load.node(seq)
                if not candidate.garbled:
                    return divergence(candidate, path) >= goal
    return False


async def collision_step(load: Load, node: TrieNode, index: int, path: KeyPath) -> TrieNode | None:
    """Return the node to go on with at the check point `index`: the one whose component there is that of `path`.

    Raises: InvalidNode.
    """
    chosen = None
    for seq in digit_seqs(node, index, path.digit(index)):
        candidate = load.peek(seq) or await load.node(seq)
        shared = divergence(candidate, path)
        if shared < index or not candidate.key:
            raise misplaced(candidate)
        if shared > index:
            chosen = candidate
    return chosen


def digit_seqs(node: TrieNode, row: int, digit: int) -> list[int]:
    """Return the pointers of `row` for one digit, up to the first free slot."""
    found: list[int] = []
    for slot, seq in node.pointers(row):
        if slot == digit + len(found) * (END + 1):
            found.append(seq)
    return found


def misplaced(node: TrieNode) -> Exception:
    """Return the error for a node that some pointer says to lie elsewhere."""
    return node.fault("a newer block points to it, but its key does not belong there")


def distrust(node: TrieNode) -> None:
    """Take a misplaced node whose key no file system takes for one whose place nobody knows; others raise InvalidNode.

    So an author who tampers with names loses those names, not the directory.
    """
    awkward = "\0" in node.key or any(part in ("", ".", "..") or len(part) > _LONGEST_NAME for part in node.parts)
    if not node.key or not awkward:
        raise misplaced(node)
    node.garbled = True


async def ancestors(load: Load, head: TrieNode | None, path: KeyPath, depth: int) -> list[TrieNode]:
    """Return the nodes stored at `path` itself or at a part of it with at least `depth` components, shortest first.

    One walk: whoever shares the path so far also points at the nodes that end there. Raises: InvalidNode.
    """
    found: dict[int, int] = {}
    node = head
    index = 0
    while node is not None and node.key:
        if node.garbled:
            node, index = await _through(load, node, index, path.length, path)
            continue
        stop = divergence(node, path)
        if stop < index:
            distrust(node)
            continue
        for level in range(max(depth, index // COMPONENT_DIGITS), min(stop // COMPONENT_DIGITS, len(path.parts)) + 1):
            row = level * COMPONENT_DIGITS + 1
            if index <= row <= stop:
                seq = node.seq if len(node.parts) == level else node.pointer(row, END)
                if seq:
                    found[level] = seq
        if stop >= path.length:
            break
        if is_check_point(stop):
            node = await collision_step(load, node, stop, path)
        else:
            seq = node.pointer(stop, path.digit(stop))
            node = (load.peek(seq) or await load.node(seq)) if seq else None
        index = stop + 1
    load.want(list(found.values()))
    return [load.peek(seq) or await load.node(seq) for _, seq in sorted(found.items())]
