"""TreeVAE: a tree of latents that grows while it is trained."""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
import torch

from hdtree_sc._docs import TRAINS, shared_params
from hdtree_sc._errors import check_among
from hdtree_sc.data import PairSplitter, check_likelihood, check_shape, shape_of_images, whole_numbers
from hdtree_sc.generate import SAMPLING_BATCH, LatentTreeFit, LatentTreeGenerator, LatentTreePlaces, seeded
from hdtree_sc.graph import spread_rows
from hdtree_sc.growth import SPLIT_RULES, Cells, Growth, SplitRule, fit_map
from hdtree_sc.model._hdtree import N_CELLS_LARGE
from hdtree_sc.model._latent_tree_model import LatentTreeModel
from hdtree_sc.module import TREE_CONDITIONS, TreeVAEModule
from hdtree_sc.train import GrowingPlan, TreeTrainRunner, train_on_pairs, with_own_settings

if TYPE_CHECKING:
    from pathlib import Path

    from anndata import AnnData
    from numpy.typing import ArrayLike, NDArray

    from hdtree_sc.diffusion import Method
    from hdtree_sc.module import TreeCondition
    from hdtree_sc.nn import Likelihood

ROOTS = ("cells", "normal")
TARGET_STEPS = 1200
"""Steps that a default training takes on a small data set."""
GROWTH_VALUES = 40_000_000
"""Largest number of values (cells x features) that candidate splits are trained on."""
HELD_OUT_CELLS = 5_000
"""Splits are scored on at most so many validation cells."""


