"""Checks of the values of cells, a block of rows at a time: they may fill the memory, or be on disk."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy import sparse

from hdtree_sc._errors import listing
from hdtree_sc.nn import LIKELIHOODS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from anndata import AnnData
    from numpy.typing import NDArray

CHUNK = 4096
MAX_VALUE = 1e15
"""Largest absolute value: the sum of squares of a data set must fit in single precision."""
COUNT_ERROR, ZERO_ERROR = 1e-6, 1e-8
"""A count may be off by a millionth of it, a zero by so much: rounding errors, to which no likelihood is sensitive."""


def values_of(adata: AnnData, layer: str | None, obsm_key: str | None = None) -> Any:
    """The matrix a model reads: ``X``, a layer or an entry of ``obsm``."""
    if obsm_key is not None:
        entry = adata.obsm[obsm_key]
        return entry.to_numpy() if isinstance(entry, pd.DataFrame) else entry
    values = adata.X if layer is None else adata.layers[layer]
    if values is None:
        msg = "adata.X is empty: name the layer that holds the values (layer=)."
        raise ValueError(msg)
    if hasattr(values, "dask"):
        msg = f"{name_of(layer)} is a dask array: read it into memory first, adata = adata.to_memory()."
        raise ValueError(msg)
    return values


def name_of(layer: str | None, obsm_key: str | None = None) -> str:
    """What messages call the matrix."""
    if obsm_key is not None:
        return f"adata.obsm[{obsm_key!r}]"
    return f"adata.layers[{layer!r}]" if layer else "adata.X"


def _blocks(values: Any) -> Iterator[Any]:
    """Blocks of rows, in memory."""
    for start in range(0, values.shape[0], CHUNK):
        yield values[start : start + CHUNK]


def _stored(block: Any) -> NDArray[Any]:
    """The stored numbers of a block."""
    return block.data if sparse.issparse(block) else np.asarray(block)


def check_finite(values: Any, name: str) -> None:
    """Refuse what is no number, not finite, or too large for single precision.

    Raises
    ------
    ValueError
        Naming the matrix and what is wrong.
    """
    if values.dtype.kind not in "biuf":
        msg = f"{name} holds {values.dtype}, numbers wanted."
        raise ValueError(msg)
    for block in map(_stored, _blocks(values)):
        if not np.isfinite(block).all():
            bad = int((~np.isfinite(block)).sum())
            msg = f"{name} holds NaN or infinite values ({bad} in one block of {CHUNK} cells): remove or impute them."
            raise ValueError(msg)
        largest = 0.0 if block.dtype.kind == "b" else max(float(block.max(initial=0)), -float(block.min(initial=0)))
        if largest > MAX_VALUE:
            msg = (
                f"{name} holds values of up to {largest:.2g}, beyond {MAX_VALUE:.0e} sums of squares do not fit in "
                "single precision: correct them, take logarithms, or divide by a constant."
            )
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
    total = check_values(adata, layer, likelihood, obsm_key)
    if likelihood not in ("nb", "zinb"):
        return
    silent = int((total < 0.5).sum())
    if silent:
        msg = (
            f"{silent} of {len(total)} genes of {name_of(layer, obsm_key)} have no counts at all; they are kept and "
            "carry no information. scanpy.pp.filter_genes(adata, min_cells=1) removes them."
        )
        warnings.warn(msg, UserWarning, stacklevel=4)


def check_values(
    adata: AnnData, layer: str | None, likelihood: str, obsm_key: str | None = None
) -> NDArray[np.float64]:
    """Refuse values that a likelihood cannot give rise to.

    Counts may be off whole numbers by rounding errors (1e-6 of the count, 1e-8 of zero), and are taken as they are.

    Returns
    -------
    Sum of each feature, (n_features,); zeros of likelihoods that are not of counts.

    Raises
    ------
    ValueError
        For negative or fractional counts, cells without counts, or values outside [0, 1] with ``"bernoulli"``.
    """
    name = name_of(layer, obsm_key)
    values = values_of(adata, layer, obsm_key)
    total, empty = np.zeros(values.shape[1]), 0
    if likelihood == "normal":
        return total
    for block in _blocks(values):
        stored = _stored(block)
        if stored.dtype.kind != "b":
            _check_range(stored, name, likelihood)
        if likelihood == "bernoulli":
            continue
        if stored.dtype.kind == "f":
            _check_whole(stored, name, likelihood)
        total += np.asarray(block.sum(axis=0, dtype=np.float64)).ravel()
        empty += int((np.asarray(block.sum(axis=1, dtype=np.float64)).ravel() < 0.5).sum())
    if empty:
        msg = f"{empty} cells of {name} have no counts at all: run scanpy.pp.filter_cells(adata, min_counts=1) first."
        raise ValueError(msg)
    return total


def _check_range(stored: NDArray[Any], name: str, likelihood: str) -> None:
    other = "gene_likelihood='normal' for continuous values"
    lowest, cannot = stored.min(initial=0), f"which gene_likelihood={likelihood!r} cannot give; use {other}."
    if lowest < -ZERO_ERROR:
        msg = f"{name} holds negative values ({lowest:.3g}), {cannot}"
        raise ValueError(msg)
    if likelihood == "bernoulli" and stored.max(initial=0) > 1 + COUNT_ERROR:
        msg = f"{name} holds values above 1: divide by the maximum for gene_likelihood='bernoulli', or use {other}."
        raise ValueError(msg)


def _check_whole(stored: NDArray[Any], name: str, likelihood: str) -> None:
    whole = np.round(stored)
    if np.array_equal(stored, whole) or np.allclose(stored, whole, rtol=COUNT_ERROR, atol=ZERO_ERROR):
        return
    off = float(np.abs(stored - whole).max())
    is_close = np.allclose(stored, whole, rtol=1e-3, atol=1e-3)
    close = f" If they are counts with rounding errors: {name} = np.rint({name})." if is_close else ""
    msg = (
        f"{name} holds fractions (off whole numbers by up to {off:.2g}), gene_likelihood={likelihood!r} wants raw "
        "integer counts: name the layer that holds them (layer='counts'), or use gene_likelihood='normal' for "
        f"continuous values.{close}"
    )
    raise ValueError(msg)
