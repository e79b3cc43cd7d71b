from .batch import Condition, Delete, Put
from .diff import Change
from .extension import Assistant
from .helping import answer_peers
from .mountpoint import MOUNT_FLAG, MountPoint
from .mounts import Entry, MountTrie, OpenTrie, Owner, open_mount_trie
from .mountwalk import MountChange
from .node import Header, InvalidNode, TrieNode
from .trie import Trie, open_trie
from .watch import Watch
from .writing import WriteStream

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
