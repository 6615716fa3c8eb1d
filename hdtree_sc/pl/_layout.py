"""Where the nodes and edges of a drawn tree lie: arrays in, arrays out, no matplotlib."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hdtree_sc.tree import Tree

Orientation = Literal["top", "bottom", "left", "right"]
BranchLengths = Literal["height", "sqrt", "level"]


def tree_layout(
    tree: Tree,
    n_cells: NDArray,
    *,
    branch_lengths: BranchLengths = "sqrt",
    spacing: Literal["even", "cells"] = "even",
) -> pd.DataFrame:
    """Coordinates of the nodes, rows as ``tree.nodes``.

    Columns: ``x`` across the leaves (mean spacing 1; an inner node in the middle of its outermost children), ``y`` away
    from the leaves (the root is highest), ``parent`` (row number, -1 for the root), ``is_leaf``, ``level``.

    Parameters
    ----------
    tree
        The tree.
    n_cells
        Cells in each node's subtree ``(n_nodes,)``.
    branch_lengths
        ``"height"``: y is the node's height; ``"sqrt"``: its square root, which opens up the crowded low splits;
        ``"level"``: all nodes of one level in one line. A tree without heights is drawn by level.
    spacing
        ``"even"``, or ``"cells"``: room in proportion to the square root of the leaf's cells.
    """
    parents, is_leaf, n = tree.parents, tree.is_leaf_mask, len(tree)
    leaves = np.flatnonzero(is_leaf)
    width = np.sqrt(n_cells[leaves] + 1.0) if spacing == "cells" else np.ones(len(leaves))
    width *= len(leaves) / width.sum()
    x = np.zeros(n)
    x[leaves] = np.cumsum(width) - width / 2
    first, last = np.full(n, np.inf), np.full(n, -np.inf)
    by_level = branch_lengths == "level" or not has_heights(tree)
    levels = tree.levels
    y = (levels.max() - levels).astype(float) if by_level else np.maximum(tree.heights, 0.0)
    for node in range(n - 1, -1, -1):
        if not is_leaf[node]:
            x[node] = (first[node] + last[node]) / 2
        parent = parents[node]
        if parent >= 0:
            first[parent], last[parent] = min(first[parent], x[node]), max(last[parent], x[node])
            y[parent] = max(y[parent], y[node])
    if branch_lengths == "sqrt" and not by_level:
        y = np.sqrt(y)
    return pd.DataFrame(
        {"x": x, "y": y, "parent": parents, "is_leaf": is_leaf, "level": levels}, index=list(tree.nodes)
    )


def has_heights(tree: Tree) -> bool:
    """Whether the tree's heights say more than that there are levels."""
    return bool(tree.heights.max() > 0)


def orient(xy: NDArray, orientation: Orientation) -> NDArray:
    """Layout coordinates ``(..., 2)`` turned so that the root lies at the named side; first leaf left or on top."""
    x, y = xy[..., 0], xy[..., 1]
    turned = {"top": (x, y), "bottom": (x, -y), "left": (-y, -x), "right": (y, -x)}[orientation]
    return np.stack(turned, axis=-1)


def elbows(layout: pd.DataFrame) -> NDArray:
    """Right-angled edges ``(n_nodes - 1, 3, 2)`` in layout coordinates, in node order: parent, corner, child."""
    child = layout.iloc[1:]
    parent = layout.iloc[child["parent"].to_numpy()]
    px, py = parent["x"].to_numpy(), parent["y"].to_numpy()
    cx, cy = child["x"].to_numpy(), child["y"].to_numpy()
    return np.stack([np.stack([px, cx, cx], axis=1), np.stack([py, py, cy], axis=1)], axis=-1)


def clades(tree: Tree, *, most: int = 10) -> tuple[list[str], NDArray[np.int64]]:
    """Names of the big branches, and the number of the one each node belongs to ``(n_nodes,)``; -1 above them.

    The branches are the nodes of level 2 (or leaves above), where these are at most `most`; else those of level 1.
    """
    levels, is_leaf = tree.levels, tree.is_leaf_mask
    heads = np.flatnonzero((levels == 2) | (is_leaf & (levels < 2)))
    if len(heads) > most:
        heads = np.flatnonzero(levels == 1)
    out = np.full(len(tree), -1, dtype=np.int64)
    for number, head in enumerate(heads):
        out[head : head + tree.sizes[head]] = number
    return [tree.nodes[i] for i in heads], out


def fit_diameters(
    xy: NDArray, n_cells: NDArray, is_leaf: NDArray, *, largest: float, room: float, smallest: float = 3.0
) -> tuple[NDArray, float]:
    """Diameters of the nodes ``(n_nodes,)`` in points, and the scale: ``scale * n_cells ** 0.25``.

    The fourth root (the area goes with the square root of the cells) keeps leaves of tens of cells readable beside a
    root of thousands. Neighbouring leaves never touch; an inner node is made smaller where it would cover another one.

    Parameters
    ----------
    xy
        Positions on the page ``(n_nodes, 2)`` in points.
    n_cells
        Cells in each subtree.
    is_leaf
        Which nodes are leaves.
    largest
        Diameter of the largest node, points.
    room
        Distance between neighbouring leaves, points.
    smallest
        Diameter of the smallest node, points.
    """
    root4 = np.maximum(n_cells, 0) ** 0.25
    scale = largest / max(root4.max(), 1.0)
    leaf_most = scale * root4[is_leaf].max()
    if leaf_most > 0.92 * room:
        scale *= 0.92 * room / leaf_most
    diameter = np.maximum(scale * root4, smallest)
    inner = ~is_leaf
    if inner.any():
        gap = np.sqrt(((xy[:, None] - xy[None]) ** 2).sum(-1))
        np.fill_diagonal(gap, np.inf)
        to_leaf = 2 * (gap[np.ix_(inner, is_leaf)] - diameter[is_leaf] / 2).min(axis=1)
        to_inner = gap[np.ix_(inner, inner)].min(axis=1)
        diameter[inner] = np.maximum(np.minimum(diameter[inner], np.minimum(to_leaf, to_inner)), smallest)
    return diameter, scale


def spread(position: NDArray, size: NDArray, priority: NDArray) -> NDArray[np.bool_]:
    """Which labels to keep so that none overlap along a line: the most important first.

    Parameters
    ----------
    position
        Centres ``(n,)``.
    size
        Extent of each label along the line ``(n,)``.
    priority
        Higher is kept first ``(n,)``.
    """
    keep = np.zeros(len(position), dtype=bool)
    for i in np.argsort(-np.asarray(priority, dtype=float), kind="stable"):
        near = np.abs(position - position[i]) < (size + size[i]) / 2
        keep[i] = not (near & keep).any()
    return keep
