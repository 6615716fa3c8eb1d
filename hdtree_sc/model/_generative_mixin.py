"""Cells made by the second stage: new ones, and existing ones elsewhere in the tree."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd
import torch

from hdtree_sc.model._arguments import finite_number, whole_numbers
from hdtree_sc.model._cell_maker import expected, seeded
from hdtree_sc.model._generator_mixin import GeneratorMixin
from hdtree_sc.module._latent_diffusion import Where, untold

if TYPE_CHECKING:
    from anndata import AnnData
    from numpy.typing import ArrayLike

    from hdtree_sc.diffusion import Method
    from hdtree_sc.model._arguments import Rows

SAMPLING_BATCH = 4096


class GenerativeMixin(GeneratorMixin):
    """``generate``, ``reconstruct``, ``transmute`` and ``hybrids``: they return new AnnData and change nothing."""

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
        n_steps
            Network calls per cell.
        seed
            Seed; the same gives the same cells on the same device. By default torch's random numbers go on.
        method
            ``"dpm"`` and ``"ddim"`` draw all noise at the beginning, ``"ancestral"`` at each step.
        guidance
            Weight of node and label against no condition; above 1 cells are more typical and less diverse. By default
            1, and 1.5 of :class:`BranchedDiffusion`.
        keep_mean
            Whether to keep expected expression, which is dense.
        batch_size
            Cells at a time.

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
        """
        self._require_generator("generate")
        n_cells, n_steps, batch_size = whole_numbers(n_cells=n_cells, n_steps=n_steps, batch_size=batch_size)
        method = self._checked_method(method)
        guidance = self._checked_guidance(guidance)
        where = Where.of(self._told(node, label), n_cells, self._device)
        label = None if label is None else self._label_named(label)
        in_batch = None if batch is None else self._number_of_batch(batch)  # type: ignore[attr-defined]
        with seeded(seed):
            whitened = self._sampled(where, n_steps, method, guidance, batch_size)
            around = self._drawn_surroundings(whitened, where, in_batch, library)
            out = self._assembled(whitened, around, None, keep_mean, batch_size)
        if label is not None:
            self._set_label(out, [label] * n_cells)
        return self._signed_new(
            out, function="generate", node=node, label=label, batch=batch, n_steps=n_steps, seed=seed, method=method,
            guidance=guidance,
        )  # fmt: skip

    @torch.inference_mode()
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
        """Make each cell anew from its path in the tree.

        What is kept of a cell is its leaf, its library size and its covariates, and of :class:`TreeVAE` what its
        diffusion is told beside the path; with ``noise_level`` also what of its latent is stronger than the noise.
        Nothing is mixed with the input.

        Parameters
        ----------
        adata
            Cells; the training data by default.
        n_steps
            Network calls per cell.
        seed
            Seed.
        indices
            Rows of ``adata``: positions, names of cells, a slice or a mask; all by default.
        noise_level
            Noise ``-log SNR`` put on the latent to begin from; by default nothing of it is left.
        method
            See :meth:`generate`.
        keep_mean
            Whether to keep expected expression, which is dense.
        batch_size
            Cells at a time.

        Returns
        -------
        AnnData with the same ``obs_names`` and the fields of :meth:`generate`. Of ``obs``, columns that the model was
        set up with (batch, label, time, covariates) are kept. All others may describe the expression that the cell had,
        and are called ``"source_<column>"``.
        """
        self._require_generator("reconstruct")
        n_steps, batch_size = whole_numbers(n_steps=n_steps, batch_size=batch_size)
        method = self._checked_method(method)
        noise_level = None if noise_level is None else finite_number("noise_level", noise_level)
        cells = self._real_cells(adata, indices)
        where = untold(cells.where, label=True)
        with seeded(seed):
            if noise_level is None:
                whitened = self._sampled(where, n_steps, method, 1.0, batch_size)
            else:
                start = self.module.diffusion.noised(cells.whitened, noise_level)  # type: ignore[attr-defined]
                whitened = self._in_parts(
                    lambda rows: self._flow(
                        start[rows], where[rows], start=noise_level, n_steps=n_steps, method=method
                    ),
                    len(cells),
                    batch_size,
                )
            out = self._assembled(whitened, cells.around, cells.names, keep_mean, batch_size)
        self._take_origin(out, cells.obs, with_label=True)
        return self._signed(
            out, function="reconstruct", n_steps=n_steps, seed=seed, noise_level=noise_level, method=method
        )

    @torch.inference_mode()
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
        adata
            Cells; the training data by default.
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
        seed
            Seed.
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
        batch_size
            Cells at a time.

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
        ``.obs["branch_noise"]`` : noise level ``-log SNR`` up to which the cell was carried; minus infinity: not at all
        ``.obsm["X_<key>_source"]`` : latent before

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
        """
        self._require_generator("transmute")
        if target is None:
            msg = f"target: name a label or a node to go to. {self._destinations()}"
            raise ValueError(msg)
        if mode not in ("ode", "sde"):
            msg = f"mode: {mode!r} is none of 'ode', 'sde'."
            raise ValueError(msg)
        n_draws, n_steps, batch_size = whole_numbers(n_draws=n_draws, n_steps=n_steps, batch_size=batch_size)
        guidance = self._checked_guidance(guidance)
        schedule = self.module.diffusion.schedule  # type: ignore[attr-defined]
        if noise_level is not None and not (
            schedule.lowest < finite_number("noise_level", noise_level) <= schedule.highest
        ):
            msg = f"noise_level: {noise_level} given, above {schedule.lowest} and up to {schedule.highest} wanted."
            raise ValueError(msg)
        target, there = self._place_named(target, "target")
        if source is not None:
            source, _ = self._place_named(source, "source")
        cells = self._sources(self._real_cells(adata, indices), source)
        by_label = there[1] > 0
        # a way between labels is told labels alone: the cell's path leads to where it comes from
        onto = Where.of(there, len(cells), self._device)
        known = cells.where.label > 0
        node = torch.where(known, 0, cells.where.node)
        # nothing is told beside it on the way up, as nothing is on the way down
        origin = Where(node, cells.where.label) if by_label else Where(cells.where.node, torch.zeros_like(node))
        diffusion = self.module.diffusion  # type: ignore[attr-defined]
        levels = diffusion.branch_levels(origin, onto)
        if by_label:
            levels = torch.where(known, levels, diffusion.label.heights[0].to(levels))
        if align and noise_level is None:
            noise_level = self._aligned_noise
        if noise_level is not None:  # cells that are there already stay
            levels = torch.where(torch.isfinite(levels), noise_level, levels)

        with seeded(seed):
            draws = [
                self._carried(cells, origin, onto, levels, mode, n_steps, guidance, batch_size, align)
                for _ in range(n_draws)
            ]
            many = cells.of(np.tile(np.arange(len(cells)), n_draws))
            number = np.repeat(np.arange(n_draws), len(cells))
            names = many.names if n_draws == 1 else [f"{name}-{i}" for name, i in zip(many.names, number, strict=True)]
            around = replace(many.around, node=onto.node.repeat(n_draws))
            out = self._assembled(torch.cat(draws), around, names, keep_mean, batch_size)
        if keep_mean:
            before = expected(self.module, cells.whitened, cells.around, batch_size=batch_size)  # type: ignore[attr-defined]
            out.layers["source_mean"] = np.tile(before, (n_draws, 1))
        self._describe_transmuted(out, many, number, target, there, levels.cpu().numpy())
        return self._signed(
            out, function="transmute", target=target, source=source, mode=mode, n_steps=n_steps, n_draws=n_draws,
            seed=seed, guidance=guidance, align=align, noise_level=noise_level,
        )  # fmt: skip

    @torch.inference_mode()
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
        seed
            Seed.
        between
            What the hybrid is: ``"midpoint"``, halfway between its two completions in the space of the diffusion, or
            ``"condition"``, what the shared condition makes of the same noise, which mostly falls to one side.
        n_steps
            Network calls of a whole run.
        keep_mean
            Whether to keep expected expression, which is dense.
        batch_size
            Cells at a time.

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
        """
        self._require_generator("hybrids")
        if between not in ("midpoint", "condition"):
            msg = f"between: {between!r} is none of 'midpoint', 'condition'."
            raise ValueError(msg)
        n_cells, n_steps, batch_size = whole_numbers(n_cells=n_cells, n_steps=n_steps, batch_size=batch_size)
        (a, one), (b, other) = self._place_named(a, "a"), self._place_named(b, "b")
        if "hybrid" in (a, b):
            msg = "a, b: a place called 'hybrid' cannot be told from the hybrids; rename the label and train again."
            raise ValueError(msg)
        if (one[1] > 0) != (other[1] > 0):
            msg = f"a={a!r} and b={b!r}: two labels or two nodes wanted, not one of each."
            raise ValueError(msg)
        wheres = [Where.of(place, n_cells, self._device) for place in (one, other)]
        diffusion = self.module.diffusion  # type: ignore[attr-defined]
        level = float(diffusion.branch_levels(wheres[0][:1], wheres[1][:1])[0])
        if level == -np.inf:
            msg = f"a={a!r} and b={b!r} do not part: one is the other or lies below it."
            raise ValueError(msg)
        common = wheres
        if one[1] == 0:
            common = [Where(diffusion.lca(wheres[0].node, wheres[1].node), wheres[0].label)]
        with seeded(seed):
            noise = torch.randn(n_cells, diffusion.centre.shape[0], device=self._device)
            shared = self._in_parts(
                lambda rows: self._flow(noise[rows], *(w[rows] for w in common), stop=level, n_steps=n_steps),
                n_cells,
                batch_size,
            )
            ways = [[wheres[0]], [wheres[1]], *([common] if between == "condition" else [])]
            ends = [
                self._in_parts(
                    lambda rows, told=told: self._flow(  # type: ignore[misc]
                        shared[rows], *(w[rows] for w in told), start=level, n_steps=n_steps
                    ),
                    n_cells,
                    batch_size,
                )
                for told in ways
            ]
            hybrid = ends[2] if between == "condition" else (ends[0] + ends[1]) / 2
            ends = [hybrid, *ends[:2]]
            around = self._drawn_surroundings(hybrid, wheres[0], None, None)
            around = around[torch.arange(n_cells, device=self._device).repeat(3)]
            # a hybrid is of neither
            around = replace(around, node=torch.cat([torch.zeros_like(wheres[0].node), *(w.node for w in wheres)]))
            roles = np.repeat(["hybrid", a, b], n_cells)
            pair = np.tile(np.arange(n_cells), 3)
            out = self._assembled(torch.cat(ends), around, None, keep_mean, batch_size)
        out.obs["role"] = pd.Categorical(roles, categories=["hybrid", a, b])
        out.obs["pair"] = pair
        out.obs["branch_noise"] = level
        return self._signed_new(out, function="hybrids", a=a, b=b, between=between, n_steps=n_steps, seed=seed)
