"""Cells of a tree of latents: made from the root down, with what the diffusion knows of each beside its path."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from hdtree_sc.generate._arrays import drawn_cells
from hdtree_sc.generate._generator import Generator
from hdtree_sc.module import SPACES, Condition, paths_to

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import numpy as np
    import pandas as pd
    from numpy.typing import ArrayLike, NDArray

    from hdtree_sc.generate._arrays import DecoderInputs, GeneratedArrays
    from hdtree_sc.generate._generator import EncodedCells, Sampling
    from hdtree_sc.generate._places import LatentTreePlaces, Place
    from hdtree_sc.module import Space, TreeLatentDiffusion, TreeVAEModule


def signal_of(
    module: TreeVAEModule,
    condition: str,
    space: Space,
    z: torch.Tensor,
    node: torch.Tensor,
    covariates: torch.Tensor,
    library: torch.Tensor,
) -> torch.Tensor:
    """What the diffusion is conditioned on beside the path, (n, n_signal).

    Parameters
    ----------
    module
        The module.
    condition
        ``"path"`` or ``"reconstruction"``.
    space
        Space in which diffusion runs.
    z
        Latents of all nodes, (n_nodes, n, n_node_latent).
    node
        Node of the tree that each cell is of, int (n,).
    covariates, library
        What cells are decoded with.
    """
    plan, row = module.tree.plan, torch.arange(len(node), device=node.device)
    if condition == "reconstruction":
        here = plan.shown[node]
        params = module.decoder(z[here, row], plan.slots[here], covariates, library)
        return SPACES[space].points_of(module, module._likelihood(params).mean, covariates)
    path = torch.tensor(paths_to(plan.shown_parents), device=node.device)[node]
    values = z[plan.shown[path.clamp_min(0)], row.unsqueeze(1)] * (path >= 0).unsqueeze(-1)
    return values.flatten(1)


@torch.no_grad()
def root_and_signal(
    module: TreeVAEModule,
    condition: str,
    space: Space,
    points: torch.Tensor,
    node: torch.Tensor,
    covariates: torch.Tensor,
    library: torch.Tensor,
    generator: torch.Generator,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Latents of the root, (n, n_node_latent), and signal, (n, n_signal), of cells that are points of a space."""
    z = module.tree(SPACES[space].latent(module, points, covariates), draw=True, generator=generator).z
    return z[0], signal_of(module, condition, space, z, node, covariates, library)


