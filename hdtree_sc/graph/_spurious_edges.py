"""Links of a cell graph that only noise made."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import sparse
from scipy.sparse.csgraph import connected_components, minimum_spanning_tree

from hdtree_sc.graph._prune import natural_cut

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hdtree_sc.tree import Tree


def over_expected(links: NDArray[np.floating], sizes: NDArray[np.number]) -> NDArray[np.float64]:
    """Links between groups over those expected of groups of their size, as PAGA counts them.

    Parameters
    ----------
    links
        Symmetric link counts, (m, m).
    sizes
        Cells of each group, (m,).

    Returns
    -------
    Ratio (m, m), NaN where none are expected.

    References
    ----------
    Wolf et al. (PAGA), Genome Biol. 20, 59 (2019).
    """
    degree = links.sum(1)
    expected = (np.outer(degree, sizes) + np.outer(sizes, degree)) / max(int(sizes.sum()) - 1, 1)
    return np.divide(2.0 * links, expected, out=np.full(expected.shape, np.nan), where=expected > 0)


def natural_groups(shape: Tree, position: NDArray[np.integer], neighbors: NDArray[np.integer]) -> NDArray[np.int64]:
    """Group of each cell where the data choose how far down the tree to go, (n,); as ``tl.cut_tree`` cuts it.

    Parameters
    ----------
    shape
        The tree.
    position
        Position of each cell's leaf in ``shape.nodes``, (n,).
    neighbors
        Neighbours over which links are counted, (n, k).
    """
    held, leaf = np.unique(position, return_inverse=True)
    names = np.array(shape.nodes, dtype=object)[held]
    cut = natural_cut(shape, position, neighbors)
    return np.unique(np.asarray(cut.project(names, within=shape)).astype(str), return_inverse=True)[1][leaf]


def without_spurious_edges(joined: sparse.csr_matrix, group: NDArray[np.integer], least: float) -> sparse.csr_matrix:
    """Leave out links between groups that are hardly linked, as PAGA leaves out edges.

    One wrong link is enough to make a short way between two branches of a tree, so that the shortest way to all cells
    of one leads through the tip of the other.

    Parameters
    ----------
    joined
        Which cells are joined, symmetric (n, n).
    group
        Group of each cell, (n,).
    least
        Links over those expected of groups of their size, below which they go. The strongest spanning tree over the
        groups stays in any case, and so does every link without which cells would fall apart.
    """
    size = np.bincount(group)
    n, m = len(group), len(size)
    if m < 3:
        return joined
    member = sparse.csr_matrix((np.ones(n), (np.arange(n), group)), shape=(n, m))
    links = (member.T @ (joined.astype(float) @ member)).toarray()
    ratio = np.nan_to_num(over_expected(links, size))
    cost = np.divide(1.0, ratio, out=np.zeros_like(ratio), where=ratio > 0)
    np.fill_diagonal(cost, 0.0)
    strongest = minimum_spanning_tree(sparse.csr_matrix(cost)).toarray() > 0
    stays = (ratio >= least) | strongest | strongest.T | np.eye(m, dtype=bool)
    edges = joined.tocoo()
    kept = stays[group[edges.row], group[edges.col]]
    if kept.all():
        return joined
    part = connected_components(_chosen(edges, kept), directed=False)[1]
    return _chosen(edges, kept | (part[edges.row] != part[edges.col]))


def _chosen(edges: sparse.coo_matrix, kept: NDArray[np.bool_]) -> sparse.csr_matrix:
    row, column = edges.row[kept], edges.col[kept]
    return sparse.csr_matrix((np.ones(len(row), dtype=bool), (row, column)), shape=edges.shape)
