"""scvi-tools' manager of an AnnData, with an eye on changes in place."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd
from scvi import REGISTRY_KEYS
from scvi.data._constants import _MANAGER_UUID_KEY, _SETUP_ARGS_KEY

from hdtree_sc._errors import listing
from hdtree_sc.data._fingerprint import Fingerprint
from hdtree_sc.data._ordered_rows import OrderedManager

if TYPE_CHECKING:
    from anndata import AnnData


class CellManager(OrderedManager):
    """A manager that refuses cells which changed after they were registered.

    Only the registered object is read, and what a model reads of it must be what it was: names, values, and the columns
    that scvi-tools writes for it. These are written again where another set-up of the same AnnData overwrote them.
    """

    fingerprint: Fingerprint
    _columns: pd.Series

    def register_fields(self, adata: AnnData, source_registry: dict | None = None, **transfer_kwargs: Any) -> None:
        """Register an AnnData and remember what it looks like."""
        super().register_fields(adata, source_registry, **transfer_kwargs)
        setup = self._registry[_SETUP_ARGS_KEY]
        self.fingerprint = Fingerprint.of(adata, setup.get("layer"), setup.get("obsm_key"))
        self._columns = self._hashed_columns()

    def validate(self, *, new_columns: bool = False) -> None:
        """Check that the cells are what they were when they were registered.

        Parameters
        ----------
        new_columns
            Whether columns may have changed and are taken as they are now, as at the start of a training.

        Raises
        ------
        ValueError
            If cells, genes, values or a registered column changed.
        """
        self._assert_anndata_registered()
        self.fingerprint.require_unchanged(self.adata)
        if self.adata.uns.get(_MANAGER_UUID_KEY) == self.id and self._columns.equals(self._hashed_columns()):
            return
        try:
            # by a manager of its own: this one stays what it is if a column is gone
            self.transfer_fields(self.adata, **self._transfer_kwargs)
        except (KeyError, ValueError) as error:
            raise ValueError(self._changed_columns()) from error
        self.adata.uns[_MANAGER_UUID_KEY] = self.id
        now = self._hashed_columns()
        if new_columns:
            self._columns = now
        elif not self._columns.equals(now):
            raise ValueError(self._changed_columns())

    def _changed_columns(self) -> str:
        arguments = ("batch_key", "labels_key", "time_key", "size_factor_key")
        joint = ("categorical_covariate_keys", "continuous_covariate_keys")
        setup = self._registry[_SETUP_ARGS_KEY]
        names = [setup[key] for key in arguments if setup.get(key)]
        names += [name for key in joint for name in setup.get(key) or []]
        return (
            f"adata.obs: a column that is registered with the model ({listing(names)}) is gone or holds other values "
            "than then. Put the values back, or give the model the cells with their earlier values (adata=)."
        )

    def _hashed_columns(self) -> pd.Series:
        """Checksum of each registered column, of the sampled cells; 0 of one that is not there."""
        rows, found = self.fingerprint.rows, {}
        for key, place in self.data_registry.items():
            if key == REGISTRY_KEYS.X_KEY:
                continue
            held = getattr(self.adata, place.attr_name)
            name = place.attr_key
            found[name] = (
                pd.util.hash_pandas_object(pd.DataFrame(held[name]).iloc[rows], index=False).to_numpy().tobytes()
                if name in held
                else b""
            )
        return pd.Series(found, dtype=object)
