"""What the generator learns before it is trained: whitening, branch points, and the cells that it is trained on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scvi import REGISTRY_KEYS

from hdtree_sc.data import PointSplitter, positions_of
from hdtree_sc.generate._from_root import root_and_signal
from hdtree_sc.generate._generator import SAMPLING_BATCH
from hdtree_sc.module import SPACES, Condition, CovariatePool, LatentDiffusion, code_spread
from hdtree_sc.stats import class_moments
from hdtree_sc.tree import mixing_levels, node_heights, subtree_sums

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from hdtree_sc.data import Setup
    from hdtree_sc.generate._places import ClassPlaces, Places
    from hdtree_sc.module import (
        BranchedLatentDiffusion,
        CellModule,
        HDTreeModule,
        Space,
        TreeCondition,
        TreeLatentDiffusion,
        TreeVAEModule,
    )
    from hdtree_sc.tree import Tree

STEPS = 50
"""Smallest number of steps that count as an epoch."""
VALIDATED = 2_048
"""Smallest number of held-out cells and noises that validation looks at."""
POOL_CELLS = 20_000
"""Cells whose library size and covariates are kept."""
MOMENT_CELLS = 50_000
"""Branch points are learned from so many cells."""
MIN_HEIGHT = -3.0
"""Lowest branch point: what would part below it parts here, so that its nodes can be distinguished."""


def conditions_of(batch: dict[str, torch.Tensor]) -> Condition:
    """Conditions of a minibatch of cached points."""
    return Condition(batch["node"], batch["label"], batch.get("signal"))


def drawn_points(cells: dict[str, torch.Tensor], seed: int) -> torch.Tensor:
    """Points of cells, (n, d): drawn once where they are known up to a normal error."""
    points = cells["points"]
    if "scatter" not in cells:
        return points
    generator = torch.Generator().manual_seed(seed)
    return points + cells["scatter"] * torch.randn(points.shape, generator=generator)


class LearnedCells:
    """What a generator learns of cells, read a minibatch at a time.

    Parameters
    ----------
    module
        The module.
    space
        Space in which diffusion runs.
    conditions_of
        From latents and the labels of a minibatch to conditions.
    """

    def __init__(
        self, module: CellModule, space: Space, conditions_of: Callable[[torch.Tensor, torch.Tensor], Condition]
    ) -> None:
        self.module, self.space, self.conditions_of = module, space, conditions_of
        self.has_scatter = module.is_variational and space == "latent"

    @classmethod
    def by_label(cls, module: CellModule, setup: Setup) -> LearnedCells:
        """Cells in the latent with the numbers of their labels, before there is a tree of these."""
        number = torch.from_numpy(positions_of(setup.label_categories, setup.labels) + 1)

        def labels(z: torch.Tensor, registered: torch.Tensor) -> Condition:
            return Condition(torch.zeros_like(registered), number.to(registered.device)[registered])

        return cls(module, "latent", labels)

    def read(self, tensors: dict[str, torch.Tensor]) -> tuple[torch.Tensor, ...]:
        """Points, node, label, batch, library size, covariates and maybe scatter of a minibatch."""
        module = self.module
        found = module.inferred(tensors)
        z = found["z"].float()
        where = self.conditions_of(z, module.registered_labels(tensors))
        points = z if self.space == "latent" else SPACES[self.space].points(module, tensors)
        batch = tensors[REGISTRY_KEYS.BATCH_KEY][:, 0].long()
        scatter = [found["scatter"]] if self.has_scatter else []
        library, covariates = module._library(tensors), module.covariates(tensors)
        return points, where.node, where.label, batch, library, covariates, *scatter

    def named(self, parts: list[NDArray[Any]]) -> dict[str, torch.Tensor]:
        """What :meth:`read` gave of all cells, by name."""
        names = ("points", "node", "label", "batch", "library", "covariates", *["scatter"] * self.has_scatter)
        return dict(zip(names, map(torch.from_numpy, parts), strict=True))


class GeneratorFit:
    """A new generator for the cells of a training.

    Parameters
    ----------
    module
        The module.
    places
        What the generator is conditioned on.
    seed
        Seed of its weights and of all that is drawn.
    """

    def __init__(self, module: CellModule, places: Places, *, seed: int) -> None:
        self.module, self.places, self.seed = module, places, seed

    @property
    def tree(self) -> Tree:
        """The tree."""
        return self.places.tree

    def params(self, n_features: int, options: dict[str, Any]) -> dict[str, Any]:
        """Arguments of the diffusion: those that the tree decides, and others."""
        return {
            "n_features": n_features,
            "parents": self.tree.parents.tolist(),
            "n_code": self.module.n_latent,
            "n_labels": self.places.n_labels,
        } | options

    def begun(
        self, params: dict[str, Any], cells: dict[str, torch.Tensor], rows: NDArray[np.integer], space: Space
    ) -> tuple[LatentDiffusion, CovariatePool]:
        """A diffusion with random weights that knows whitening and branch points, and the pool of training cells.

        Parameters
        ----------
        params
            Arguments of the diffusion.
        cells
            See :class:`LearnedCells`; points are whitened, ``"drawn"`` is added.
        rows
            Training cells.
        space
            Space in which diffusion runs.
        """
        train = torch.as_tensor(rows)
        with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
            torch.manual_seed(self.seed)
            diffusion = self.module._diffusion_cls(**params)
            chosen = train[torch.randperm(len(train))]
        drawn = drawn_points(cells, self.seed)
        diffusion.fit_whitening(drawn[train])
        cells["points"], cells["drawn"] = diffusion.whiten(cells["points"]), diffusion.whiten(drawn)
        kept = chosen[:POOL_CELLS]
        pool = CovariatePool(len(kept), cells["covariates"].shape[1])
        held = {name: values[kept] for name, values in cells.items()}
        pool.fill(Condition(held["node"], held["label"]), held["batch"], held["library"], held["covariates"])
        self.find_branch_points(diffusion, {name: values[chosen[:MOMENT_CELLS]] for name, values in cells.items()})
        return diffusion, pool

    def find_branch_points(self, diffusion: LatentDiffusion, cells: dict[str, torch.Tensor]) -> None:
        """Where the nodes of the tree, and the labels, part, in the very space in which diffusion runs."""
        tree = self.tree
        points, top = cells["drawn"].numpy(), diffusion.schedule.highest
        leaf = np.cumsum(tree.is_leaf_mask)[cells["node"].numpy()] - 1
        means, covariance = class_moments(points, leaf, len(tree.leaves))
        between = mixing_levels(means, covariance)
        heights = np.where(tree.is_leaf_mask, -np.inf, node_heights(tree, between).clip(MIN_HEIGHT, top))
        codes = torch.tensor(np.array(tree.codebook))
        # of a root alone there is no spread
        scale = codes.std(0).clamp_min(1e-6) if len(codes) > 1 else torch.ones_like(codes[0])
        diffusion.path.describe((codes - codes.mean(0)) / scale, torch.from_numpy(heights))
        size = np.zeros(len(tree))
        size[tree.is_leaf_mask] = np.bincount(leaf, minlength=len(tree.leaves))
        sums = np.zeros((len(tree), points.shape[1]))
        sums[tree.is_leaf_mask] = np.nan_to_num(means) * size[tree.is_leaf_mask, None]
        of_nodes = subtree_sums(tree, sums) / np.maximum(subtree_sums(tree, size), 1.0)[:, None]
        diffusion.node_means.copy_(torch.from_numpy(of_nodes))
        self._find_label_levels(diffusion, points, cells["label"].numpy())

    def _find_label_levels(
        self, diffusion: LatentDiffusion, points: NDArray[np.floating], label: NDArray[np.integer]
    ) -> None:
        n_labels, top, known = self.places.n_labels, diffusion.schedule.highest, label > 0
        if not n_labels or known.sum() < 2:
            return
        levels = np.full((n_labels + 1, n_labels + 1), top)
        means, covariance = class_moments(points[known], label[known] - 1, n_labels)
        diffusion.label_means[1:] = torch.from_numpy(np.nan_to_num(means)).float()
        found = mixing_levels(means, covariance)
        levels[1:, 1:] = found.clip(MIN_HEIGHT, top)
        np.fill_diagonal(levels, -np.inf)
        diffusion.label_levels.copy_(torch.from_numpy(levels))
        heights = np.full(n_labels + 1, -np.inf)
        heights[0] = levels[1:, 1:].max() if n_labels > 1 else top
        diffusion.label.describe(torch.zeros(n_labels + 1, 1), torch.from_numpy(heights))

    def splitter(
        self,
        diffusion: LatentDiffusion,
        cells: dict[str, torch.Tensor],
        batch_size: int,
        *,
        train: NDArray[np.integer],
        held_out: NDArray[np.integer],
        test: NDArray[np.integer] | None,
    ) -> PointSplitter:
        """Minibatches of points of the training cells, and of the held-out ones at noise that never changes."""
        learned = {name: cells[name] for name in ("points", "node", "label", "scatter", "signal") if name in cells}
        validation = None
        if len(held_out):
            generator = torch.Generator().manual_seed(self.seed)
            # of few cells each is looked at in many ways
            rows = torch.as_tensor(held_out).repeat(-(-VALIDATED // len(held_out)))
            shape = cells["drawn"][rows].shape
            where = diffusion.drop_condition(
                conditions_of({name: values[rows] for name, values in learned.items()}), generator
            )
            validation = {"points": cells["drawn"][rows], "node": where.node, "label": where.label}
            if where.signal is not None:
                validation["signal"] = where.signal
            validation["noise"] = torch.randn(shape, generator=generator)
            validation["level"] = diffusion.levels_for_training(shape[0], generator, torch.device("cpu"))
        return PointSplitter(
            {name: values[torch.as_tensor(train)] for name, values in learned.items()},
            validation,
            batch_size=batch_size,
            n_batches=STEPS,
            train_idx=train,
            val_idx=held_out,
            test_idx=test,
            seed=self.seed,
        )


class JointFit(GeneratorFit):
    """A generator that HDTree's training learned jointly: nothing is left to train."""

    module: HDTreeModule

    def begun(
        self, params: dict[str, Any], cells: dict[str, torch.Tensor], rows: NDArray[np.integer], space: Space
    ) -> tuple[LatentDiffusion, CovariatePool]:
        """See :meth:`GeneratorFit.begun`; the diffusion has learned weights."""
        diffusion, pool = super().begun(params, cells, rows, space)
        joint, codebook = self.module.joint, self.module.codebook
        assert joint is not None
        codes = torch.tensor(np.array(self.tree.codebook))
        joint.hand_over(diffusion, codes, code_spread(codebook).cpu())
        return diffusion, pool


