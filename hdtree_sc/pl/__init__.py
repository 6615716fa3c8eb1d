"""Plots of trees, pseudotime, lineage paths, fates, genes and training, with scanpy's habits."""

from hdtree_sc.pl._branch_points import branch_points
from hdtree_sc.pl._embedding import tree_on_embedding
from hdtree_sc.pl._fates import fates
from hdtree_sc.pl._gene_trends import gene_trends
from hdtree_sc.pl._lineage_tree import lineage_tree
from hdtree_sc.pl._path import lineage_path
from hdtree_sc.pl._path_heatmap import path_heatmap
from hdtree_sc.pl._pseudotime import pseudotime
from hdtree_sc.pl._training import training, training_curves
from hdtree_sc.pl._transmutation import transmutation
from hdtree_sc.pl._tree import tree

__all__ = [
    "branch_points",
    "fates",
    "gene_trends",
    "lineage_path",
    "lineage_tree",
    "path_heatmap",
    "pseudotime",
    "training",
    "transmutation",
    "tree",
    "tree_on_embedding",
]
