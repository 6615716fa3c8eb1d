"""What is optimised, one file a system."""

from hdtree_sc.module._branched import COLLAPSED, BranchedModule, GaussianClasses
from hdtree_sc.module._branched_diffusion import (
    CONDITIONINGS,
    BranchedLatentDiffusion,
    BranchTraining,
    Conditioning,
)
from hdtree_sc.module._cell_module import CellModule
from hdtree_sc.module._covariate_pool import CovariatePool
from hdtree_sc.module._covariates import CovariateVector
from hdtree_sc.module._hdtree import TIME_KEY, HDTreeModule
from hdtree_sc.module._joint_diffusion import JointDiffusion, code_spread
from hdtree_sc.module._latent_diffusion import Condition, LatentDiffusion, without_condition
from hdtree_sc.module._placement import Placement, Placing, paths_of
from hdtree_sc.module._scvi_networks import ScviNetworks
from hdtree_sc.module._spaces import SPACES, Space
from hdtree_sc.module._tree_diffusion import TREE_CONDITIONS, TreeCondition, TreeLatentDiffusion, paths_to
from hdtree_sc.module._tree_heads import ClassHead, CodebookHead, LatentTreeHead, TreeHead
from hdtree_sc.module._treevae import TreeVAEModule

__all__ = [
    "BranchTraining",
    "BranchedLatentDiffusion",
    "BranchedModule",
    "COLLAPSED",
    "CONDITIONINGS",
    "CellModule",
    "ClassHead",
    "CodebookHead",
    "Conditioning",
    "CovariateVector",
    "CovariatePool",
    "GaussianClasses",
    "HDTreeModule",
    "JointDiffusion",
    "LatentDiffusion",
    "LatentTreeHead",
    "Placement",
    "Placing",
    "SPACES",
    "ScviNetworks",
    "Space",
    "TIME_KEY",
    "TREE_CONDITIONS",
    "TreeCondition",
    "TreeHead",
    "TreeLatentDiffusion",
    "TreeVAEModule",
    "Condition",
    "code_spread",
    "paths_of",
    "paths_to",
    "without_condition",
]
