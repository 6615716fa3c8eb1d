"""Cells on fewer nodes: a tree cut where the user, or the data, say."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from hdtree_sc._errors import require_obsm, require_uns
from hdtree_sc._keys import Keys
from hdtree_sc.graph import natural_cut, nearest_neighbors, spread_rows
from hdtree_sc.tree import Tree, node_of_cells

if TYPE_CHECKING:
    from anndata import AnnData

RUN = "hdtree_sc.tl.tree(adata, model)"
MAX_CELLS = 20_000
"""Links are counted on at most this many cells."""


def cut_tree(
    adata: AnnData,
    n_leaves: int | None = None,
    *,
    min_cells: int | None = None,
    resolution: float = 1.0,
    n_neighbors: int = 15,
    reference: AnnData | None = None,
    key: str = "hdtree",
    key_added: str | None = None,
    copy: bool = False,
) -> AnnData | None:
    """Put each cell on a node of the tree cut to fewer leaves.

    With ``n_leaves`` or ``min_cells`` the tree is cut from its lowest splits up. With neither the data choose by
    cost-complexity pruning: siblings stay apart where fewer neighbour links than expected run between them, summed
    over all that is below. That is the cut of this tree with the largest modularity, as Leiden has at the same
    ``resolution``, found exactly.

    New cells on the tree of others (a query) get the cut of those, so that a group is the same in both: name them
    (``reference``). A cut at ``n_leaves`` depends on the tree only and needs none.

    Parameters
    ----------
    adata
        Cells on a tree, see :func:`hdtree_sc.tl.tree`.
    n_leaves
        Number of leaves to keep at most.
    min_cells
        Smallest number of cells of a leaf, of those that choose.
    resolution
        Price of links within a node, used where the data choose; larger keeps more leaves.
    n_neighbors
        Neighbours of each cell in the latent over which links are counted, used where the data choose.
    reference
        Cells on the same tree that choose in place of ``adata``, as a rule those of the training: the cut is then that
        of ``cut_tree(reference)`` with the same arguments. Without it the cells of ``adata`` choose, unless they are a
        query; ``reference=adata`` lets those choose as well.
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
        Node of the cut tree that holds the cell, in tree order; missing for cells without a leaf.
        ``hdtree_sc.get.tree(adata)`` has its place in the tree.

    Raises
    ------
    KeyError
        If the tree is missing.
    ValueError
        If ``n_leaves``, ``min_cells``, ``resolution`` or ``n_neighbors`` are out of range, the tree of ``reference`` is
        another one, or a query is to be cut by its cells and no ``reference`` is given.

    References
    ----------
    Cost-complexity pruning: Breiman et al., Classification and Regression Trees (1984). Modularity: Newman and Girvan,
    Phys. Rev. E 69, 026113 (2004). Leiden: Traag et al., Sci. Rep. 9, 5233 (2019).

    Examples
    --------
    >>> import hdtree_sc as ht
    >>> ht.tl.cut_tree(adata, n_leaves=4)
    >>> adata.obs["hdtree_cut"].nunique()
    4
    """
    keys = Keys(key)
    stored = require_uns(adata, key, RUN)
    for name, value in (("resolution", resolution), ("n_neighbors", n_neighbors)):
        if value <= 0:
            msg = f"{name}: {value} given, it must be positive."
            raise ValueError(msg)
    shape = Tree.from_adata(adata, key=key)
    node = node_of_cells(adata, shape, key=key, missing=True)
    by_cells = n_leaves is None or min_cells is not None
    if reference is None and by_cells and stored.get("params", {}).get("is_query", False):
        msg = (
            "reference: adata is a query, placed on the tree of other cells, whose cut it should get: give the AnnData "
            "of the training (reference=), adata itself to let its own cells choose, or n_leaves= alone."
        )
        raise ValueError(msg)
    choosing, chosen_from = (adata, shape) if reference is None else (reference, Tree.from_adata(reference, key=key))
    if chosen_from.nodes != shape.nodes or not np.array_equal(chosen_from.parents, shape.parents):
        msg = f"reference: its tree in uns[{key!r}] has other nodes than that of adata; give cells of the same model."
        raise ValueError(msg)
    if n_leaves is None and min_cells is None:
        cut = _by_links(choosing, chosen_from, resolution, n_neighbors, keys)
    else:
        cut = chosen_from.cut(n_leaves=n_leaves, min_cells=min_cells)
    place = np.append(cut.index(cut.project(shape.nodes, within=shape)), -1)[node]
    # cells of a tree from elsewhere may be on inner nodes
    is_group = cut.is_leaf_mask | np.isin(np.arange(len(cut)), place)
    groups = np.flatnonzero(is_group)
    codes = np.where(place < 0, -1, np.searchsorted(groups, place))

    out = adata.copy() if copy else adata
    out.obs[key_added or keys.cut] = pd.Categorical.from_codes(codes, [cut.nodes[i] for i in groups])
    return out if copy else None


def _by_links(adata: AnnData, shape: Tree, resolution: float, n_neighbors: int, keys: Keys) -> Tree:
    """The tree cut where the links between cells choose."""
    latent = np.asarray(require_obsm(adata, keys.latent, RUN))
    node = node_of_cells(adata, shape, key=keys.key, missing=True)
    placed = np.flatnonzero(node >= 0)
    if len(placed) < 2:
        msg = f"cut_tree: the data can not choose with {len(placed)} cell(s) on the tree; give n_leaves=."
        raise ValueError(msg)
    rows = placed[spread_rows(len(placed), MAX_CELLS)]
    neighbors, _ = nearest_neighbors(latent[rows], n_neighbors)
    return natural_cut(shape, node[rows], neighbors, resolution=resolution)
