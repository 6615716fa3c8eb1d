"""BranchedDiffusion: a diffusion that forks where cell types part."""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import networkx as nx
import numpy as np
from scvi.model.base import BaseModelClass

from hdtree_sc._errors import listing
from hdtree_sc.model._adoption import take_weights, taken_over
from hdtree_sc.model._class_mixin import CRITERIA, Criterion
from hdtree_sc.model._diffusion_mixin import DiffusionMixin
from hdtree_sc.model._expression_mixin import ExpressionMixin
from hdtree_sc.model._extension_mixin import ExtensionMixin
from hdtree_sc.model._file_mixin import FileMixin
from hdtree_sc.model._generative_mixin import GenerativeMixin
from hdtree_sc.model._prefix_mixin import PrefixMixin
from hdtree_sc.model._query_mixin import QueryMixin
from hdtree_sc.model._setup_mixin import SetupMixin, input_shape
from hdtree_sc.model._staged_training import StagedTrainingMixin
from hdtree_sc.model._unplaced_mixin import UnplacedMixin
from hdtree_sc.model._validation import check_likelihood, check_shape
from hdtree_sc.module import BranchedModule
from hdtree_sc.module._branched_diffusion import CONDITIONINGS
from hdtree_sc.train import with_own_settings
from hdtree_sc.tree import Tree
from hdtree_sc.tree._class_tree import LINKAGES, Linkage

if TYPE_CHECKING:
    from anndata import AnnData
    from scvi.model import SCVI

    from hdtree_sc.model._hdtree import HDTree
    from hdtree_sc.module._branched_diffusion import Conditioning
    from hdtree_sc.nn._decoder import Likelihood

FEW_FEATURES = 64
"""So many continuous features need no encoder."""


