"""Cells on fewer nodes: a tree cut where the user, or the data, say."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from hdtree_sc._errors import require_obs, require_obsm, require_uns
from hdtree_sc._keys import Keys
from hdtree_sc.data._neighbors import nearest_neighbors, spread_rows
from hdtree_sc.tree import Tree
from hdtree_sc.tree._prune import natural_cut

if TYPE_CHECKING:
    from anndata import AnnData

MAX_CELLS = 20_000
"""Links are counted on at most this many cells."""


def cut_tree(
    adata: AnnData,
    n_leaves: int | None = None,
    *,
    min_cells: int | None = None,
    resolution: float = 1.0,
    n_neighbors: int = 15,
    key: str = "hdtree",
    key_added: str | None = None,
    copy: bool = False,
) -> AnnData | None:
    """Put each cell on a node of the tree cut to fewer leaves.

    With ``n_leaves`` or ``min_cells`` the tree is cut from its lowest splits up. With neither the data choose by
    cost-complexity pruning: siblings stay apart where fewer neighbour links than expected run between them, summed
    over all that is below. That is the cut of this tree with the largest modularity, as Leiden has at the same
    ``resolution``, found exactly.

    Parameters
    ----------
    adata
        Cells on a tree, see :func:`hdtree_sc.tl.tree`.
    n_leaves
        Number of leaves to keep at most.
    min_cells
        Smallest number of cells of a leaf.
    resolution
        Price of links within a node, used where the data choose; larger keeps more leaves.
    n_neighbors
        Neighbours of each cell in the latent over which links are counted, used where the data choose.
    key
        Key of the tree.
    key_added
        Column to write; ``"<key>_cut"`` by default.
    copy
        Whether to annotate and return a copy.

    Returns
    -------
    The annotated copy with ``copy=True``, else None.

    Sets the following field:

    ``adata.obs["<key>_cut"]`` : categorical
        Node of the cut tree that holds the cell, in tree order. ``hdtree_sc.get.tree(adata)`` has its place in the
        tree.

    Raises
    ------
    KeyError
        If the tree is missing.
    ValueError
        If ``n_leaves``, ``min_cells``, ``resolution`` or ``n_neighbors`` are out of range.
    """
    keys = Keys(key)
    run = "hdtree_sc.tl.tree(adata, model)"
    require_uns(adata, key, run)
    leaf = require_obs(adata, keys.leaf, run)
    for name, value in (("resolution", resolution), ("n_neighbors", n_neighbors)):
        if value <= 0:
            msg = f"{name}: {value} given, it must be positive."
            raise ValueError(msg)
    shape = Tree.from_adata(adata, key=key)
    if n_leaves is None and min_cells is None:
        latent = np.asarray(require_obsm(adata, keys.latent, run))
        if adata.n_obs < 2:
            msg = "cut_tree: the data can not choose with one cell; give n_leaves=."
            raise ValueError(msg)
        rows = spread_rows(adata.n_obs, MAX_CELLS)
        neighbors, _ = nearest_neighbors(latent[rows], n_neighbors)
        cut = natural_cut(shape, np.asarray(shape.index(leaf.iloc[rows])), neighbors, resolution=resolution)
    else:
        cut = shape.cut(n_leaves=n_leaves, min_cells=min_cells)
    placed = cut.project(leaf.astype(str), within=shape)

    out = adata.copy() if copy else adata
    out.obs[key_added or keys.cut] = pd.Categorical(np.asarray(placed).astype(str), categories=list(cut.leaves))
    return out if copy else None
