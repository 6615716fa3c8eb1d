"""Parts of a cell graph that only bridges join."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import sparse
from scipy.sparse.csgraph import connected_components, dijkstra

from hdtree_sc._keys import Keys

if TYPE_CHECKING:
    from anndata import AnnData
    from numpy.typing import NDArray

    from hdtree_sc.tree import Tree


def bridge_cells(adata: AnnData, key: str) -> NDArray[np.int64]:
    """Rows of the two cells of each bridge of the cell graph, (b, 2); bridges whose cells have gone are left out.

    Parameters
    ----------
    adata
        Cells with :func:`hdtree_sc.tl.lineage_graph`.
    key
        Key of the tree.
    """
    held = adata.uns[key].get("bridges")
    if held is None or len(held) == 0:  # a graph from elsewhere, or from a version that kept none
        return np.empty((0, 2), dtype=np.int64)
    rows = np.stack([adata.obs_names.get_indexer(held[end].astype(str)) for end in ("source", "target")], 1)
    return rows[(rows >= 0).all(1)].astype(np.int64)


def bridges_of(
    adata: AnnData, distances: sparse.csr_matrix, shape: Tree, leaf: NDArray[np.integer], *, key: str
) -> NDArray[np.int64]:
    """Rows of the two cells of each edge that joins parts and should not count, (b, 2).

    Those are the bridges that :func:`lineage_graph` added, and the spurious edges between groups of leaves of which no
    two are neighbours: a single odd cell does not make one development of two.

    Parameters
    ----------
    adata
        Cells with :func:`hdtree_sc.tl.lineage_graph`.
    distances
        Cell graph, (n, n).
    shape
        The tree.
    leaf
        Position of each cell's leaf in the tree, (n,).
    key
        Key of the tree.
    """
    added, graph = bridge_cells(adata, key), adata.uns[key].get("graph")
    if graph is None:  # a cell graph from elsewhere
        return added
    near = graph[(graph["kind"] == "knn").to_numpy()]
    ends = shape.index(near["source"]), shape.index(near["target"])
    joined = sparse.coo_matrix((np.ones(len(near), bool), ends), shape=(len(shape), len(shape)))
    group = connected_components(joined, directed=False)[1][leaf]
    source = np.repeat(np.arange(len(leaf)), np.diff(distances.indptr))
    spurious = np.flatnonzero((group[source] != group[distances.indices]) & (source < distances.indices))
    return np.concatenate([added, np.stack([source[spurious], distances.indices[spurious]], 1).astype(np.int64)])


def starts_of(
    adata: AnnData, distances: sparse.csr_matrix, part: NDArray[np.int64], start: int, *, key: str
) -> NDArray[np.int64]:
    """Row of the cell that each part starts from, (n_parts,): where the way from the root enters it.

    Parameters
    ----------
    adata
        Cells on a tree; of a part that no way leads to, the cell that is nearest to the root in the latent.
    distances
        Cell graph with its bridges, (n, n).
    part
        Part of each cell, (n,).
    start
        Row of the root cell.
    key
        Key of the tree.
    """
    way = dijkstra(distances, directed=False, indices=start)
    latent = np.asarray(adata.obsm[Keys(key).latent], dtype=float)
    apart = np.linalg.norm(latent - latent[start], axis=1)
    # by part, then by way; ways that do not exist are infinite and the latent separates their cells
    order = np.lexsort((apart, way, part))
    first = np.searchsorted(part[order], np.arange(part.max() + 1))
    return order[first]
