"""The stored tree as a value."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hdtree_sc.tree import Tree

if TYPE_CHECKING:
    from anndata import AnnData


def tree(adata: AnnData, key: str = "hdtree") -> Tree:
    """The tree that ``hdtree_sc.tl.tree`` stored in the data.

    Parameters
    ----------
    adata
        Annotated data with ``.uns[key]``, also if read back from h5ad or zarr.
    key
        The tree's key.

    Returns
    -------
    A new `hdtree_sc.Tree`; the data are not changed. Its ``n_cells`` counts the cells that are in the data now: in a
    subset those of the subset.

    Raises
    ------
    KeyError
        There is no tree under this key; the message says what to run.

    Examples
    --------
    >>> import hdtree_sc as ht
    >>> tree = ht.get.tree(adata)
    >>> tree.n_cells[0].item() == adata.n_obs
    True
    >>> tree.cut(n_leaves=3).leaves
    ('0.0', '0.1', '1')
    """
    return Tree.from_adata(adata, key)
