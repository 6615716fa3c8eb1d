"""Sums over subtrees."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hdtree_sc.tree._tree import Tree


def subtree_sums(tree: Tree, values: NDArray[np.number]) -> NDArray[np.float64]:
    """Sum of values over each node and all below it.

    Parameters
    ----------
    tree
        The tree.
    values
        One value or row of values per node, (n_nodes,) or (n_nodes, k).

    Returns
    -------
    Array of the same shape.
    """
    # Nodes come in pre-order: a subtree is one slice, and its sum the difference of two running sums.
    start = np.zeros((1, *values.shape[1:]))
    running = np.concatenate([start, np.cumsum(values, axis=0, dtype=float)])
    return running[np.arange(len(tree)) + tree.sizes] - running[:-1]
