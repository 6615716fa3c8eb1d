"""What is optimised, one file a system."""

from hdtree_sc.module._branched import COLLAPSED, BranchedModule, GaussianClasses
from hdtree_sc.module._branched_diffusion import (
    CONDITIONINGS,
    BranchedLatentDiffusion,
    BranchTraining,
    Conditioning,
)
from hdtree_sc.module._donors import Donors
from hdtree_sc.module._hdtree import TIME_KEY, HDTreeModule
from hdtree_sc.module._latent_diffusion import LatentDiffusion, Where, untold
from hdtree_sc.module._scvi_networks import ScviNetworks
from hdtree_sc.module._spaces import SPACES, Space
from hdtree_sc.module._tree_diffusion import TREE_CONDITIONS, TreeCondition, paths_to
from hdtree_sc.module._treevae import TreeVAEModule

__all__ = [
    "BranchTraining",
    "BranchedLatentDiffusion",
    "BranchedModule",
    "COLLAPSED",
    "CONDITIONINGS",
    "Conditioning",
    "Donors",
    "GaussianClasses",
    "HDTreeModule",
    "LatentDiffusion",
    "SPACES",
    "ScviNetworks",
    "Space",
    "TIME_KEY",
    "TREE_CONDITIONS",
    "TreeCondition",
    "TreeVAEModule",
    "Where",
    "paths_to",
    "untold",
]
