"""How a tree is built, grown, pruned and supported in training."""

from hdtree_sc.growth._growth import SPLIT_RULES, Cells, Growth, SplitRule
from hdtree_sc.growth._map_fit import fit_map
from hdtree_sc.growth._scaler_fit import fit_scaler
from hdtree_sc.growth._tree_builder import BUILDERS, TreeBuilder, build_tree, structure_codebook
from hdtree_sc.growth._unplaced_fit import calibration_rows, fit_unplaced

__all__ = [
    "BUILDERS",
    "Cells",
    "Growth",
    "SPLIT_RULES",
    "SplitRule",
    "TreeBuilder",
    "build_tree",
    "calibration_rows",
    "fit_map",
    "fit_scaler",
    "fit_unplaced",
    "structure_codebook",
]
