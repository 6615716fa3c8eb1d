"""Which inner nodes of a tree become leaves when it is cut."""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from hdtree_sc.tree import _build

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from hdtree_sc.tree._tree import Tree


def cut(tree: Tree, n_leaves: int | None, min_cells: int | None) -> Tree:
    """See `Tree.cut`."""
    _check(tree, n_leaves, min_cells)
    closed = np.zeros(len(tree), dtype=bool)  # inner nodes that become leaves
    if min_cells is not None:
        _close_small(tree, min_cells, closed)
    if n_leaves is not None:
        _close_low(tree, n_leaves, closed)
    return collapse(tree, closed)


def collapse(tree: Tree, closed: NDArray[np.bool_]) -> Tree:
    """The tree without what is below some nodes.

    Parameters
    ----------
    tree
        The tree.
    closed
        Nodes that become leaves, (n_nodes,).
    """
    closed = closed & ~tree.is_leaf_mask
    kept = ~_below(tree, closed)
    if kept.all():
        return tree
    heights = np.where(closed, 0.0, tree.heights)
    steps = _build.height_steps(tree.parents, tree.heights)
    unknown = np.full(len(tree), np.nan)
    lengths = None if _build.same(tree.lengths, steps) else unknown if tree.lengths is None else tree.lengths
    index = np.cumsum(kept) - 1
    parents = np.where(tree.parents < 0, -1, index[tree.parents])
    return type(tree)(
        [name for name, keep in zip(tree.nodes, kept.tolist(), strict=True) if keep],
        parents[kept],
        heights=heights[kept],
        n_cells=tree.n_cells[kept],
        codebook=None if tree.codebook is None else tree.codebook[kept],
        lengths=None if lengths is None else lengths[kept],
        support=None if tree.support is None else tree.support[kept],
    )


def project(tree: Tree, names: Iterable[str], within: Tree) -> NDArray[np.object_]:
    """See `Tree.project`."""
    found = np.atleast_1d(within.index(names))
    holder = pd.Index(tree.nodes, dtype=object).get_indexer(pd.Index(within.nodes, dtype=object)).tolist()
    for node, above in enumerate(within.parents.tolist()):
        if holder[node] < 0 and above >= 0:
            holder[node] = holder[above]
    held = np.asarray(holder)[found]
    if (held < 0).any():
        lost = within.nodes[found[np.argmax(held < 0)]]
        msg = f"within: node {lost!r} has no ancestor in this tree; give the tree that this one was cut from."
        raise ValueError(msg)
    return np.asarray(tree.nodes, dtype=object)[held]


def _check(tree: Tree, n_leaves: int | None, min_cells: int | None) -> None:
    if n_leaves is None and min_cells is None:
        msg = "Give n_leaves= (how many leaves) or min_cells= (how many cells in each leaf), or both."
        raise ValueError(msg)
    most = len(tree.leaves)
    if n_leaves is not None and not 1 <= n_leaves <= most:
        msg = f"n_leaves={n_leaves} is out of range: the tree has {most} leaves, so 1 to {most}."
        raise ValueError(msg)
    if min_cells is not None:
        if not tree.n_cells.any():
            msg = "min_cells needs the cells of each node, and this tree has no n_cells; use n_leaves instead."
            raise ValueError(msg)
        total = tree.n_cells[0]
        if not 1 <= min_cells <= total:
            msg = f"min_cells={min_cells} is out of range: the tree holds {total} cells, so 1 to {total}."
            raise ValueError(msg)


def _below(tree: Tree, closed: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Nodes that have a closed node above them."""
    # below a closed node: one slice, opened after it and shut at its end
    starts = np.flatnonzero(closed)
    step = np.bincount(starts + 1, minlength=len(tree) + 1) - np.bincount(
        starts + tree.sizes[starts], minlength=len(tree) + 1
    )
    return np.cumsum(step[: len(tree)]) > 0


def _close_small(tree: Tree, min_cells: int, closed: NDArray[np.bool_]) -> None:
    """Close the parent of the smallest leaf until every leaf has `min_cells`."""
    cells, parents = tree.n_cells, tree.parents
    gone = np.zeros(len(tree), dtype=bool)
    heap = [(int(cells[i]), int(i)) for i in np.flatnonzero(tree.is_leaf_mask & (cells < min_cells))]
    heapify(heap)
    while heap:
        _, leaf = heappop(heap)
        if gone[leaf]:
            continue
        node = int(parents[leaf])
        closed[node] = True
        gone[node + 1 : node + tree.sizes[node]] = True
        if cells[node] < min_cells and node > 0:
            heappush(heap, (int(cells[node]), node))


def _close_low(tree: Tree, n_leaves: int, closed: NDArray[np.bool_]) -> None:
    """Close the lowest node that has only leaves below it until `n_leaves` are left."""
    below = _below(tree, closed)
    leaf = (tree.is_leaf_mask | closed) & ~below
    inner = ~leaf & ~below
    n_children = np.bincount(tree.parents[1:], minlength=len(tree))
    waiting = np.bincount(tree.parents[1:], weights=inner[1:], minlength=len(tree)).astype(np.int64)
    left = int(leaf.sum())

    def entry(node: int) -> tuple[float, int, int]:
        return float(tree.heights[node]), -int(tree.levels[node]), node

    heap = [entry(int(node)) for node in np.flatnonzero(inner & (waiting == 0))]
    heapify(heap)
    while heap and left > n_leaves:
        node = heappop(heap)[-1]
        if left - (n_children[node] - 1) < n_leaves:
            break
        closed[node] = True
        left -= int(n_children[node]) - 1
        if node > 0:
            above = int(tree.parents[node])
            waiting[above] -= 1
            if waiting[above] == 0:
                heappush(heap, entry(above))
