"""How a tree is built, grown, pruned and supported in training."""

from hdtree_sc.growth._growth import SPLIT_RULES, Cells, Growth, SplitRule
from hdtree_sc.growth._map_fit import fit_map
from hdtree_sc.growth._tree_builder import BUILDERS, TreeBuilder, build_tree

__all__ = [
    "BUILDERS",
    "Cells",
    "Growth",
    "SPLIT_RULES",
    "SplitRule",
    "TreeBuilder",
    "build_tree",
    "fit_map",
]
