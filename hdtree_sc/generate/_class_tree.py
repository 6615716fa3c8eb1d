"""The tree of a user's own classes, found in the noise levels at which they mix."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch

from hdtree_sc.generate._fit import MIN_HEIGHT, drawn_points
from hdtree_sc.module import BranchedLatentDiffusion, GaussianClasses
from hdtree_sc.stats import class_moments
from hdtree_sc.tree import cosine_levels, found_tree, given_tree, mixing_levels, with_support

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hdtree_sc.diffusion import NoiseSchedule
    from hdtree_sc.tree import ClassTree, Linkage, Tree

Criterion = Literal["discriminability", "cosine"]
CRITERIA = ("discriminability", "cosine")
EPSILON = 0.01
"""Difference of cosines that counts as none, as published for single cells."""
N_BOOT = 50


@dataclass(frozen=True)
class ClassTreeFit:
    """How the tree of classes is found.

    Parameters
    ----------
    names
        Names of the classes, in the order of their numbers.
    criterion
        What counts as mixed.
    linkage
        How pairs of classes make a tree.
    given
        Tree whose topology is kept; None: it is found, with bootstrap support.
    seed
        Seed of the bootstrap and of points that are known up to an error.
    """

    names: list[str]
    criterion: Criterion
    linkage: Linkage
    given: Tree | None
    seed: int

    def fit(self, cells: dict[str, torch.Tensor], rows: NDArray[np.integer]) -> tuple[ClassTree, GaussianClasses]:
        """Find the tree, and where the classes lie in the latent.

        Parameters
        ----------
        cells
            ``points`` (n, d), ``label`` (n,), from 1, 0 for none, and maybe ``scatter`` (n, d).
        rows
            Training cells.
        """
        train = torch.as_tensor(rows)
        space = BranchedLatentDiffusion(cells["points"].shape[1], parents=[-1], n_code=1)
        drawn = drawn_points(cells, self.seed)
        space.fit_whitening(drawn[train])
        number: NDArray[np.int64] = cells["label"][train].numpy() - 1
        known = number >= 0
        train, number = train[torch.from_numpy(known)], number[known]
        size = np.bincount(number, minlength=len(self.names))
        tree = self._with_support(space.whiten(drawn[train]).numpy(), number, size, space.schedule)
        means, covariance = class_moments(cells["points"][train].numpy(), number, len(self.names))
        return tree, self._gaussians(tree, means, np.linalg.pinv(covariance), size)

    def _with_support(
        self,
        points: NDArray[np.floating],
        number: NDArray[np.int64],
        size: NDArray[np.integer],
        schedule: NoiseSchedule,
    ) -> ClassTree:
        tree = self._tree(points, number, size, schedule)
        rng = np.random.default_rng(self.seed)
        replicates = []
        for _ in range(N_BOOT if self.given is None else 0):
            # each class keeps its cells, so that none is lost
            order = np.argsort(number, kind="stable")
            first = np.cumsum(size) - size
            again = order[first[number[order]] + (rng.random(len(order)) * size[number[order]]).astype(int)]
            replicates.append(self._tree(points[again], number[again], size, schedule))
        return with_support(tree, replicates) if replicates else tree

    def _tree(
        self,
        points: NDArray[np.floating],
        number: NDArray[np.integer],
        size: NDArray[np.integer],
        schedule: NoiseSchedule,
    ) -> ClassTree:
        levels, n_cells = self._mixing(points, number, schedule), size.tolist()
        if self.given is not None:
            return given_tree(self.given, levels, self.names, n_cells)
        return found_tree(levels, self.names, n_cells, method=self.linkage)

    def _mixing(
        self, x: NDArray[np.floating], classes: NDArray[np.integer], schedule: NoiseSchedule
    ) -> NDArray[np.float64]:
        """Noise level that mixes each pair of classes, within the schedule."""
        n = len(self.names)
        means, covariance = class_moments(x, classes, n)
        if self.criterion == "cosine":
            squared = np.bincount(classes, np.square(x).sum(1), n) / np.bincount(classes, minlength=n)
            levels = cosine_levels(means, squared, EPSILON)
        else:
            levels = mixing_levels(means, covariance)
        out = levels.clip(MIN_HEIGHT, schedule.highest)
        np.fill_diagonal(out, -np.inf)
        return out

    def _gaussians(
        self,
        tree: ClassTree,
        means: NDArray[np.floating],
        precision: NDArray[np.floating],
        size: NDArray[np.integer],
    ) -> GaussianClasses:
        order = [self.names.index(name) for name in tree.classes]
        held = GaussianClasses(len(order), means.shape[1])
        held.means.copy_(torch.from_numpy(means[order]))
        held.precision.copy_(torch.from_numpy(precision))
        held.log_prior.copy_(torch.log(torch.from_numpy(size[order] / size.sum())))
        return held
