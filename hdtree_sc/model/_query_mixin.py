"""New cells on an existing tree."""

from __future__ import annotations

import copy
import logging
import warnings
import weakref
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy import sparse

from hdtree_sc._disk import in_memory
from hdtree_sc._keys import UNKNOWN
from hdtree_sc.data._obsm_field import features_of
from hdtree_sc.model._validation import check_values, values_of

if TYPE_CHECKING:
    from typing import Self

logger = logging.getLogger("hdtree_sc")


class QueryMixin:
    """Align other AnnData to a trained model, without touching them.

    Whatever AnnData a getter is given, a copy with the model's genes in the model's order is registered in its place;
    genes that are missing are filled with zeros, and columns that are missing count as unknown.
    """

    _guest: AnnData | None = None
    _query_source: weakref.ref[AnnData] | None = None

    def _refuse_query(self, what: str) -> None:
        """Training cells are known by their rows, and those of a query are others."""
        if self._query_source is not None:
            msg = f"{what}: this model only places query cells on a tree that exists; call it on the reference model."
            raise RuntimeError(msg)

    @classmethod
    def load_query_data(cls, adata: AnnData, reference_model: Self | str, **load_kwargs: Any) -> Self:
        """A model of the same tree over new cells, without retraining.

        Parameters
        ----------
        adata
            New cells. Genes are matched by name; ``obs`` columns that it lacks (batch, labels, time, covariates)
            and categories that training did not know count as unknown. Not changed.
        reference_model
            A trained model, or the folder of a saved one.
        **load_kwargs
            Keyword arguments of ``load`` when a folder is given.

        Returns
        -------
        A trained model whose getters default to ``adata``; pass it to :func:`hdtree_sc.tl.tree` with ``adata``.

        Raises
        ------
        ValueError
            If not one gene is shared.
        RuntimeError
            If the reference was not trained.
        """
        reference = reference_model
        if not isinstance(reference, cls):
            reference = cls.load(reference_model, adata=load_kwargs.pop("adata", False), **load_kwargs)  # type: ignore[attr-defined]
        reference._require_trained("load_query_data")
        model = copy.copy(reference)
        model.id = str(uuid4())
        model.module = copy.deepcopy(reference.module)
        model._guest = None
        model._use(adata, reference._register_aligned(adata))
        return model

    def _use(self, source: AnnData, manager: Any) -> None:
        self._adata = manager.adata
        self._adata_manager = manager
        self._register_manager_for_instance(manager)  # type: ignore[attr-defined]
        self._query_source = weakref.ref(source)

    def _source_adata(self, adata: AnnData | None) -> AnnData:
        """The user's own AnnData behind an argument: of a query model the registered copy lacks its columns."""
        if adata is not None:
            return adata
        source = None if self._query_source is None else self._query_source()
        return self.adata if source is None else source  # type: ignore[attr-defined]

    def _register_aligned(self, adata: AnnData) -> Any:
        """Register an aligned copy of cells under this model's setup and return its manager."""
        cls = type(self)
        registry = self.registry  # type: ignore[attr-defined]
        aligned = self._align(adata, registry["setup_args"])
        likelihood = self.module.gene_likelihood  # type: ignore[attr-defined]
        check_values(aligned, registry["setup_args"].get("layer"), likelihood)
        with warnings.catch_warnings():
            # nothing is trained on these cells
            warnings.filterwarnings("ignore", message=".*Models may not train properly")
            cls.setup_anndata(  # type: ignore[attr-defined]
                aligned, source_registry=registry, extend_categories=True, **registry["setup_args"]
            )
        return cls._get_most_recent_anndata_manager(aligned, required=True)  # type: ignore[attr-defined]

    def _align(self, adata: AnnData, setup: dict[str, Any]) -> AnnData:
        genes = pd.Index(self.get_var_names())  # type: ignore[attr-defined]
        # cells that a model generated hold their values in X
        obsm_key = setup.get("obsm_key")
        if obsm_key is not None and obsm_key in adata.obsm:
            names = pd.Index(features_of(adata, obsm_key))
            adata = AnnData(values_of(adata, None, obsm_key), obs=adata.obs, var=pd.DataFrame(index=names))
        column = adata.var_names.get_indexer(genes)
        found = column >= 0
        if not found.any():
            msg = (
                f"adata shares none of the model's {len(genes)} genes (the model has {', '.join(genes[:3])}, ...; "
                f"adata has {', '.join(adata.var_names[:3])}, ...): both need the same kind of gene name in var_names."
            )
            raise ValueError(msg)
        if not found.all():
            logger.warning(
                "%d of the model's %d genes are not in the query and count as zero.", (~found).sum(), len(genes)
            )
        layer = setup.get("layer")
        layer = layer if layer in adata.layers else None
        values = values_of(adata, layer)
        if not np.array_equal(column, np.arange(adata.n_vars)):
            values = in_memory(values)[:, column[found]]
            if not found.all():
                pick = sparse.csr_matrix(
                    (np.ones(found.sum(), values.dtype), (np.arange(found.sum()), np.flatnonzero(found))),
                    shape=(int(found.sum()), len(genes)),
                )
                values = sparse.csr_matrix(values) @ pick
        out = AnnData(values, obs=pd.DataFrame(index=adata.obs_names), var=pd.DataFrame(index=genes))
        if setup.get("layer") is not None:
            out.layers[setup["layer"]] = out.X
        if obsm_key is not None:
            out.obsm[obsm_key] = out.X.toarray() if sparse.issparse(out.X) else out.X
        categorical = [
            setup.get("batch_key"),
            setup.get("labels_key"),
            *(setup.get("categorical_covariate_keys") or []),
        ]
        for key in filter(None, categorical):
            if key not in adata.obs:
                out.obs[key] = UNKNOWN
            elif adata.obs[key].isna().any():
                out.obs[key] = adata.obs[key].astype(object).fillna(UNKNOWN)
            else:
                out.obs[key] = adata.obs[key]  # categories keep their kind: 1 is not "1"
        numerical = [
            setup.get("time_key"),
            setup.get("size_factor_key"),
            *(setup.get("continuous_covariate_keys") or []),
        ]
        for key in filter(None, numerical):
            if key in adata.obs:
                out.obs[key] = adata.obs[key]
            elif key == setup.get("time_key"):
                out.obs[key] = np.nan
            else:
                msg = f"adata.obs has no column {key!r}, which the model was set up with as a number of each cell."
                raise KeyError(msg)
        return out

    def _validate_anndata(self, adata: AnnData | None = None, copy_if_view: bool = True) -> AnnData:  # noqa: FBT001, FBT002
        """The registered AnnData behind ``adata``: itself, or an aligned copy; the user's is never written to."""
        if adata is None or (self._query_source is not None and self._query_source() is adata):
            adata = self.adata  # type: ignore[attr-defined]
        if adata is None:
            msg = "adata: the model was loaded without data, so name the cells (adata=)."
            raise ValueError(msg)
        known = self.get_anndata_manager(adata)  # type: ignore[attr-defined]
        # a copy carries the mark of what it was copied from, and may hold labels that that had not
        if known is None or known.adata is not adata:
            # one guest at a time: scvi-tools would keep every AnnData that was ever asked about
            if self._guest is not None:
                self.deregister_manager(self._guest)  # type: ignore[attr-defined]
            manager = self._register_aligned(adata)
            self._register_manager_for_instance(manager)  # type: ignore[attr-defined]
            self._guest = manager.adata
            return manager.adata
        return super()._validate_anndata(adata, copy_if_view=copy_if_view)  # type: ignore[misc]
