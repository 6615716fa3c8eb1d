"""Figures of merit: plain arrays in, a float out; `compare_cells` gives a table of them."""

from hdtree_sc.metrics._clusters import clustering_accuracy, leaf_purity
from hdtree_sc.metrics._cophenetic import cophenetic_correlation
from hdtree_sc.metrics._dendrogram import dendrogram_purity
from hdtree_sc.metrics._distributions import frechet_distance, mmd2
from hdtree_sc.metrics._generated import (
    classifier_auc,
    compare_cells,
    gene_correlation_error,
    zero_fraction,
    zero_fraction_error,
)
from hdtree_sc.metrics._time import time_neighborhood_ratio
from hdtree_sc.metrics._triplets import triplet_accuracy

__all__ = [
    "classifier_auc",
    "clustering_accuracy",
    "compare_cells",
    "cophenetic_correlation",
    "dendrogram_purity",
    "frechet_distance",
    "gene_correlation_error",
    "leaf_purity",
    "mmd2",
    "time_neighborhood_ratio",
    "triplet_accuracy",
    "zero_fraction",
    "zero_fraction_error",
]
