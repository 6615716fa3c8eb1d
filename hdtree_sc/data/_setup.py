"""What a model was set up with: its arguments, and the names of labels, batches and features."""

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
from hdtree_sc.data._obsm_field import ObsmFeatureField, features_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData
    from numpy.typing import NDArray
    from scvi.data.fields import BaseAnnDataField


class Setup:
    """A registry of scvi-tools, read by name.

    Parameters
    ----------
    registry
        The registry.
    """

    def __init__(self, registry: dict[str, Any]) -> None:
        self.registry = registry

    @property
    def arguments(self) -> dict[str, Any]:
        """Arguments of ``setup_anndata``."""
        return self.registry.get("setup_args", {})

    def argument(self, name: str) -> Any:
        """One of these, None if it was not given."""
        return self.arguments.get(name)

    def state_of(self, key: str) -> dict[str, Any]:
        """What the registry says of a field."""
        return self.registry["field_registries"][key]["state_registry"]

    @property
    def features(self) -> NDArray[np.str_]:
        """Names of the features, in the model's order."""
        return np.asarray(self.state_of(REGISTRY_KEYS.X_KEY)[LayerField.COLUMN_NAMES_KEY])

    @property
    def label_categories(self) -> Any:
        """Values of the labels, as minibatches number them."""
        return self.state_of(REGISTRY_KEYS.LABELS_KEY)["categorical_mapping"]

    @property
    def labels(self) -> list[str]:
        """Names of the labels, in the registry's order; none without ``labels_key``."""
        if self.argument("labels_key") is None:
            return []
        return [name for name in map(text_of, self.label_categories) if name != UNKNOWN]

    def label_values(self, names: Sequence[str]) -> NDArray[Any]:
        """Names of labels as the values that the column of ``labels_key`` holds."""
        kind = self.state_of(REGISTRY_KEYS.LABELS_KEY).get(KIND_KEY)
        return typed(names, kind or kind_of(list(self.label_categories)))

    def batch_values(self, names: Any) -> list[Any]:
        """Batches as the registry holds them, by their names; None stays None."""
        given = list(names) if pd.api.types.is_list_like(names) else [names]
        held = self.state_of(REGISTRY_KEYS.BATCH_KEY)["categorical_mapping"]
        return [None if name is None else held[self.number_of_batch(name)] for name in given]

    def number_of_batch(self, name: object) -> int:
        """Number of a batch by its name, whatever the type.

        Raises
        ------
        ValueError
            If there is none of that name; the message lists those that are.
        """
        if self.argument("batch_key") is None:
            msg = f"batch: {name!r} given, but the model was set up without batch_key=."
            raise ValueError(msg)
        names = self.state_of(REGISTRY_KEYS.BATCH_KEY)["categorical_mapping"]
        number = int(positions_of([name], names)[0])
        if number < 0:
            msg = f"batch: the model knows no {name!r}. It knows: {listing(names)}."
            raise ValueError(msg)
        return number

    def input_shape(self, stats: Any) -> dict[str, Any]:
        """Arguments of a module that the registered cells decide.

        Parameters
        ----------
        stats
            scvi-tools' summary of them.
        """
        categories = self.registry["field_registries"].get(REGISTRY_KEYS.CAT_COVS_KEY, {}).get("state_registry", {})
        return {
            "n_input": stats.n_vars,
            "n_batch": stats.n_batch,
            "n_cats_per_cov": tuple(categories.get("n_cats_per_key", ())),
            "n_continuous_cov": stats.get("n_extra_continuous_covs", 0),
        }


def require_genes(adata: AnnData, setup: Setup) -> None:
    """Refuse cells that lack features of a model.

    Raises
    ------
    ValueError
        Naming what is missing.
    """
    genes, held = setup.features, set(features_of(adata, setup.argument("obsm_key")))
    lost = [gene for gene in genes if gene not in held]
    if lost:
        msg = f"adata lacks {len(lost)} of the model's {len(genes)} genes ({listing(lost)}): add_class needs all."
        raise ValueError(msg)


def registered_fields(
    *,
    layer: str | None,
    obsm_key: str | None,
    batch_key: str | None,
    labels_key: str | None,
    time_key: str | None,
    size_factor_key: str | None,
    categorical_covariate_keys: list[str] | None,
    continuous_covariate_keys: list[str] | None,
    time_name: str,
) -> list[BaseAnnDataField]:
    """scvi-tools' fields of all that a model reads, see ``setup_anndata``.

    Parameters
    ----------
    layer, obsm_key, batch_key, labels_key, time_key, size_factor_key
        Arguments of ``setup_anndata``.
    categorical_covariate_keys, continuous_covariate_keys
        Further ones.
    time_name
        Registry key of the time of collection.
    """
    return [
        LayerField(REGISTRY_KEYS.X_KEY, layer, is_count_data=False)
        if obsm_key is None
        else ObsmFeatureField(REGISTRY_KEYS.X_KEY, obsm_key),
        CategoryField(REGISTRY_KEYS.BATCH_KEY, batch_key),
        CategoryField(REGISTRY_KEYS.LABELS_KEY, labels_key),
        CategoryTableField(REGISTRY_KEYS.CAT_COVS_KEY, categorical_covariate_keys),
        NumericalJointObsField(REGISTRY_KEYS.CONT_COVS_KEY, continuous_covariate_keys),
        NumberField(REGISTRY_KEYS.SIZE_FACTOR_KEY, size_factor_key, required=False),
        NumberField(time_name, time_key, required=False),
    ]