@with_own_settings
class BranchedDiffusion(
    SetupMixin,
    QueryMixin,
    FileMixin,
    ExtensionMixin,
    PrefixMixin,
    GenerativeMixin,
    DiffusionMixin,
    UnplacedMixin,
    StagedTrainingMixin,
    ExpressionMixin,
    BaseModelClass,
):
    """Generate, transmute and extend known cell types with a diffusion that forks where they part.

    At high noise cells of two types cannot be told apart; a *branch point* is the noise level below which they can.
    All types share one way above it and go their own below. The branch points of all types are a tree.

    Counts are diffused in the latent of a variational autoencoder that is trained first, few continuous features as
    they are.

    Parameters
    ----------
    adata
        AnnData registered with :meth:`setup_anndata`, with ``labels_key=``.
    registry
        Registry of a data module, as in scvi-tools.
    n_latent
        Width of the latent.
    n_hidden
        Width of the hidden layers.
    n_layers
        Number of hidden layers of the encoder.
    dropout_rate
        Dropout rate of the encoder.
    gene_likelihood
        ``"nb"`` or ``"zinb"`` for raw counts, ``"normal"`` for continuous values, ``"bernoulli"`` for values in [0, 1].
    n_pcs
        Principal components of the expression that :func:`hdtree_sc.tl.tree` writes.
    n_input_pcs
        Principal components that the encoder reads.
    latent_model
        A trained :class:`HDTree` or :class:`scvi.model.SCVI` on cells with the same genes and batches, whose encoder
        and decoder are taken over instead of training new ones.
    encode
        Whether there is an encoder; by default not for ``"normal"`` with up to 64 features, which are diffused as they
        are.
    tree
        Tree of the labels: a :class:`hdtree_sc.Tree`, newick or networkx, whose leaves are the labels. Its topology is
        kept and its heights are found. By default both are found.
    criterion
        What counts as mixed: ``"discriminability"`` (the best linear classifier is right for 60 % of the cells of two
        classes) or ``"cosine"``, as published.
    linkage
        How pairs of classes make a tree: ``"complete"``, ``"average"``, or ``"single"``, as published.
    conditioning
        How the network knows the branch: ``"gated_path"``, one network that is told the nodes of the path, or
        ``"multi_head"``, as published: a shared trunk that is evaluated once, and a head for each branch that no other
        class trains.
    encoder, scvi_kwargs
        Not for users: what a saved model was made with.

    Examples
    --------
    >>> import hdtree_sc as ht
    >>> adata = ht.datasets.celegans()
    >>> adata = adata[adata.obs["cell_type"].notna()].copy()
    >>> ht.BranchedDiffusion.setup_anndata(adata, labels_key="cell_type")
    >>> model = ht.BranchedDiffusion(adata)
    >>> model.train()
    >>> points = model.get_branch_points()
    >>> awc = model.transmute(source="ADL", target="AWC")

    References
    ----------
    Tseng et al., Hierarchically branched diffusion models, arXiv 2212.10777. What differs, and why, is in the guide.
    """

    _module_cls = BranchedModule
    _tree_key = "branched"
    # classes are given, not found where cells are apart: without guidance they spill into their neighbours
    _guidance = 1.5

    @property
    def _aligned_noise(self) -> float:  # type: ignore[override]
        # features as they are have shapes that differ as much as their means; a latent evens them out
        return 1.0 if self.module.encoder_kind == "none" else -2.0

    def __init__(
        self,
        adata: AnnData | None = None,
        registry: dict[str, Any] | None = None,
        n_latent: int = 24,
        n_hidden: int = 256,
        n_layers: int = 2,
        dropout_rate: float = 0.0,
        gene_likelihood: Likelihood = "nb",
        n_pcs: int = 30,
        n_input_pcs: int = 50,
        latent_model: HDTree | SCVI | None = None,
        encode: bool | None = None,  # noqa: FBT001
        tree: Tree | nx.DiGraph | str | None = None,
        criterion: Criterion = "discriminability",
        linkage: Linkage = "complete",
        conditioning: Conditioning = "gated_path",
        encoder: str | None = None,
        scvi_kwargs: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(adata, registry)
        for name, value, allowed in (
            ("criterion", criterion, CRITERIA),
            ("linkage", linkage, LINKAGES),
            ("conditioning", conditioning, CONDITIONINGS),
        ):
            if value not in allowed:
                msg = f"{name}: {value!r} is none of {listing(allowed)}."
                raise ValueError(msg)
        if self._setup("labels_key") is None or len(self._registered_labels) < 2:
            msg = "labels_key: BranchedDiffusion needs setup_anndata(adata, labels_key=...) with at least two labels."
            raise ValueError(msg)
        adopted: dict[str, Any] = {} if latent_model is None else taken_over(latent_model, self)
        gene_likelihood = adopted.get("gene_likelihood", gene_likelihood)
        if adata is not None:
            check_shape(adata, n_latent=n_latent, tree_depth=1)
            check_likelihood(adata, self._setup("layer"), gene_likelihood, self._setup("obsm_key"))
        shape = input_shape(self)
        if encoder is None and not adopted:
            few = gene_likelihood == "normal" and shape["n_input"] <= FEW_FEATURES
            encoder = "none" if (few if encode is None else not encode) else "variational"
        if encoder == "none":
            if gene_likelihood != "normal":
                msg = f"encode: gene_likelihood={gene_likelihood!r} needs an encoder; only 'normal' does without."
                raise ValueError(msg)
            n_latent = shape["n_input"]
        given: dict[str, Any] = {
            "n_latent": n_latent,
            "n_hidden": n_hidden,
            "n_layers": n_layers,
            "gene_likelihood": gene_likelihood,
            "n_pcs": n_pcs,
            "n_input_pcs": n_input_pcs,
            "encoder": encoder,
            "scvi_kwargs": scvi_kwargs,
        } | adopted
        self.module = self._module_cls(**shape, dropout_rate=dropout_rate, **given)
        if latent_model is not None:
            take_weights(latent_model, self.module)
        # a file keeps text: the tree as newick, and of another model its weights alone
        self._given = _as_tree(tree)
        tree = None if self._given is None else self._given.to_newick()
        latent_model = None
        n_latent, n_hidden, n_layers, gene_likelihood, n_pcs, n_input_pcs, encoder, scvi_kwargs = given.values()
        self._model_summary_string = (
            f"BranchedDiffusion with n_latent: {n_latent}, n_hidden: {n_hidden}, n_layers: {n_layers}, "
            f"gene_likelihood: {gene_likelihood}, encoder: {encoder}, criterion: {criterion}, linkage: {linkage}"
        )
        self.package_version_ = version("hdtree-sc")
        self.init_params_ = self._get_init_params(locals())

    def train_diffusion(self, *args: Any, **kwargs: Any) -> None:
        """Train the diffusion alone, see :meth:`HDTree.train_diffusion`; :meth:`train` calls it."""
        if self.class_tree_ is not None and any(np.isfinite(self._classes.opens)):
            msg = "train_diffusion would lose the classes that were added: train a new model on all cells instead."
            raise RuntimeError(msg)
        if kwargs.get("space", "latent") != "latent":
            msg = "space: only the latent has branch points; with encode=False the features themselves are the latent."
            raise ValueError(msg)
        super().train_diffusion(*args, **({"gate": "step"} | kwargs))

    def _generator_options(self) -> dict[str, Any]:
        return {"conditioning": self._option("conditioning")}


def _as_tree(tree: Tree | nx.DiGraph | str | None) -> Tree | None:
    """A tree of whatever kind."""
    if tree is None or isinstance(tree, Tree):
        return tree
    if isinstance(tree, str):
        return Tree.from_newick(tree)
    if isinstance(tree, nx.DiGraph):
        return Tree.from_networkx(tree)
    msg = f"tree: a hdtree_sc.Tree, newick or a networkx.DiGraph wanted, got {type(tree).__name__}."
    raise TypeError(msg)
