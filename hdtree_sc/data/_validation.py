"""Checks at the public door: nothing is changed before all of them have passed."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy import sparse

from hdtree_sc._errors import listing, require_column, whole_number
from hdtree_sc._keys import UNKNOWN
from hdtree_sc.data._category_names import numbered
from hdtree_sc.data._value_checks import MAX_VALUE, check_finite, check_likelihood, check_values, name_of, values_of

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["check_likelihood", "check_setup", "check_shape", "check_values", "values_of"]

DOUBTFUL = ("nan", "NaN", "None", "<NA>", "NA", "N/A", "null")
"""Labels that may stand for a missing one."""


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
        Whether the cells are only placed by a model that exists: one is enough then, and so it is of each label, and
        a batch that is missing is unknown.

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
        if key is not None:
            require_column(adata, key, argument)
    for argument, key in numerical.items():
        if key is not None:
            _check_numbers(adata.obs[key], argument, key)
    for argument, key in categorical.items():
        if key is not None:
            # a label may be missing: it counts as unknown
            _check_categories(adata.obs[key], argument, key, may_miss=is_query or argument == "labels_key")
    if labels_key is not None and not is_query:
        _check_labels(adata.obs[labels_key], labels_key)
    values = values_of(adata, layer, obsm_key)
    if obsm_key is not None and (sparse.issparse(values) or values.ndim != 2 or values.shape[1] < 2):
        msg = f"obsm_key: adata.obsm[{obsm_key!r}] is no dense table of at least two columns."
        raise ValueError(msg)
    check_finite(values, name_of(layer, obsm_key))


def _check_numbers(column: pd.Series, argument: str, key: str) -> None:
    """Refuse a column of numbers that a network could not read, which is in single precision."""
    if not pd.api.types.is_numeric_dtype(column) or column.dtype.kind == "c":
        msg = f"{argument}: adata.obs[{key!r}] holds {column.dtype}, numbers wanted."
        raise ValueError(msg)
    with np.errstate(over="ignore"):
        values = column.to_numpy(np.float64, na_value=np.nan).astype(np.float32)
    rules = {
        "time_key": (~np.isinf(values), "a finite time, or NaN where it is not known,"),
        "size_factor_key": (np.isfinite(values) & (values > 0), "a finite number above 0"),
    }
    right, wanted = rules.get(argument, (np.abs(values) <= MAX_VALUE, f"a finite number of at most {MAX_VALUE:.0e}"))
    if not right.all():
        wrong = column[~right]
        msg = (
            f"{argument}: adata.obs[{key!r}] is {listing(wrong.unique(), 3)} in {len(wrong)} cells; {wanted} is needed."
        )
        raise ValueError(msg)


def _check_categories(column: pd.Series, argument: str, key: str, *, may_miss: bool) -> None:
    """Refuse a column that gives no category of each cell."""
    if not may_miss and column.isna().any():
        count = int(column.isna().sum())
        msg = f"{argument}: adata.obs[{key!r}] is missing in {count} cells: name them, e.g. 'unknown', first."
        raise ValueError(msg)
    try:
        numbered(column)
    except TypeError:
        msg = f"{argument}: adata.obs[{key!r}] holds values that name no category; use text or numbers."
        raise ValueError(msg) from None


def _check_labels(column: pd.Series, key: str) -> None:
    """Refuse labels that no tree could have as its leaves, and say which ones are taken for missing, or may be it."""
    codes, categories, _ = numbered(column[column.notna()])
    size = dict(zip(map(str, categories), np.bincount(codes, minlength=len(categories)), strict=True))
    if any(not name.strip() for name in size):
        msg = f"labels_key: adata.obs[{key!r}] has an empty text as a label: name it, or make it missing (NaN)."
        raise ValueError(msg)
    single = [name for name, n in size.items() if n == 1 and name != UNKNOWN]
    if single:
        msg = (
            f"labels_key: {listing(single)} in adata.obs[{key!r}] has one cell only: "
            "merge it with another label or leave it out."
        )
        raise ValueError(msg)
    if UNKNOWN in size:
        msg = (
            f"labels_key: the {size[UNKNOWN]} cells of adata.obs[{key!r}] that are called {UNKNOWN!r} count as cells "
            "without a label. Give them another name if it is one."
        )
        warnings.warn(msg, UserWarning, stacklevel=4)
    doubtful = [name for name in size if name in DOUBTFUL]
    if doubtful:
        msg = (
            f"labels_key: {listing(doubtful)} in adata.obs[{key!r}] is text and counts as a label like any other. If "
            "it stands for a missing one, replace it by NaN."
        )
        warnings.warn(msg, UserWarning, stacklevel=4)


def check_names(argument: str, keys: Iterable[str] | None) -> list[str]:
    """Names of columns as a list; a text alone would be read letter by letter.

    Raises
    ------
    TypeError
        Naming the argument.
    """
    if isinstance(keys, str):
        msg = f"{argument}: a list of columns wanted, got {keys!r}; write [{keys!r}]."
        raise TypeError(msg)
    return list(keys or [])


def check_shape(adata: AnnData, *, n_latent: int, tree_depth: int) -> None:
    """Refuse a latent or a tree that makes no sense for this many cells."""
    for name, value, largest in (("n_latent", n_latent, 512), ("tree_depth", tree_depth, 14)):
        whole_number(name, value)
        if value > largest:
            msg = f"{name}: {value} is outside 1 to {largest}."
            raise ValueError(msg)
    if tree_depth >= adata.n_obs:
        msg = f"tree_depth: a tree of {tree_depth} levels needs more than the {adata.n_obs} cells of adata."
        raise ValueError(msg)
