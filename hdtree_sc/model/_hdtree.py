"""HDTree: a learned tree of cells."""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
import torch
from scvi import settings
from scvi.model.base import VAEMixin

from hdtree_sc._docs import READS, TRAINS, shared_params
from hdtree_sc._errors import check_among
from hdtree_sc._keys import UNKNOWN
from hdtree_sc.data import PairSplitter, check_likelihood, check_shape, finite_number, positions_of, text_of
from hdtree_sc.generate import JointFit
from hdtree_sc.graph import nearest_neighbors
from hdtree_sc.growth import BUILDERS, TreeBuilder, build_tree, structure_codebook
from hdtree_sc.model._expression import with_rows
from hdtree_sc.model._generative import GenerativeTreeModel
from hdtree_sc.module import TIME_KEY, CodebookHead, HDTreeModule
from hdtree_sc.nn import Metric
from hdtree_sc.train import TreeTrainingPlan, TreeTrainRunner, train_on_pairs, with_own_settings

if TYPE_CHECKING:
    from pathlib import Path

    from anndata import AnnData
    from numpy.typing import NDArray

    from hdtree_sc.data import Rows
    from hdtree_sc.nn import Likelihood
    from hdtree_sc.tree import Tree

N_CELLS_LARGE = 16_000
"""From so many cells on they can feed a larger encoder."""
TARGET_STEPS = 800
"""Steps that a default training takes on a small data set."""
HELD_OUT_CELLS = 5_000
"""Splits are checked on at most so many validation cells."""


