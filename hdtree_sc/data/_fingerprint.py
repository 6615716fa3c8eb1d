"""What registered cells looked like, to see whether they are still the same."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy import sparse

from hdtree_sc.data._obsm_field import features_of
from hdtree_sc.data._validation import values_of
from hdtree_sc.graph import spread_rows

if TYPE_CHECKING:
    from anndata import AnnData
    from numpy.typing import NDArray

SAMPLED_VALUES = 1_000_000
"""About this many values of a matrix (cells x features) are compared, of whole cells."""
SAMPLED_CELLS = 1_000
"""The values of at most this many cells are compared."""


@dataclass(frozen=True)
class Fingerprint:
    """Names of all cells and features, and a checksum of the values of some cells.

    Up to 1,000 cells, fewer where they have more than 1,000 features, are compared value by value as float32: a few
    milliseconds, however many cells there are, unless the matrix is stored by columns (CSC), which has to be read as a
    whole for any of its rows. All cells of a small data set are among them. A change that leaves the sampled cells as
    they are is not seen.

    Parameters
    ----------
    layer
        Layer with the values, None for ``X``.
    obsm_key
        Entry of ``obsm`` with the values, in their place.
    cells
        Names of the cells.
    features
        Names of the features.
    rows
        Rows of the cells whose values are compared.
    values
        Checksum of their values.
    """

    layer: str | None
    obsm_key: str | None
    cells: pd.Index
    features: pd.Index
    rows: NDArray[np.int64]
    values: bytes

    @classmethod
    def of(cls, adata: AnnData, layer: str | None = None, obsm_key: str | None = None) -> Fingerprint:
        """Fingerprint of an AnnData as it is now."""
        features = _features(adata, obsm_key)
        rows = spread_rows(adata.n_obs, int(np.clip(SAMPLED_VALUES // max(1, len(features)), 1, SAMPLED_CELLS)))
        values = _checksum(values_of(adata, layer, obsm_key), rows)
        return cls(layer, obsm_key, adata.obs_names, features, rows, values)

    def has_values_of(self, adata: AnnData) -> bool:
        """Whether the compared cells have these values in an AnnData of as many cells with the same features."""
        return _checksum(values_of(adata, self.layer, self.obsm_key), self.rows) == self.values

    def require_unchanged(self, adata: AnnData) -> None:
        """Refuse an AnnData that was changed in place.

        Raises
        ------
        ValueError
            Says what changed (cells, genes or values) and what to do.
        """
        if not adata.obs_names.equals(self.cells):
            msg = (
                f"adata: its cells are others than those registered with the model, or in another order "
                f"({len(self.cells)} cells then, {adata.n_obs} now). Subset a copy instead "
                "(adata[...].copy()), or give the model the cells to ask about (adata=)."
            )
            raise ValueError(msg)
        if not _features(adata, self.obsm_key).equals(self.features):
            msg = (
                f"adata: its genes (features) are others than those registered with the model, or in another order "
                f"({len(self.features)} then). Subset a copy instead (adata[:, ...].copy()), or give the model that "
                "copy (adata=): its genes are matched by name."
            )
            raise ValueError(msg)
        if (self.layer is None or self.layer in adata.layers) and self.has_values_of(adata):
            return
        place = f"adata.layers[{self.layer!r}]" if self.layer else "adata.X"
        if self.obsm_key is not None:
            place = f"adata.obsm[{self.obsm_key!r}]"
        msg = (
            f"{place} was changed after it was registered with the model, which reads it there. Put the values back, "
            "or give the model the cells with their earlier values (adata=). To normalise adata and use the model, "
            "keep the counts in a layer of their own before: adata.layers['counts'] = adata.X.copy(), then "
            "setup_anndata(adata, layer='counts')."
        )
        raise ValueError(msg)


def _features(adata: AnnData, obsm_key: str | None) -> pd.Index:
    # the AnnData's own index is compared by identity first
    return adata.var_names if obsm_key is None else pd.Index(features_of(adata, obsm_key))


def _checksum(values: Any, rows: NDArray[np.int64]) -> bytes:
    """Checksum of some rows; the same for every format and number type that holds the same values."""
    part = values[rows]
    dense = part.toarray() if sparse.issparse(part) else np.asarray(part)
    # minus zero is zero
    return blake2b((dense.astype(np.float32) + np.float32(0)).tobytes()).digest()
