"""Features that lie in ``obsm`` instead of ``X``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd
from scvi.data.fields import LayerField, ObsmField

if TYPE_CHECKING:
    from anndata import AnnData


class ObsmFeatureField(ObsmField):
    """An ``obsm`` entry in the place of the matrix: its columns are the features, by name and number.

    Parameters
    ----------
    registry_key
        Key under which the values are registered.
    obsm_key
        Key of the entry.
    """

    def __init__(self, registry_key: str, obsm_key: str) -> None:
        super().__init__(registry_key, obsm_key, is_count_data=False, correct_data_format=False)

    def _setup_column_names(self, adata: AnnData) -> list[str]:
        return feature_names(adata.obsm[self.attr_key], self.attr_key)

    def register_field(self, adata: AnnData) -> dict:
        """Read the names of the columns."""
        return super().register_field(adata) | {LayerField.N_OBS_KEY: adata.n_obs}

    def transfer_field(self, state_registry: dict, adata_target: AnnData, **kwargs: Any) -> dict:
        """Check that another AnnData has the same columns."""
        state = super().transfer_field(state_registry, adata_target, **kwargs)
        return state | {LayerField.N_OBS_KEY: adata_target.n_obs}

    def get_summary_stats(self, state_registry: dict) -> dict:
        """Numbers of cells and features, under the names that a matrix has them."""
        n_vars = len(state_registry[self.COLUMN_NAMES_KEY])
        return {LayerField.N_CELLS_KEY: state_registry[LayerField.N_OBS_KEY], LayerField.N_VARS_KEY: n_vars}


def features_of(adata: AnnData, obsm_key: str | None) -> list[str]:
    """Names of an AnnData's features: of the columns of its ``obsm`` entry if it has that, else of its genes."""
    if obsm_key is None or obsm_key not in adata.obsm:
        return list(adata.var_names)
    return feature_names(adata.obsm[obsm_key], obsm_key)


def feature_names(values: Any, obsm_key: str) -> list[str]:
    """Names of the columns of an ``obsm`` entry, which only a DataFrame has of its own."""
    if isinstance(values, pd.DataFrame):
        return [str(name) for name in values.columns]
    return [f"{obsm_key}_{i + 1}" for i in range(values.shape[1])]
