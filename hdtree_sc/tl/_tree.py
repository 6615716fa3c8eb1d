"""Write a model's tree into an AnnData."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from hdtree_sc._errors import NO_CALIBRATION
from hdtree_sc._keys import Keys
from hdtree_sc.tree import subtree_sums

if TYPE_CHECKING:
    from anndata import AnnData

DEFAULT_KEYS = {"HDTree": "hdtree", "BranchedDiffusion": "branched", "TreeVAE": "treevae"}
"""Key of each model's tree."""


def tree(
    adata: AnnData, model: Any, *, key_added: str | None = None, alpha: float = 0.05, copy: bool = False
) -> AnnData | None:
    """Place cells on a model's tree and write all there is to know about it.

    Parameters
    ----------
    adata
        The cells: those the model was trained on, or others with its genes.
    model
        A trained model, or a query model of ``load_query_data``.
    key_added
        Key of the tree; by default ``"hdtree"``, ``"branched"`` or ``"treevae"``.
    alpha
        Share of new cells of known types that are called unplaced by chance.
    copy
        Whether to annotate and return a copy.

    Returns
    -------
    The annotated copy with ``copy=True``, else None.

    Sets the following fields (``<key>`` is ``key_added``):

    ``adata.obsm["X_<key>"]`` : float32 (n_cells, n_latent)
        Latent.
    ``adata.obsm["X_<key>_2d"]`` : float32 (n_cells, 2)
        Map of the model for plots.
    ``adata.obsm["X_<key>_pca"]`` : float32 (n_cells, n_pcs)
        Principal components of standardised expression, which measure how far cells are apart.
    ``adata.obsm["X_<key>_pca_plain"]`` : float32 (n_cells, n_pcs)
        Principal components of expression in one unit for all features, in which the model found neighbours.
    ``adata.obsm["<key>_codes"]`` : int32 (n_cells, depth)
        Child number at each level, -1 below the cell's leaf.
    ``adata.obsm["<key>_path_probs"]`` : float32 (n_cells, depth)
        Probability of the chosen node at each level, 0 below the cell's leaf.
    ``adata.obs["<key>_leaf"]``, ``adata.obs["<key>_leaf_prob"]``
        Leaf, categorical in tree order, and its probability.
    ``adata.obs["<key>_unplaced"]``, ``adata.obs["<key>_unplaced_p"]``
        Whether the cell is unlike anything in training, so that its leaf means nothing, and the p-value behind it, see
        :meth:`hdtree_sc.HDTree.get_unplaced`. Not of models without calibration, which warn.
    ``adata.obs["<key>_time"]`` : float32
        Time predicted from each latent, for models that were set up with ``time_key``.
    ``adata.uns["<key>"]``
        ``"nodes"`` (DataFrame: ``parent``, ``level``, ``n_cells``, ``is_leaf``, ``height``, and of a class tree
        ``label``, ``log_snr``, ``support``), ``"codebook"`` (float32, (n_nodes, n_latent)) and ``"params"``, among them
        ``is_query``: whether the cells are others than those of the training; a copy of these is no query.

    Raises
    ------
    RuntimeError
        If the model was not trained.
    ValueError
        If the cells share no gene with the model, or ``alpha`` is no share.

    Examples
    --------
    >>> import hdtree_sc as ht
    >>> ht.tl.tree(adata, model)
    >>> ht.get.tree(adata).leaves == tuple(adata.obs["hdtree_leaf"].cat.categories)
    True
    """
    if not 0 < alpha < 1:
        msg = f"alpha: {alpha} is outside 0 to 1, it is the share of false calls."
        raise ValueError(msg)
    keys = Keys(key_added or DEFAULT_KEYS.get(type(model).__name__, type(model).__name__.lower()))
    # everything is computed before the first field is written
    shape, placed = model.get_tree(), model.place(adata)
    depth = placed.path_probabilities.shape[1]
    codes = np.full((len(shape), depth), -1, dtype=np.int32)
    codes[:, : shape.depth] = shape.codes()
    level = shape.levels[placed.leaf]
    # a tree that is its root alone has no path
    leaf_probability = np.where(level > 0, placed.path_probabilities[np.arange(len(level)), level - 1], 1.0)
    nodes = shape.to_frame()
    held = np.bincount(placed.leaf, minlength=len(shape))
    nodes["n_cells"] = subtree_sums(shape, held).astype(np.int64)
    is_query = model.is_query(adata)
    more = model.node_columns()
    nodes[more.columns] = more.loc[nodes.index]

    out = adata.copy() if copy else adata
    out.obsm[keys.latent] = placed.latent
    out.obsm[keys.map_2d] = placed.map_2d
    out.obsm[keys.pca] = placed.standardised_pca
    out.obsm[keys.plain_pca] = placed.expression_pca
    out.obsm[keys.codes] = codes[placed.leaf]
    out.obsm[keys.path_probs] = placed.path_probabilities
    names = np.array(shape.nodes, dtype=object)
    out.obs[keys.leaf] = pd.Categorical(names[placed.leaf], categories=list(shape.leaves))
    out.obs[keys.leaf_prob] = leaf_probability.astype(np.float32)
    # what an earlier model said of these cells does not stand
    out.obs.drop(columns=[keys.unplaced, keys.unplaced_p, keys.time], errors="ignore", inplace=True)
    if placed.unplaced_p is None:
        msg = f"No {keys.unplaced!r} was written: {NO_CALIBRATION}"
        warnings.warn(msg, UserWarning, stacklevel=2)
    else:
        out.obs[keys.unplaced] = placed.unplaced_p <= alpha
        out.obs[keys.unplaced_p] = placed.unplaced_p
    if placed.time is not None:
        out.obs[keys.time] = placed.time
    out.uns[keys.key] = {
        "nodes": nodes,
        "codebook": np.array(shape.codebook, dtype=np.float32),
        "params": {**model.params_of_tree(), "is_query": is_query},
    }
    return out if copy else None
