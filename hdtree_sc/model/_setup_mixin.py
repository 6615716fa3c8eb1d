"""What models read of an AnnData."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scvi import REGISTRY_KEYS
from scvi.data.fields import LayerField, NumericalJointObsField

from hdtree_sc._errors import listing
from hdtree_sc._keys import UNKNOWN
from hdtree_sc.data._category_fields import KIND_KEY, CategoryField, CategoryTableField
from hdtree_sc.data._category_names import kind_of, positions_of, text_of, typed
from hdtree_sc.data._number_field import NumberField
from hdtree_sc.data._obsm_field import ObsmFeatureField
from hdtree_sc.model._cell_manager import CellManager
from hdtree_sc.model._validation import check_names, check_setup
from hdtree_sc.module._hdtree import TIME_KEY

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData
    from numpy.typing import NDArray
    from scvi.model.base import BaseModelClass


def input_shape(model: BaseModelClass) -> dict[str, Any]:
    """Arguments of a module that the registered cells decide."""
    stats, fields = model.summary_stats, model.registry["field_registries"]
    categories = fields.get(REGISTRY_KEYS.CAT_COVS_KEY, {}).get("state_registry", {})
    return {
        "n_input": stats.n_vars,
        "n_batch": stats.n_batch,
        "n_cats_per_cov": tuple(categories.get("n_cats_per_key", ())),
        "n_continuous_cov": stats.get("n_extra_continuous_covs", 0),
    }


class SetupMixin:
    """``setup_anndata`` and what was said in it."""

    def _setup(self, name: str) -> Any:
        return self.registry.get("setup_args", {}).get(name)  # type: ignore[attr-defined]

    def _state_of(self, key: str) -> dict[str, Any]:
        return self.registry["field_registries"][key]["state_registry"]  # type: ignore[attr-defined]

    @property
    def _registered_labels(self) -> list[str]:
        """Names of the labels, in the registry's order; none without ``labels_key``."""
        if self._setup("labels_key") is None:
            return []
        names = map(text_of, self._state_of(REGISTRY_KEYS.LABELS_KEY)["categorical_mapping"])
        return [name for name in names if name != UNKNOWN]

    def _as_labels(self, names: Sequence[str]) -> NDArray[Any]:
        """Names of labels as the values that the column of ``labels_key`` holds."""
        state = self._state_of(REGISTRY_KEYS.LABELS_KEY)
        return typed(names, state.get(KIND_KEY) or kind_of(list(state["categorical_mapping"])))

    def _as_batches(self, names: Any) -> list[Any]:
        """Batches as the registry holds them, by their names; None stays None."""
        given = list(names) if pd.api.types.is_list_like(names) else [names]
        held = self._state_of(REGISTRY_KEYS.BATCH_KEY)["categorical_mapping"]
        return [None if name is None else held[self._number_of_batch(name)] for name in given]

    def _number_of_batch(self, name: object) -> int:
        """Number of a batch by its name, whatever the type.

        Raises
        ------
        ValueError
            If there is none of that name; the message lists those that are.
        """
        if self._setup("batch_key") is None:
            msg = f"batch: {name!r} given, but the model was set up without batch_key=."
            raise ValueError(msg)
        names = self._state_of(REGISTRY_KEYS.BATCH_KEY)["categorical_mapping"]
        number = int(positions_of([name], names)[0])
        if number < 0:
            msg = f"batch: the model knows no {name!r}. It knows: {listing(names)}."
            raise ValueError(msg)
        return number

    def get_var_names(self, **kwargs: Any) -> NDArray[np.str_]:
        """Names of the features: of the genes, or of the columns of ``obsm_key``.

        Parameters
        ----------
        **kwargs
            Ignored: scvi-tools' arguments for MuData.
        """
        return np.asarray(self._state_of(REGISTRY_KEYS.X_KEY)[LayerField.COLUMN_NAMES_KEY])

    @classmethod
    def setup_anndata(
        cls,
        adata: AnnData,
        layer: str | None = None,
        batch_key: str | None = None,
        labels_key: str | None = None,
        time_key: str | None = None,
        size_factor_key: str | None = None,
        categorical_covariate_keys: list[str] | None = None,
        continuous_covariate_keys: list[str] | None = None,
        *,
        obsm_key: str | None = None,
        **kwargs: Any,
    ) -> None:
        """Register an AnnData.

        Parameters
        ----------
        adata
            The data; values are read from ``X`` or ``layer`` and never changed. It may be backed: cells are then read
            from disk a minibatch at a time.
        layer
            Layer with the values. Counts may be off whole numbers by rounding errors (a millionth of the count).
        batch_key
            ``obs`` column of batches, given to encoder and decoder.
        labels_key
            ``obs`` column of cell labels, missing in any number of cells; cells called ``"unknown"`` count as cells
            without a label. HDTree does not train on them unless it is made with ``use_labels=True``; BranchedDiffusion
            needs them.
        time_key
            ``obs`` column with the time of collection, a number, missing in any number of cells. The latent is trained
            to tell it.
        size_factor_key
            ``obs`` column of library sizes, finite and above 0, in place of the sum of each cell's counts.
        categorical_covariate_keys
            Further ``obs`` columns of categories, given to encoder and decoder.
        continuous_covariate_keys
            Further ``obs`` columns of finite numbers, given to encoder and decoder.
        obsm_key
            ``obsm`` entry whose columns are the features, in place of the genes in ``X`` or a layer: principal
            components, an embedding. For ``gene_likelihood="normal"``.
        **kwargs
            Keyword arguments of :meth:`scvi.data.AnnDataManager.register_fields`.

        Raises
        ------
        KeyError
            If a layer, column or ``obsm`` entry does not exist.
        ValueError
            If ``layer`` and ``obsm_key`` are both given, values or numbers of cells are not finite, names are not
            unique, a category is missing in some cells, or a label has one cell only. Nothing is changed then.

        Notes
        -----
        Batches, labels and categories may be of any type, and are known by their text: ``2``, ``2.0`` and ``"2"`` are
        one, here and wherever a label or a batch is named. A category without cells is none.
        """
        setup_method_args = cls._get_setup_method_args(  # type: ignore[attr-defined]
            **locals()
        )
        categories: dict[str, str | None] = {"batch_key": batch_key, "labels_key": labels_key}
        numbers: dict[str, str | None] = {"time_key": time_key, "size_factor_key": size_factor_key}
        for held, argument, keys in (
            (categories, "categorical_covariate_keys", categorical_covariate_keys),
            (numbers, "continuous_covariate_keys", continuous_covariate_keys),
        ):
            held |= {f"{argument}[{i}]": key for i, key in enumerate(check_names(argument, keys))}
        check_setup(
            adata,
            layer=layer,
            obsm_key=obsm_key,
            categorical=categories,
            numerical=numbers,
            labels_key=labels_key,
            is_query="source_registry" in kwargs,
        )
        fields = [
            LayerField(REGISTRY_KEYS.X_KEY, layer, is_count_data=False)
            if obsm_key is None
            else ObsmFeatureField(REGISTRY_KEYS.X_KEY, obsm_key),
            CategoryField(REGISTRY_KEYS.BATCH_KEY, batch_key),
            CategoryField(REGISTRY_KEYS.LABELS_KEY, labels_key),
            CategoryTableField(REGISTRY_KEYS.CAT_COVS_KEY, categorical_covariate_keys),
            NumericalJointObsField(REGISTRY_KEYS.CONT_COVS_KEY, continuous_covariate_keys),
            NumberField(REGISTRY_KEYS.SIZE_FACTOR_KEY, size_factor_key, required=False),
            NumberField(TIME_KEY, time_key, required=False),
        ]
        manager = CellManager(fields=fields, setup_method_args=setup_method_args)
        manager.register_fields(adata, **kwargs)
        cls.register_manager(manager)  # type: ignore[attr-defined]
