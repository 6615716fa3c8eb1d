"""How HDTree's published code prunes and scores a tree, written anew from its description.

It differs from sound practice in three ways, all kept here on purpose: it scores cells that the model was trained on,
it needs the number of classes and merges the smallest leaves, and its dendrogram purity gives each leaf the cells of
the leaf that stands opposite in the order of leaves. Its reconstruction and likelihood are no measures of a model
(reconstruction averaged with the truth) and are left out."""

from __future__ import annotations

from math import isqrt
from typing import TYPE_CHECKING

import numpy as np

import hdtree_sc as ht

if TYPE_CHECKING:
    from numpy.typing import NDArray


def prune(tree: ht.Tree, leaf: NDArray[np.object_], n_leaves: int) -> tuple[ht.Tree, NDArray[np.object_]]:
    """Cut as the published code does: at one level, then siblings are merged, those of the smallest leaf first.

    The level is ``int(sqrt(K)) + 2``, counted from 0 below the root. Among leaves whose siblings are leaves too the
    one with the fewest cells goes, the last in order if there are several, until K are left.

    Parameters
    ----------
    tree
        A binary tree.
    leaf
        Leaf of each cell that is scored.
    n_leaves
        K.

    Returns
    -------
    The pruned tree, and the leaf of each cell in it.
    """
    level = isqrt(n_leaves) + 3  # levels of `Tree` count the edges from the root
    ends = {node for node, depth in zip(tree.nodes, tree.levels, strict=True) if depth == level}
    ends |= {node for node in tree.leaves if tree.levels[tree.index(node)] < level}
    held = np.array([_end_above(tree, ends, name) for name in leaf], dtype=object)
    cells = {node: int((held == node).sum()) for node in ends}
    while len(cells) > n_leaves:
        order = [node for node in tree.nodes if node in cells]
        mergeable = [node for node in order if all(sibling in cells for sibling in tree.children(tree.parent(node)))]
        fewest = min(cells[node] for node in mergeable)
        parent = tree.parent([node for node in mergeable if cells[node] == fewest][-1])
        cells[parent] = sum(cells.pop(child) for child in tree.children(parent))
    held = np.array([_end_above(tree, cells, name) for name in held], dtype=object)
    kept = [node for node in tree.nodes if not any(above in cells for above in _ancestors(tree, node))]
    parents = [-1 if tree.parent(node) is None else kept.index(tree.parent(node)) for node in kept]
    return ht.Tree(kept, parents), held


def mirrored_purity(tree: ht.Tree, leaf: NDArray[np.object_], labels: NDArray) -> float:
    """Dendrogram purity with the published fault: leaf i holds the cells of leaf K - 1 - i.

    Parameters
    ----------
    tree
        The pruned tree.
    leaf
        Leaf of each cell.
    labels
        Label of each cell.
    """
    opposite = dict(zip(tree.leaves, reversed(tree.leaves), strict=True))
    return ht.metrics.dendrogram_purity(tree, [opposite[name] for name in leaf], labels)


def _ancestors(tree: ht.Tree, node: str) -> tuple[str, ...]:
    """Nodes above a node, the root included."""
    return () if node == tree.root else (tree.root, *tree.path(node)[:-1])


def _end_above(tree: ht.Tree, ends: set[str] | dict[str, int], node: str) -> str:
    """The one of some nodes that is at or above a node."""
    return next(name for name in (*_ancestors(tree, node), node) if name in ends)
