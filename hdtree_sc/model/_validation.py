"""Checks at the public door: nothing is changed before all of them have passed."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy import sparse

from hdtree_sc._errors import listing
from hdtree_sc.nn._decoder import LIKELIHOODS

if TYPE_CHECKING:
    from collections.abc import Iterator

CHUNK = 4096


def check_setup(
    adata: AnnData,
    *,
    layer: str | None,
    obsm_key: str | None,
    categorical: dict[str, str | None],
    numerical: dict[str, str | None],
    labels_key: str | None,
    is_query: bool = False,
) -> None:
    """Refuse an AnnData that no model could be fitted on.

    Parameters
    ----------
    adata
        The data.
    layer
        Layer with the values, None for ``X``.
    obsm_key
        Entry of ``obsm`` with the values, in their place.
    categorical
        Argument name to obs column, for columns of categories.
    numerical
        Argument name to obs column, for columns of numbers.
    labels_key
        Column of cell labels; each label needs two cells.
    is_query
        Whether the cells are only placed by a model that exists: one is enough then, and so it is of each label.

    Raises
    ------
    TypeError, KeyError, ValueError
        Naming the argument, what was given and what to do.
    """
    if not isinstance(adata, AnnData):
        msg = f"adata: an anndata.AnnData wanted, got {type(adata).__name__}."
        raise TypeError(msg)
    if adata.n_obs < (1 if is_query else 2) or adata.n_vars < 2:
        msg = f"adata has {adata.n_obs} cells and {adata.n_vars} features: a tree needs at least two of each."
        raise ValueError(msg)
    for axis, names in (("obs_names", adata.obs_names), ("var_names", adata.var_names)):
        if not names.is_unique:
            twice = listing(names[names.duplicated()].unique())
            msg = f"adata.{axis} are not unique ({twice}): run adata.{axis}_make_unique() first."
            raise ValueError(msg)
    if layer is not None and obsm_key is not None:
        msg = f"layer={layer!r}, obsm_key={obsm_key!r}: values are read from one of them; leave the other out."
        raise ValueError(msg)
    if obsm_key is not None and obsm_key not in adata.obsm:
        msg = f"obsm_key: adata.obsm has no {obsm_key!r}. It has: {listing(adata.obsm)}."
        raise KeyError(msg)
    if layer is not None and layer not in adata.layers:
        msg = f"layer: adata.layers has no {layer!r}. It has: {listing(adata.layers)}."
        raise KeyError(msg)
    for argument, key in {**categorical, **numerical}.items():
        if key is not None and key not in adata.obs:
            msg = f"{argument}: adata.obs has no column {key!r}. It has: {listing(adata.obs.columns)}."
            raise KeyError(msg)
    for argument, key in numerical.items():
        if key is not None and not pd.api.types.is_numeric_dtype(adata.obs[key]):
            msg = f"{argument}: adata.obs[{key!r}] holds {adata.obs[key].dtype}, numbers wanted."
            raise ValueError(msg)
    for argument, key in categorical.items():
        # a label may be missing: it counts as unknown
        if key is not None and argument != "labels_key" and adata.obs[key].isna().any():
            count = int(adata.obs[key].isna().sum())
            msg = f"{argument}: adata.obs[{key!r}] is missing in {count} cells: name them, e.g. 'unknown', first."
            raise ValueError(msg)
    if labels_key is not None and not is_query:
        sizes = adata.obs[labels_key].value_counts()
        single = sizes.index[sizes == 1]
        if len(single):
            msg = (
                f"labels_key: {listing(single)} in adata.obs[{labels_key!r}] has one cell only: "
                "merge it with another label or leave it out."
            )
            raise ValueError(msg)
    values = values_of(adata, layer, obsm_key)
    if obsm_key is not None and (sparse.issparse(values) or values.ndim != 2 or values.shape[1] < 2):
        msg = f"obsm_key: adata.obsm[{obsm_key!r}] is no dense table of at least two columns."
        raise ValueError(msg)
    _check_finite(values, _name(layer, obsm_key))


def values_of(adata: AnnData, layer: str | None, obsm_key: str | None = None) -> Any:
    """The matrix a model reads: ``X``, a layer or an entry of ``obsm``."""
    if obsm_key is not None:
        entry = adata.obsm[obsm_key]
        return entry.to_numpy() if isinstance(entry, pd.DataFrame) else entry
    values = adata.X if layer is None else adata.layers[layer]
    if values is None:
        msg = "adata.X is empty: name the layer that holds the values (layer=)."
        raise ValueError(msg)
    return values


def _stored(values: Any) -> Iterator[np.ndarray]:
    """The stored numbers, a block of rows at a time, so that no second copy of an atlas is made."""
    for start in range(0, values.shape[0], CHUNK):
        block = values[start : start + CHUNK]
        yield block.data if sparse.issparse(block) else np.asarray(block)


def _check_finite(values: Any, name: str) -> None:
    if not np.issubdtype(values.dtype, np.number):
        msg = f"{name} holds {values.dtype}, numbers wanted."
        raise ValueError(msg)
    for block in _stored(values):
        if not np.isfinite(block).all():
            bad = int((~np.isfinite(block)).sum())
            msg = f"{name} holds NaN or infinite values ({bad} in one block of {CHUNK} cells): remove or impute them."
            raise ValueError(msg)


def check_likelihood(adata: AnnData, layer: str | None, likelihood: str, obsm_key: str | None = None) -> None:
    """Refuse an unknown likelihood and values that it cannot give rise to; warn of genes without counts.

    Raises
    ------
    ValueError
        For an unknown likelihood, or as :func:`check_values` says.
    """
    if likelihood not in LIKELIHOODS:
        msg = f"gene_likelihood: {likelihood!r} is none of {listing(LIKELIHOODS)}."
        raise ValueError(msg)
    check_values(adata, layer, likelihood, obsm_key)
    if likelihood not in ("nb", "zinb"):
        return
    name = _name(layer, obsm_key)
    values = values_of(adata, layer, obsm_key)
    silent = int((np.asarray(values.sum(axis=0)).ravel() == 0).sum())
    if silent:
        msg = (
            f"{silent} of {values.shape[1]} genes of {name} have no counts at all; they are kept and carry no "
            "information. scanpy.pp.filter_genes(adata, min_cells=1) removes them."
        )
        warnings.warn(msg, UserWarning, stacklevel=4)


def check_values(adata: AnnData, layer: str | None, likelihood: str, obsm_key: str | None = None) -> None:
    """Refuse values that a likelihood cannot give rise to.

    Raises
    ------
    ValueError
        For negative or fractional counts, cells without counts, or values outside [0, 1] with ``"bernoulli"``.
    """
    name = _name(layer, obsm_key)
    values = values_of(adata, layer, obsm_key)
    if likelihood == "normal":
        return
    other = "gene_likelihood='normal' for continuous values"
    for block in _stored(values):
        if block.size and block.min() < 0:
            msg = f"{name} holds negative values, which gene_likelihood={likelihood!r} cannot give; use {other}."
            raise ValueError(msg)
        if likelihood == "bernoulli" and block.size and block.max() > 1:
            msg = f"{name} holds values above 1: divide by the maximum for gene_likelihood='bernoulli', or use {other}."
            raise ValueError(msg)
        if likelihood != "bernoulli" and not np.array_equal(block, np.round(block)):
            msg = (
                f"{name} holds fractions, gene_likelihood={likelihood!r} wants raw integer counts: name the layer that "
                f"holds them (layer='counts'), or use {other}."
            )
            raise ValueError(msg)
    if likelihood == "bernoulli":
        return
    empty = int((np.asarray(values.sum(axis=1)).ravel() == 0).sum())
    if empty:
        msg = f"{empty} cells of {name} have no counts at all: run scanpy.pp.filter_cells(adata, min_counts=1) first."
        raise ValueError(msg)


def _name(layer: str | None, obsm_key: str | None = None) -> str:
    if obsm_key is not None:
        return f"adata.obsm[{obsm_key!r}]"
    return f"adata.layers[{layer!r}]" if layer else "adata.X"


def check_shape(adata: AnnData, *, n_latent: int, tree_depth: int) -> None:
    """Refuse a latent or a tree that makes no sense for this many cells."""
    for name, value, largest in (("n_latent", n_latent, 512), ("tree_depth", tree_depth, 14)):
        if not 1 <= value <= largest:
            msg = f"{name}: {value} is outside 1 to {largest}."
            raise ValueError(msg)
    if tree_depth >= adata.n_obs:
        msg = f"tree_depth: a tree of {tree_depth} levels needs more than the {adata.n_obs} cells of adata."
        raise ValueError(msg)
