"""Columns of categories, numbered by their text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd
from scvi.data.fields import CategoricalJointObsField, CategoricalObsField

from hdtree_sc.data._category_names import numbered, renumbered

if TYPE_CHECKING:
    from anndata import AnnData

KIND_KEY = "value_kind"
"""State of a field: kind of the values of the user's column."""


class CategoryField(CategoricalObsField):
    """Column of categories: those without cells are none, and those of other cells are known by their text.

    Missing values count as one more category, ``"unknown"``; which columns may have any is checked at set-up. The
    user's column stays as it is.
    """

    def register_field(self, adata: AnnData) -> dict:
        """Number the categories."""
        if self.is_default:
            return super().register_field(adata)
        self.validate_field(adata)
        codes, categories, kind = numbered(adata.obs[self._original_attr_key])
        return self._state(adata, codes, categories, kind)

    def transfer_field(self, state_registry: dict, adata_target: AnnData, **kwargs: Any) -> dict:
        """Number the categories as another AnnData's were."""
        if self.is_default:
            return super().transfer_field(state_registry, adata_target, **kwargs)
        self.validate_field(adata_target)
        key = self._original_attr_key
        codes, categories = renumbered(
            adata_target.obs[key],
            state_registry[self.CATEGORICAL_MAPPING_KEY],
            extend=kwargs.get("extend_categories", False),
            name=f"adata.obs[{key!r}]",
        )
        return self._state(adata_target, codes, categories, state_registry.get(KIND_KEY))

    def _state(self, adata: AnnData, codes: Any, categories: Any, kind: str | None) -> dict:
        adata.obs[self.attr_key] = codes
        state = {self.CATEGORICAL_MAPPING_KEY: categories, self.ORIGINAL_ATTR_KEY: self._original_attr_key}
        return state if kind is None else state | {KIND_KEY: kind}

    def get_summary_stats(self, state_registry: dict) -> dict:
        """Count the categories, which may be of several types."""
        return {self.count_stat_key: len(state_registry[self.CATEGORICAL_MAPPING_KEY])}


class CategoryTableField(CategoricalJointObsField):
    """Several columns of categories, each as in :class:`CategoryField`."""

    def register_field(self, adata: AnnData) -> dict:
        """Number the categories of each column."""
        self.validate_field(adata)
        return self._state(adata, {key: numbered(adata.obs[key])[:2] for key in self.attr_keys})

    def transfer_field(self, state_registry: dict, adata_target: AnnData, **kwargs: Any) -> dict:
        """Number the categories of each column as another AnnData's were."""
        self.validate_field(adata_target)
        known = state_registry[self.MAPPINGS_KEY]
        found = {
            key: renumbered(
                adata_target.obs[key],
                known[key],
                extend=kwargs.get("extend_categories", False),
                name=f"adata.obs[{key!r}]",
            )
            for key in self.attr_keys
        }
        return self._state(adata_target, found)

    def _state(self, adata: AnnData, found: dict[str, tuple[Any, Any]]) -> dict:
        columns = {key: codes for key, (codes, _) in found.items()}
        adata.obsm[self.attr_key] = pd.DataFrame(columns, index=adata.obs_names)
        return {
            self.MAPPINGS_KEY: {key: categories for key, (_, categories) in found.items()},
            self.FIELD_KEYS_KEY: list(self.attr_keys),
            self.N_CATS_PER_KEY: [len(categories) for _, categories in found.values()],
        }
