"""What is optimised, one file a system."""

from hdtree_sc.module._branched import BranchedModule
from hdtree_sc.module._hdtree import HDTreeModule
from hdtree_sc.module._treevae import TreeVAEModule

__all__ = ["BranchedModule", "HDTreeModule", "TreeVAEModule"]
