"""Tools: AnnData in, AnnData annotated."""

from hdtree_sc.tl._cut_tree import cut_tree
from hdtree_sc.tl._lineage_graph import lineage_graph
from hdtree_sc.tl._lineage_path import lineage_path
from hdtree_sc.tl._pseudotime import pseudotime
from hdtree_sc.tl._rank_transmuted_genes import rank_transmuted_genes
from hdtree_sc.tl._retained_signal import retained_signal
from hdtree_sc.tl._tree import tree
from hdtree_sc.tl._validate_path import validate_path

__all__ = [
    "cut_tree",
    "lineage_graph",
    "lineage_path",
    "pseudotime",
    "rank_transmuted_genes",
    "retained_signal",
    "tree",
    "validate_path",
]
