"""What models read of an AnnData."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from scvi import REGISTRY_KEYS
from scvi.data import AnnDataManager
from scvi.data.fields import (
    CategoricalJointObsField,
    CategoricalObsField,
    LayerField,
    NumericalJointObsField,
    NumericalObsField,
)

from hdtree_sc._keys import UNKNOWN
from hdtree_sc.data._label_field import PartialLabelField
from hdtree_sc.model._validation import check_setup
from hdtree_sc.module._hdtree import TIME_KEY

if TYPE_CHECKING:
    from anndata import AnnData


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

    def _input_shape(self) -> dict[str, Any]:
        """Arguments of a module that the registered cells decide."""
        stats = self.summary_stats  # type: ignore[attr-defined]
        fields = self.registry["field_registries"]  # type: ignore[attr-defined]
        categories = fields.get(REGISTRY_KEYS.CAT_COVS_KEY, {}).get("state_registry", {})
        return {
            "n_input": stats.n_vars,
            "n_batch": stats.n_batch,
            "n_cats_per_cov": tuple(categories.get("n_cats_per_key", ())),
            "n_continuous_cov": stats.get("n_extra_continuous_covs", 0),
        }

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
        **kwargs
            Keyword arguments of :meth:`scvi.data.AnnDataManager.register_fields`.

        Raises
        ------
        KeyError
            If a layer or column does not exist.
        ValueError
            If values are not finite, names are not unique, a category is missing in some cells, or a label has one
            cell only. Nothing is changed then.
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
            categorical=categories,
            numerical=numbers,
            labels_key=labels_key,
            is_query="source_registry" in kwargs,
        )
        fields = [
            LayerField(REGISTRY_KEYS.X_KEY, layer, is_count_data=False),
            CategoricalObsField(REGISTRY_KEYS.BATCH_KEY, batch_key),
            PartialLabelField(REGISTRY_KEYS.LABELS_KEY, labels_key),
            CategoricalJointObsField(REGISTRY_KEYS.CAT_COVS_KEY, categorical_covariate_keys),
            NumericalJointObsField(REGISTRY_KEYS.CONT_COVS_KEY, continuous_covariate_keys),
            NumericalObsField(REGISTRY_KEYS.SIZE_FACTOR_KEY, size_factor_key, required=False),
            NumericalObsField(TIME_KEY, time_key, required=False),
        ]
        manager = AnnDataManager(fields=fields, setup_method_args=setup_method_args)
        manager.register_fields(adata, **kwargs)
        cls.register_manager(manager)  # type: ignore[attr-defined]
