"""Ends of development as the lineage tree has them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from hdtree_sc._keys import Keys
from hdtree_sc.get import milestone_of_cells, milestones
from hdtree_sc.graph import Backbone, backbone
from hdtree_sc.tl._lineage_graph import plain_neighbors
from hdtree_sc.tl._pseudotime import CELLS_PER_GROUP, resolutions

if TYPE_CHECKING:
    from anndata import AnnData
    from numpy.typing import NDArray

    from hdtree_sc.tree import Tree

RESOLUTIONS = (16, 24, 32, 48, 10**6)
"""Numbers of milestones to choose from, as far as the tree has so many leaves; the last is all of them."""


def milestone_groupings(shape: Tree, leaf: NDArray[np.int64], time: NDArray[np.float64]) -> list[NDArray[np.int64]]:
    """Milestone of each cell, (n,), at each resolution that the tree offers.

    A tree of few leaves is too coarse to tell a branch from its fork, so that its leaves are also cut along
    the order of their cells.

    Parameters
    ----------
    shape
        The tree.
    leaf
        Position of each cell's leaf in it, (n,).
    time
        Order of the cells, (n,).
    """
    groupings = resolutions(shape, leaf, RESOLUTIONS)
    held, code, size = np.unique(leaf, return_inverse=True, return_counts=True)
    if len(held) >= RESOLUTIONS[0]:
        return groupings
    piece = max(CELLS_PER_GROUP, len(leaf) // RESOLUTIONS[1])
    order = np.lexsort((time, leaf))
    place = np.empty(len(leaf), dtype=np.int64)
    place[order] = np.arange(len(leaf))
    pieces = np.maximum(size // piece, 1)
    within = (place - (np.cumsum(size) - size)[code]) * pieces[code] // size[code]
    return [*groupings, (np.cumsum(pieces) - pieces)[code] + within]


def grown_backbone(
    adata: AnnData,
    keys: Keys,
    groupings: list[NDArray[np.int64]],
    time: NDArray[np.float64],
    start: int,
    min_cells: int = 10,
) -> tuple[Backbone, NDArray[np.floating], NDArray[np.integer]]:
    """The tree of descent, the components it is grown in, (n, d), and the neighbours there, (n, k).

    Parameters
    ----------
    adata
        Cells with :func:`hdtree_sc.tl.lineage_graph`.
    keys
        Names of the fields.
    groupings
        Milestone of each cell at each resolution, (n,) each.
    time
        Order of the cells in [0, 1], (n,).
    start
        Row of the root cell.
    min_cells
        Least number of cells of an end.
    """
    plain, neighbors = plain_neighbors(adata, keys)
    return backbone(groupings, time, neighbors, start, min_cells=min_cells), plain, neighbors


def lineage_ends(
    adata: AnnData, shape: Tree, leaf: NDArray[np.int64], time: NDArray[np.float64], direction: str, *, key: str
) -> tuple[NDArray[np.int64], int]:
    """End that each cell is a terminal cell of, -1 for none, (n,), and the number of ends.

    The terminal cells of an end are the later half of its milestone. Ends are those of
    :func:`hdtree_sc.tl.lineage_tree` where it stands for this order of the cells; without, the tree is grown here.

    Parameters
    ----------
    adata
        Cells with :func:`hdtree_sc.tl.lineage_graph`.
    shape
        The tree.
    leaf
        Position of each cell's leaf in it, (n,).
    time
        Order of the cells, (n,).
    direction
        What the order was made of.
    key
        Key of the tree.
    """
    keys = Keys(key)
    held = _stored(adata, keys, direction)
    if held is None:
        groupings = milestone_groupings(shape, leaf, time)
        grown, _, _ = grown_backbone(adata, keys, groupings, time, int(time.argmin()))
        held = grown.group, grown.is_end
    group, is_end = held
    # of a part of the cells an end may be without any
    ends = np.flatnonzero(is_end & (np.bincount(group, minlength=len(is_end)) > 0))
    middle = pd.Series(time).groupby(group).transform("median").to_numpy()
    number = np.full(len(is_end), -1)
    number[ends] = np.arange(len(ends))
    return np.where(time >= middle, number[group], -1), len(ends)


def _stored(adata: AnnData, keys: Keys, direction: str) -> tuple[NDArray[np.int64], NDArray[np.bool_]] | None:
    """Milestone of each cell, and which are ends, of a lineage tree that stands for the order of the cells."""
    stored = adata.uns[keys.key]
    if "lineage" not in stored or keys.milestone not in adata.obs:
        return None
    params = stored["lineage"]["params"]
    if direction not in ("pseudotime", params["time_key"]):
        return None
    if stored.get("pseudotime", {}).get("root_cell") != params["root_cell"]:
        return None
    table = milestones(adata, keys.key)
    group, is_end = milestone_of_cells(adata, table, keys.key), table["is_terminal"].to_numpy(bool)
    # what has lost its milestones, or all its ends, is grown again
    return None if (group < 0).any() or not is_end[group].any() else (group, is_end)
