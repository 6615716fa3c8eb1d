"""Tools: AnnData in, AnnData annotated."""

from hdtree_sc.tl._lineage_graph import lineage_graph
from hdtree_sc.tl._lineage_path import lineage_path
from hdtree_sc.tl._pseudotime import pseudotime
from hdtree_sc.tl._tree import tree

__all__ = ["lineage_graph", "lineage_path", "pseudotime", "tree"]
