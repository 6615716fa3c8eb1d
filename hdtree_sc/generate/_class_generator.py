"""Cells of classes: several at once from the same noise, and the class that takes noise off a cell best."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import numpy as np
import torch

from hdtree_sc.diffusion import alpha_sigma
from hdtree_sc.generate._fit import MIN_HEIGHT
from hdtree_sc.generate._generator import Generator, Sampling
from hdtree_sc.module import Condition

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from hdtree_sc.generate._places import ClassPlaces
    from hdtree_sc.module import BranchedLatentDiffusion, BranchedModule


class ClassGenerator(Generator):
    """Generator of a module whose tree is one of classes."""

    places: ClassPlaces
    diffusion: BranchedLatentDiffusion

    def classes(self, numbers: Sequence[int], n_cells: int) -> Condition:
        """Conditions of ``n_cells`` cells of each of some classes, class by class."""
        node = torch.tensor(numbers, device=self.device).repeat_interleave(n_cells)
        return Condition(node, torch.zeros_like(node))

    def shared(self, numbers: Sequence[int], n_cells: int, how: Sampling) -> tuple[torch.Tensor, dict[str, int]]:
        """Whitened points of classes from the same noise, class by class, and what they cost.

        Parameters
        ----------
        numbers
            Numbers of the classes.
        n_cells
            Cells of each.
        how
            Sampling.

        Returns
        -------
        Points (n_classes * n_cells, d), and ``network_calls`` and ``network_calls_unshared``: calls for each of the
        ``n_cells``, and what they would be without.
        """
        parts = [
            self._family(numbers, len(rows), how)
            for rows in torch.arange(n_cells).split(max(1, how.batch_size // len(numbers)))
        ]
        # classes first, then the cells of each
        whitened = torch.cat([points for points, _ in parts], 1).flatten(0, 1)
        alone = len(self.diffusion.way(None, None, how.n_steps)) - 1
        twice = 1 if how.guidance == 1.0 else 2
        calls = {"network_calls": parts[0][1] * twice, "network_calls_unshared": alone * len(numbers) * twice}
        return whitened, calls

    def _family(self, numbers: Sequence[int], n: int, how: Sampling) -> tuple[torch.Tensor, int]:
        """Whitened points of classes, (n_classes, n, d), and the network calls of each row's whole family.

        Every node on the path to a class is passed once, from the branch point above it down to its own.
        """
        diffusion, tree = self.diffusion, self.places.classes
        wanted, calls = tree.below()[list(numbers)].any(0), 0
        start = torch.randn(n, diffusion.centre.shape[0], device=diffusion.centre.device)
        at: dict[int, tuple[torch.Tensor, float | None]] = {-1: (start, None)}
        for node in np.flatnonzero(wanted).tolist():
            parent = tree.parents[node]
            x, level = at[parent]
            if np.isfinite(tree.opens[node]) and level is not None and tree.opens[node] > level:
                x, level = at[-1]  # it parts before its parent does
            stop = None if tree.labels[node] else float(min(tree.levels[node], diffusion.schedule.highest))
            if stop is not None and level is not None and stop >= level:
                at[node] = (x, level)  # a node that parts where its parent does
                continue
            where = Condition.of((node, 0), n, start.device)
            if stop is None or level is not None or stop < diffusion.schedule.highest:
                calls += len(diffusion.way(level, stop, how.n_steps)) - 1
                x = diffusion.flow(
                    x, where, start=level, stop=stop, n_steps=how.n_steps, method=how.method, guidance=how.guidance
                )
            at[node] = (x, stop)
        return torch.stack([at[number][0] for number in numbers]), calls

    def classifier(self, n_noise: int, seed: int) -> Callable[[dict[str, torch.Tensor]], tuple[torch.Tensor]]:
        """From a minibatch to probabilities of the classes (n, n_classes), by how well each takes noise off the cells.

        Parameters
        ----------
        n_noise
            Noise levels at which each cell is asked.
        seed
            Seed of levels and noise.
        """
        module, tree, diffusion = self.module, self.places.classes, self.diffusion
        prior = cast("BranchedModule", module).classes
        assert prior is not None
        numbers = [tree.number_of(label) for label in tree.classes]
        generator = torch.Generator().manual_seed(seed)
        top = max(float(np.max(tree.heights())), MIN_HEIGHT)
        low = diffusion.schedule.lowest / 2
        # strata of the noise level itself, over which the bound is an integral
        levels = low + (top - low) * (torch.arange(n_noise) + torch.rand(n_noise, generator=generator)) / n_noise

        def read(tensors: dict[str, torch.Tensor]) -> tuple[torch.Tensor]:
            x = diffusion.whiten(module.latents(tensors))
            score = torch.zeros(len(x), len(numbers), device=x.device)
            for level in levels.tolist():
                noise = torch.randn(x.shape, generator=generator).to(x)
                at = x.new_full((len(x), 1), level)
                alpha, sigma = alpha_sigma(at)
                noised = alpha * x + sigma * noise
                for i, number in enumerate(numbers):
                    data = diffusion.data(noised, at, Condition.of((number, 0), len(x), x.device))
                    score[:, i] -= 0.5 * float(np.exp(-level)) * (data - x).square().sum(1) * (top - low) / n_noise
            return ((score + prior.log_prior).softmax(1),)

        return read
