"""Network blocks with one job each; pure torch."""

from hdtree_sc.nn._codebook import TreeCodebook
from hdtree_sc.nn._contrastive import soft_contrastive_loss
from hdtree_sc.nn._decoder import Decoder
from hdtree_sc.nn._mlp import MLP

__all__ = ["MLP", "Decoder", "TreeCodebook", "soft_contrastive_loss"]
