"""What is optimised, one file a system."""

from hdtree_sc.module._hdtree import HDTreeModule

__all__ = ["HDTreeModule"]
