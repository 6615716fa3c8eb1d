"""Cell and node graphs of a tree."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy import sparse

from hdtree_sc._errors import require_obsm, require_uns
from hdtree_sc._keys import Keys
from hdtree_sc.graph import (
    cell_graph,
    edge_lengths,
    joined_cells,
    natural_groups,
    nearest_neighbors,
    node_graph,
    without_spurious_edges,
)
from hdtree_sc.tree import Tree, node_of_cells

if TYPE_CHECKING:
    from anndata import AnnData
    from numpy.typing import NDArray

RUN = "hdtree_sc.tl.tree(adata, model)"
TIME_AXIS = 8.0
"""Standard deviation of the axis of time, in those of the longest axis of expression."""


def lineage_graph(
    adata: AnnData,
    key: str = "hdtree",
    *,
    n_neighbors: int = 15,
    min_connectivity: float = 0.3,
    seed: int = 0,
    copy: bool = False,
) -> AnnData | None:
    """Join cells, and the leaves of the tree, to their neighbours.

    A latent that was learned by contrast orders cells well within a type and tears development apart between types;
    expression keeps development whole. So cells are joined to their nearest in both, edges are as long as they are in
    expression (principal components), and as strong as they are short in the latent. Leaves are joined where enough of
    their cells are neighbours in expression.

    For a model that was set up with ``time_key``, the time predicted from a cell's latent counts as one more axis of
    its expression, the longest: the way between cells is then mostly the time between them, for cells without a known
    time too.

    Parameters
    ----------
    adata
        Cells on a tree, see :func:`hdtree_sc.tl.tree`.
    key
        Key of the tree.
    n_neighbors
        Neighbours of each cell in each of the two spaces.
    min_connectivity
        Links between two groups of cells have no strength where they are fewer than this share of those expected of
        groups of their size, as edges are left out in PAGA (Wolf et al., Genome Biology 2019): walks then do not leave
        a branch over one spurious edge. Groups are nodes of the tree, those of :func:`hdtree_sc.tl.cut_tree`. The
        strongest tree over the groups stays in any case, and so does what would fall apart. Lower it where lineages
        meet again or run in a circle; 0 leaves nothing out.
    seed
        Seed of the approximate neighbour search, used above 80,000 cells.
    copy
        Whether to annotate and return a copy.

    Returns
    -------
    The annotated copy with ``copy=True``, else None.

    Sets the following fields:

    ``adata.uns["<key>"]["graph"]`` : DataFrame
        One edge a row: ``source``, ``target`` (nodes), ``kind``, ``weight`` (a cost: longer is farther).
        ``"knn"``: leaves whose cells are neighbours; the distance of their mean expression over the square root of
        observed over expected links, so that the way goes where cells are and not in long hops. ``"bridge"``: the
        shortest edges that join what would fall apart. ``"tree"``: parent and child, half the growth of the largest
        distance over the graph within them, so that a way over a common ancestor never cuts short a way that cells
        support. The graph is connected.
    ``adata.uns["<key>"]["bridges"]`` : DataFrame
        The bridges of the cell graph: ``source`` and ``target``, names of cells. Without them the graph falls apart.
    ``adata.obsp["<key>_distances"]``, ``adata.obsp["<key>_connectivities"]`` : float32 CSR
        Lengths of all links and strengths of those that are trusted, symmetric and connected both.
    ``adata.uns["<key>_neighbors"]`` : dict
        scanpy's description of it: ``neighbors_key="<key>_neighbors"`` works in scanpy.

    Raises
    ------
    KeyError
        If the tree is missing.
    ValueError
        If ``n_neighbors`` is not positive, ``min_connectivity`` no share, or some cells are on no node.

    Examples
    --------
    >>> import hdtree_sc as ht
    >>> ht.tl.lineage_graph(adata)
    >>> sorted(set(adata.uns["hdtree"]["graph"]["kind"]) - {"bridge"})
    ['knn', 'tree']
    >>> adata.obsp["hdtree_connectivities"].shape == (adata.n_obs, adata.n_obs)
    True
    """
    keys = Keys(key)
    require_uns(adata, key, RUN)
    latent = np.asarray(require_obsm(adata, keys.latent, RUN))
    if n_neighbors < 1:
        msg = f"n_neighbors: {n_neighbors} given, at least 1 wanted."
        raise ValueError(msg)
    if not 0 <= min_connectivity <= 1:
        msg = f"min_connectivity: {min_connectivity} given, a share between 0 and 1 wanted."
        raise ValueError(msg)
    plain, expression = expression_of(adata, keys)
    shape = Tree.from_adata(adata, key=key)

    position = node_of_cells(adata, shape, key=key)
    neighbors, _ = nearest_neighbors(plain, n_neighbors, seed=seed)
    points, near = measured_positions(adata, keys), neighbors
    if keys.time in adata.obs:
        near, _ = nearest_neighbors(with_time(plain, adata.obs[keys.time].to_numpy(float)), n_neighbors, seed=seed)
    latent_near, latent_apart = nearest_neighbors(latent, near.shape[1], seed=seed)
    joined = trusted = joined_cells(near, latent_near)
    if min_connectivity > 0:
        trusted = without_spurious_edges(joined, natural_groups(shape, position, latent_near), min_connectivity)
    distances, connectivities, bridges = cell_graph(points, latent, joined, latent_apart[:, -1], trusted=trusted)
    edges = node_graph(shape, position, expression, neighbors)
    nodes = np.array(shape.nodes, dtype=object)

    out = adata.copy() if copy else adata
    out.uns[key]["graph"] = pd.DataFrame(
        {"source": nodes[edges.source], "target": nodes[edges.target], "kind": edges.kind, "weight": edges.weight}
    )
    names = adata.obs_names.to_numpy(dtype=object)
    out.uns[key]["bridges"] = pd.DataFrame({"source": names[bridges[:, 0]], "target": names[bridges[:, 1]]})
    out.obsp[keys.distances] = distances
    out.obsp[keys.connectivities] = connectivities
    out.uns[keys.neighbors] = {
        "connectivities_key": keys.connectivities,
        "distances_key": keys.distances,
        "params": {"n_neighbors": n_neighbors, "method": "hdtree_sc", "metric": "euclidean", "use_rep": keys.pca},
    }
    return out if copy else None


def expression_of(adata: AnnData, keys: Keys) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
    """Components of expression, (n, p) each: those of neighbours, and those of distances.

    Parameters
    ----------
    adata
        Cells on a tree, which may come from elsewhere without components: both are the latent then.
    keys
        Names of its fields.
    """
    standardised = np.asarray(require_obsm(adata, keys.pca if keys.pca in adata.obsm else keys.latent, RUN))
    return np.asarray(adata.obsm.get(keys.plain_pca, standardised)), standardised


def measured_positions(adata: AnnData, keys: Keys) -> NDArray[np.floating]:
    """Positions in which the cell graph measures its edges: expression, and the predicted time if there is one.

    Parameters
    ----------
    adata
        Cells on a tree.
    keys
        Names of its fields.
    """
    expression = expression_of(adata, keys)[1]
    return with_time(expression, adata.obs[keys.time].to_numpy(float)) if keys.time in adata.obs else expression


def with_time(expression: NDArray[np.floating], time: NDArray[np.floating]) -> NDArray[np.float32]:
    """Expression components (n, p) with the predicted time (n,) as one more axis, (n, p + 1)."""
    longest = float(expression.std(0).max())
    axis = TIME_AXIS * longest * (time - time.mean()) / max(float(time.std()), 1e-12)
    return np.concatenate([expression, axis[:, None]], 1).astype(np.float32)


def stored_neighbors(adata: AnnData, keys: Keys) -> int:
    """Number of neighbours that the lineage graph was made with, 15 where that was not kept.

    Parameters
    ----------
    adata
        Cells with a lineage graph.
    keys
        Names of its fields.
    """
    return int(adata.uns.get(keys.neighbors, {}).get("params", {}).get("n_neighbors", 15))


def plain_neighbors(adata: AnnData, keys: Keys) -> tuple[NDArray[np.floating], NDArray[np.integer]]:
    """Plain expression components, (n, p), and the neighbours of each cell there, (n, k).

    The cell graph joins each cell with its neighbours in expression and in the latent: the nearest of these in
    expression are its neighbours there, so that none is searched twice.

    Parameters
    ----------
    adata
        Cells with a lineage graph.
    keys
        Names of its fields.
    """
    plain, _ = expression_of(adata, keys)
    k, links = stored_neighbors(adata, keys), sparse.csr_matrix(adata.obsp[keys.distances])
    begin, held = links.indptr[:-1], np.diff(links.indptr)
    if held.min(initial=k) < k:
        # a part of the cells that the graph was made of
        return plain, nearest_neighbors(plain, k)[0]
    source = np.repeat(np.arange(adata.n_obs), held)
    order = np.lexsort((edge_lengths(plain, source, links.indices), source))
    return plain, links.indices[order[begin[:, None] + np.arange(k)]]
