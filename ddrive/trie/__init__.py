"""A key/value database in one append-only feed, and its wrapper that leads into mounted databases."""

from ddrive.trie.batch import Condition, Delete, Put
from ddrive.trie.diff import Change
from ddrive.trie.extension import Assistant
from ddrive.trie.helping import answer_peers
from ddrive.trie.mountpoint import MOUNT_FLAG, MountPoint
from ddrive.trie.mounts import Entry, MountTrie, OpenTrie, Owner, open_mount_trie
from ddrive.trie.mountwalk import MountChange
from ddrive.trie.node import Header, InvalidNode, TrieNode
from ddrive.trie.trie import Trie, open_trie
from ddrive.trie.watch import Watch
from ddrive.trie.writing import WriteStream

__all__ = [
    "MOUNT_FLAG",
    "Assistant",
    "Change",
    "Condition",
    "Delete",
    "Entry",
    "Header",
    "InvalidNode",
    "MountChange",
    "MountPoint",
    "MountTrie",
    "OpenTrie",
    "Owner",
    "Put",
    "Trie",
    "TrieNode",
    "Watch",
    "WriteStream",
    "answer_peers",
    "open_mount_trie",
    "open_trie",
]
