"""Figures of merit: plain arrays in, a float out."""

from hdtree_sc.metrics._clusters import clustering_accuracy, leaf_purity
from hdtree_sc.metrics._dendrogram import dendrogram_purity
from hdtree_sc.metrics._distributions import frechet_distance, mmd2
from hdtree_sc.metrics._time import time_neighborhood_ratio
from hdtree_sc.metrics._triplets import triplet_accuracy

__all__ = [
    "clustering_accuracy",
    "dendrogram_purity",
    "frechet_distance",
    "leaf_purity",
    "mmd2",
    "time_neighborhood_ratio",
    "triplet_accuracy",
]
