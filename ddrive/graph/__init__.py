"""Directed graphs with labelled edges, kept in a trie."""

from ddrive.graph.graph import EdgeChange, Graph
from ddrive.graph.walk import Edge, EdgeWalk

__all__ = ["Edge", "EdgeChange", "EdgeWalk", "Graph"]
