"""Network blocks with one job each; pure torch."""

from hdtree_sc.nn._branch_heads import HeadedDenoiser
from hdtree_sc.nn._codebook import TreeCodebook
from hdtree_sc.nn._contrastive import Metric, soft_contrastive_loss
from hdtree_sc.nn._decoder import LIKELIHOODS, Decoder, Likelihood
from hdtree_sc.nn._denoiser import Denoiser
from hdtree_sc.nn._image import ImageEncoder, ImageHead
from hdtree_sc.nn._latent_tree import LatentTree, Passage
from hdtree_sc.nn._leaf_decoder import MIN_SHARE, MIN_SHARE_IN_BOUNDS, LeafDecoder
from hdtree_sc.nn._mlp import MLP
from hdtree_sc.nn._path_conditioner import Gate, PathConditioner
from hdtree_sc.nn._scaler import TARGET_SUM, ExpressionScaler
from hdtree_sc.nn._unplaced import LANDMARKS, NEAREST, PROFILES, UnplacedScore, nearest, with_peers

__all__ = [
    "Decoder",
    "Denoiser",
    "ExpressionScaler",
    "Gate",
    "HeadedDenoiser",
    "ImageEncoder",
    "ImageHead",
    "LANDMARKS",
    "MIN_SHARE",
    "MIN_SHARE_IN_BOUNDS",
    "LIKELIHOODS",
    "LatentTree",
    "LeafDecoder",
    "Likelihood",
    "MLP",
    "Metric",
    "NEAREST",
    "PROFILES",
    "Passage",
    "PathConditioner",
    "TARGET_SUM",
    "TreeCodebook",
    "UnplacedScore",
    "nearest",
    "soft_contrastive_loss",
    "with_peers",
]