@with_own_settings
class TreeVAE(LatentTreeModel):
    """Learn a tree of cells that grows while it is trained, with latents at its nodes.

    Every cell goes down the tree by routers and has a latent at each node that it passes; the leaf's decoder predicts
    its expression. A leaf is split where held-out cells gain by it, so that number and depth of the leaves follow the
    data. A second stage, :meth:`train_diffusion`, refines what leaves generate.

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
    _data_splitter_cls = PairSplitter
    _training_plan_cls = GrowingPlan
    _train_runner_cls = TreeTrainRunner
    _tree_key = "treevae"
    _condition: TreeCondition = "path"

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
            check_likelihood(adata, self._setup.argument("layer"), gene_likelihood, self._setup.argument("obsm_key"))
        for name, value, least in (
            ("n_node_latent", n_node_latent, 1), ("n_detail", n_detail, 1), ("max_depth", max_depth, 1),
            ("max_leaves", max_leaves, 1), ("min_leaf_size", min_leaf_size, 2),
        ):  # fmt: skip
            if value is not None and value < least:
                msg = f"{name}: {value} given, at least {least} wanted."
                raise ValueError(msg)
        n_cells = self.summary_stats.n_cells
        # resolved here, so that the file says which: a model may be loaded with other cells
        many = n_cells >= N_CELLS_LARGE
        n_hidden = n_hidden or (512 if many else 256)
        n_layers = n_layers or (3 if many else 2)
        n_input_pcs = n_input_pcs or (100 if many else 50)
        min_leaf_size = min_leaf_size or int(np.clip(n_cells // 50, 4, 50))
        max_leaves = max_leaves or int(np.clip(n_cells // (2 * min_leaf_size), 2, 32))
        image_shape = shape_of_images(image_shape, adata, self.summary_stats.n_vars)
        self.module = self._module_cls(
            **self._setup.input_shape(self.summary_stats),
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

    # ---------------------------------------------------------------- training

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
        split_rule: SplitRule = "gain",
        checkpoint_dir: str | Path | None = None,
        datasplitter_kwargs: dict[str, Any] | None = None,
        plan_kwargs: dict[str, Any] | None = None,
        **trainer_kwargs: Any,
    ) -> None:
        """Train encoder, tree and decoder together; the tree grows meanwhile.

        It begins as its root alone. After shares of the epochs splits of its leaves are tried on cached embeddings,
        and made where held-out cells gain by them; in between all is trained together. Towards the end leaves that are
        too small, or without which held-out cells do better, are taken away.

        Ctrl-C ends training early and leaves a usable model.

        Parameters
        ----------
        max_epochs
            Passes over the training cells; by default about 1,200 steps, at least 40 and at most 400 passes.
        validation_size
            Share of the cells validated on, the rest by default. Splits are scored on them.
        split_rule
            ``"gain"``: the split by which held-out cells gain most comes first, and growing ends when none gains.
            ``"largest"``: the largest leaf is split first until there are ``max_leaves``, as published.
        datasplitter_kwargs
            Keyword arguments of the splitter, among them ``decoded_share`` (of each minibatch, 0.5 by default).
        plan_kwargs
            Keyword arguments of the training plan (``lr``, ``grow_at``, ``prune_at``, ...) and of the module's loss
            (``contrastive_weight``, ``elbo_weight``).

        Raises
        ------
        ValueError
            If the rule is unknown, a minibatch is larger than the training set, or several devices are used without a
            seed.

        Notes
        -----
        Sets ``model.history["n_leaves"]`` and :attr:`growth`.
        """
        self._require_cells("train() draws neighbours of cells, so the model needs them: load or make it with adata=.")
        check_among("split_rule", split_rule, SPLIT_RULES)
        growth: list[dict[str, Any]] = []

        def begin() -> None:
            self._drop_generator()
            self._split_rule, self.growth_ = split_rule, growth

        train_on_pairs(
            self,
            super().train,
            n_steps=TARGET_STEPS,
            least_epochs=40,
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
            datasplitter_kwargs={"decoded_share": 0.5} | (datasplitter_kwargs or {}),
            plan={"grow": self._grow, "prune": self._prune, "growth": growth, "n_epochs_kl_warmup": None},
            plan_kwargs=plan_kwargs,
            represent=self._represent,
            encoder_input=self._encoder_input,
            begin=begin,
            further={"split_rule": split_rule},
            trainer_kwargs=trainer_kwargs,
        )
        with torch.inference_mode():
            self.latent_tree_ = self._head().description(self.get_latent(indices=self.train_indices_))
        fit_map(self.module.map_head, self.get_latent(indices=self.train_indices_), seed=self._seed())
        self._fit_unplaced()

    def _grow(self, stage: int) -> list[dict[str, Any]]:
        """Split leaves; called by the training plan between epochs."""
        with seeded(self._stage_seed(stage)):
            return self._growth(stage).run()

    def _prune(self, stage: int) -> list[dict[str, Any]]:
        """Take leaves away; called by the training plan between epochs."""
        with seeded(self._stage_seed(stage)):
            return self._growth(stage).prune()

    def _stage_seed(self, stage: int) -> int:
        return 1000 * self._seed() + stage

    def _growth(self, stage: int) -> Growth:
        train, held_out = self._split.train, self._split.held_out
        used = train[spread_rows(len(train), max(2, GROWTH_VALUES // self.summary_stats.n_vars))]
        self.module.eval()
        return Growth(
            self.module,
            self._growing_cells(used),
            self._growing_cells(held_out[spread_rows(len(held_out), HELD_OUT_CELLS)]),
            max_leaves=self._option("max_leaves"),
            max_depth=self._option("max_depth"),
            min_leaf_size=max(2, round(self._option("min_leaf_size") * len(used) / len(train))),
            rule=self._split_rule,
            generator=torch.Generator().manual_seed(self._stage_seed(stage)),
        )

    def _growing_cells(self, rows: NDArray[np.integer]) -> Cells:
        return Cells.read(self.module, self._reader.batches(self.adata, np.sort(rows)) if len(rows) else ())

    # ---------------------------------------------------------------- second stage

    def _places(self) -> LatentTreePlaces:
        return LatentTreePlaces(self._head(), self._setup.labels, self._setup.label_categories)

    def _generator(self) -> LatentTreeGenerator:
        return LatentTreeGenerator(self.module, self._places(), seed=self._seed())

    def _generator_fit(self) -> LatentTreeFit:
        return LatentTreeFit(self.module, self._places(), seed=self._seed(), condition=self._condition)

    def _generator_options(self) -> dict[str, Any]:
        return {"condition": self._condition, "n_node_latent": self.module.n_node_latent}

    def train_diffusion(self, *args: Any, condition: TreeCondition = "path", **kwargs: Any) -> None:
        """Train the second stage: a diffusion over embeddings and details, conditioned on places in the tree.

        With ``space="expression"`` it is over the components that the encoder reads, as in the papers, whose diffusion
        is over pixels; of images that are read by convolutions there are none.

        Parameters
        ----------
        *args, **kwargs
            See :meth:`HDTree.train_diffusion`.
        condition
            The condition beside the nodes of a cell's path: ``"path"``, the latents of these nodes, as in
            TreeDiffusion; ``"reconstruction"``, what the leaf's decoder makes of its latent, as in Diffuse-TreeVAE.
            Both are left out in half of the cells, so that cells of a node or a label can be made as well.

        Raises
        ------
        RuntimeError
            Before ``train()``, or of a query model.
        ValueError
            If an option is unknown.

        References
        ----------
        TreeDiffusion, arXiv 2410.16910; Diffuse-TreeVAE, arXiv 2407.06124.
        """
        check_among("condition", condition, TREE_CONDITIONS)
        if kwargs.get("space", "latent") != "latent" and self.module.image_shape is not None:
            msg = "space: this model reads pixels and no components; make it with image_shape=None, or keep 'latent'."
            raise ValueError(msg)
        self._condition = condition
        super().train_diffusion(*args, **kwargs)

    @torch.inference_mode()
    def generate(
        self,
        n_cells: int,
        node: str | None = None,
        label: str | float | None = None,
        batch: str | float | None = None,
        library: float | ArrayLike | None = None,
        n_steps: int = 50,
        seed: int | None = None,
        *,
        per_leaf: bool = False,
        refine: bool = True,
        root: Literal["cells", "normal"] = "cells",
        from_root: bool | None = None,
        method: Method = "dpm",
        guidance: float | None = None,
        keep_mean: bool = True,
        batch_size: int = SAMPLING_BATCH,
    ) -> AnnData:
        """Make new cells: from the root, of a node of the tree, of a label.

        A leaf is drawn as often as training cells are in it, the root's latent from where that of the leaf's cells
        lies, and the latents below it from their priors. Conditioned on them, the diffusion makes an embedding with
        details, the leaf's decoder counts of it.

        Parameters
        ----------
        n_cells
            How many; with ``per_leaf``: samples of the root, each of which gives a cell of every leaf.
        node
            Name of a node, inner or leaf; the whole data by default.
        label
            Name of a label of ``labels_key``. The diffusion is then conditioned on the label and the leaf, not on
            latents.
        batch, library, n_steps, seed, method, guidance, keep_mean, batch_size
            See :meth:`HDTree.generate`.
        per_leaf
            Whether every leaf (below ``node``) sees the same sample of the root: the same cell as each of the kinds.
            Cells of one sample begin at the same noise, too, and have one library size and batch.
        refine
            Whether the diffusion is used; otherwise the leaf's decoder reads the latents of the tree themselves, as
            TreeVAE without a second stage.
        root
            ``"cells"``: as above. ``"normal"``: the root's latent is standard normal and the leaf drawn by the routers
            that see latents, as published; not with ``node``, ``label`` or ``per_leaf``.
        from_root
            Whether the diffusion is conditioned on the latents; by default it is unless a label is asked for.

        Returns
        -------
        AnnData with the fields of :meth:`HDTree.generate`, and ``.obs["asked_leaf"]``: the leaf that was drawn; with
        ``per_leaf`` also ``.obs["root_sample"]``: number of the root's sample.

        Raises
        ------
        RuntimeError
            Before :meth:`train_diffusion`.
        ValueError
            If node, label or batch do not exist (the message lists those that do), no training cell is of both, or a
            number makes no sense.

        References
        ----------
        arXiv 2306.08984, section 2.3, and arXiv 2407.06124.
        """
        self._require_generator("generate")
        n_cells, n_steps, batch_size = whole_numbers(n_cells=n_cells, n_steps=n_steps, batch_size=batch_size)
        how = self._sampling(n_steps, method, guidance, batch_size)
        generator = self._generator()
        place = generator.places.of(node, label)
        label = None if label is None else generator.places.label_named(label)
        in_batch = None if batch is None else self._setup.number_of_batch(batch)
        if per_leaf and label is not None:
            msg = "label: per_leaf=True makes a cell of every leaf, so that no label can be asked for besides."
            raise ValueError(msg)
        if root not in ROOTS or (root == "normal" and (per_leaf or place != (0, 0))):
            msg = f"root: {root!r} given; 'cells', or 'normal' without node, label and per_leaf, is wanted."
            raise ValueError(msg)
        with seeded(seed):
            made, inputs, sample = generator.from_root(
                n_cells, place, how, root=root, per_leaf=per_leaf, refine=refine, batch=in_batch, library=library,
                signal=label is None if from_root is None else from_root, keep_mean=keep_mean,
            )  # fmt: skip
        writer = self._writer()
        out = writer.cells(made, inputs, generator.leaves(made))
        out.obs["asked_leaf"] = pd.Categorical(np.asarray(writer.tree.nodes)[inputs.node.cpu().numpy()])
        if per_leaf:
            out.obs["root_sample"] = sample.cpu().numpy()
        if label is not None:
            writer.set_label(out, [label] * n_cells)
        return writer.named(
            out, function="generate", node=node, label=label, batch=batch, n_steps=n_steps, seed=seed, method=method,
            guidance=how.guidance, per_leaf=per_leaf, refine=refine, root=root,
        )  # fmt: skip
