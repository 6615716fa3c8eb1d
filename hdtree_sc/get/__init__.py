"""From AnnData to the objects of this package."""

from hdtree_sc.get._tree import tree

__all__ = ["tree"]
