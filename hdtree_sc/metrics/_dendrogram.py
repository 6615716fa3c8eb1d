"""How pure the subtrees are that hold cells of one label together."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from hdtree_sc.metrics import _check
from hdtree_sc.tree import subtree_sums

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

    from hdtree_sc.tree import Tree


def dendrogram_purity(tree: Tree, leaf: Sequence[str] | NDArray[np.object_], labels: ArrayLike) -> float:
    """Dendrogram purity: mean, over pairs of cells of one label, of the label's share below their common ancestor.

    Exact, not sampled, and with the pairs of each cell with itself (Heller and Ghahramani 2005): what matters is not
    only that leaves are pure but that leaves of one label are neighbours.

    Parameters
    ----------
    tree
        The tree.
    leaf
        ``(n,)``: node of each cell; inner nodes may hold cells too.
    labels
        ``(n,)``: label of each cell.

    Returns
    -------
    Purity in (0, 1].

    Raises
    ------
    KeyError
        A cell's node is not in the tree.
    ValueError
        Missing labels, no cells, or different lengths.

    References
    ----------
    Heller and Ghahramani, Bayesian hierarchical clustering, ICML (2005).

    Examples
    --------
    >>> import hdtree_sc as ht
    >>> tree = ht.Tree.from_newick("((a,b)ab,c)root;")
    >>> ht.metrics.dendrogram_purity(tree, ["a", "a", "b", "c"], ["X", "X", "X", "Y"])
    1.0
    """
    _check.same_length(leaf=leaf, labels=labels)
    group, n_groups = _check.groups("labels", labels)
    own = _check.table(tree.index(leaf), len(tree), group, n_groups)
    below = subtree_sums(tree, own)
    pairs = below * (below + 1) / 2
    total = pairs[0].sum()
    # a pair belongs to its lowest common ancestor: to a node, less what its children hold already
    here = pairs.copy()
    np.subtract.at(here, tree.parents[1:], pairs[1:])
    size = below.sum(axis=1, keepdims=True)
    share = np.divide(below, size, out=np.zeros_like(below), where=size > 0)
    return float((here * share).sum() / total)
