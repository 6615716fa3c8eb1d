"""Cells of an AnnData as minibatches: the only user of scvi-tools' loaders and managers."""

from __future__ import annotations

import warnings
import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import pandas as pd
import torch
from scvi.data._utils import _assign_adata_uuid

from hdtree_sc._errors import whole_number
from hdtree_sc.data._align import aligned
from hdtree_sc.data._arguments import rows_of
from hdtree_sc.data._fingerprint import Fingerprint
from hdtree_sc.data._value_checks import check_values

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from anndata import AnnData
    from numpy.typing import NDArray
    from scvi.data import AnnDataManager

    from hdtree_sc.data._arguments import Rows

    Minibatch = dict[str, torch.Tensor]

INFERENCE_BATCH = 4096


@dataclass(frozen=True)
class Query:
    """The user's own AnnData behind a query model, which holds an aligned copy of it.

    Parameters
    ----------
    source
        The AnnData.
    fingerprint
        What it looked like.
    """

    source: weakref.ref[AnnData]
    fingerprint: Fingerprint

    @classmethod
    def of(cls, source: AnnData, layer: str | None, obsm_key: str | None) -> Query:
        """An AnnData as it is now, with the layer or the entry that the model reads where it has it."""
        layer = layer if layer in source.layers else None
        return cls(weakref.ref(source), Fingerprint.of(source, layer, obsm_key if obsm_key in source.obsm else None))


class Readable(Protocol):
    """What a reader needs of a model: scvi-tools' base, with room for a query and for one guest."""

    module: Any
    registry: dict[str, Any]
    _adata_manager: Any
    _guest: AnnDataManager | None
    _query: Query | None

    @property
    def adata(self) -> Any:
        """The registered cells, or None."""

    def _validate_anndata(self, adata: AnnData | None = None) -> AnnData: ...

    def _make_data_loader(self, *, adata: AnnData, indices: Any, batch_size: int) -> Any: ...


def over(batches: Iterable[Any], function: Callable[[Any], tuple[torch.Tensor, ...]]) -> list[NDArray[Any]]:
    """What a function gives for each minibatch, joined over all of them."""
    parts = [[part.cpu() for part in function(batch)] for batch in batches]
    return [torch.cat(column).numpy() for column in zip(*parts, strict=True)]


class CellReader:
    """Reads cells for a model.

    Only the very object that was registered is read as it is. Of whatever other AnnData it is given, copies and views
    of the registered one among them, an aligned copy is registered in its place: genes by name in the model's order,
    and columns and categories that the model does not know count as unknown.

    Parameters
    ----------
    model
        The model.
    """

    def __init__(self, model: Readable) -> None:
        self.model = model

    # ---------------------------------------------------------------- minibatches

    def batches(
        self,
        adata: AnnData | None = None,
        indices: Rows = None,
        batch_size: int | None = None,
        dataloader: Iterator[Minibatch] | None = None,
    ) -> Iterator[Minibatch]:
        """Minibatches of cells on the model's device.

        Parameters
        ----------
        adata
            The cells; those of the model by default.
        indices
            Rows of them.
        batch_size
            Cells at a time, 4,096 by default.
        dataloader
            Minibatches to use in place of ``adata``.
        """
        model = self.model
        if dataloader is None:
            size = INFERENCE_BATCH if batch_size is None else whole_number("batch_size", batch_size)
            adata = model._validate_anndata(adata)
            rows = rows_of(indices, adata.obs_names)
            dataloader = model._make_data_loader(adata=adata, indices=rows, batch_size=size)
        elif adata is not None or indices is not None:
            msg = "dataloader: it says which cells are read; leave adata and indices out, or give them without it."
            raise ValueError(msg)
        for tensors in dataloader:
            yield {key: value.to(model.module.device) for key, value in tensors.items()}

    def read(
        self, function: Callable[[Minibatch], tuple[torch.Tensor, ...]], *cells: Any, **options: Any
    ) -> list[NDArray[Any]]:
        """What a function gives for each minibatch of :meth:`batches`, joined over all of them."""
        return over(self.batches(*cells, **options), function)

    # ---------------------------------------------------------------- cells and their names

    def names(self, adata: AnnData | None, indices: Rows, dataloader: Any, n_cells: int) -> pd.Index:
        """Names of the cells that were read."""
        if dataloader is not None:
            return pd.RangeIndex(n_cells)
        names = (self.model.adata if adata is None else adata).obs_names
        return names[rows_of(indices, names)]

    def columns(self, adata: AnnData | None, indices: Rows) -> pd.DataFrame:
        """Columns of the user's own cells: of a query model the registered copy lacks some."""
        if adata is None:
            source = self._source
            adata = self.model.adata if source is None else source
        return adata.obs.iloc[rows_of(indices, adata.obs_names)]

    @property
    def _source(self) -> AnnData | None:
        query = self.model._query
        return None if query is None else query.source()

    # ---------------------------------------------------------------- managers

    def manager_of(self, adata: AnnData | None) -> AnnDataManager:
        """The manager of the registered AnnData behind an argument: of itself, or of an aligned copy."""
        model, source = self.model, self._source
        if adata is None or adata is source:
            if source is not None and model._query is not None:
                model._query.fingerprint.require_unchanged(source)
            if model.adata is None:
                msg = "adata: the model was loaded without data, so name the cells (adata=)."
                raise ValueError(msg)
            return model._adata_manager
        known = self.known(adata)
        if known is None:
            # one guest at a time: scvi-tools would keep every AnnData that was ever asked about
            known = model._guest = self.register_aligned(adata)
        return known

    def known(self, adata: AnnData | None) -> AnnDataManager | None:
        """The manager of an AnnData that is read as it is: of that very object, not of a copy of it."""
        for manager in (self.model._adata_manager, self.model._guest):
            if manager is not None and manager.adata is adata:
                return manager
        return None

    def register_aligned(self, adata: AnnData) -> AnnDataManager:
        """Register an aligned copy of cells under this model's setup, with this model alone, and return its manager."""
        model = self.model
        module, registry = model.module, model.registry
        cls: Any = type(model)
        cells = aligned(adata, registry, is_count=module.is_count)
        setup = registry["setup_args"]
        check_values(cells, setup.get("layer"), module.gene_likelihood)
        with warnings.catch_warnings():
            # nothing is trained on these cells
            warnings.filterwarnings("ignore", message=".*Models may not train properly")
            cls.setup_anndata(cells, source_registry=registry, extend_categories=True, **setup)
        manager = cls._get_most_recent_anndata_manager(cells, required=True)
        # no model is made with them, and they would never be freed
        del cls._setup_adata_manager_store[manager.adata_uuid]
        return manager

    def is_query(self, adata: AnnData) -> bool:
        """Whether cells are others than those of the training, or not all of them, or in another order."""
        model = self.model
        registered = model.adata
        if model._query is not None or registered is None:
            return True
        if adata is registered:
            return False
        if not adata.obs_names.equals(registered.obs_names):
            return True
        same = aligned(adata, model.registry, is_count=model.module.is_count)
        return not model._adata_manager.fingerprint.has_values_of(same)


def make_room(cls: Any, manager: AnnDataManager) -> None:
    """Give an AnnData a mark of its own: a copy carries that of what it was copied from, which is still in use."""
    held = cls._setup_adata_manager_store.get(manager.adata_uuid)
    if held is not None and held.adata is not manager.adata:
        _assign_adata_uuid(manager.adata, overwrite=True)
        manager._assign_uuid()
