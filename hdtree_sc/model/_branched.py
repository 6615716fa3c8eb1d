"""BranchedDiffusion: a diffusion that forks where cell types part."""

from __future__ import annotations

import warnings
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pandas as pd
import torch
from anndata import AnnData
from scvi import REGISTRY_KEYS

from hdtree_sc._docs import TRAINS, shared_params
from hdtree_sc._errors import check_among, listing, whole_number
from hdtree_sc.data import (
    FittingSplitter,
    check_likelihood,
    check_shape,
    positions_of,
    require_genes,
    text_of,
    whole_numbers,
)
from hdtree_sc.generate import CRITERIA, SAMPLING_BATCH, ClassExtension, ClassTreeFit, Criterion, LearnedCells, seeded
from hdtree_sc.growth import fit_map
from hdtree_sc.model._class_tree_model import ClassTreeModel
from hdtree_sc.model._pretrained import copy_weights, networks_of
from hdtree_sc.module import CONDITIONINGS, BranchedModule
from hdtree_sc.train import (
    OneCyclePlan,
    TreeTrainRunner,
    check_training,
    train_autoencoder,
    with_own_settings,
    written_or_warned,
)
from hdtree_sc.tree import LINKAGES, Linkage, Tree, as_tree

if TYPE_CHECKING:
    from collections.abc import Sequence

    import networkx as nx
    from numpy.typing import ArrayLike, NDArray
    from scvi.model import SCVI

    from hdtree_sc.diffusion import Method
    from hdtree_sc.model._hdtree import HDTree
    from hdtree_sc.module import Conditioning
    from hdtree_sc.nn import Likelihood

FEW_FEATURES = 64
"""So many continuous features need no encoder."""


