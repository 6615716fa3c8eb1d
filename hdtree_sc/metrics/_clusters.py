"""How well a flat clustering agrees with labels."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hdtree_sc.metrics import _check

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


def leaf_purity(leaf: ArrayLike, labels: ArrayLike) -> float:
    """Share of the cells that have the most frequent label of their leaf.

    Each leaf counts by its cells, so this is at least the share of the largest label, and 1 if every cell has a leaf
    of its own: compare it at equal numbers of leaves.

    Parameters
    ----------
    leaf
        ``(n,)``: leaf (or cluster) of each cell.
    labels
        ``(n,)``: label of each cell.

    Returns
    -------
    Share in (0, 1].

    Raises
    ------
    ValueError
        Missing entries, no cells, or different lengths.

    Examples
    --------
    >>> import hdtree_sc as ht
    >>> ht.metrics.leaf_purity(["0", "0", "0", "1"], ["A", "A", "B", "B"])
    0.75
    """
    n = _check.same_length(leaf=leaf, labels=labels)
    counts = _check.table(*_check.groups("leaf", leaf), *_check.groups("labels", labels))
    return float(counts.max(axis=1).sum() / n)


def clustering_accuracy(labels: ArrayLike, clusters: ArrayLike) -> float:
    """Share of the cells that are right when clusters are named by labels one to one, in the best way.

    The best way is found by the Hungarian method. Clusters beyond the number of labels have no name, and their cells
    are wrong.

    Parameters
    ----------
    labels
        ``(n,)``: label of each cell.
    clusters
        ``(n,)``: cluster of each cell.

    Returns
    -------
    Share in (0, 1].

    Raises
    ------
    ValueError
        Missing entries, no cells, or different lengths.

    References
    ----------
    Kuhn, The Hungarian method for the assignment problem, Nav. Res. Logist. Q. 2, 83 (1955).

    Examples
    --------
    >>> import hdtree_sc as ht
    >>> ht.metrics.clustering_accuracy(["A", "A", "B", "B"], ["0", "0", "0", "1"])
    0.75
    """
    from scipy.optimize import linear_sum_assignment

    n = _check.same_length(labels=labels, clusters=clusters)
    counts = _check.table(*_check.groups("labels", labels), *_check.groups("clusters", clusters))
    rows, columns = linear_sum_assignment(counts, maximize=True)
    return float(counts[rows, columns].sum() / n)