class LatentTreeFit(GeneratorFit):
    """A new generator of a module whose nodes have latents.

    Parameters
    ----------
    module, places, seed
        See :class:`GeneratorFit`.
    condition
        What the diffusion is conditioned on beside the path.
    """

    module: TreeVAEModule

    def __init__(self, module: TreeVAEModule, places: Places, *, seed: int, condition: TreeCondition) -> None:
        super().__init__(module, places, seed=seed)
        self.condition: TreeCondition = condition

    def begun(
        self, params: dict[str, Any], cells: dict[str, torch.Tensor], rows: NDArray[np.integer], space: Space
    ) -> tuple[LatentDiffusion, CovariatePool]:
        """See :meth:`GeneratorFit.begun`; ``"signal"`` is added to the cells."""
        diffusion, pool = super().begun(params, cells, rows, space)
        self.learn_signal(diffusion, cells, torch.as_tensor(rows), space)  # type: ignore[arg-type]
        return diffusion, pool

    def learn_signal(
        self, diffusion: TreeLatentDiffusion, cells: dict[str, torch.Tensor], train: torch.Tensor, space: Space
    ) -> None:
        """Learn where the latents of the root lie, and the signal of each cell."""
        device = self.module.device
        generator = torch.Generator(device).manual_seed(self.seed)
        parts = []
        for rows in torch.arange(len(cells["points"])).split(SAMPLING_BATCH):
            points = diffusion.unwhiten(cells["points"][rows]).to(device)
            node, covariates, library = (cells[name][rows].to(device) for name in ("node", "covariates", "library"))
            found = root_and_signal(self.module, self.condition, space, points, node, covariates, library, generator)
            parts.append([part.cpu() for part in found])
        roots, cells["signal"] = (torch.cat(part) for part in zip(*parts, strict=True))
        diffusion.fit_roots(roots[train], cells["node"][train], cells["signal"][train])


class ClassFit(GeneratorFit):
    """A new generator of a module whose tree of classes knows its branch points already."""

    places: ClassPlaces

    def find_branch_points(self, diffusion: LatentDiffusion, cells: dict[str, torch.Tensor]) -> None:
        """The heights that the tree has."""
        branched: BranchedLatentDiffusion = diffusion  # type: ignore[assignment]
        tree = self.places.classes
        branched.path.describe(torch.zeros_like(branched.path.codes), torch.tensor(tree.levels))
        below = torch.from_numpy(tree.below())
        member = below[cells["node"]].double()
        sums = member.T @ cells["drawn"].double()
        branched.node_means.copy_(sums / member.sum(0).clamp_min(1.0)[:, None])
        _, within = class_moments(cells["drawn"].numpy(), cells["node"].numpy(), len(tree))
        branched.within.copy_(torch.from_numpy(within))
