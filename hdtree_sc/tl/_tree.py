"""Write a model's tree into an AnnData."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from hdtree_sc._keys import Keys

if TYPE_CHECKING:
    from anndata import AnnData

DEFAULT_KEYS = {"HDTree": "hdtree", "BranchedDiffusion": "branched", "TreeVAE": "treevae"}
"""Key of each model's tree."""


def tree(adata: AnnData, model: Any, *, key_added: str | None = None, copy: bool = False) -> AnnData | None:
    """Place cells on a model's tree and write all there is to know about it.

    Parameters
    ----------
    adata
        The cells: those the model was trained on, or others with its genes.
    model
        A trained model, or a query model of ``load_query_data``.
    key_added
        Key of the tree; by default ``"hdtree"``, ``"branched"`` or ``"treevae"``.
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
        Expression principal components in which the model found neighbours.
    ``adata.obsm["<key>_codes"]`` : int32 (n_cells, depth)
        Child number at each level, -1 below the cell's leaf.
    ``adata.obsm["<key>_path_probs"]`` : float32 (n_cells, depth)
        Probability of the chosen node at each level, 0 below the cell's leaf.
    ``adata.obs["<key>_leaf"]``, ``adata.obs["<key>_leaf_prob"]``
        Leaf, categorical in tree order, and its probability.
    ``adata.uns["<key>"]``
        ``"nodes"`` (DataFrame: ``parent``, ``level``, ``n_cells``, ``is_leaf``, ``height``), ``"codebook"`` (float32,
        (n_nodes, n_latent)) and ``"params"``.

    Raises
    ------
    RuntimeError
        If the model was not trained.
    ValueError
        If the cells share no gene with the model.
    """
    keys = Keys(key_added or DEFAULT_KEYS.get(type(model).__name__, type(model).__name__.lower()))
    # everything is computed before the first field is written
    latent = model.get_latent(adata)
    shape = model.get_tree()
    paths = model.get_tree_paths(adata)
    probabilities = model.get_node_probabilities(adata)
    expression = model.get_expression_pca(adata)
    flat = model.get_map(latent)

    depth = paths.shape[1]
    last = paths.notna().to_numpy().sum(1)
    table = np.column_stack([paths[column].astype(object) for column in paths]) if depth else np.empty((len(last), 0))
    leaf = np.where(last > 0, table[np.arange(len(table)), np.maximum(last - 1, 0)], shape.root)
    position = shape.index(leaf)
    codes = np.full((len(shape), depth), -1, dtype=np.int32)
    own = shape.codes()[:, :depth]
    codes[:, : own.shape[1]] = own
    ancestors = np.stack([shape.ancestors_at(level) for level in range(1, depth + 1)], 1)[position]
    values = probabilities.to_numpy()
    path_probabilities = np.where(ancestors >= 0, np.take_along_axis(values, np.maximum(ancestors, 0), 1), 0.0)

    nodes = shape.to_frame()
    held = np.bincount(position, minlength=len(shape))
    # pre-order: a node's subtree is the slice that starts at it
    total = np.concatenate([[0], np.cumsum(held)])
    start = np.arange(len(shape))
    nodes["n_cells"] = total[start + shape.sizes] - total[start]

    out = adata.copy() if copy else adata
    out.obsm[keys.latent] = latent
    out.obsm[keys.map_2d] = flat
    out.obsm[keys.pca] = expression
    out.obsm[keys.codes] = codes[position]
    out.obsm[keys.path_probs] = path_probabilities.astype(np.float32)
    out.obs[keys.leaf] = pd.Categorical(leaf, categories=list(shape.leaves))
    out.obs[keys.leaf_prob] = values[np.arange(len(leaf)), position].astype(np.float32)
    out.uns[keys.key] = {
        "nodes": nodes,
        "codebook": np.array(shape.codebook, dtype=np.float32),
        "params": model.params_of_tree(),
    }
    return out if copy else None
