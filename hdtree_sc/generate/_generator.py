"""The generator of a trained model: points of the diffusion from noise, from other places, and between two."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from hdtree_sc.diffusion import alpha_sigma
from hdtree_sc.generate._arrays import DecoderInputs, decoded_cells, expected, library_sizes
from hdtree_sc.module import SPACES, Condition

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import pandas as pd
    from numpy.typing import ArrayLike, NDArray

    from hdtree_sc.diffusion import Method
    from hdtree_sc.generate._arrays import GeneratedArrays
    from hdtree_sc.generate._places import Place, Places
    from hdtree_sc.module import CellModule

SAMPLING_BATCH = 4096


@dataclass(frozen=True)
class Sampling:
    """How points are sampled.

    Parameters
    ----------
    n_steps
        Network calls of a whole run from noise to data.
    method
        See :func:`hdtree_sc.diffusion.integrate`.
    guidance
        Weight of the condition against none.
    batch_size
        Rows at a time.
    """

    n_steps: int = 50
    method: Method = "dpm"
    guidance: float = 1.0
    batch_size: int = SAMPLING_BATCH


@dataclass
class EncodedCells:
    """Real cells as the generator sees them.

    Parameters
    ----------
    obs
        Their columns.
    whitened
        Their points, (n, d).
    where
        Their conditions.
    inputs
        What they are decoded with.
    """

    obs: pd.DataFrame
    whitened: torch.Tensor
    where: Condition
    inputs: DecoderInputs

    @property
    def names(self) -> pd.Index:
        """Names of the cells."""
        return self.obs.index

    def __len__(self) -> int:
        return len(self.obs)

    def of(self, rows: NDArray[np.intp]) -> EncodedCells:
        """Some of the cells, or cells several times."""
        picked = torch.from_numpy(rows).to(self.whitened.device)
        return EncodedCells(self.obs.iloc[rows], self.whitened[picked], self.where[picked], self.inputs[picked])


@dataclass
class Route:
    """From where to where cells are transported, and up to which noise.

    Parameters
    ----------
    origin, onto
        Conditions on the way up and on the way down.
    levels
        Noise level at which each cell turns, (n,); minus infinity: it stays.
    """

    origin: Condition
    onto: Condition
    levels: torch.Tensor


class Generator:
    """Samples, transports and decodes points of a module's diffusion.

    Parameters
    ----------
    module
        The module, with its second stage.
    places
        What it is conditioned on.
    """

    def __init__(self, module: CellModule, places: Places) -> None:
        assert module.diffusion is not None
        assert module.covariate_pool is not None
        self.module, self.places = module, places
        self.diffusion, self.pool = module.diffusion, module.covariate_pool
        self.space = SPACES[module.space]
        self.device: torch.device = module.device

    # ---------------------------------------------------------------- real cells

    def encode(self, tensors: dict[str, torch.Tensor]) -> tuple[torch.Tensor, ...]:
        """What :meth:`encoded` needs of a minibatch."""
        module = self.module
        where = self.places.conditions_of(module.latents(tensors), module.registered_labels(tensors))
        whitened = self.diffusion.whiten(self.space.points(module, tensors))
        return whitened, where.node, where.label, module._library(tensors), module.covariates(tensors)

    def encoded(self, parts: Sequence[NDArray[Any]], obs: pd.DataFrame) -> EncodedCells:
        """Real cells, from what :meth:`encode` gave of all of them, and their columns."""
        whitened, node, label, library, covariates = (torch.from_numpy(part).to(self.device) for part in parts)
        return EncodedCells(obs, whitened, Condition(node, label), DecoderInputs(library, covariates, node))

    def cells_of(self, cells: EncodedCells, place: Place, name: str) -> EncodedCells:
        """The cells of a label or a node.

        Raises
        ------
        ValueError
            If there are none.
        """
        node, label = place
        chosen = cells.where.label == label if label else self.diffusion.below(node)[cells.where.node]
        rows = chosen.nonzero().squeeze(1).cpu().numpy()
        if not len(rows):
            msg = f"source: adata has no cell of {name!r}."
            raise ValueError(msg)
        return cells.of(rows)

    def bound(self, cells: EncodedCells, n_levels: int, seed: int, batch_size: int) -> NDArray[np.float32]:
        """Bound of the negative log likelihood of cells under their own conditions, (n,)."""
        random = torch.Generator(self.device).manual_seed(seed)
        found = self.in_parts(
            lambda rows: self.diffusion.bound(cells.whitened[rows], cells.where[rows], n_levels, random),
            len(cells),
            batch_size,
        )
        return found.cpu().numpy()

    # ---------------------------------------------------------------- points

    def in_parts(self, function: Callable[[torch.Tensor], torch.Tensor], n_cells: int, batch_size: int) -> torch.Tensor:
        """A function of rows, for some of them at a time."""
        return torch.cat([function(rows) for rows in torch.arange(n_cells, device=self.device).split(batch_size)])

    def noise(self, n_cells: int) -> torch.Tensor:
        """Standard normal points (n, d)."""
        return torch.randn(n_cells, self.diffusion.centre.shape[0], device=self.device)

    def sample(self, where: Condition, how: Sampling, noise: torch.Tensor | None = None) -> torch.Tensor:
        """Whitened points from noise alone, which is fresh unless it is given."""

        def sample(rows: torch.Tensor) -> torch.Tensor:
            start = self.noise(len(rows)) if noise is None else noise[rows]
            return self.diffusion.flow(
                start, where[rows], n_steps=how.n_steps, method=how.method, guidance=how.guidance
            )

        return self.in_parts(sample, len(where.node), how.batch_size)

    def denoise(self, whitened: torch.Tensor, where: Condition, level: float, how: Sampling) -> torch.Tensor:
        """Points with fresh noise of a level, and without it again."""
        start = self.diffusion.noised(whitened, level)

        def denoised(rows: torch.Tensor) -> torch.Tensor:
            return self.diffusion.flow(start[rows], where[rows], start=level, n_steps=how.n_steps, method=how.method)

        return self.in_parts(denoised, len(whitened), how.batch_size)

    def route(self, cells: EncodedCells, there: Place, noise_level: float | None) -> Route:
        """Conditions of cells up to the noise at which they turn and down to a place.

        Parameters
        ----------
        cells
            The cells; those that are there already stay.
        there
            The place.
        noise_level
            Noise level at which they turn; None: that of the branch point of source and target.
        """
        by_label = there[1] > 0
        # between labels the condition is the label alone: the cell's path leads to where it comes from
        onto = Condition.of(there, len(cells), self.device)
        known = cells.where.label > 0
        node = torch.where(known, 0, cells.where.node)
        # no other condition beside it on the way up, as there is none on the way down
        origin = Condition(node, cells.where.label) if by_label else Condition(cells.where.node, torch.zeros_like(node))
        levels = self.diffusion.branch_levels(origin, onto)
        if by_label:
            levels = torch.where(known, levels, self.diffusion.label.heights[0].to(levels))
        if noise_level is not None:
            levels = torch.where(torch.isfinite(levels), noise_level, levels)
        return Route(origin, onto, levels)

    def check_noise_level(self, noise_level: float) -> None:
        """Refuse a noise level that is none of the schedule.

        Raises
        ------
        ValueError
            Naming those that are.
        """
        schedule = self.diffusion.schedule
        if not schedule.lowest < noise_level <= schedule.highest:
            msg = f"noise_level: {noise_level} given, above {schedule.lowest} and up to {schedule.highest} wanted."
            raise ValueError(msg)

    def transported(
        self, cells: EncodedCells, route: Route, how: Sampling, *, mode: str, align: bool, n_draws: int
    ) -> tuple[torch.Tensor, EncodedCells, DecoderInputs]:
        """Whitened points of several draws of :meth:`transport`, the source cell of each, and its decoder's inputs."""
        draws = [self.transport(cells, route, how, mode=mode, align=align) for _ in range(n_draws)]
        many = cells.of(np.tile(np.arange(len(cells)), n_draws))
        return torch.cat(draws), many, replace(many.inputs, node=route.onto.node.repeat(n_draws))

    def transport(self, cells: EncodedCells, route: Route, how: Sampling, *, mode: str, align: bool) -> torch.Tensor:
        """Whitened points of cells that went up to some noise and down to the target, moved by the means if aligned."""
        diffusion, origin, onto, levels = self.diffusion, route.origin, route.onto, route.levels
        lowest, n_steps = diffusion.schedule.lowest, how.n_steps
        out = cells.whitened.clone()
        # few branch points, however many cells
        for level in torch.unique(levels[torch.isfinite(levels)]).tolist():
            for rows in (levels == level).nonzero().squeeze(1).split(how.batch_size):
                x = cells.whitened[rows]
                jump: float | torch.Tensor = 0.0
                if align:
                    signal = float(alpha_sigma(torch.tensor(level, dtype=torch.float64))[0])
                    jump = signal * (diffusion.mean_of(onto[rows]) - diffusion.mean_of(origin[rows]))
                if mode == "ode":
                    x = jump + diffusion.flow(x, origin[rows], start=lowest, stop=level, n_steps=n_steps)
                    # the way back ends where the way up began: without noise there would be nothing to invert
                    x = diffusion.flow(x, onto[rows], start=level, stop=lowest, n_steps=n_steps, guidance=how.guidance)
                else:
                    x = jump + diffusion.noised(x, level)
                    x = diffusion.flow(
                        x, onto[rows], start=level, n_steps=n_steps, method="ancestral", guidance=how.guidance
                    )
                out[rows] = x
        return out

    def branch_level(self, one: Place, other: Place) -> float:
        """Noise level at which two places part; minus infinity: they do not."""
        wheres = [Condition.of(place, 1, self.device) for place in (one, other)]
        return float(self.diffusion.branch_levels(*wheres)[0])

    def hybrids(
        self, one: Place, other: Place, n_cells: int, how: Sampling, *, between: str
    ) -> tuple[torch.Tensor, DecoderInputs]:
        """Whitened points at the branch point of two places, and what each becomes on either side.

        Parameters
        ----------
        one, other
            Two labels or two nodes.
        n_cells
            Number of hybrids.
        how
            Sampling.
        between
            ``"midpoint"`` or ``"condition"``.

        Returns
        -------
        Points of the hybrids, of the one side and of the other, (3 n_cells, d), and what they are decoded with.
        """
        wheres = [Condition.of(place, n_cells, self.device) for place in (one, other)]
        level = self.branch_level(one, other)
        common = wheres
        if one[1] == 0:
            common = [Condition(self.diffusion.lca(wheres[0].node, wheres[1].node), wheres[0].label)]

        def flow(x: torch.Tensor, conditions: list[Condition], start: float | None, stop: float | None) -> torch.Tensor:
            def of(rows: torch.Tensor) -> torch.Tensor:
                given = (where[rows] for where in conditions)
                return self.diffusion.flow(x[rows], *given, start=start, stop=stop, n_steps=how.n_steps)

            return self.in_parts(of, n_cells, how.batch_size)

        shared = flow(self.noise(n_cells), common, None, level)
        sides = [flow(shared, [where], level, None) for where in wheres]
        hybrid = flow(shared, common, level, None) if between == "condition" else (sides[0] + sides[1]) / 2
        inputs = self.decoder_inputs(hybrid, wheres[0], None, None)
        inputs = inputs[torch.arange(n_cells, device=self.device).repeat(3)]
        # a hybrid is of neither
        node = torch.cat([torch.zeros_like(wheres[0].node), *(where.node for where in wheres)])
        return torch.cat([hybrid, *sides]), replace(inputs, node=node)

    # ---------------------------------------------------------------- cells

    def decoder_inputs(
        self, whitened: torch.Tensor, where: Condition, batch: int | None, library: float | ArrayLike | None
    ) -> DecoderInputs:
        """Library sizes and covariates of real cells of leaves.

        Parameters
        ----------
        whitened
            Points, (n, d).
        where
            Their conditions.
        batch
            Number of the batch as which cells are decoded; None: that of the real cell.
        library
            Library sizes; None: those of the real cells.
        """
        module = self.module
        points = self.diffusion.unwhiten(whitened)
        if module.space == "latent":
            latent = points
        else:
            unknown = self.pool.covariates.mean(0).expand(len(points), -1)
            latent = self.space.latent(module, points, unknown)
        leaf = self.places.leaves_decoded(where, latent)
        rows = self.pool.draw(leaf, batch)
        inputs = DecoderInputs(self.pool.library[rows], self.pool.covariates[rows], leaf)
        if library is not None:
            size = torch.from_numpy(library_sizes(library, len(points))).to(self.device)
            inputs = replace(inputs, library=size.expand(len(points), 1).contiguous())
        return inputs if batch is None else inputs.in_batch(batch, module.covariates.n_batch)

    def decode(
        self, whitened: torch.Tensor, inputs: DecoderInputs, *, keep_mean: bool, batch_size: int
    ) -> GeneratedArrays:
        """Cells of points."""
        return decoded_cells(self.module, whitened, inputs, keep_mean=keep_mean, batch_size=batch_size)

    def expected(self, whitened: torch.Tensor, inputs: DecoderInputs, *, batch_size: int) -> NDArray[np.float32]:
        """Expected expression of points, (n, n_vars)."""
        return expected(self.module, whitened, inputs, batch_size=batch_size)

    def latents(self, cells: EncodedCells) -> NDArray[np.float32]:
        """Latents (n, n_latent) of real cells as they are."""
        points = self.diffusion.unwhiten(cells.whitened)
        return self.module.shown(self.space.latent(self.module, points, cells.inputs.covariates)).float().cpu().numpy()

    def leaves(self, made: GeneratedArrays) -> NDArray[np.int64]:
        """Position in the tree of the leaf of each generated cell, (n,)."""
        return self.places.head.leaf(torch.from_numpy(made.latent).to(self.device)).cpu().numpy()
