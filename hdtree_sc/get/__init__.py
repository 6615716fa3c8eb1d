"""From AnnData to the objects of this package."""

from hdtree_sc.get._lineage_tree import lineage_tree
from hdtree_sc.get._tree import tree
from hdtree_sc.get._treedata import treedata

__all__ = [
    "lineage_tree",
    "tree",
    "treedata",
]
