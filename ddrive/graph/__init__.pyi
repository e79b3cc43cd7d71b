from .graph import EdgeChange, Graph
from .walk import Edge, EdgeWalk

__all__ = ["Edge", "EdgeChange", "EdgeWalk", "Graph"]
