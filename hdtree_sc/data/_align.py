"""AnnData of the user's in the form that a model was set up with."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy import sparse
from scvi import REGISTRY_KEYS

from hdtree_sc._disk import in_memory
from hdtree_sc._errors import listing
from hdtree_sc._keys import UNKNOWN
from hdtree_sc.data._category_names import positions_of
from hdtree_sc.data._obsm_field import features_of
from hdtree_sc.data._validation import values_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

logger = logging.getLogger("hdtree_sc")


def aligned(adata: AnnData, registry: dict[str, Any], *, is_count: bool) -> AnnData:
    """Cells with a model's features in its order, and the columns it was set up with; the given AnnData stays as it is.

    Genes are matched by name. A gene that the cells lack is zero, which moves fewer cells to another leaf than its
    training mean does (with 20 of 485 genes missing at random 5.5 against 8.9 % of the worm's cells). Categories are
    matched by text; those that the model does not know, and columns that are missing, count as unknown.

    Parameters
    ----------
    adata
        The cells; views and files on disk are read.
    registry
        Registry of the model.
    is_count
        Whether the model wants counts: they are looked for in ``X`` where the layer is missing.

    Raises
    ------
    TypeError
        If ``adata`` is no AnnData.
    KeyError
        If a layer or a column of numbers is missing.
    ValueError
        If no feature is shared, or a gene of the model is there twice.
    """
    if not isinstance(adata, AnnData):
        msg = f"adata: an anndata.AnnData wanted, got {type(adata).__name__}."
        raise TypeError(msg)
    setup, features = registry["setup_args"], feature_names_of(registry)
    layer, obsm_key = setup.get("layer"), setup.get("obsm_key")
    values, names = _source(adata, layer, obsm_key, is_count=is_count)
    values = _with_features(values, names, features)
    out = AnnData(values, obs=adata.obs.copy(), var=pd.DataFrame(index=features))
    if layer is not None:
        out.layers[layer] = out.X
    if obsm_key is not None:
        out.obsm[obsm_key] = out.X.toarray() if sparse.issparse(out.X) else out.X
    nothing = pd.Series(np.nan, index=adata.obs_names)
    for key, known in known_categories(registry).items():
        out.obs[key] = _matched(adata.obs.get(key, nothing), known)
    time_key = setup.get("time_key")
    for key in filter(None, [time_key, setup.get("size_factor_key"), *(setup.get("continuous_covariate_keys") or [])]):
        if key not in adata.obs and key != time_key:
            msg = f"adata.obs has no column {key!r}, which the model was set up with as a number of each cell."
            raise KeyError(msg)
        out.obs[key] = adata.obs.get(key, nothing)
    return out


def feature_names_of(registry: dict[str, Any]) -> pd.Index:
    """Names of a model's features, in its order."""
    return pd.Index(registry["field_registries"][REGISTRY_KEYS.X_KEY]["state_registry"]["column_names"])


def _source(adata: AnnData, layer: str | None, obsm_key: str | None, *, is_count: bool) -> tuple[Any, pd.Index]:
    """The matrix to read, in memory, and the names of its columns."""
    # cells that a model generated hold their values in X
    is_generated = any(isinstance(entry, dict) and "function" in entry for entry in adata.uns.values())
    if obsm_key is not None and obsm_key in adata.obsm:
        return values_of(adata, None, obsm_key), pd.Index(features_of(adata, obsm_key))
    if layer is not None and layer not in adata.layers:
        if not (is_count or is_generated):
            msg = f"layer: adata.layers has no {layer!r}, which the model reads. It has: {listing(adata.layers)}."
            raise KeyError(msg)
        layer = None
    return in_memory(values_of(adata, layer)), adata.var_names


def _with_features(values: Any, names: pd.Index, features: pd.Index) -> Any:
    """Columns of a matrix by name, zero where there are none."""
    twice = names[names.duplicated()].intersection(features)
    if len(twice):
        msg = f"adata.var_names are not unique ({listing(twice)}): run adata.var_names_make_unique() first."
        raise ValueError(msg)
    first = np.flatnonzero(~names.duplicated())
    column = names[first].get_indexer(features)
    found = column >= 0
    if not found.any():
        msg = (
            f"adata shares none of the model's {len(features)} genes (the model has {', '.join(features[:3])}, ...; "
            f"adata has {', '.join(names[:3])}, ...): both need the same kind of gene name in var_names."
        )
        raise ValueError(msg)
    if sparse.issparse(values):
        values = values.tocsr()
    if names.equals(features):
        return values
    values = values[:, first[column[found]]]
    if found.all():
        return values
    logger.warning("%d of the model's %d genes are not in the query and count as zero.", (~found).sum(), len(features))
    if sparse.issparse(values):
        place = np.flatnonzero(found).astype(values.indices.dtype)
        return sparse.csr_matrix(
            (values.data, place[values.indices], values.indptr), shape=(values.shape[0], len(features))
        )
    out = np.zeros((values.shape[0], len(features)), dtype=values.dtype)
    out[:, found] = values
    return out


# ---------------------------------------------------------------- categories


def known_categories(registry: dict[str, Any]) -> dict[str, NDArray[Any]]:
    """Categories that a model knows, in its order, by ``obs`` column."""
    setup, fields = registry["setup_args"], registry["field_registries"]
    found = {}
    for argument, field in (("batch_key", REGISTRY_KEYS.BATCH_KEY), ("labels_key", REGISTRY_KEYS.LABELS_KEY)):
        if setup.get(argument) is not None:
            found[setup[argument]] = np.asarray(fields[field]["state_registry"]["categorical_mapping"])
    for key in setup.get("categorical_covariate_keys") or []:
        found[key] = np.asarray(fields[REGISTRY_KEYS.CAT_COVS_KEY]["state_registry"]["mappings"][key])
    return found


def _matched(column: pd.Series, known: NDArray[Any]) -> NDArray[Any]:
    """A column in a model's own categories, matched by text; ``"unknown"`` where it has none of them."""
    code, values = pd.factorize(column)
    # the code of a cell without a value is -1: the last one
    taken = np.array([*known.tolist(), UNKNOWN], dtype=object)[np.append(positions_of(values, known), -1)]
    return taken[code]
