"""The cells that a model was trained on, known by name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pandas as pd
from anndata import AnnData
from scvi import REGISTRY_KEYS

from hdtree_sc._errors import listing
from hdtree_sc.data._align import feature_names_of, known_categories
from hdtree_sc.data._category_names import positions_of
from hdtree_sc.data._obsm_field import features_of

if TYPE_CHECKING:
    from numpy.typing import NDArray


def cells_to_load(adata: AnnData | bool | None, registry: dict[str, Any]) -> AnnData | bool | None:  # noqa: FBT001
    """The AnnData to register with a model that is loaded.

    Parameters
    ----------
    adata
        What ``load`` was given.
    registry
        Registry of the saved model.

    Returns
    -------
    ``adata`` itself where it has the model's genes in its order, else a copy that has.

    Raises
    ------
    ValueError
        If genes are missing, or a column has categories that the model does not know.
    """
    if not isinstance(adata, AnnData):
        return adata
    setup = registry["setup_args"]
    obsm_key, features = setup.get("obsm_key"), feature_names_of(registry)
    names = pd.Index(features_of(adata, obsm_key))
    place = "load_query_data(adata, model_or_folder) places other cells on its tree"
    lacking = features.difference(names, sort=False)
    if len(lacking):
        msg = (
            f"adata lacks {len(lacking)} of the model's {len(features)} genes (features): {listing(lacking)}. load "
            f"registers the cells that the model was trained on; {place}, without these genes too."
        )
        raise ValueError(msg)
    for key, known in known_categories(registry).items():
        # a column that is missing is named by setup_anndata
        present = pd.Index(adata.obs[key].dropna().unique()) if key in adata.obs else pd.Index(known)
        new = present[positions_of(present, known) < 0]
        if len(new):
            msg = (
                f"adata.obs[{key!r}] has categories that the model does not know: {listing(new)}. load registers the "
                f"cells that the model was trained on; {place}."
            )
            raise ValueError(msg)
    if names.equals(features) and not adata.is_view:
        return adata
    out = adata.copy() if obsm_key is not None and obsm_key in adata.obsm else adata[:, features].copy()
    if obsm_key is not None and isinstance(out.obsm[obsm_key], pd.DataFrame):
        out.obsm[obsm_key] = out.obsm[obsm_key][list(features)]
    return out


class Trained(Protocol):
    """What is read of a model that was trained, and written to it."""

    adata: Any
    adata_manager: Any
    cell_names_: list[str] | None
    train_indices_: Any
    validation_indices_: Any
    test_indices_: Any

    def _refuse_query(self, what: str) -> None: ...


class TrainingCells:
    """Cells that a model was trained on, in whatever order or company they were loaded.

    The model keeps ``cell_names_``, names of the cells that were split, and ``train_indices_``,
    ``validation_indices_`` and ``test_indices_``, positions among them.

    Parameters
    ----------
    model
        The model.
    """

    def __init__(self, model: Trained) -> None:
        self.model = model

    def start(self) -> None:
        """Refuse a model that cannot be trained; its cells are split again if it was loaded with others."""
        model = self.model
        model._refuse_query("train")
        model.adata_manager.validate(new_columns=True)
        names = model.adata.obs_names.tolist()
        if model.cell_names_ != names:
            model.cell_names_ = names
            model.train_indices_ = model.validation_indices_ = model.test_indices_ = None

    def require(self, what: str) -> None:
        """Refuse what is learned from the training cells where they are not all there as they were.

        Parameters
        ----------
        what
            The method that needs them.

        Raises
        ------
        RuntimeError
            Of a query model.
        ValueError
            If the model was loaded without its cells or with others, or if they were changed in place.
        """
        model = self.model
        model._refuse_query(what)
        if model.adata is None:
            msg = f"{what} needs the cells that the model was trained on: load it with them (adata=)."
            raise ValueError(msg)
        model.adata_manager.validate()
        if model.cell_names_ is None or model.train_indices_ is None:
            msg = (
                f"{what} needs the cells that the model was trained on, which its file does not name: it is of an "
                "earlier version. Load it with exactly those cells (adata=)."
            )
            raise ValueError(msg)
        lost = pd.Index(model.cell_names_).difference(model.adata.obs_names, sort=False)
        if len(lost):
            msg = (
                f"{what} needs the cells that the model was trained on: {len(lost)} of {len(model.cell_names_)} are "
                f"missing in the adata that it was loaded with ({listing(lost, 3)}). Load it with all of them."
            )
            raise ValueError(msg)

    def find(self, registry: dict[str, Any]) -> None:
        """Find the cells of the training among those that a saved model was loaded with.

        Parameters
        ----------
        registry
            Registry of the saved model.
        """
        model = self.model
        if model.adata is None:
            return
        names = model.adata.obs_names
        if model.cell_names_ is None:
            # a file of an earlier version holds positions alone
            state = registry["field_registries"][REGISTRY_KEYS.X_KEY]["state_registry"]
            model.cell_names_ = names.tolist() if state["n_obs"] == len(names) else None
            return
        row = names.get_indexer(model.cell_names_)
        if model.train_indices_ is None or (row < 0).any() or np.array_equal(row, np.arange(len(names))):
            return
        held_out = self.held_out
        model.train_indices_, model.validation_indices_ = row[self.train], row[held_out]
        if model.test_indices_ is not None:
            model.test_indices_ = row[np.asarray(model.test_indices_)]
        model.cell_names_ = names.tolist()

    @property
    def n_split(self) -> int:
        """Number of cells that were split for training; where that is not known, of all cells."""
        model = self.model
        if model.train_indices_ is None or model.validation_indices_ is None:
            return model.adata.n_obs
        parts = (model.train_indices_, model.validation_indices_, model.test_indices_)
        return sum(len(part) for part in parts if part is not None)

    @property
    def train(self) -> NDArray[np.int64]:
        """Positions of the training cells among the cells of the training."""
        return np.asarray(self.model.train_indices_)

    @property
    def held_out(self) -> NDArray[np.int64]:
        """Positions of the validation cells among the cells of the training."""
        model = self.model
        if model.validation_indices_ is not None:
            return np.asarray(model.validation_indices_)
        # of an interrupted training scvi-tools does not keep them
        n_cells = model.adata.n_obs if model.cell_names_ is None else len(model.cell_names_)
        return np.setdiff1d(np.arange(n_cells), self.train)

    @property
    def held_out_names(self) -> pd.Index:
        """Names of the validation cells; none where the model does not know them."""
        model = self.model
        if model.cell_names_ is None or model.train_indices_ is None:
            return pd.Index([], dtype=object)
        return pd.Index(model.cell_names_)[self.held_out]
