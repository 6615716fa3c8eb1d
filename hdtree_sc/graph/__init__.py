"""Numerics on graphs of cells and of groups of them, without AnnData."""

from hdtree_sc.graph._absorption import absorption, first_met
from hdtree_sc.graph._agglomerate import (
    Linkage,
    group_means,
    heap_layout,
    information_linkage,
    link_counts,
    link_linkage,
    ward_linkage,
)
from hdtree_sc.graph._backbone import Backbone, backbone, edge_support
from hdtree_sc.graph._bisect import best_bisection
from hdtree_sc.graph._cell_graph import cell_graph, edge_lengths, joined_cells
from hdtree_sc.graph._components import on_bridge, parts_of, without_bridges
from hdtree_sc.graph._edge_positions import edge_positions
from hdtree_sc.graph._neighbors import medoid, nearest_neighbors, spread_rows
from hdtree_sc.graph._node_graph import MIN_LINKS, are_near, node_graph
from hdtree_sc.graph._order import consensus_order, finished, links_of_starts, order_along, order_from, smoothed, within
from hdtree_sc.graph._order_bootstrap import Interval, bootstrap
from hdtree_sc.graph._prune import MIN_AGREEMENT, natural_cut
from hdtree_sc.graph._spurious_edges import natural_groups, over_expected, without_spurious_edges
from hdtree_sc.graph._tips import Peaks, find_peaks, resolution, tip_cells
from hdtree_sc.graph._tree_replicate import BUILDERS, Procedure, Replicate, Sample, clade_overlap, rebuild
from hdtree_sc.graph._walks import WALK_NEIGHBORS, entropy_of, walk_information

__all__ = [
    "BUILDERS",
    "Backbone",
    "Interval",
    "Linkage",
    "MIN_AGREEMENT",
    "MIN_LINKS",
    "Peaks",
    "Procedure",
    "Replicate",
    "Sample",
    "WALK_NEIGHBORS",
    "absorption",
    "are_near",
    "backbone",
    "best_bisection",
    "bootstrap",
    "cell_graph",
    "clade_overlap",
    "consensus_order",
    "edge_lengths",
    "edge_positions",
    "edge_support",
    "entropy_of",
    "find_peaks",
    "finished",
    "first_met",
    "group_means",
    "heap_layout",
    "information_linkage",
    "joined_cells",
    "link_counts",
    "links_of_starts",
    "link_linkage",
    "medoid",
    "natural_cut",
    "natural_groups",
    "nearest_neighbors",
    "node_graph",
    "on_bridge",
    "order_along",
    "order_from",
    "over_expected",
    "parts_of",
    "rebuild",
    "resolution",
    "smoothed",
    "spread_rows",
    "tip_cells",
    "walk_information",
    "ward_linkage",
    "within",
    "without_bridges",
    "without_spurious_edges",
]
