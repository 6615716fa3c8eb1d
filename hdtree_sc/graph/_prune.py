"""Cost-complexity pruning: which splits of a tree are worth their leaves."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from hdtree_sc.graph._agglomerate import link_counts
from hdtree_sc.tree import collapse, subtree_sums

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hdtree_sc.tree import Tree

MIN_AGREEMENT = 0.25
"""Agreement beyond chance that a split must reach on held-out cells to be worth a leaf.

On real data agreement is near 1 at the top of trees and falls to 0 to 0.2 where branches follow the noise of the
training cells.
"""


def natural_cut(
    tree: Tree, position: NDArray[np.integer], neighbors: NDArray[np.integer], *, resolution: float = 1.0
) -> Tree:
    """The tree cut where the data choose: the cut with the largest modularity.

    Parameters
    ----------
    tree
        The tree.
    position
        Position of each cell's leaf in ``tree.nodes``, (n,).
    neighbors
        Neighbours over which links are counted, (n, k).
    resolution
        Price of the links that were expected within a node; larger keeps more leaves.
    """
    return prune(tree, modularity_gains(tree, link_counts(neighbors, position, len(tree)), resolution=resolution))


def modularity_gains(tree: Tree, links: NDArray[np.floating], *, resolution: float = 1.0) -> NDArray[np.float64]:
    """What each split adds to the modularity of the leaves.

    Parameters
    ----------
    tree
        The tree.
    links
        Symmetric link counts between the cells at each node, (n_nodes, n_nodes).
    resolution
        Price of the links that were expected within a node.

    Returns
    -------
    Gain of each node's split, (n_nodes,); 0 for leaves.

    References
    ----------
    Newman and Girvan, Finding and evaluating community structure in networks, Phys. Rev. E 69, 026113 (2004); with a
    resolution: Reichardt and Bornholdt, Phys. Rev. E 74, 016110 (2006).
    """
    total = max(float(links.sum()), 1.0)
    # links within each subtree: a block on the diagonal, as nodes are in pre-order
    over = np.zeros((len(tree) + 1, len(tree) + 1))
    over[1:, 1:] = links.cumsum(0).cumsum(1)
    first, last = np.arange(len(tree)), np.arange(len(tree)) + tree.sizes
    within = over[last, last] - over[first, last] - over[last, first] + over[first, first]
    degree = subtree_sums(tree, links.sum(1))
    quality = within / total - resolution * np.square(degree / total)
    gains = -quality
    np.add.at(gains, tree.parents[1:], quality[1:])
    gains[tree.is_leaf_mask] = 0.0
    return gains


def prune(tree: Tree, gains: NDArray[np.floating]) -> Tree:
    """The cut with the largest sum of gains over the splits it keeps.

    Parameters
    ----------
    tree
        The tree.
    gains
        Gain of each node's split, (n_nodes,).

    Returns
    -------
    The tree without the splits that, with all below them, do not pay. A split that does not pay by itself stays where
    one below it does.

    References
    ----------
    Cost-complexity pruning: Breiman, Friedman, Olshen and Stone, Classification and Regression Trees (1984).
    """
    best = np.asarray(gains, dtype=float).copy()
    closed = np.zeros(len(tree), dtype=bool)
    # pre-order: every child is met before its parent on the way back
    for node in range(len(tree) - 1, -1, -1):
        if best[node] <= 0.0 and not tree.is_leaf_mask[node]:
            best[node], closed[node] = 0.0, True
        if node > 0:
            best[tree.parents[node]] += max(best[node], 0.0)
    return collapse(tree, closed)
