"""Hand the tree over to scanpy's dendrograms."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.cluster import hierarchy

from hdtree_sc._errors import require_obsm
from hdtree_sc._keys import Keys
from hdtree_sc.graph import group_means
from hdtree_sc.tl._groups import NodeGroups, node_groups

if TYPE_CHECKING:
    from anndata import AnnData
    from numpy.typing import NDArray


def to_dendrogram(
    adata: AnnData, key: str = "hdtree", *, groupby: str | None = None, copy: bool = False
) -> AnnData | None:
    """Write the tree as scanpy's dendrogram, so that its plots order groups as the tree does.

    Afterwards ``sc.pl.dotplot(adata, genes, groupby="<key>_leaf", dendrogram=True)``, and in the same way
    ``matrixplot``, ``heatmap``, ``stacked_violin`` and ``sc.pl.dendrogram``, show this tree with its heights.

    Parameters
    ----------
    adata
        Cells on a tree, see :func:`hdtree_sc.tl.tree`.
    key
        Key of the tree.
    groupby
        ``obs`` column whose values are nodes of the tree; ``"<key>_leaf"`` by default, or ``"<key>_cut"`` of
        :func:`hdtree_sc.tl.cut_tree`.
    copy
        Whether to annotate and return a copy.

    Returns
    -------
    The annotated copy with ``copy=True``, else None.

    Sets the following fields:

    ``adata.uns["dendrogram_<groupby>"]`` : dict
        As ``scanpy.tl.dendrogram`` writes it. ``"linkage"``: float64 (n_groups - 1, 4), scipy's; groups stand at 0 and
        a join is as high as its node, at least as high as the joins below it. More than two children are joined one
        after the other at one height; a node with one child is passed over. A tree without heights gets the number of
        levels below each node. ``"correlation_matrix"``: Pearson correlation of the groups' means in the components of
        ``adata.obsm["X_<key>_pca"]`` (without these ``"X_<key>"``).
    ``adata.obs["<groupby>"]`` : categorical
        As it was, in tree order and without categories that hold no cell, which scanpy cannot plot.
    ``adata.uns["<groupby>_colors"]`` : list
        Colours that go round with the tree, unless there are colours.

    Raises
    ------
    KeyError
        If the tree, its latent or the column is missing.
    ValueError
        If the groups are not nodes of the tree, lie within each other, or are fewer than two.

    Examples
    --------
    >>> import hdtree_sc as ht
    >>> import scanpy as sc
    >>> ht.tl.to_dendrogram(adata)
    >>> axes = sc.pl.dotplot(adata, adata.var_names[:5], groupby="hdtree_leaf", dendrogram=True, show=False)
    """
    keys = Keys(key)
    groups = node_groups(adata, groupby, key=key)
    if len(groups.nodes) < 2:
        msg = (
            f"groupby={groups.column!r}: all cells are in one group ({groups.names[0]!r}); a dendrogram joins at least "
            "two."
        )
        raise ValueError(msg)
    basis = keys.pca if keys.pca in adata.obsm else keys.latent
    points = np.asarray(require_obsm(adata, basis, "hdtree_sc.tl.tree(adata, model)"))
    linkage = _linkage(groups)
    drawn = hierarchy.dendrogram(linkage, labels=groups.names, no_plot=True)
    colors = groups.colors(adata)

    out = adata.copy() if copy else adata
    groups.write(out, colors)
    out.uns[f"dendrogram_{groups.column}"] = {
        "linkage": linkage,
        "groupby": [groups.column],
        "use_rep": basis,
        "cor_method": "pearson",
        "linkage_method": "hdtree_sc",
        "categories_ordered": drawn["ivl"],
        "categories_idx_ordered": drawn["leaves"],
        "dendrogram_info": drawn,
        "correlation_matrix": _correlations(groups, points),
    }
    return out if copy else None


def _linkage(groups: NodeGroups) -> NDArray[np.float64]:
    """Linkage of the groups as scipy has it: which two clusters meet at which height, and how many groups they hold."""
    tree, m = groups.tree, len(groups.nodes)
    heights = _heights(groups)
    # cluster number, height and size of what is at each node so far; nodes backwards, so children before parents
    cluster: dict[int, tuple[int, float, int]] = {int(node): (i, 0.0, 1) for i, node in enumerate(groups.nodes)}
    below: dict[int, list[tuple[int, float, int]]] = {}
    rows: list[tuple[float, float, float, float]] = []
    for node in range(int(groups.nodes[-1]), -1, -1):
        found = cluster.get(node)
        if found is None and node in below:
            first, *others = reversed(below[node])
            for other in others:
                height = max(float(heights[node]), first[1], other[1])
                rows.append((first[0], other[0], height, first[2] + other[2]))
                first = (m + len(rows) - 1, height, first[2] + other[2])
            found = first
        if found is not None and node > 0:
            below.setdefault(int(tree.parents[node]), []).append(found)
    return _sorted(np.array(rows, dtype=float), m)


def _heights(groups: NodeGroups) -> NDArray[np.float64]:
    """Height of each node (n_nodes,); of a tree that has none, the levels between it and the deepest group below."""
    tree = groups.tree
    if tree.heights.max() > 0:
        return tree.heights
    deepest = np.zeros(len(tree))
    deepest[groups.nodes] = tree.levels[groups.nodes]
    for node in range(len(tree) - 1, 0, -1):
        above = tree.parents[node]
        deepest[above] = max(deepest[above], deepest[node])
    return np.maximum(deepest - tree.levels, 0.0)


def _sorted(rows: NDArray[np.float64], m: int) -> NDArray[np.float64]:
    """The same joins in ascending height, as scipy wants them; a join stays behind those it is made of."""
    order = np.lexsort((np.arange(len(rows)), rows[:, 2]))
    number = np.arange(m + len(rows))
    number[m + order] = m + np.arange(len(rows))
    out = rows[order]
    out[:, :2] = number[out[:, :2].astype(np.int64)]
    return out


def _correlations(groups: NodeGroups, points: NDArray[np.floating]) -> NDArray[np.float64]:
    held = groups.values.codes >= 0
    means = group_means(points[held], groups.values.codes[held].astype(np.int64))
    with np.errstate(invalid="ignore", divide="ignore"):
        found = np.corrcoef(means.astype(float))
    # a group whose mean is constant over components, or one component alone, has no correlation
    return np.where(np.isfinite(found), np.clip(found, -1.0, 1.0), np.eye(len(means)))
