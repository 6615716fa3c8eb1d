"""Tests and trends of many variables at once, without AnnData."""

from hdtree_sc.stats._class_moments import class_moments
from hdtree_sc.stats._energy import (
    Points,
    all_distances,
    energy,
    energy_floor,
    energy_test,
    mean_distances,
    mean_within,
    row_blocks,
)
from hdtree_sc.stats._moderation import moderated_t
from hdtree_sc.stats._p_values import combined_p, share_below
from hdtree_sc.stats._shares import compare_shares
from hdtree_sc.stats._trends import Curves, Design, design, trend_curves, trend_test

__all__ = [
    "Curves",
    "Design",
    "Points",
    "all_distances",
    "class_moments",
    "combined_p",
    "compare_shares",
    "design",
    "energy",
    "energy_floor",
    "energy_test",
    "mean_distances",
    "mean_within",
    "moderated_t",
    "row_blocks",
    "share_below",
    "trend_curves",
    "trend_test",
]