@with_own_settings
class HDTree(GenerativeTreeModel):
    """Learn a tree of cells: one latent, one hierarchical codebook, one count decoder.

    The encoder is trained so that expression neighbours meet (soft contrastive loss), so that the decoder can predict
    their counts (likelihood), and so that they stay close to the codes of their tree path (commitment). The codes are
    the running means of the cells they hold. Number and depth of the branches follow the data: K is never given.

    Parameters
    ----------
    adata
        AnnData registered with :meth:`setup_anndata`.
    registry
        Registry of a data module, as in scvi-tools.
    n_latent
        Width of the latent.
    tree_depth
        Largest number of tree levels below the root.
    n_hidden
        Width of the hidden layers; by default 256, and 512 from 16,000 cells on.
    n_layers
        Number of hidden layers of the encoder; by default 2, and 3 from 16,000 cells on.
    dropout_rate
        Dropout rate of the encoder.
    gene_likelihood
        ``"nb"`` or ``"zinb"`` for raw counts, ``"normal"`` for continuous values (log expression, qPCR, protein),
        ``"bernoulli"`` for values in [0, 1].
    tree_builder
        How the final tree is put together, see :meth:`build_tree`; by default ``"information"``, with
        ``joint_diffusion`` ``"codebook"``.
    max_leaves
        Largest number of leaves.
    min_cells
        Smallest number of training cells of a leaf; by default 10, less for fewer than 200 cells.
    n_pcs
        Principal components of the normalised expression in which neighbours are searched.
    n_input_pcs
        Principal components that the encoder reads; by default 50, and 100 from 16,000 cells on. From few cells an
        encoder of thousands of genes cannot learn what is noise; with components it can.
    nu
        Degrees of freedom of the contrastive kernel; small is sharp.
    exaggeration
        Attraction of neighbours: 0.5 saturates, 2 drives groups apart.
    use_labels
        Whether the latent is trained to predict the labels of ``labels_key``, for the cells that have one. Off by
        default: a tree that was trained on the labels cannot be judged by them.
    metric
        Distances of the contrastive loss: ``"euclidean"``, or ``"hyperbolic"`` as the paper says.
    joint_diffusion
        Whether a diffusion over what the encoder reads is trained with the rest, conditioned on the codes of each
        cell's path, as the paper has it. The codebook then is structured several times in training, its codes are those
        of the tree (``tree_builder="codebook"``), and the model generates without :meth:`train_diffusion`.
    lambda_hql
        Weight of the codebook's term in the loss: the share of the latents' scatter that their codes leave unexplained.
    lambda_ddp
        Weight of the denoising loss of ``joint_diffusion``.
    lambda_likelihood
        Weight of the negative log likelihood, in nats per feature.

    Examples
    --------
    >>> import hdtree_sc as ht
    >>> adata = ht.datasets.celegans()
    >>> ht.HDTree.setup_anndata(adata, labels_key="cell_type")
    >>> model = ht.HDTree(adata)
    >>> model.train()
    >>> ht.tl.tree(adata, model)

    References
    ----------
    Zang et al., HDTree, arXiv 2506.23287. What differs from the published code, and why, is in the user guide.
    """

    module: HDTreeModule
    _module_cls = HDTreeModule
    _data_splitter_cls = PairSplitter
    _training_plan_cls = TreeTrainingPlan
    _train_runner_cls = TreeTrainRunner

    def __init__(
        self,
        adata: AnnData | None = None,
        registry: dict[str, Any] | None = None,
        n_latent: int = 24,
        tree_depth: int = 10,
        n_hidden: int | None = None,
        n_layers: int | None = None,
        dropout_rate: float = 0.0,
        gene_likelihood: Likelihood = "nb",
        tree_builder: TreeBuilder | None = None,
        max_leaves: int = 64,
        min_cells: int | None = None,
        n_pcs: int = 30,
        n_input_pcs: int | None = None,
        nu: float = 0.2,
        exaggeration: float = 2.0,
        use_labels: bool = False,  # noqa: FBT001, FBT002
        *,
        metric: Metric = "euclidean",
        joint_diffusion: bool = False,
        lambda_hql: float = 0.5,
        lambda_ddp: float = 1.0,
        lambda_likelihood: float = 0.3,
    ) -> None:
        super().__init__(adata, registry)
        tree_builder = tree_builder or ("codebook" if joint_diffusion else "information")
        check_among("tree_builder", tree_builder, BUILDERS)
        check_among("metric", metric, get_args(Metric))
        for name, weight in (
            ("lambda_hql", lambda_hql), ("lambda_ddp", lambda_ddp), ("lambda_likelihood", lambda_likelihood)
        ):  # fmt: skip
            if finite_number(name, weight) < 0:
                msg = f"{name}: {weight} given, a weight of 0 or more wanted."
                raise ValueError(msg)
        if adata is not None:
            check_shape(adata, n_latent=n_latent, tree_depth=tree_depth)
            check_likelihood(adata, self._setup.argument("layer"), gene_likelihood, self._setup.argument("obsm_key"))
        stats = self.summary_stats
        # resolved here, so that the file says which: a model may be loaded with other cells
        many = stats.n_cells >= N_CELLS_LARGE
        n_hidden = n_hidden or (512 if many else 256)
        n_layers = n_layers or (3 if many else 2)
        n_input_pcs = n_input_pcs or (100 if many else 50)
        self.module = self._module_cls(
            **self._setup.input_shape(stats),
            n_latent=n_latent,
            n_hidden=n_hidden,
            n_layers=n_layers,
            dropout_rate=dropout_rate,
            tree_depth=tree_depth,
            gene_likelihood=gene_likelihood,
            n_pcs=n_pcs,
            n_input_pcs=n_input_pcs,
            predicted_labels=self._predicted_labels() if use_labels else (),
            has_time=self._setup.argument("time_key") is not None,
            nu=nu,
            exaggeration=exaggeration,
            metric=metric,
            joint_diffusion=joint_diffusion,
            label_numbers=(positions_of(self._setup.label_categories, self._setup.labels) + 1).tolist() or (0,),
        )
        self._model_summary_string = (
            f"HDTree with n_latent: {n_latent}, tree_depth: {tree_depth}, n_hidden: {n_hidden}, n_layers: {n_layers}, "
            f"gene_likelihood: {gene_likelihood}, tree_builder: {tree_builder}, max_leaves: {max_leaves}"
        )
        self.package_version_ = version("hdtree-sc")
        self.init_params_ = self._get_init_params(locals())

    def _predicted_labels(self) -> tuple[bool, ...]:
        """Of each registered label, whether it is one to learn: the unknown one is not."""
        known = tuple(text_of(label) != UNKNOWN for label in self._setup.label_categories)
        if self._setup.argument("labels_key") is None or sum(known) < 2:
            msg = "use_labels: setup_anndata needs a labels_key= with at least two known labels."
            raise ValueError(msg)
        return known

    # ---------------------------------------------------------------- training

    @property
    def _min_cells(self) -> int:
        given = self._option("min_cells")
        return given if given is not None else int(np.clip(self._split.n_split // 20, 2, 10))

    @property
    def _max_leaves(self) -> int:
        # a leaf should hold some ten cells on average; those that are noise are found on held-out cells
        return int(np.clip(self._split.n_split // 10, 2, self._option("max_leaves")))

    @shared_params(TRAINS)
    def train(
        self,
        max_epochs: int | None = None,
        accelerator: str = "auto",
        devices: int | list[int] | str = "auto",
        train_size: float | None = None,
        validation_size: float | None = None,
        shuffle_set_split: bool = True,  # noqa: FBT001, FBT002
        batch_size: int | None = None,
        early_stopping: bool = False,  # noqa: FBT001, FBT002
        n_neighbors: int = 15,
        checkpoint_dir: str | Path | None = None,
        datasplitter_kwargs: dict[str, Any] | None = None,
        plan_kwargs: dict[str, Any] | None = None,
        **trainer_kwargs: Any,
    ) -> None:
        """Train encoder, decoder and codebook together, then build the tree.

        Ctrl-C ends training early and leaves a usable model.

        Parameters
        ----------
        max_epochs
            Passes over the training cells; by default about 800 steps, at least 30 and at most 400 passes.
        datasplitter_kwargs
            Keyword arguments of the splitter, among them ``decoded_share`` (of each minibatch, 0.25 by default) and
            ``resident`` (whether expression stays on the device).
        plan_kwargs
            Keyword arguments of the training plan (``lr``, ``compile``, ...) and of the module's loss
            (``contrastive_weight``, ``reconstruction_weight``, ``commitment_weight``, ``time_weight``).

        Raises
        ------
        ValueError
            If a minibatch is larger than the training set, or several devices are used without a seed.

        Examples
        --------
        >>> import hdtree_sc as ht
        >>> ht.HDTree.setup_anndata(adata)
        >>> model = ht.HDTree(adata)
        >>> model.train()
        >>> ht.tl.tree(adata, model)
        """
        self._require_cells("train() draws neighbours of cells, so the model needs them: load or make it with adata=.")
        train_on_pairs(
            self,
            super().train,
            n_steps=TARGET_STEPS,
            least_epochs=30,
            max_epochs=max_epochs,
            accelerator=accelerator,
            devices=devices,
            train_size=train_size,
            validation_size=validation_size,
            shuffle_set_split=shuffle_set_split,
            batch_size=batch_size,
            early_stopping=early_stopping,
            n_neighbors=n_neighbors,
            checkpoint_dir=checkpoint_dir,
            datasplitter_kwargs=datasplitter_kwargs,
            plan=self._plan(),
            plan_kwargs=plan_kwargs,
            represent=self._represent,
            encoder_input=self._encoder_input,
            begin=self._drop_generator,
            trainer_kwargs=trainer_kwargs,
        )
        self.build_tree()

    def _plan(self) -> dict[str, Any]:
        """Arguments of the training plan."""
        options = {"max_leaves": self._max_leaves, "min_cells": self._min_cells}
        structure = None
        if self._option("tree_builder") == "codebook":

            def structure(latent: torch.Tensor) -> None:
                structure_codebook(self.module.codebook, latent.float().cpu().numpy(), seed=self._seed(), **options)

        return options | {
            "seed": settings.seed,
            "structure": structure,
            "commitment_weight": self._option("lambda_hql"),
            "reconstruction_weight": self._option("lambda_likelihood"),
            "diffusion_weight": self._option("lambda_ddp"),
        }

    def _fit_before(self, train_indices: NDArray[np.int64]) -> None:
        if not bool(self.module.scaler.fitted):
            # it may refuse the times, and the scaler must not count as fitted then
            self.train_indices_ = train_indices
            self._fit_time(train_indices)
        super()._fit_before(train_indices)
        if self.module.joint is not None:
            points, _ = self._encoder_input()
            self.module.joint.fit_whitening(torch.from_numpy(points[train_indices]))

    def _fit_time(self, rows: NDArray[np.int64]) -> None:
        """Keep mean and standard deviation of the known times of training cells."""
        if self.module.time_head is None:
            return
        time = np.asarray(self.adata_manager.get_from_registry(TIME_KEY), dtype=float).ravel()[rows]
        known = time[np.isfinite(time)]
        if len(known) < 2 or known.std() == 0:
            column = self._setup.argument("time_key")
            msg = f"time_key: adata.obs[{column!r}] has no two different times among the training cells."
            raise ValueError(msg)
        self.module.time_moments.copy_(torch.tensor([known.mean(), known.std()]))

    def build_tree(
        self,
        builder: TreeBuilder | None = None,
        *,
        max_leaves: int | None = None,
        min_cells: int | None = None,
    ) -> None:
        """Rebuild the tree on the latents of the training cells, without training.

        The tree has at most ``max_leaves`` leaves of ``min_cells`` cells, and of those splits the ones that the
        validation cells support: these fall on the side where their nearest training cells in expression are.

        Parameters
        ----------
        builder
            ``"information"``: micro-codes merged so that the least is lost of what groups say on where walks over
            neighbours end. ``"codebook"``: the tree and the codes that the codebook holds, which training structured
            if the constructor's ``tree_builder`` was this one. ``"links"``: micro-codes merged by observed over
            expected neighbour links, which follows where cells are dense. ``"ward"``: micro-codes merged by
            size-weighted Ward. ``"bisecting"``: top-down 2-means. The
            constructor's ``tree_builder`` by default.
        max_leaves
            Largest number of leaves, the constructor's by default.
        min_cells
            Smallest number of training cells of a leaf, the constructor's by default.

        Examples
        --------
        >>> model.build_tree("ward", max_leaves=8)
        >>> len(model.get_tree().leaves) <= 8
        True
        """
        self._require_trained("build_tree")
        self._split.require("build_tree")
        builder = builder or self._option("tree_builder")
        check_among("builder", builder, BUILDERS)
        self._drop_generator()
        build_tree(
            self.module.codebook,
            self.get_latent(indices=self.train_indices_),
            builder=builder,
            max_leaves=max_leaves or self._max_leaves,
            min_cells=min_cells or self._min_cells,
            held_out=self._held_out(),
            seed=self._seed(),
        )
        self._fit_unplaced()
        if self.module.joint is not None:
            self._hand_over()

    @torch.inference_mode()
    def _hand_over(self) -> None:
        """The generator that training learned jointly, over the nodes of the tree as it is."""
        fit = JointFit(self.module, self._places(), seed=self._seed())
        cells = self._learned_cells("input", fit.places)
        params = fit.params(cells["points"].shape[1], {"gate": "none"})
        diffusion, pool = fit.begun(params, cells, self._split.train, "input")
        self._keep_generator(diffusion, pool, params, "input")

    def _held_out(self) -> tuple[NDArray[np.float32], NDArray[np.int32]] | None:
        """Latents of validation cells and the training cells nearest to each in expression."""
        rows = self._split.held_out[:HELD_OUT_CELLS]
        if len(rows) == 0:
            return None
        reference = self.get_expression_pca(indices=self.train_indices_)
        near, _ = nearest_neighbors(reference, 15, queries=self.get_expression_pca(indices=rows))
        return self.get_latent(indices=rows), near

    # ---------------------------------------------------------------- getters

    def _head(self) -> CodebookHead:
        return CodebookHead(self.module.codebook)

    def get_tree(self) -> Tree:
        """The tree, with the number of training cells of each node.

        Returns
        -------
        :class:`hdtree_sc.Tree`; its ``codebook`` holds the nodes' latents, its heights the dissimilarity at which the
        children of a node part.
        """
        return super().get_tree()

    get_reconstruction_error = with_rows(VAEMixin.get_reconstruction_error)

    @torch.inference_mode()
    @shared_params(READS)
    def get_time(
        self,
        adata: AnnData | None = None,
        indices: Rows = None,
        batch_size: int | None = None,
    ) -> NDArray[np.float32]:
        """Time predicted from each cell's latent, also for cells whose time is not known.

        Returns
        -------
        float32 array (n_cells,), in the units of ``time_key``.

        Raises
        ------
        RuntimeError
            Before training, or of a model that was set up without ``time_key``.
        """
        self._require_trained("get_time")
        module = self.module
        if module.time_head is None:
            msg = "get_time needs a model that was set up with time_key=."
            raise RuntimeError(msg)
        return self._reader.read(lambda t: (module.predicted_time(module.latents(t)),), adata, indices, batch_size)[0]
