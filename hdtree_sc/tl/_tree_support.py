"""How sure each node of a tree is, by a bootstrap over cells."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from hdtree_sc._errors import require_obsm, require_uns
from hdtree_sc._keys import Keys
from hdtree_sc.graph import (
    BUILDERS,
    Procedure,
    Replicate,
    Sample,
    are_near,
    clade_overlap,
    link_counts,
    nearest_neighbors,
    rebuild,
)
from hdtree_sc.tl._lineage_graph import expression_of, stored_neighbors
from hdtree_sc.tree import Tree, node_of_cells

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd
    from anndata import AnnData
    from numpy.typing import NDArray

MAX_CELLS = 20_000
"""A replicate is built on at most so many cells."""
MIN_CELLS = 10


def tree_support(
    adata: AnnData,
    model: Any = None,
    *,
    n_boot: int = 100,
    builder: str | None = None,
    key: str = "hdtree",
    seed: int = 0,
    copy: bool = False,
) -> AnnData | None:
    r"""Score each node by how well trees of resampled cells agree with it.

    Cells are drawn with replacement, and the tree is built again on their latents by the model's own procedure:
    micro-codes, links, merging, and the test of each split on held-out cells. The encoder is not trained again, so
    the support answers whether *these latents* say that there is such a node, for whichever cells were sampled.

    A node is found again as far as some node of the new tree holds the same cells: 1 is the same cells in every
    replicate, 0 is no better than no node at all (transfer bootstrap expectation). The share of replicates with
    exactly the same node, Felsenstein's support, would be near 0 for every tree of so many cells.

    Parameters
    ----------
    adata
        Cells on a tree, see :func:`hdtree_sc.tl.tree`.
    model
        The model of the tree. Its validation cells then test the splits of each replicate, as they did those of the
        tree. Without it, the cells that a replicate has not drawn do, which is a little kinder, since the encoder was
        trained on them.
    n_boot
        Replicates.
    builder
        ``"information"``, ``"links"`` or ``"ward"``, see :meth:`hdtree_sc.HDTree.build_tree`; by default that of the
        tree, and ``"information"`` for a tree from elsewhere, of which it is then asked whether this procedure finds
        it too.
    key
        Key of the tree.
    seed
        Seed of the draws.
    copy
        Whether to annotate and return a copy.

    Returns
    -------
    The annotated copy with ``copy=True``, else None.

    Sets the following fields:

    ``adata.uns["<key>"]["nodes"]["support"]`` : float64
        Support of each node but the root in [0, 1], leaves too; NaN for the root and for nodes without cells.
    ``adata.uns["<key>"]["graph"]["support"]`` : float64
        Only after :func:`hdtree_sc.tl.lineage_graph`. Share of the replicates in which the two leaves are neighbours,
        for ``"knn"`` and ``"bridge"``; support of the child for ``"tree"``.
    ``adata.uns["<key>"]["support"]`` : dict
        ``n_boot``, ``builder``, ``seed`` and ``held_out``: ``"validation"``, ``"not drawn"`` or ``"none"``.

    Raises
    ------
    KeyError
        If the tree is missing.
    ValueError
        If ``n_boot`` is not positive, there are fewer than 10 cells, or the builder is none that latents alone
        suffice for.

    Notes
    -----
    Support of a node is :math:`1 - \overline{\\delta} / p` with :math:`p` the cells of the node or the cells outside
    it, whichever are fewer, and :math:`\overline{\\delta}` the mean over replicates of the smallest number of cells
    to be moved until a node of the replicate holds the same, at most :math:`p`.

    A replicate is built on at most 20,000 draws; time grows with ``n_boot``.

    References
    ----------
    Lemoine et al., Renewing Felsenstein's phylogenetic bootstrap in the era of big data, Nature 556, 452 (2018).

    Examples
    --------
    >>> import hdtree_sc as ht
    >>> ht.tl.tree_support(adata, model, n_boot=10)
    >>> nodes = adata.uns["hdtree"]["nodes"]
    >>> nodes["support"].iloc[1:].between(0, 1).all().item()
    True
    """
    keys = Keys(key)
    run = "hdtree_sc.tl.tree(adata, model)"
    stored = require_uns(adata, key, run)
    latent = np.asarray(require_obsm(adata, keys.latent, run))
    if n_boot < 1:
        msg = f"n_boot: {n_boot} given, at least 1 wanted."
        raise ValueError(msg)
    if adata.n_obs < MIN_CELLS:
        msg = f"adata: {adata.n_obs} cells; at least {MIN_CELLS} are needed to draw from."
        raise ValueError(msg)
    shape = Tree.from_adata(adata, key=key)
    procedure = _procedure(stored.get("params", {}), model, builder, adata.n_obs)
    expression = expression_of(adata, keys)[0] if keys.pca in adata.obsm else None
    mine = Replicate(shape, node_of_cells(adata, shape, key=key))
    graph: pd.DataFrame | None = stored.get("graph")
    edges = None
    if graph is not None:
        edges = _LeafEdges(mine, latent if expression is None else expression, stored_neighbors(adata, keys))
    fitted, validation = _validation(adata, model)

    rng = np.random.default_rng(seed)
    agreed, joined = [], []
    for _ in range(n_boot):
        drawn = rng.choice(fitted, min(len(fitted), MAX_CELLS))
        rows, times = np.unique(drawn, return_counts=True)
        held_out = np.setdiff1d(fitted, rows)[:MAX_CELLS]
        if len(validation):
            held_out = rng.choice(validation, min(len(validation), MAX_CELLS))
        sample = Sample(rows, times.astype(float), held_out)
        number = int(rng.integers(2**31))
        agreed.append(transfer_support(mine, rebuild(latent, expression, sample, procedure, seed=number)))
        if edges is not None:
            joined.append(edges.joined(rows, times * (adata.n_obs / len(drawn)), seed=number))
    support = np.mean(agreed, axis=0)

    out = adata.copy() if copy else adata
    held = out.uns[key]
    held["nodes"] = held["nodes"].assign(support=support[shape.index(held["nodes"].index)])
    if graph is not None and edges is not None:
        held["graph"] = graph.assign(support=edges.of(graph, np.mean(joined, axis=0), support))
    tested_by = "none" if expression is None else ("validation" if len(validation) else "not drawn")
    held["support"] = {"n_boot": int(n_boot), "builder": procedure.builder, "seed": int(seed), "held_out": tested_by}
    return out if copy else None


def transfer_support(mine: Replicate, other: Replicate) -> NDArray[np.float64]:
    """How far each node of one tree is found again in another of the same cells, (n_nodes,) in [0, 1].

    Parameters
    ----------
    mine
        The tree whose nodes are asked.
    other
        The tree in which they are looked for.

    Returns
    -------
    Support; NaN for the root and for nodes without cells, 1 for other nodes that hold all cells.
    """
    shared, size, other_size = clade_overlap(mine, other)
    moved = (size[:, None] + other_size[None] - 2.0 * shared).min(1)
    fewer = np.minimum(size, size[0] - size)
    support = 1.0 - np.divide(np.minimum(moved, fewer), fewer, out=np.zeros(len(size)), where=fewer > 0)
    support[(size == 0) | (np.arange(len(size)) == 0)] = np.nan
    return support


class _LeafEdges:
    """Which leaves are neighbours, for any choice of cells.

    Parameters
    ----------
    mine
        The tree and the cells' leaves.
    expression
        Expression components, (n, p).
    k
        Neighbours of each cell.
    """

    def __init__(self, mine: Replicate, expression: NDArray[np.floating], k: int) -> None:
        self.tree, self.expression, self.k = mine.tree, expression, k
        self.held, self.group = np.unique(mine.leaf, return_inverse=True)

    def joined(self, rows: NDArray[np.int64], weight: NDArray[np.float64], *, seed: int) -> NDArray[np.bool_]:
        """Whether leaves are joined by some of the cells, (m, m)."""
        neighbors, _ = nearest_neighbors(self.expression[rows], self.k, seed=seed)
        group, m = self.group[rows], len(self.held)
        links = link_counts(neighbors, group, m, weight)
        return are_near(links, np.bincount(group, weights=weight, minlength=m), neighbors.shape[1])

    def of(self, graph: pd.DataFrame, joined: NDArray[np.float64], support: NDArray[np.float64]) -> NDArray[np.float64]:
        """Support of each edge of a graph.

        Parameters
        ----------
        graph
            Edges: ``source``, ``target``, ``kind``.
        joined
            Share of the replicates in which two leaves are joined, (m, m).
        support
            Support of each node, (n_nodes,).
        """
        source, target = self.tree.index(graph["source"]), self.tree.index(graph["target"])
        last = len(self.held) - 1
        ends = [np.minimum(np.searchsorted(self.held, end), last) for end in (source, target)]
        between_leaves = (self.held[ends[0]] == source) & (self.held[ends[1]] == target)
        share = np.where(between_leaves, joined[ends[0], ends[1]], 0.0)
        return np.where((graph["kind"] == "tree").to_numpy(), support[target], share)


def _procedure(params: Mapping[str, Any], model: Any, builder: str | None, n_cells: int) -> Procedure:
    """How the tree was built, as the model or what was kept of it says, and HDTree's defaults where neither does."""
    asked = builder or str(params.get("tree_builder", "information"))
    if asked not in BUILDERS:
        msg = f"builder: {asked!r} needs more than latents; give one of {', '.join(BUILDERS)}."
        raise ValueError(msg)
    max_leaves = getattr(model, "_max_leaves", params.get("max_leaves", 64))
    min_cells = getattr(model, "_min_cells", params.get("min_cells", max(2, min(10, n_cells // 20))))
    # fewer draws than cells: the smallest leaf shrinks with them
    share = min(1.0, MAX_CELLS / n_cells)
    least = max(1, round(int(min_cells) * share))
    return Procedure(asked, int(max_leaves), least, int(params.get("tree_depth", 10)))


def _validation(adata: AnnData, model: Any) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows of ``adata`` to draw from, and of those that the model kept for validation; all and none without a model."""
    everything = np.arange(adata.n_obs)
    known = getattr(model, "adata", None)
    is_query = getattr(model, "_query_source", None) is not None
    if known is None or is_query or not hasattr(model, "_validation_names"):
        return everything, everything[:0]
    kept = adata.obs_names.isin(model._validation_names())
    if kept.all() or not kept.any():
        return everything, everything[:0]
    return np.flatnonzero(~kept), np.flatnonzero(kept)
