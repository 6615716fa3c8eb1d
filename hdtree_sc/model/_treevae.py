"""TreeVAE: a tree of latents that grows while it is trained."""

from __future__ import annotations

import warnings
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from scvi.model.base import BaseModelClass

from hdtree_sc.model._bound_mixin import BoundMixin
from hdtree_sc.model._expression_mixin import ExpressionMixin
from hdtree_sc.model._file_mixin import FileMixin
from hdtree_sc.model._growing_mixin import GrowingMixin
from hdtree_sc.model._hdtree import MANY_CELLS
from hdtree_sc.model._latent_tree_mixin import LatentTreeMixin
from hdtree_sc.model._query_mixin import QueryMixin
from hdtree_sc.model._setup_mixin import SetupMixin, input_shape
from hdtree_sc.model._tree_diffusion_mixin import TreeDiffusionMixin
from hdtree_sc.model._unplaced_mixin import UnplacedMixin
from hdtree_sc.model._validation import check_likelihood, check_shape
from hdtree_sc.module import TreeVAEModule
from hdtree_sc.train import with_own_settings

if TYPE_CHECKING:
    from anndata import AnnData

    from hdtree_sc.nn import Likelihood


@with_own_settings
class TreeVAE(
    SetupMixin,
    QueryMixin,
    FileMixin,
    LatentTreeMixin,
    TreeDiffusionMixin,
    UnplacedMixin,
    GrowingMixin,
    ExpressionMixin,
    BoundMixin,
    BaseModelClass,
):
    """Learn a tree of cells that grows while it is trained, with latents at its nodes.

    Every cell goes down the tree by routers and has a latent at each node that it passes; the leaf's decoder tells its
    expression. A leaf is split where held-out cells gain by it, so that number and depth of the leaves follow the data.
    A second stage, :meth:`train_diffusion`, refines what leaves generate.

    Parameters
    ----------
    adata
        AnnData registered with :meth:`setup_anndata`.
    registry
        Registry of a data module, as in scvi-tools.
    n_latent
        Width of the embedding, which :meth:`get_latent` gives and the routers read.
    n_node_latent
        Width of the latent of each node.
    n_detail
        Width of the details, which only the posteriors of the latents read: what the embedding leaves out.
    n_hidden
        Width of the hidden layers; by default 256, and 512 from 16,000 cells on.
    n_layers
        Number of hidden layers of the encoder; by default 2, and 3 from 16,000 cells on.
    dropout_rate
        Dropout rate of the encoder.
    gene_likelihood
        ``"nb"`` or ``"zinb"`` for raw counts, ``"normal"`` for continuous values, ``"bernoulli"`` for values in [0, 1].
    max_leaves
        Largest number of leaves; by default 32, and fewer for few cells.
    max_depth
        Largest number of levels below the root.
    min_leaf_size
        Smallest number of training cells of a leaf; by default 50, and fewer for fewer than 2,500 cells.
    n_pcs
        Principal components of the normalised expression in which neighbours are searched.
    n_input_pcs
        Principal components that the encoder reads; by default 50, and 100 from 16,000 cells on.
    image_shape
        Height and width of images, whose pixels are the features, row by row: encoder and decoder are convolutions
        then. ``"auto"`` takes ``adata.uns["image_shape"]`` if that is there and fits the number of features, as it
        never is of genes; None: features are no pixels.
    nu
        Degrees of freedom of the contrastive kernel; small is sharp.
    exaggeration
        Attraction of neighbours: 0.5 saturates, 2 drives groups apart.

    Examples
    --------
    >>> import hdtree_sc as ht
    >>> adata = ht.datasets.celegans()
    >>> ht.TreeVAE.setup_anndata(adata)
    >>> model = ht.TreeVAE(adata)
    >>> model.train()
    >>> ht.tl.tree(adata, model)
    >>> model.train_diffusion()
    >>> same_cell_in_each_leaf = model.generate(10, per_leaf=True)

    References
    ----------
    TreeVAE (Manduchi et al., arXiv 2306.08984), counts as in scTree (arXiv 2406.19300), the second stage of
    Diffuse-TreeVAE (arXiv 2407.06124) and TreeDiffusion (arXiv 2410.16910). What differs, and why, is in the guide.
    """

    _module_cls = TreeVAEModule
    _tree_key = "treevae"

    def __init__(
        self,
        adata: AnnData | None = None,
        registry: dict[str, Any] | None = None,
        n_latent: int = 24,
        n_node_latent: int = 10,
        n_detail: int = 16,
        n_hidden: int | None = None,
        n_layers: int | None = None,
        dropout_rate: float = 0.0,
        gene_likelihood: Likelihood = "nb",
        max_leaves: int | None = None,
        max_depth: int = 10,
        min_leaf_size: int | None = None,
        n_pcs: int = 30,
        n_input_pcs: int | None = None,
        image_shape: tuple[int, int] | Literal["auto"] | None = "auto",
        nu: float = 0.2,
        exaggeration: float = 2.0,
    ) -> None:
        super().__init__(adata, registry)
        if adata is not None:
            check_shape(adata, n_latent=n_latent, tree_depth=1)
            check_likelihood(adata, self._setup("layer"), gene_likelihood, self._setup("obsm_key"))
        for name, value, least in (
            ("n_node_latent", n_node_latent, 1), ("n_detail", n_detail, 1), ("max_depth", max_depth, 1),
            ("max_leaves", max_leaves, 1), ("min_leaf_size", min_leaf_size, 2),
        ):  # fmt: skip
            if value is not None and value < least:
                msg = f"{name}: {value} given, at least {least} wanted."
                raise ValueError(msg)
        n_cells = self.summary_stats.n_cells
        # resolved here, so that the file says which: a model may be loaded with other cells
        many = n_cells >= MANY_CELLS
        n_hidden = n_hidden or (512 if many else 256)
        n_layers = n_layers or (3 if many else 2)
        n_input_pcs = n_input_pcs or (100 if many else 50)
        min_leaf_size = min_leaf_size or int(np.clip(n_cells // 50, 4, 50))
        max_leaves = max_leaves or int(np.clip(n_cells // (2 * min_leaf_size), 2, 32))
        if image_shape == "auto":
            image_shape = _stored_shape(adata, self.summary_stats.n_vars)
        elif image_shape is not None:
            image_shape = _checked_shape(image_shape, self.summary_stats.n_vars)
        self.module = self._module_cls(
            **input_shape(self),
            n_latent=n_latent,
            n_node_latent=n_node_latent,
            n_detail=n_detail,
            image_shape=image_shape,
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


def _stored_shape(adata: AnnData | None, n_vars: int) -> tuple[int, int] | None:
    """Shape of the images that an AnnData says it holds, or None."""
    stored = None if adata is None else adata.uns.get("image_shape")
    if stored is None:
        return None
    try:
        return _checked_shape(tuple(np.ravel(stored).astype(int)), n_vars)
    except (TypeError, ValueError):
        warnings.warn(
            f"adata.uns['image_shape'] is {stored!r}, which is no height and width of {n_vars} pixels: features are "
            "not taken for pixels. Say image_shape=None to see this no more.",
            stacklevel=3,
        )
        return None


def _checked_shape(shape: tuple[int, ...], n_vars: int) -> tuple[int, int]:
    if len(shape) != 2 or shape[0] * shape[1] != n_vars or min(shape) < 4:
        msg = f"image_shape: {tuple(shape)} is no height and width, at least 4 each, of {n_vars} pixels."
        raise ValueError(msg)
    return int(shape[0]), int(shape[1])
