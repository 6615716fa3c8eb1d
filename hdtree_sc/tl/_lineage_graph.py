"""Cell and node graphs of a tree."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy import sparse
from scipy.sparse.csgraph import connected_components, dijkstra, minimum_spanning_tree

from hdtree_sc._errors import require_obsm, require_uns
from hdtree_sc._keys import Keys
from hdtree_sc.data._neighbors import nearest_neighbors
from hdtree_sc.graph._stray_links import natural_groups, without_stray_links
from hdtree_sc.tree import Tree
from hdtree_sc.tree._agglomerate import group_means, link_counts
from hdtree_sc.tree._cells import node_of_cells

if TYPE_CHECKING:
    from anndata import AnnData
    from numpy.typing import NDArray

RUN = "hdtree_sc.tl.tree(adata, model)"
MIN_LINKS = 1 / 3
"""Leaves are neighbours from ``MIN_LINKS * k * sqrt(cells / k)`` links on, with the cells of the smaller one.

The border between two leaves grows slower than the leaves do, stray links grow with them: the square root is between.
"""
TIME_AXIS = 8.0
"""Standard deviation of the axis of time, in those of the longest axis of expression."""
BRIDGE_CELLS = 500
"""A bridge between parts of the cell graph joins the closest pair among so many cells of each."""


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
    points, near = expression, neighbors
    if keys.time in adata.obs:
        time = adata.obs[keys.time].to_numpy(float)
        points = with_time(expression, time)
        near, _ = nearest_neighbors(with_time(plain, time), n_neighbors, seed=seed)
    latent_near, latent_apart = nearest_neighbors(latent, near.shape[1], seed=seed)
    joined = trusted = _joined(near, latent_near)
    if min_connectivity > 0:
        trusted = without_stray_links(joined, natural_groups(shape, position, latent_near), min_connectivity)
    distances, connectivities, bridges = cell_graph(points, latent, joined, latent_apart[:, -1], trusted=trusted)
    edges = node_graph(shape, position, expression, neighbors)

    out = adata.copy() if copy else adata
    out.uns[key]["graph"] = edges
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
    order = np.lexsort((_edge_lengths(plain, source, links.indices), source))
    return plain, links.indices[order[begin[:, None] + np.arange(k)]]


def _joined(*neighbors: NDArray[np.integer]) -> sparse.csr_matrix:
    """Which cells are neighbours in any of some spaces, (n, k) each; symmetric (n, n)."""
    target = np.concatenate(neighbors, 1)
    n, k = target.shape
    source = np.repeat(np.arange(n), k)
    joined = sparse.coo_matrix((np.ones(n * k, bool), (source, target.ravel())), shape=(n, n)).tocsr()
    return joined + joined.T


def cell_graph(
    expression: NDArray[np.floating],
    latent: NDArray[np.floating],
    joined: sparse.csr_matrix,
    width: NDArray[np.floating],
    *,
    trusted: sparse.csr_matrix | None = None,
) -> tuple[sparse.csr_matrix, sparse.csr_matrix, NDArray[np.int64]]:
    """Lengths and strengths of the edges between cells.

    Parameters
    ----------
    expression
        Expression components, (n, p).
    latent
        Latents, (n, d).
    joined
        Which cells are joined, symmetric (n, n).
    width
        How far each cell's neighbours reach in the latent, (n,).
    trusted
        Those of them that have a strength, symmetric (n, n); all by default.

    Returns
    -------
    Distances in expression and connectivities in (0, 1], a Gaussian of the latent distance as wide as ``width``. Both
    symmetric and connected. Then the bridges that made them so, rows of two cells, (b, 2).
    """
    n = len(expression)
    trusted = joined if trusted is None else trusted
    bridges = _bridges(trusted, expression)
    one_way = sparse.coo_matrix((np.ones(len(bridges), bool), tuple(bridges.T)), shape=(n, n)).tocsr()
    bridging = one_way + one_way.T
    edges, strong = (joined + bridging).tocoo(), (trusted + bridging).tocoo()
    length = _edge_lengths(expression, edges.row, edges.col)
    width = np.maximum(width, 1e-12)
    squared = np.square(_edge_lengths(latent, strong.row, strong.col)) / (width[strong.row] * width[strong.col])
    strength = np.maximum(np.exp(-squared), 1e-6)
    shape = (n, n)
    # identical cells are a hair apart: a stored zero would read as no edge
    distances = sparse.csr_matrix((np.maximum(length, 1e-6).astype(np.float32), (edges.row, edges.col)), shape=shape)
    connectivities = sparse.csr_matrix((strength.astype(np.float32), (strong.row, strong.col)), shape=shape)
    return distances, connectivities, bridges


def _edge_lengths(
    points: NDArray[np.floating], source: NDArray[np.integer], target: NDArray[np.integer], block: int = 1_000_000
) -> NDArray[np.float64]:
    out = np.empty(len(source))
    for start in range(0, len(source), block):
        part = slice(start, start + block)
        out[part] = np.linalg.norm(points[source[part]] - points[target[part]], axis=1)
    return out


def _bridges(joined: sparse.csr_matrix, points: NDArray[np.floating]) -> NDArray[np.int64]:
    """Pairs (b, 2) that make a cell graph connected: along the shortest tree over the centres of its parts."""
    n_parts, part = connected_components(joined, directed=False)
    if n_parts == 1:
        return np.empty((0, 2), dtype=np.int64)
    size = np.bincount(part)
    centres = group_means(points, part)
    order = np.argsort(part, kind="stable")
    members = np.split(order, np.cumsum(size)[:-1])
    tree = minimum_spanning_tree(sparse.csr_matrix(_pairwise(centres) + 1e-9)).tocoo()
    pairs = []
    for a, b in zip(tree.row, tree.col, strict=True):
        left = _closest(members[a], points, centres[b])
        right = _closest(members[b], points, centres[a])
        apart = _pairwise(points[left], points[right])
        i, j = np.unravel_index(apart.argmin(), apart.shape)
        pairs.append((left[i], right[j]))
    return np.array(pairs, dtype=np.int64)


def _closest(cells: NDArray[np.integer], points: NDArray[np.floating], to: NDArray[np.floating]) -> NDArray[np.integer]:
    if len(cells) <= BRIDGE_CELLS:
        return cells
    return cells[np.argpartition(np.square(points[cells] - to).sum(1), BRIDGE_CELLS)[:BRIDGE_CELLS]]


def _pairwise(a: NDArray[np.floating], b: NDArray[np.floating] | None = None) -> NDArray[np.float64]:
    b = a if b is None else b
    return np.sqrt(np.square(a[:, None].astype(float) - b[None]).sum(-1))


def node_graph(
    shape: Tree, position: NDArray[np.integer], expression: NDArray[np.floating], neighbors: NDArray[np.integer]
) -> pd.DataFrame:
    """Edges between the nodes of a tree.

    Parameters
    ----------
    shape
        The tree.
    position
        Position of each cell's leaf in ``shape.nodes``, (n,).
    expression
        Expression components, (n, p).
    neighbors
        Neighbours in expression, (n, k).

    Returns
    -------
    The table described under :func:`lineage_graph`. Leaves without cells have tree edges only.
    """
    held, group = np.unique(position, return_inverse=True)
    m = len(held)
    size = np.bincount(group)
    apart = np.maximum(_pairwise(group_means(expression, group)), 1e-9)
    links = link_counts(neighbors, group, m)
    near = are_near(links, size, neighbors.shape[1])
    cost = apart * _detour(links, near)
    n_parts, part = connected_components(sparse.csr_matrix(near), directed=False)
    bridge = np.zeros_like(near)
    if n_parts > 1:
        # edges within a part cost next to nothing, so the spanning tree adds only what joins parts
        within = np.where(part[:, None] == part[None], 1e-9 * cost, cost)
        tree = minimum_spanning_tree(sparse.csr_matrix(within)).toarray() > 0
        bridge = (tree | tree.T) & (part[:, None] != part[None])
    weight = np.where(near | bridge, cost, 0.0)
    geodesic = dijkstra(sparse.csr_matrix(weight), directed=False)

    names = np.array(shape.nodes, dtype=object)
    upper_near, upper_bridge = np.argwhere(np.triu(near)), np.argwhere(np.triu(bridge))
    cells = np.concatenate([upper_near, upper_bridge])
    kinds = ["knn"] * len(upper_near) + ["bridge"] * len(upper_bridge)
    spread = _spread(shape, held, geodesic)
    child = np.flatnonzero(shape.parents >= 0)
    parent = shape.parents[child]
    step = np.maximum((spread[parent] - spread[child]) / 2.0, 1e-9)
    return pd.DataFrame(
        {
            "source": np.concatenate([names[held[cells[:, 0]]], names[parent]]).astype(object),
            "target": np.concatenate([names[held[cells[:, 1]]], names[child]]).astype(object),
            "kind": kinds + ["tree"] * len(child),
            "weight": np.concatenate([cost[cells[:, 0], cells[:, 1]], step]),
        }
    )


def are_near(links: NDArray[np.float64], size: NDArray[np.number], k: int) -> NDArray[np.bool_]:
    """Whether two leaves have links enough to be neighbours, (m, m).

    Parameters
    ----------
    links
        Symmetric link counts, (m, m).
    size
        Cells of each leaf, (m,).
    k
        Neighbours of each cell that the links were counted over.
    """
    smaller = np.minimum(size[:, None], size[None])
    near = links >= MIN_LINKS * k * np.sqrt(np.maximum(smaller / k, 1.0))
    np.fill_diagonal(near, val=False)
    return near


def _detour(links: NDArray[np.float64], near: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Factor (m, m) on the distance of two leaves: one for the median edge, less where links are many.

    Leaves that are not joined count as the worst of those that are.
    """
    if not near.any():
        return np.ones_like(links)
    degree = links.sum(1)
    ratio = links / np.outer(degree, degree)
    ratio = np.where(near, ratio, ratio[near].min())
    return np.sqrt(np.median(ratio[near]) / ratio)


def _spread(shape: Tree, held: NDArray[np.integer], geodesic: NDArray[np.float64]) -> NDArray[np.float64]:
    """Largest distance between two leaves below each node, (n_nodes,)."""
    # pre-order: the leaves below a node are a slice of the leaves
    first = np.searchsorted(held, np.arange(len(shape)))
    last = np.searchsorted(held, np.arange(len(shape)) + shape.sizes)
    return np.array([geodesic[a:b, a:b].max() if b > a else 0.0 for a, b in zip(first, last, strict=True)])
