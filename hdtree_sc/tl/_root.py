"""Which cell a development starts from, and groups of cells by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from hdtree_sc._errors import listing, require_obs, require_obsm
from hdtree_sc._keys import Keys

if TYPE_CHECKING:
    from anndata import AnnData
    from numpy.typing import NDArray

    from hdtree_sc.tree import Tree


def medoid(points: NDArray[np.floating], cells: NDArray[np.integer]) -> int:
    """The cell that is nearest to the mean of some cells."""
    chosen = points[cells]
    return int(cells[np.square(chosen - chosen.mean(0)).sum(1).argmin()])


def cells_of_group(adata: AnnData, column: str, value: object, *, argument: str) -> NDArray[np.int64]:
    """Rows whose ``obs`` column holds a value; the message of the error lists those that exist.

    Parameters
    ----------
    adata
        The cells.
    column
        Name of the ``obs`` column.
    value
        Value wanted; compared as text, so that numbers read from files match.
    argument
        Name of the caller's argument, for the message.
    """
    if column not in adata.obs:
        msg = f"adata.obs has no column {column!r}. It has: {listing(adata.obs.columns)}."
        raise KeyError(msg)
    values = adata.obs[column]
    found = np.flatnonzero((values.astype(str) == str(value)).to_numpy())
    if len(found) == 0:
        held = listing(values.dropna().unique(), 30)
        msg = f"{argument}: no cell has {value!r} in adata.obs[{column!r}]. It holds: {held}."
        raise ValueError(msg)
    return found


def cells_of_node(adata: AnnData, shape: Tree, node: str, *, key: str) -> NDArray[np.int64]:
    """Rows of the cells at or below a node."""
    leaf = shape.index(require_obs(adata, Keys(key).leaf, "hdtree_sc.tl.tree(adata, model)"))
    start = shape.index(node)
    return np.flatnonzero((leaf >= start) & (leaf < start + shape.sizes[start]))


def root_cell(
    adata: AnnData, shape: Tree, *, root: str | None, root_key: str | None, root_value: object, key: str
) -> int:
    """Row of the root cell.

    Parameters
    ----------
    adata
        Cells on a tree.
    shape
        The tree.
    root
        Name of a cell or of a node.
    root_key
        Column of groups; the medoid of the group ``root_value`` is the root.
    root_value
        The group.
    key
        Key of the tree.

    Raises
    ------
    ValueError
        If no root is given, both kinds are given, or the root does not exist.
    """
    latent = np.asarray(require_obsm(adata, Keys(key).latent, "hdtree_sc.tl.tree(adata, model)"))
    if (root is None) == (root_key is None):
        msg = "root: name one start: a cell or a node (root=), or a group (root_key= and root_value=)."
        raise ValueError(msg)
    if root_key is not None:
        if root_value is None:
            msg = f"root_value: say which group of adata.obs[{root_key!r}] is the root."
            raise ValueError(msg)
        return medoid(latent, cells_of_group(adata, root_key, root_value, argument="root_value"))
    if root in adata.obs_names:
        return int(adata.obs_names.get_loc(root))
    if root in shape:
        cells = cells_of_node(adata, shape, str(root), key=key)
        if len(cells):
            return medoid(latent, cells)
        msg = f"root: node {root!r} holds no cell of adata; choose another node."
        raise ValueError(msg)
    msg = (
        f"root: {root!r} is neither a cell (adata.obs_names) nor a node of the tree. "
        f"Nodes: {listing(shape.nodes)}; use root_key= and root_value= for a group."
    )
    raise ValueError(msg)