@with_own_settings
class BranchedDiffusion(ClassTreeModel):
    """Generate, transmute and extend known cell types with a diffusion that forks where they part.

    At high noise cells of two types cannot be distinguished; a *branch point* is the noise level below which they can.
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
        How the network knows the branch: ``"gated_path"``, one network that is conditioned on the nodes of the path, or
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
    _data_splitter_cls = FittingSplitter
    _training_plan_cls = OneCyclePlan
    _train_runner_cls = TreeTrainRunner
    _tree_key = "branched"
    # classes are given, not found where cells are apart: without guidance they spill into their neighbours
    _guidance = 1.5
    _given: Tree | None = None

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
            check_among(name, value, allowed)
        if self._setup.argument("labels_key") is None or len(self._setup.labels) < 2:
            msg = "labels_key: BranchedDiffusion needs setup_anndata(adata, labels_key=...) with at least two labels."
            raise ValueError(msg)
        pretrained: dict[str, Any] = {} if latent_model is None else networks_of(latent_model, self)
        gene_likelihood = pretrained.get("gene_likelihood", gene_likelihood)
        if adata is not None:
            check_shape(adata, n_latent=n_latent, tree_depth=1)
            check_likelihood(adata, self._setup.argument("layer"), gene_likelihood, self._setup.argument("obsm_key"))
        shape = self._setup.input_shape(self.summary_stats)
        if encoder is None and not pretrained:
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
        } | pretrained
        self.module = self._module_cls(**shape, dropout_rate=dropout_rate, **given)
        if latent_model is not None:
            copy_weights(latent_model, self.module)
        # a file keeps text: the tree as newick, and of another model its weights alone
        self._given = as_tree(tree)
        tree = None if self._given is None else self._given.to_newick()
        latent_model = None
        n_latent, n_hidden, n_layers, gene_likelihood, n_pcs, n_input_pcs, encoder, scvi_kwargs = given.values()
        self._model_summary_string = (
            f"BranchedDiffusion with n_latent: {n_latent}, n_hidden: {n_hidden}, n_layers: {n_layers}, "
            f"gene_likelihood: {gene_likelihood}, encoder: {encoder}, criterion: {criterion}, linkage: {linkage}"
        )
        self.package_version_ = version("hdtree-sc")
        self.init_params_ = self._get_init_params(locals())

    def _aligned_noise(self) -> float:
        # features as they are have shapes that differ as much as their means; a latent evens them out
        return 1.0 if self.module.encoder_kind == "none" else -2.0

    def _generator_options(self) -> dict[str, Any]:
        return {"conditioning": self._option("conditioning")}

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
        checkpoint_dir: str | Path | None = None,
        datasplitter_kwargs: dict[str, Any] | None = None,
        plan_kwargs: dict[str, Any] | None = None,
        diffusion_kwargs: dict[str, Any] | None = None,
        **trainer_kwargs: Any,
    ) -> None:
        """Train the autoencoder, find the branch points in its latent, and train the diffusion.

        Ctrl-C ends training early. In the diffusion it leaves a usable model. In the autoencoder it leaves one without
        a generator: its branch points are those in the latent learned so far, and :meth:`train_diffusion` goes on.

        Parameters
        ----------
        max_epochs
            Passes of each of the two stages: of the autoencoder over the training cells, by default about 1,500 steps
            and at most 400 passes, and of the diffusion, as in :meth:`train_diffusion`. To give the diffusion another
            number, name it in ``diffusion_kwargs``.
        batch_size
            Cells in a minibatch of the autoencoder, 256 by default.
        early_stopping
            Whether the autoencoder stops when ``elbo_validation`` no longer falls; needs validation cells.
        checkpoint_dir
            Folder: the model with its trained autoencoder is saved there as ``autoencoder``, and the diffusion writes
            ``last.ckpt``. After a crash load the former and call ``train_diffusion(ckpt_path=".../last.ckpt")``. What
            cannot be written, as on a full disk, is warned of, and training goes on.
        datasplitter_kwargs
            Keyword arguments of :class:`scvi.dataloaders.DataSplitter`.
        plan_kwargs
            Keyword arguments of the autoencoder's plan (``lr``, ``max_kl_weight``, ...).
        diffusion_kwargs
            Arguments of :meth:`train_diffusion` (``max_epochs``, ``n_hidden``, ...). ``gate`` is ``"step"`` unless
            given: above a branch point nothing distinguishes its types.
        **trainer_kwargs
            Keyword arguments of :class:`scvi.train.Trainer`, used in both stages.

        Raises
        ------
        ValueError
            If a label has fewer than two training cells, a minibatch is larger than the training set, a number is no
            whole number of at least 1, or early stopping has no validation cells.
        """
        self._require_cells("train() needs cells: load or make the model with adata=.")
        if "ckpt_path" in trainer_kwargs:
            msg = (
                "ckpt_path: train() begins with the autoencoder. Load the model in the folder 'autoencoder' of "
                "checkpoint_dir, and call train_diffusion(ckpt_path=...)."
            )
            raise ValueError(msg)
        second = {"max_epochs": max_epochs} | (diffusion_kwargs or {})
        for name in ("max_epochs", "batch_size"):
            if second.get(name) is not None:
                whole_number(name, second[name])
        n_train = check_training(
            self.adata.n_obs,
            max_epochs=max_epochs,
            batch_size=batch_size,
            devices=devices,
            train_size=train_size,
            validation_size=validation_size,
            early_stopping=early_stopping or second.get("early_stopping", False),
            datasplitter_kwargs=datasplitter_kwargs,
            strategy=trainer_kwargs.get("strategy"),
        )
        self.class_tree_ = None
        self._drop_generator()
        is_complete = True
        try:
            is_complete = train_autoencoder(
                self,
                super().train,
                n_train,
                max_epochs,
                int(batch_size or min(256, max(2, n_train // 4))),
                split={
                    "train_size": train_size,
                    "validation_size": validation_size,
                    "shuffle_set_split": shuffle_set_split,
                },
                splitter={"fit": self._fit_before} | (datasplitter_kwargs or {}),
                accelerator=accelerator,
                devices=devices,
                early_stopping=early_stopping,
                plan_kwargs=plan_kwargs,
                **({"gradient_clip_val": 1.0} | trainer_kwargs),
            )
            if self.module.is_variational:
                kl = self._reader.read(self.module.begin_choice(), self.adata, self.train_indices_)[0]
                self.module.keep_used(kl)
            self.module.eval()
            self._learn_classes()
            fit_map(self.module.map_head, self.get_latent(indices=self.train_indices_), seed=self._seed())
            self._fit_unplaced()
        except BaseException:
            # without classes nothing can be asked of it
            self.is_trained_ = False
            raise
        if checkpoint_dir is not None:
            with written_or_warned(Path(checkpoint_dir) / "autoencoder"):
                self.save(str(Path(checkpoint_dir) / "autoencoder"), overwrite=True)
        if not is_complete:
            warnings.warn(
                "Training was interrupted in its first stage: tree and branch points are those in the latent learned "
                "so far, and there is no generator yet. Call train_diffusion() for one.",
                stacklevel=2,
            )
            return
        shared = {"accelerator": accelerator, "devices": devices, "checkpoint_dir": checkpoint_dir}
        self.train_diffusion(**(shared | trainer_kwargs | second))

    def _fit_before(self, train_indices: NDArray[np.int64]) -> None:
        """What is learned before training, once it is known that every class has cells to learn from."""
        labels = self.adata_manager.get_from_registry(REGISTRY_KEYS.LABELS_KEY)
        names = self._setup.labels
        number = positions_of(self._setup.label_categories, names)[np.asarray(labels).ravel()[train_indices]]
        size = np.bincount(number + 1, minlength=len(names) + 1)[1:]
        if (size < 2).any():
            few = [name for name, n in zip(names, size, strict=True) if n < 2]
            msg = f"labels_key: {listing(few)} had fewer than two training cells: merge them, or raise train_size."
            raise ValueError(msg)
        super()._fit_before(train_indices)

    def _learn_classes(self) -> None:
        """Find the tree of the classes, and where they lie, in the training cells."""
        fit = ClassTreeFit(
            self._setup.labels, self._option("criterion"), self._option("linkage"), self._given, self._seed()
        )
        learned = LearnedCells.by_label(self.module, self._setup)
        with torch.inference_mode():
            cells = learned.named(self._reader.read(learned.read, self.adata))
        tree, classes = fit.fit(cells, self._split.train)
        self.class_tree_ = tree.to_dict()
        self.module.classes = classes.to(self.module.device)

    def train_diffusion(self, *args: Any, **kwargs: Any) -> None:
        """Train the diffusion alone, see :meth:`HDTree.train_diffusion`; :meth:`train` calls it."""
        if self.class_tree_ is not None and any(np.isfinite(self._classes.opens)):
            msg = "train_diffusion would lose the classes that were added: train a new model on all cells instead."
            raise RuntimeError(msg)
        if kwargs.get("space", "latent") != "latent":
            msg = "space: only the latent has branch points; with encode=False the features themselves are the latent."
            raise ValueError(msg)
        super().train_diffusion(*args, **({"gate": "step"} | kwargs))

    # ---------------------------------------------------------------- cells

    @torch.inference_mode()
    def generate(
        self,
        n_cells: int,
        node: str | None = None,
        label: str | float | Sequence[str | float] | None = None,
        batch: str | float | None = None,
        library: float | ArrayLike | None = None,
        n_steps: int = 50,
        seed: int | None = None,
        *,
        share_prefix: bool = False,
        method: Method = "dpm",
        guidance: float | None = None,
        keep_mean: bool = True,
        batch_size: int = SAMPLING_BATCH,
    ) -> AnnData:
        """Make new cells: of the data as a whole, of a node, of one class or of several.

        Parameters
        ----------
        n_cells
            How many; of several classes: of each.
        node
            Name of a node, inner or leaf; the whole data by default.
        label
            A class, or a list of them.
        batch, library, n_steps, seed, method, guidance, keep_mean, batch_size
            See :meth:`HDTree.generate`.
        share_prefix
            Whether classes share the noisy part of their ways, which is walked once: fewer network calls. Cells of one
            class are as independent as ever; the i-th cells of all classes come from the same noise and are paired.

        Returns
        -------
        AnnData, see :meth:`HDTree.generate`, with ``.obs[labels_key]``. With ``share_prefix`` also ``.obs["prefix"]``,
        the number that paired cells share, and in ``.uns["branched"]`` ``"network_calls"`` and
        ``"network_calls_unshared"``: calls of the network for each of the ``n_cells``, and what they would be without.

        Raises
        ------
        RuntimeError
            Before training.
        ValueError
            If node, label or batch do not exist, a class is named twice, or a number makes no sense.
        """
        if not pd.api.types.is_list_like(label) and not share_prefix:
            one = cast("str | float | None", label)
            return super().generate(
                n_cells, node, one, batch, library, n_steps, seed, method=method, guidance=guidance,
                keep_mean=keep_mean, batch_size=batch_size,
            )  # fmt: skip
        self._require_generator("generate")
        n_cells, n_steps, batch_size = whole_numbers(n_cells=n_cells, n_steps=n_steps, batch_size=batch_size)
        generator = self._generator()
        places, tree = generator.places, self._classes
        how = self._sampling(n_steps, method, guidance, batch_size)
        if label is None:
            inside = tree.below()[:, places.of(node, None)[0]]
            label = [name for name in tree.classes if inside[tree.number_of(name)]]
        given = [label] if isinstance(label, str | int | float | np.generic) else list(label)
        numbers = [places.of(node, name)[0] for name in given]
        names = [str(places.label_named(name)) for name in given]
        if not names or len(set(names)) < len(names):
            msg = f"label: each class once wanted, got {given}."
            raise ValueError(msg)
        in_batch = None if batch is None else self._setup.number_of_batch(batch)
        where = generator.classes(numbers, n_cells)
        calls: dict[str, int] = {}
        with seeded(seed):
            if share_prefix:
                whitened, calls = generator.shared(numbers, n_cells, how)
            else:
                whitened = generator.sample(where, how)
            inputs = generator.decoder_inputs(whitened, where, in_batch, library)
            made = generator.decode(whitened, inputs, keep_mean=keep_mean, batch_size=batch_size)
        writer = self._writer()
        out = writer.cells(made, inputs, generator.leaves(made))
        writer.set_label(out, np.repeat(names, n_cells).tolist())
        if share_prefix:
            out.obs["prefix"] = np.tile(np.arange(n_cells), len(names))
        return writer.named(
            out, function="generate", label=names, batch=batch, seed=seed, share_prefix=share_prefix, n_steps=n_steps,
            method=method, guidance=how.guidance, **calls,
        )  # fmt: skip

    # ---------------------------------------------------------------- one more class

    def add_class(
        self,
        adata: AnnData,
        label: str,
        *,
        attach: str | None = None,
        max_epochs: int | None = None,
        accelerator: str = "auto",
        batch_size: int = 256,
        plan_kwargs: dict[str, Any] | None = None,
        **trainer_kwargs: Any,
    ) -> None:
        """Teach the model one more class; what it gives of the others stays the same to the bit.

        The class is attached to the tree at the lowest node all of whose classes it is mixed with at that node's branch
        point. A small network of its own speaks below its branch point, and its genes get an offset in the decoder;
        nothing else is trained.

        Parameters
        ----------
        adata
            Cells of the new class, all of them, with all genes of the model. Not changed.
        label
            Its name.
        attach
            Name of an inner node to attach it to; the data choose by default.
        max_epochs
            Passes of 50 steps; 20 by default.
        accelerator
            Lightning accelerator.
        batch_size
            Cells in a minibatch.
        plan_kwargs
            Keyword arguments of the training plan (``lr``, ``weight_decay``, ``decay``).
        **trainer_kwargs
            Keyword arguments of :class:`scvi.train.Trainer`.

        Raises
        ------
        RuntimeError
            Before training, or of a query model.
        ValueError
            If the model has the class, there are fewer than 10 cells, genes are missing, ``attach`` is no inner node,
            or a number is no whole number of at least 1.
        KeyboardInterrupt
            After Ctrl-C. The model is as it was before, here and after each of the errors.

        References
        ----------
        arXiv 2212.10777, class extension; there a head of its own below the branch point.

        Examples
        --------
        >>> new = adata[adata.obs["cell_type"] == "AWC"].copy()
        >>> model.add_class(new, "AWC_new")
        >>> model.generate(5, label="AWC_new").n_obs
        5
        """
        self._require_generator("add_class")
        self._refuse_query("add_class")
        for name, value in (("max_epochs", max_epochs), ("batch_size", batch_size)):
            if value is not None:
                whole_number(name, value)
        label = text_of(label)
        extension = ClassExtension(self.module, self._classes, seed=self._seed())
        node = extension.checked(adata.n_obs, label, attach)
        require_genes(adata, self._setup)
        bare = self._without_label(adata)
        with torch.inference_mode():
            parts = self._reader.read(extension.read, bare)
        extension.attach(label, parts, node)
        extension.train(
            max_epochs=max_epochs, accelerator=accelerator, batch_size=batch_size, plan_kwargs=plan_kwargs,
            trainer_kwargs=trainer_kwargs,
        )  # fmt: skip
        rows = extension.offset_rows()
        extension.fit_offset(self._reader.batches(bare, rows), rows)
        assert self.diffusion_params_ is not None
        self.diffusion_params_ = extension.take_in(self.diffusion_params_)
        self.class_tree_ = extension.grown.to_dict()

    def _without_label(self, adata: AnnData) -> AnnData:
        """The cells without the label, which the registry of the model does not have; the matrix is not copied."""
        obs = adata.obs.drop(columns=[self._setup.argument("labels_key")], errors="ignore")
        return AnnData(adata.X, obs=obs, var=adata.var[[]], layers=dict(adata.layers), obsm=dict(adata.obsm))
