"""Cells on the nodes of a stored tree: where they are, and how many there are."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from hdtree_sc._errors import require_obs
from hdtree_sc._keys import Keys
from hdtree_sc.tree._sums import subtree_sums

if TYPE_CHECKING:
    from anndata import AnnData
    from numpy.typing import NDArray

    from hdtree_sc.tree._tree import Tree


def node_of_cells(adata: AnnData, tree: Tree, *, key: str, missing: bool = False) -> NDArray[np.int64]:
    """Position in the tree of the node that holds each cell, (n_cells,).

    Parameters
    ----------
    adata
        Cells on a tree.
    tree
        The tree.
    key
        Key of the tree.
    missing
        Whether cells may be without a node; they get -1.

    Raises
    ------
    KeyError
        The leaf column is missing, or names what is no node.
    ValueError
        Some cells have no node, and they need one.
    """
    name = Keys(key).leaf
    column = pd.Categorical(require_obs(adata, name, "hdtree_sc.tl.tree(adata, model)")).remove_unused_categories()
    nodes = tree.index([str(node) for node in column.categories])
    found = np.append(nodes, -1)[column.codes]
    if not missing and (found < 0).any():
        msg = (
            f"adata.obs[{name!r}]: {int((found < 0).sum())} cells are on no node; leave them out first: "
            f"adata[adata.obs[{name!r}].notna()].copy()."
        )
        raise ValueError(msg)
    return found


def recounted(tree: Tree, adata: AnnData, key: str) -> Tree:
    """The tree with the cells that are there now: those of a subset are fewer than were counted when it was stored.

    Parameters
    ----------
    tree
        The tree as it is stored.
    adata
        The cells; without a column of leaves, or with one of another tree, counts stay as they are.
    key
        Key of the tree.
    """
    name = Keys(key).leaf
    if name not in adata.obs or any(str(node) not in tree for node in adata.obs[name].dropna().unique()):
        return tree
    node = node_of_cells(adata, tree, key=key, missing=True)
    n_cells = subtree_sums(tree, np.bincount(node[node >= 0], minlength=len(tree))).astype(np.int64)
    if np.array_equal(n_cells, tree.n_cells):
        return tree
    lengths = np.full(len(tree), np.nan) if tree.lengths is None else tree.lengths
    return type(tree)(tree.nodes, tree.parents, tree.heights, n_cells, tree.codebook, lengths)
