"""The tree as a value: structure, cutting and file formats."""

from hdtree_sc.tree._tree import Tree

__all__ = ["Tree"]