class LatentTreeGenerator(Generator):
    """Generator of a module whose nodes have latents.

    Parameters
    ----------
    module
        The module.
    places
        Nodes of its tree, and labels.
    seed
        Seed of the latents of real cells.
    """

    module: TreeVAEModule
    diffusion: TreeLatentDiffusion
    places: LatentTreePlaces

    def __init__(self, module: TreeVAEModule, places: LatentTreePlaces, *, seed: int) -> None:
        super().__init__(module, places)
        self.seed = seed

    def encoded(self, parts: Sequence[NDArray[np.generic]], obs: pd.DataFrame) -> EncodedCells:
        """Real cells, with their signal."""
        cells = super().encoded(parts, obs)
        generator = torch.Generator(self.device).manual_seed(self.seed)
        points, inputs = self.diffusion.unwhiten(cells.whitened), cells.inputs
        _, signal = root_and_signal(
            self.module,
            self.diffusion.condition_on,
            self.module.space,
            points,
            cells.where.node,
            inputs.covariates,
            inputs.library,
            generator,
        )
        return replace(cells, where=replace(cells.where, signal=signal))

    # ---------------------------------------------------------------- leaves

    def leaves_below(self, node: int) -> torch.Tensor:
        """Leaves below a node of the tree, or it itself, int (n_leaves,)."""
        return (self.diffusion.below(node) & self.places.is_leaf(self.device)).nonzero().squeeze(1)

    def draw_leaves(self, place: Place, n_cells: int) -> torch.Tensor:
        """Leaves of random training cells of a node and a label, int (n_cells,).

        Raises
        ------
        ValueError
            If no training cell is of both.
        """
        held = torch.isin(self.pool.node, self.leaves_below(place[0]))
        if place[1]:
            held &= self.pool.label == place[1]
        rows = held.nonzero().squeeze(1)
        if not len(rows):
            msg = f"node, label: no training cell is of both. {self.places.destinations}"
            raise ValueError(msg)
        return self.pool.node[rows[torch.randint(len(rows), (n_cells,), device=rows.device)]]

    def normal_root(self, n_cells: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Latents of all nodes (n_nodes, n, n_node_latent) from a standard normal root, and a leaf by the routers."""
        tree = self.module.tree
        z, log_share = tree.descend(torch.randn(n_cells, self.module.n_node_latent, device=self.device))
        leaves = self.leaves_below(0)
        drawn = torch.multinomial(log_share[tree.plan.shown[leaves]].exp().T, 1).squeeze(1)
        return z, leaves[drawn]

    # ---------------------------------------------------------------- cells

    def from_root(
        self,
        n_cells: int,
        place: Place,
        how: Sampling,
        *,
        root: str,
        per_leaf: bool,
        refine: bool,
        signal: bool,
        batch: int | None,
        library: float | ArrayLike | None,
        keep_mean: bool,
    ) -> tuple[GeneratedArrays, DecoderInputs, torch.Tensor]:
        """New cells: a latent of the root, those below it, and what the diffusion or the leaf's decoder make of them.

        Parameters
        ----------
        n_cells
            Number of roots, each of which gives one cell, or with ``per_leaf`` a cell of every leaf.
        place
            Node and label.
        how
            Sampling.
        root
            ``"cells"`` or ``"normal"``.
        per_leaf, refine
            See :meth:`TreeVAE.generate`.
        signal
            Whether the diffusion is conditioned on the latents.
        batch, library
            See :meth:`Generator.decoder_inputs`.
        keep_mean
            Whether to keep expected expression.

        Returns
        -------
        The cells, what they were decoded with (whose nodes are the leaves that were drawn), and the number of the root
        of each, (n,).
        """
        if root == "normal":
            z, leaf = self.normal_root(n_cells)
        else:
            leaf = self.draw_leaves(place, n_cells)
            z = self.diffusion.draw_roots(leaf).unsqueeze(0)
        sample = torch.arange(n_cells, device=self.device)
        noise = None
        unknown = Condition(leaf, torch.zeros_like(leaf))
        inputs = self.decoder_inputs(self.diffusion.node_means[leaf], unknown, batch, library)
        if per_leaf:
            leaves = self.leaves_below(place[0])
            sample, leaf = sample.repeat_interleave(len(leaves)), leaves.repeat(n_cells)
            noise = self.noise(n_cells)[sample]
        inputs = replace(inputs[sample], node=leaf)
        if root == "cells":
            z, _ = self.module.tree.descend(z[0][sample])
        if not refine:
            return self._unrefined(z, inputs, keep_mean=keep_mean, batch_size=how.batch_size), inputs, sample
        condition, space = self.diffusion.condition_on, self.module.space
        given = signal_of(self.module, condition, space, z, leaf, inputs.covariates, inputs.library)
        if not signal:
            given = torch.full_like(given, torch.nan)
        where = Condition(leaf, torch.full_like(leaf, place[1]), given)
        whitened = self.sample(where, how, noise)
        return self.decode(whitened, inputs, keep_mean=keep_mean, batch_size=how.batch_size), inputs, sample

    def _unrefined(
        self, z: torch.Tensor, inputs: DecoderInputs, *, keep_mean: bool, batch_size: int
    ) -> GeneratedArrays:
        """Cells that the leaves' decoders make of the latents of the tree."""
        module = self.module
        plan = module.tree.plan

        def decoded() -> Iterator[tuple[Any, Callable[[torch.Tensor], torch.Tensor]]]:
            for rows in torch.arange(len(inputs.node), device=self.device).split(batch_size):
                own, here = inputs[rows], plan.shown[inputs.node[rows]]
                params = module.decoder(z[here, rows], plan.slots[here], own.covariates, own.library)
                yield module._likelihood(params), partial(module.encoded, covariates=own.covariates)

        return drawn_cells(module, decoded(), keep_mean=keep_mean)
