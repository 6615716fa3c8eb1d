"""TreeVAE: a tree of latents that grows while it is trained."""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np
from scvi.model.base import BaseModelClass, RNASeqMixin, VAEMixin

from hdtree_sc.model._file_mixin import FileMixin
from hdtree_sc.model._growing_mixin import GrowingMixin
from hdtree_sc.model._latent_tree_mixin import LatentTreeMixin
from hdtree_sc.model._query_mixin import QueryMixin
from hdtree_sc.model._setup_mixin import SetupMixin, input_shape
from hdtree_sc.model._tree_diffusion_mixin import TreeDiffusionMixin
from hdtree_sc.model._unplaced_mixin import UnplacedMixin
from hdtree_sc.model._validation import check_likelihood, check_shape
from hdtree_sc.module import TreeVAEModule

if TYPE_CHECKING:
    from anndata import AnnData

    from hdtree_sc.nn._decoder import Likelihood


class TreeVAE(
    SetupMixin,
    QueryMixin,
    FileMixin,
    LatentTreeMixin,
    TreeDiffusionMixin,
    UnplacedMixin,
    GrowingMixin,
    RNASeqMixin,
    VAEMixin,
    BaseModelClass,
):
    """Learn a tree of latents.

    Parameters
    ----------
    adata
        AnnData registered with :meth:`setup_anndata`.
    """

    _module_cls = TreeVAEModule
    _tree_key = "treevae"

    def __init__(
        self,
        adata: AnnData | None = None,
        registry: dict[str, Any] | None = None,
        n_latent: int = 24,
        n_node_latent: int = 10,
        n_hidden: int | None = None,
        n_layers: int | None = None,
        dropout_rate: float = 0.0,
        gene_likelihood: Likelihood = "nb",
        max_leaves: int | None = None,
        max_depth: int = 10,
        min_leaf_size: int | None = None,
        n_pcs: int = 30,
        n_input_pcs: int | None = None,
        nu: float = 0.2,
        exaggeration: float = 2.0,
    ) -> None:
        super().__init__(adata, registry)
        if adata is not None:
            check_shape(adata, n_latent=n_latent, tree_depth=1)
            check_likelihood(adata, self._setup("layer"), gene_likelihood, self._setup("obsm_key"))
        n_cells = self.summary_stats.n_cells
        # resolved here, so that the file says which: a model may be loaded with other cells
        many = n_cells >= 16_000
        n_hidden = n_hidden or (512 if many else 256)
        n_layers = n_layers or (3 if many else 2)
        n_input_pcs = n_input_pcs or (100 if many else 50)
        min_leaf_size = min_leaf_size or int(np.clip(n_cells // 50, 4, 50))
        max_leaves = max_leaves or int(np.clip(n_cells // (2 * min_leaf_size), 2, 32))
        self.module = self._module_cls(
            **input_shape(self),
            n_latent=n_latent,
            n_node_latent=n_node_latent,
            n_hidden=n_hidden,
            n_layers=n_layers,
            dropout_rate=dropout_rate,
            max_nodes=4 * max_leaves,
            gene_likelihood=gene_likelihood,
            n_pcs=n_pcs,
            n_input_pcs=n_input_pcs,
            nu=nu,
            exaggeration=exaggeration,
        )
        self._model_summary_string = (
            f"TreeVAE with n_latent: {n_latent}, n_node_latent: {n_node_latent}, n_hidden: {n_hidden}, "
            f"n_layers: {n_layers}, gene_likelihood: {gene_likelihood}, max_leaves: {max_leaves}, "
            f"min_leaf_size: {min_leaf_size}, max_depth: {max_depth}"
        )
        self.package_version_ = version("hdtree-sc")
        self.init_params_ = self._get_init_params(locals())
