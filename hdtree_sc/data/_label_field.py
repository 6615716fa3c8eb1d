"""Labels that some cells lack."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from scvi.data.fields import CategoricalObsField

from hdtree_sc._keys import UNKNOWN

if TYPE_CHECKING:
    from collections.abc import Iterator

    from anndata import AnnData


class PartialLabelField(CategoricalObsField):
    """Column of labels in which missing values count as one more category, ``"unknown"``.

    The user's column stays as it is: it is filled only while scvi-tools numbers it.
    """

    @contextmanager
    def _filled(self, adata: AnnData) -> Iterator[None]:
        key = self._original_attr_key
        if key not in adata.obs or not adata.obs[key].isna().any():
            yield
            return
        before = adata.obs[key]
        try:
            # as text: numbers and a word can not be put in order
            adata.obs[key] = before.astype(str).astype(object).where(before.notna(), UNKNOWN)
            yield
        finally:
            adata.obs[key] = before

    def register_field(self, adata: AnnData) -> dict:
        """Number the labels."""
        with self._filled(adata):
            return super().register_field(adata)

    def transfer_field(self, state_registry: dict, adata_target: AnnData, **kwargs: Any) -> dict:
        """Number the labels as another AnnData's were."""
        with self._filled(adata_target):
            return super().transfer_field(state_registry, adata_target, **kwargs)
