"""A model with a second stage: a diffusion over the cells of its tree, and the cells that it makes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
import torch

from hdtree_sc._docs import CELLS, SAMPLES, TRAINS, shared_params
from hdtree_sc._errors import check_among, whole_number
from hdtree_sc.data import finite_number, whole_numbers
from hdtree_sc.diffusion import METHODS
from hdtree_sc.generate import (
    SAMPLING_BATCH,
    CellWriter,
    Generator,
    GeneratorFit,
    LearnedCells,
    Places,
    Sampling,
    conditions_of,
    seeded,
)
from hdtree_sc.model._tree_model import TreeModel
from hdtree_sc.module import SPACES, Condition, without_condition
from hdtree_sc.train import DiffusionPlan, facts_of, resumed_run, run_diffusion

if TYPE_CHECKING:
    from pathlib import Path

    from anndata import AnnData
    from numpy.typing import ArrayLike, NDArray

    from hdtree_sc.data import Rows
    from hdtree_sc.diffusion import Method
    from hdtree_sc.generate import EncodedCells
    from hdtree_sc.module import CovariatePool, LatentDiffusion, Space
    from hdtree_sc.nn import Gate


class GenerativeTreeModel(TreeModel):
    """``train_diffusion``, and verbs that return new AnnData and change nothing."""

    diffusion_params_: dict[str, Any] | None = None
    _tree_key = "hdtree"
    _guidance = 1.0
    """Weight of the condition against none, unless it is given."""

    # ---------------------------------------------------------------- parts

    def _places(self) -> Places:
        """What the generator is conditioned on."""
        return Places(self._head(), self._setup.labels, self._setup.label_categories)

    def _generator(self) -> Generator:
        """The generator of a model that has one."""
        return Generator(self.module, self._places())

    def _generator_fit(self) -> GeneratorFit:
        """What makes a new generator."""
        return GeneratorFit(self.module, self._places(), seed=self._seed())

    def _generator_options(self) -> dict[str, Any]:
        """Further arguments of this model's diffusion."""
        return {}

    def _aligned_noise(self) -> float:
        """Noise level at which aligned cells turn to their target: seven parts of signal to one of noise."""
        return -2.0

    def _drop_generator(self) -> None:
        """The tree that the generator was conditioned on is no more."""
        self.module.set_generator(None, None)
        self.diffusion_params_ = None

    def _require_generator(self, what: str) -> None:
        self._require_trained(what)
        if self.module.diffusion is None:
            msg = f"{what} needs the generator: call {type(self).__name__}.train_diffusion() first."
            raise RuntimeError(msg)

    def _sampling(self, n_steps: int, method: Method, guidance: float | None, batch_size: int) -> Sampling:
        """How to sample, with the model's own guidance by default."""
        check_among("method", method, METHODS)
        weight = self._guidance if guidance is None else finite_number("guidance", guidance)
        return Sampling(n_steps, method, weight, batch_size)

    def _writer(self) -> CellWriter:
        module = self.module
        tree, name = self._head().nodes(), type(self).__name__
        return CellWriter(self._setup, module.covariates, tree, self._tree_key, name, module.space)

    @torch.inference_mode()
    def _encoded(self, generator: Generator, adata: AnnData | None, indices: Rows) -> EncodedCells:
        """Real cells as the generator sees them."""
        parts = self._reader.read(generator.encode, adata, indices)
        return generator.encoded(parts, self._reader.columns(adata, indices))

    # ---------------------------------------------------------------- training

    @shared_params(TRAINS)
    def train_diffusion(
        self,
        max_epochs: int | None = None,
        accelerator: str = "auto",
        devices: int | list[int] | str = "auto",
        batch_size: int = 256,
        *,
        space: Space = "latent",
        gate: Gate = "soft",
        n_hidden: int = 256,
        n_blocks: int = 3,
        target: str = "v",
        schedule: str = "cosine",
        early_stopping: bool = False,
        checkpoint_dir: str | Path | None = None,
        plan_kwargs: dict[str, Any] | None = None,
        **trainer_kwargs: Any,
    ) -> None:
        """Train the generator: a diffusion over latents, conditioned on the cell's place in the tree.

        Encoder, decoder and tree stay as they are. Latents are whitened, and the network is conditioned on the cell's
        tree path and, with ``labels_key``, on its label; either is dropped or shortened at random, so that one network
        generates any node, any label, and the data as a whole. Ctrl-C ends training early and leaves a usable
        generator.

        Parameters
        ----------
        max_epochs
            Passes of at least 50 steps each; by default 40, and fewer for more than 100,000 cells.
        devices
            Lightning devices; one is enough for latents.
        batch_size
            Cells in a minibatch.
        space
            ``"latent"``, or the principal components that the encoder reads, as the paper has it: turned back to
            expression without a network (``"expression"``), or by encoder and decoder (``"input"``).
        gate
            When a node of the path is visible: ``"soft"`` or ``"step"``, where the noise is below the branch point that
            it comes from, so that siblings share all that happens above; ``"none"``, always.
        n_hidden
            Width of the denoiser.
        n_blocks
            Number of its residual blocks.
        target
            What it answers: ``"v"``, ``"eps"`` or ``"x0"``.
        schedule
            ``"cosine"`` or ``"linear"``.
        early_stopping
            Whether to stop when ``diffusion_validation_loss``, taken of held-out cells at noise that never changes, no
            longer falls; the weights of the best epoch are kept then. On few cells it rises long before generated
            cells are as diverse as real ones, so that it is off by default.
        checkpoint_dir
            Folder of ``last.ckpt``, written every tenth epoch. After a crash call
            ``train_diffusion(ckpt_path=".../last.ckpt")`` on the same model with the same arguments: on a CPU the
            generator and the history are those of a training that was not stopped.
        plan_kwargs
            Keyword arguments of the training plan (``lr``, ``weight_decay``, ``decay``).

        Raises
        ------
        RuntimeError
            Before ``train()``, or of a query model.
        ValueError
            If an option is unknown.

        Notes
        -----
        Sets ``model.history["diffusion_train_loss"]`` and ``["diffusion_validation_loss"]``. Rebuilding the tree
        removes the generator.

        References
        ----------
        Path conditions as in TreeDiffusion (arXiv 2410.16910), gates as in branched diffusion (arXiv 2212.10777).
        """
        self._require_trained("train_diffusion")
        self._split.require("train_diffusion")
        check_among("space", space, SPACES)
        whole_number("batch_size", batch_size)
        if max_epochs is not None:
            whole_number("max_epochs", max_epochs)
        if early_stopping and not len(self._split.held_out):
            msg = "early_stopping watches validation cells, and train() left none: train with a lower train_size."
            raise ValueError(msg)
        options: dict[str, Any] = {
            "n_hidden": n_hidden, "n_blocks": n_blocks, "gate": gate, "target": target, "schedule": schedule,
        } | self._generator_options()  # fmt: skip
        given = {"batch_size": batch_size, "space": space, "plan_kwargs": plan_kwargs or {}} | options
        facts = facts_of(self, "train_diffusion", of_weights=True, **given)
        default = resumed_run(trainer_kwargs.get("ckpt_path"), facts).get("max_epochs")
        fit = self._generator_fit()
        cells = self._learned_cells(space, fit.places)
        params = fit.params(cells["points"].shape[1], options)
        diffusion, pool = fit.begun(params, cells, self._split.train, space)
        splitter = fit.splitter(
            diffusion, cells, batch_size, train=self._split.train, held_out=self._split.held_out, test=self.test_indices
        )
        plan = DiffusionPlan(diffusion, conditions_of, **({"seed": self._seed()} | (plan_kwargs or {})))
        run_diffusion(
            self, plan, splitter, max_epochs or default, accelerator=accelerator, devices=devices,
            early_stopping=early_stopping, checkpoint_dir=checkpoint_dir, facts=facts, **trainer_kwargs,
        )  # fmt: skip
        diffusion.load_state_dict(plan.learned(best=early_stopping))
        self._keep_generator(diffusion, pool, params, space)

    def _keep_generator(
        self, diffusion: LatentDiffusion, pool: CovariatePool, params: dict[str, Any], space: Space
    ) -> None:
        """Make a trained diffusion the generator of this model."""
        module = self.module
        module.set_generator(diffusion.to(module.device).eval(), pool.to(module.device), space)
        self.diffusion_params_ = {"diffusion": params, "donors": list(pool.covariates.shape), "space": space}

    @torch.inference_mode()
    def _learned_cells(self, space: Space, places: Places) -> dict[str, torch.Tensor]:
        """What a generator learns of all cells, in one pass over them."""
        learned = LearnedCells(self.module, space, places.conditions_of)
        return learned.named(self._reader.read(learned.read, self.adata))

    # ---------------------------------------------------------------- cells

    @torch.inference_mode()
    @shared_params(SAMPLES)
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
        method: Method = "dpm",
        guidance: float | None = None,
        keep_mean: bool = True,
        batch_size: int = SAMPLING_BATCH,
    ) -> AnnData:
        """Make new cells: of the data as a whole, of a node of the tree, of a label.

        Latents are drawn by the diffusion model, library sizes and covariates from training cells of the leaf in which
        each latent comes to lie, and counts from the decoder's likelihood.

        Parameters
        ----------
        n_cells
            How many.
        node
            Name of a node, inner or leaf; the whole data by default.
        label
            A label of ``labels_key``, as text or as the column holds it. Together with ``node``: cells of both.
        batch
            Batch as which cells are decoded; by default each has the one of the cell that its library size is from.
        library
            Library size, one for all cells or one for each; drawn from real cells by default.
        seed
            Seed; the same gives the same cells on the same device. By default torch's random numbers go on.
        method
            ``"dpm"`` and ``"ddim"`` draw all noise at the beginning, ``"ancestral"`` at each step.
        guidance
            Weight of node and label against no condition; above 1 cells are more typical and less diverse. By default
            1, and 1.5 of :class:`BranchedDiffusion`.

        Returns
        -------
        AnnData of ``n_cells`` cells with the model's genes. Their names hold a digest of the set, so that two sets can
        be joined.

        ``.X`` : counts (CSR), or float32 of other likelihoods; with ``"bernoulli"`` the expected values.
            Where the model was set up with ``layer=`` or ``obsm_key=``, that layer or entry holds a copy.
        ``.layers["mean"]`` : expected expression at the cell's library size, float32
        ``.obs["<key>_leaf"]`` : leaf in which the cell comes to lie, ``.obs[labels_key]`` where a label was asked for,
            and the columns of batch and covariates.
        ``.obsm["X_<key>"]``, ``.obsm["X_<key>_2d"]`` : latent and 2-D map
        ``.uns["<key>"]`` : the arguments

        Raises
        ------
        RuntimeError
            Before :meth:`train_diffusion`.
        ValueError
            If node, label or batch do not exist (the message lists those that do) or a number makes no sense.

        Examples
        --------
        >>> new = model.generate(100, label="AWA", seed=0)
        >>> new.obs["cell_type"].unique().tolist()
        ['AWA']
        >>> below = model.generate(100, node="0", seed=0)
        """
        self._require_generator("generate")
        n_cells, n_steps, batch_size = whole_numbers(n_cells=n_cells, n_steps=n_steps, batch_size=batch_size)
        how = self._sampling(n_steps, method, guidance, batch_size)
        generator = self._generator()
        places = generator.places
        where = Condition.of(places.of(node, label), n_cells, generator.device)
        label = None if label is None else places.label_named(label)
        in_batch = None if batch is None else self._setup.number_of_batch(batch)
        with seeded(seed):
            whitened = generator.sample(where, how)
            inputs = generator.decoder_inputs(whitened, where, in_batch, library)
            made = generator.decode(whitened, inputs, keep_mean=keep_mean, batch_size=batch_size)
        writer = self._writer()
        out = writer.cells(made, inputs, generator.leaves(made))
        if label is not None:
            writer.set_label(out, [label] * n_cells)
        return writer.named(
            out, function="generate", node=node, label=label, batch=batch, n_steps=n_steps, seed=seed, method=method,
            guidance=how.guidance,
        )  # fmt: skip

    @torch.inference_mode()
    @shared_params(SAMPLES | CELLS)
    def reconstruct(
        self,
        adata: AnnData | None = None,
        n_steps: int = 50,
        seed: int | None = None,
        *,
        indices: Rows = None,
        noise_level: float | None = None,
        method: Method = "dpm",
        keep_mean: bool = True,
        batch_size: int = SAMPLING_BATCH,
    ) -> AnnData:
        """Regenerate each cell from its path in the tree.

        What is kept of a cell is its leaf, its library size and its covariates, and for :class:`TreeVAE` the latents of
        its path; with ``noise_level`` also what of its latent is stronger than the noise. Nothing is mixed with the
        input.

        Parameters
        ----------
        noise_level
            Noise ``-log SNR`` put on the latent to begin from; by default nothing of it is left.
        method
            See :meth:`generate`.

        Returns
        -------
        AnnData with the same ``obs_names`` and the fields of :meth:`generate`. Of ``obs``, columns that the model was
        set up with (batch, label, time, covariates) are kept. All others may describe the expression that the cell had,
        and are called ``"source_<column>"``.

        Examples
        --------
        >>> again = model.reconstruct(adata, indices=[0, 1], seed=0)
        >>> again.obs_names.equals(adata.obs_names[:2])
        True
        """
        self._require_generator("reconstruct")
        n_steps, batch_size = whole_numbers(n_steps=n_steps, batch_size=batch_size)
        how = self._sampling(n_steps, method, 1.0, batch_size)
        noise_level = None if noise_level is None else finite_number("noise_level", noise_level)
        generator = self._generator()
        cells = self._encoded(generator, adata, indices)
        where = without_condition(cells.where, label=True)
        with seeded(seed):
            if noise_level is None:
                whitened = generator.sample(where, how)
            else:
                whitened = generator.denoise(cells.whitened, where, noise_level, how)
            made = generator.decode(whitened, cells.inputs, keep_mean=keep_mean, batch_size=batch_size)
        writer = self._writer()
        out = writer.cells(made, cells.inputs, generator.leaves(made), cells.names)
        writer.take_origin(out, cells.obs, with_label=True)
        return writer.with_provenance(
            out, function="reconstruct", n_steps=n_steps, seed=seed, noise_level=noise_level, method=method
        )

    @torch.inference_mode()
    @shared_params(SAMPLES | CELLS)
    def get_diffusion_bound(
        self,
        adata: AnnData | None = None,
        indices: Rows = None,
        n_steps: int = 50,
        seed: int = 0,
        batch_size: int = SAMPLING_BATCH,
    ) -> NDArray[np.float32]:
        """Upper bound of the negative log likelihood of cells under the diffusion, given their leaf and label.

        Returns
        -------
        float32 array (n_cells,), in nats for all dimensions of the space that the diffusion was trained in.

        Examples
        --------
        >>> bound = model.get_diffusion_bound(indices=model.validation_indices)
        """
        self._require_generator("get_diffusion_bound")
        n_steps, batch_size = whole_numbers(n_steps=n_steps, batch_size=batch_size)
        generator = self._generator()
        return generator.bound(self._encoded(generator, adata, indices), n_steps, seed, batch_size)

    @torch.inference_mode()
    @shared_params(SAMPLES | CELLS)
    def transmute(
        self,
        adata: AnnData | None = None,
        target: str | float | None = None,
        source: str | float | None = None,
        indices: Rows = None,
        mode: Literal["ode", "sde"] = "ode",
        n_steps: int = 50,
        n_draws: int = 1,
        seed: int | None = None,
        *,
        align: bool = True,
        noise_level: float | None = None,
        guidance: float | None = None,
        keep_mean: bool = True,
        batch_size: int = SAMPLING_BATCH,
    ) -> AnnData:
        """Carry cells to another label or node: up to some noise, over to the target, and down the target's way.

        By default source and target are laid over one another by their means first, so that the noise has to hide only
        the difference of their shapes: what varies within types, as time does, is kept where both types share it. With
        ``align=False`` the noise hides the types themselves, as in the paper of branched diffusion; types that lie far
        apart then lose all else too.

        Cells that are there already keep their latent. The answer is the model's: what no training cell shows, it
        cannot know. Nothing is rescaled to the target.

        Parameters
        ----------
        target
            A label of ``labels_key``, or else a node.
        source
            A label or a node: only its cells. All by default.
        indices
            Rows of ``adata`` to choose from: positions, names of cells, a slice or a mask; all by default.
        mode
            ``"ode"``: deterministic both ways, so that each cell has one counterpart, and the way back leads home.
            ``"sde"``: with fresh noise up and down, as the paper of branched diffusion has it; draws differ, and how
            much they do is the model's uncertainty.
        n_steps
            Network calls of a whole run from noise to data.
        n_draws
            Counterparts of each cell.
        align
            Whether cells move by the difference of the means of target and source, at the noise at which they turn.
        noise_level
            Noise level ``-log SNR`` at which they turn: less keeps more of the cell, more makes it more like the
            target's. By default -2 of cells that are aligned, 1 where features themselves are diffused, and else the
            branch point of source and target.
        guidance
            Weight of the target against no condition; by default as in :meth:`generate`.
        keep_mean
            Whether to keep expected expression before and after, which is dense.

        Returns
        -------
        AnnData with the source cells' ``obs_names`` (with several draws ``"<name>-<draw>"``). Of their ``obs``, batch,
        time and covariates that the model was set up with are kept. All others (a clustering, a pseudotime, a donor)
        are called ``"source_<column>"``, as is the column of labels unless the target is a label, which stands in it
        then. Beside the fields of :meth:`generate`:

        ``.layers["source_mean"]`` : expected expression of the cell as it was, at the same library size
        ``.obs["source_label"]``, ``.obs["target_label"]`` : labels, or leaf and node
        ``.obs["target_probability"]`` : probability of the target once the counts are encoded again: of a node, its
            node probability; of a label, the labels of training cells in the leaves, weighted by leaf probability
        ``.obs["source_cell"]``, ``.obs["draw"]`` : name of the cell before, and number of the draw
        ``.obs["branch_noise"]`` : noise level ``-log SNR`` up to which the cell was transported; minus infinity: not at
        all ``.obsm["X_<key>_source"]`` : latent before

        Raises
        ------
        RuntimeError
            Before :meth:`train_diffusion`.
        ValueError
            If source or target do not exist (the message lists what does), there are no source cells, or the noise
            level is none of the schedule.

        References
        ----------
        arXiv 2212.10777, with the branch point found in the space in which diffusion runs, and an inversion in place of
        fresh noise by default. The means are moved as in latent arithmetic (scGen, Lotfollahi et al. 2019), at a noise
        level and not in clean data, so that the denoiser brings cells onto the target's own shape.

        Examples
        --------
        >>> awa = model.transmute(source="ASG", target="AWA", seed=0)
        >>> awa.obs["source_cell"].tolist() == adata.obs_names[adata.obs["cell_type"] == "ASG"].tolist()
        True
        >>> probability = awa.obs["target_probability"].mean()
        """
        self._require_generator("transmute")
        generator = self._generator()
        places = generator.places
        if target is None:
            msg = f"target: name a label or a node to go to. {places.destinations}"
            raise ValueError(msg)
        if mode not in ("ode", "sde"):
            msg = f"mode: {mode!r} is none of 'ode', 'sde'."
            raise ValueError(msg)
        n_draws, n_steps, batch_size = whole_numbers(n_draws=n_draws, n_steps=n_steps, batch_size=batch_size)
        how = self._sampling(n_steps, "dpm", guidance, batch_size)
        if noise_level is not None:
            generator.check_noise_level(finite_number("noise_level", noise_level))
        elif align:
            noise_level = self._aligned_noise()
        target, there = places.named(target, "target")
        source, start = (None, None) if source is None else places.named(source, "source")
        cells = self._encoded(generator, adata, indices)
        cells = cells if start is None else generator.cells_of(cells, start, str(source))
        route = generator.route(cells, there, noise_level)
        with seeded(seed):
            whitened, many, inputs = generator.transported(cells, route, how, mode=mode, align=align, n_draws=n_draws)
            made = generator.decode(whitened, inputs, keep_mean=keep_mean, batch_size=batch_size)
        draw, writer = np.repeat(np.arange(n_draws), len(cells)), self._writer()
        names = many.names if n_draws == 1 else [f"{name}-{i}" for name, i in zip(many.names, draw, strict=True)]
        out = writer.cells(made, inputs, generator.leaves(made), names)
        if keep_mean:
            before = generator.expected(cells.whitened, cells.inputs, batch_size=batch_size)
            out.layers["source_mean"] = np.tile(before, (n_draws, 1))
        own, is_label = places.names_of(many.where, there)
        probability = places.probability(self.get_node_probabilities(out).to_numpy(), there, generator.pool)
        writer.describe_transmuted(
            out, many, own=own, target=target, is_label=is_label, probability=probability, draw=draw,
            levels=np.tile(route.levels.cpu().numpy(), n_draws), latent=generator.latents(many),
        )  # fmt: skip
        return writer.with_provenance(
            out, function="transmute", target=target, source=source, mode=mode, n_steps=n_steps, n_draws=n_draws,
            seed=seed, guidance=how.guidance, align=align, noise_level=noise_level,
        )  # fmt: skip

    @torch.inference_mode()
    @shared_params(SAMPLES)
    def hybrids(
        self,
        a: str | float,
        b: str | float,
        n_cells: int,
        seed: int | None = None,
        *,
        between: Literal["midpoint", "condition"] = "midpoint",
        n_steps: int = 50,
        keep_mean: bool = True,
        batch_size: int = SAMPLING_BATCH,
    ) -> AnnData:
        """Cells at the branch point of two labels or nodes, and what each becomes on either side.

        From the same noise, and up to the branch point on the same way: with nodes on that of their lowest common
        ancestor, with labels under the mean of both conditions. From there one goes to ``a``, one to ``b``, and the
        hybrid stays between them.

        Parameters
        ----------
        a, b
            Two labels, or two nodes of which neither contains the other.
        n_cells
            Number of hybrids.
        between
            What the hybrid is: ``"midpoint"``, halfway between its two completions in the space of the diffusion, or
            ``"condition"``, what the shared condition makes of the same noise, which mostly falls to one side.
        n_steps
            Network calls of a whole run.

        Returns
        -------
        AnnData of ``3 * n_cells`` cells with the fields of :meth:`generate`, all hybrids first, then ``a``, then ``b``;
        ``.obs["role"]`` is ``"hybrid"``, ``a`` or ``b``, ``.obs["pair"]`` the number that the three share, as they do
        library size and covariates.

        Raises
        ------
        RuntimeError
            Before :meth:`train_diffusion`.
        ValueError
            If ``a`` or ``b`` do not exist or do not part.

        Examples
        --------
        >>> three = model.hybrids("ASG", "AWA", 5, seed=0)
        >>> sorted(three.obs["role"].unique())
        ['ASG', 'AWA', 'hybrid']
        """
        self._require_generator("hybrids")
        if between not in ("midpoint", "condition"):
            msg = f"between: {between!r} is none of 'midpoint', 'condition'."
            raise ValueError(msg)
        n_cells, n_steps, batch_size = whole_numbers(n_cells=n_cells, n_steps=n_steps, batch_size=batch_size)
        generator = self._generator()
        (a, one), (b, other) = generator.places.named(a, "a"), generator.places.named(b, "b")
        if "hybrid" in (a, b):
            msg = "a, b: a place called 'hybrid' has the name of the hybrids; rename the label and train again."
            raise ValueError(msg)
        if (one[1] > 0) != (other[1] > 0):
            msg = f"a={a!r} and b={b!r}: two labels or two nodes wanted, not one of each."
            raise ValueError(msg)
        level = generator.branch_level(one, other)
        if level == -np.inf:
            msg = f"a={a!r} and b={b!r} do not part: one is the other or lies below it."
            raise ValueError(msg)
        how = Sampling(n_steps, batch_size=batch_size)
        with seeded(seed):
            whitened, inputs = generator.hybrids(one, other, n_cells, how, between=between)
            made = generator.decode(whitened, inputs, keep_mean=keep_mean, batch_size=batch_size)
        writer = self._writer()
        out = writer.cells(made, inputs, generator.leaves(made))
        out.obs["role"] = pd.Categorical(np.repeat(["hybrid", a, b], n_cells), categories=["hybrid", a, b])
        out.obs["pair"] = np.tile(np.arange(n_cells), 3)
        out.obs["branch_noise"] = level
        return writer.named(out, function="hybrids", a=a, b=b, between=between, n_steps=n_steps, seed=seed)
