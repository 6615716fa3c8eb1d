"""The models: learn a tree of cells from an AnnData."""

from hdtree_sc.model._branched import BranchedDiffusion
from hdtree_sc.model._hdtree import HDTree
from hdtree_sc.model._treevae import TreeVAE

__all__ = ["BranchedDiffusion", "HDTree", "TreeVAE"]
