"""Tools: AnnData in, AnnData annotated."""

from hdtree_sc.tl._compare_conditions import compare_conditions
from hdtree_sc.tl._cut_tree import cut_tree
from hdtree_sc.tl._fates import fate_probabilities
from hdtree_sc.tl._lineage_graph import lineage_graph
from hdtree_sc.tl._lineage_path import lineage_path
from hdtree_sc.tl._lineage_tree import lineage_tree
from hdtree_sc.tl._node_markers import node_markers
from hdtree_sc.tl._path_genes import path_genes
from hdtree_sc.tl._pseudotime import pseudotime
from hdtree_sc.tl._rank_transmuted_genes import rank_transmuted_genes
from hdtree_sc.tl._retained_signal import retained_signal
from hdtree_sc.tl._to_cellrank import to_cellrank
from hdtree_sc.tl._to_dendrogram import to_dendrogram
from hdtree_sc.tl._to_paga import to_paga
from hdtree_sc.tl._tree import tree
from hdtree_sc.tl._tree_support import tree_support
from hdtree_sc.tl._validate_path import validate_path

__all__ = [
    "compare_conditions",
    "cut_tree",
    "fate_probabilities",
    "lineage_graph",
    "lineage_path",
    "lineage_tree",
    "node_markers",
    "path_genes",
    "pseudotime",
    "rank_transmuted_genes",
    "retained_signal",
    "to_cellrank",
    "to_dendrogram",
    "to_paga",
    "tree",
    "tree_support",
    "validate_path",
]
