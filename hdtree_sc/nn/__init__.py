"""Network blocks with one job each; pure torch."""

from hdtree_sc.nn._branch_heads import HeadedDenoiser
from hdtree_sc.nn._codebook import TreeCodebook
from hdtree_sc.nn._contrastive import soft_contrastive_loss
from hdtree_sc.nn._decoder import Decoder
from hdtree_sc.nn._denoiser import Denoiser
from hdtree_sc.nn._image import ImageEncoder, ImageHead
from hdtree_sc.nn._latent_tree import LatentTree
from hdtree_sc.nn._leaf_decoder import LeafDecoder
from hdtree_sc.nn._mlp import MLP
from hdtree_sc.nn._path_conditioner import PathConditioner

__all__ = [
    "MLP",
    "Decoder",
    "Denoiser",
    "HeadedDenoiser",
    "ImageEncoder",
    "ImageHead",
    "LatentTree",
    "LeafDecoder",
    "PathConditioner",
    "TreeCodebook",
    "soft_contrastive_loss",
]
