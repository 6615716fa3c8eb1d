"""What models read of an AnnData."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from scvi import REGISTRY_KEYS
from scvi.data.fields import (
    CategoricalJointObsField,
    CategoricalObsField,
    LayerField,
    NumericalJointObsField,
    NumericalObsField,
)

from hdtree_sc._keys import UNKNOWN
from hdtree_sc.data._label_field import PartialLabelField
from hdtree_sc.data._obsm_field import ObsmFeatureField
from hdtree_sc.model._cell_manager import CellManager
from hdtree_sc.model._validation import check_setup
from hdtree_sc.module._hdtree import TIME_KEY

if TYPE_CHECKING:
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

    @property
    def _registered_labels(self) -> list[str]:
        """Names of the labels, in the registry's order; none without ``labels_key``."""
        if self._setup("labels_key") is None:
            return []
        state = self.registry["field_registries"][REGISTRY_KEYS.LABELS_KEY]["state_registry"]  # type: ignore[attr-defined]
        return [str(label) for label in state["categorical_mapping"] if str(label) != UNKNOWN]

    def get_var_names(self, **kwargs: Any) -> NDArray[np.str_]:
        """Names of the features: of the genes, or of the columns of ``obsm_key``.

        Parameters
        ----------
        **kwargs
            Ignored: scvi-tools' arguments for MuData.
        """
        state = self.registry["field_registries"][REGISTRY_KEYS.X_KEY]["state_registry"]  # type: ignore[attr-defined]
        return np.asarray(state[LayerField.COLUMN_NAMES_KEY])

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
            The data; values are read from ``X`` or ``layer`` and never changed.
        layer
            Layer with the values.
        batch_key
            ``obs`` column of batches, given to encoder and decoder.
        labels_key
            ``obs`` column of cell labels, missing in any number of cells. HDTree does not train on them unless it is
            made with ``use_labels=True``; BranchedDiffusion needs them.
        time_key
            ``obs`` column with the time of collection, a number, missing in any number of cells. The latent is trained
            to tell it.
        size_factor_key
            ``obs`` column of library sizes, in place of the sum of each cell's counts.
        categorical_covariate_keys
            Further ``obs`` columns of categories, given to encoder and decoder.
        continuous_covariate_keys
            Further ``obs`` columns of numbers, given to encoder and decoder.
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
            If ``layer`` and ``obsm_key`` are both given, values are not finite, names are not unique, a category is
            missing in some cells, or a label has one cell only. Nothing is changed then.
        """
        setup_method_args = cls._get_setup_method_args(  # type: ignore[attr-defined]
            **locals()
        )
        categories = {"batch_key": batch_key, "labels_key": labels_key}
        categories |= {f"categorical_covariate_keys[{i}]": k for i, k in enumerate(categorical_covariate_keys or [])}
        numbers = {"time_key": time_key, "size_factor_key": size_factor_key}
        numbers |= {f"continuous_covariate_keys[{i}]": k for i, k in enumerate(continuous_covariate_keys or [])}
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
            CategoricalObsField(REGISTRY_KEYS.BATCH_KEY, batch_key),
            PartialLabelField(REGISTRY_KEYS.LABELS_KEY, labels_key),
            CategoricalJointObsField(REGISTRY_KEYS.CAT_COVS_KEY, categorical_covariate_keys),
            NumericalJointObsField(REGISTRY_KEYS.CONT_COVS_KEY, continuous_covariate_keys),
            NumericalObsField(REGISTRY_KEYS.SIZE_FACTOR_KEY, size_factor_key, required=False),
            NumericalObsField(TIME_KEY, time_key, required=False),
        ]
        manager = CellManager(fields=fields, setup_method_args=setup_method_args)
        manager.register_fields(adata, **kwargs)
        cls.register_manager(manager)  # type: ignore[attr-defined]
