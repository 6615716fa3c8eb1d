"""Diffusion over a whitened space, conditioned on a place in a tree and on a label."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import nn

from hdtree_sc.diffusion import (
    CLEAN,
    NoiseSchedule,
    alpha_sigma,
    data_and_noise,
    diffusion_loss,
    integrate,
    variational_bound,
)
from hdtree_sc.nn import Denoiser, PathConditioner

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from hdtree_sc.diffusion import Method, Target
    from hdtree_sc.nn import Gate

N_CONDITION = 128
NO_LABEL = 0
"""Position of "no label" among the labels."""
MIN_SPREAD = 1e-4
"""Axes on which data vary less than this share of the widest are not blown up any further."""


@dataclass(frozen=True)
class Condition:
    """What the diffusion is conditioned on, for each row.

    Parameters
    ----------
    node
        Last node of the path, int (n,); 0, the root, is no condition.
    label
        Label, int (n,), counted from 1; 0 is no condition.
    signal
        Further condition of each row, (n, width); NaN for none, None for a model without further conditions.
    """

    node: torch.Tensor
    label: torch.Tensor
    signal: torch.Tensor | None = None

    @classmethod
    def of(cls, place: tuple[int, int], n: int, device: torch.device) -> Condition:
        """``n`` rows of one node and label."""
        return cls(*(torch.full((n,), part, device=device) for part in place))

    def __getitem__(self, rows: Any) -> Condition:
        return Condition(self.node[rows], self.label[rows], None if self.signal is None else self.signal[rows])


class LatentDiffusion(nn.Module):
    """Whitening, conditions, denoiser and the ways along the noise levels.

    Parameters
    ----------
    n_features
        Width of the space.
    parents
        Position of each tree node's parent, -1 of the root, which comes first.
    n_code
        Width of the nodes' codes.
    n_labels
        Number of labels.
    n_hidden
        Width of the denoiser.
    n_blocks
        Number of its blocks.
    gate
        When a node of the path is visible, see :class:`hdtree_sc.nn.PathConditioner`.
    target
        What the denoiser answers: ``"v"``, ``"eps"`` or ``"x0"``.
    schedule
        ``"cosine"`` or ``"linear"``.
    """

    centre: torch.Tensor
    axes: torch.Tensor
    spread: torch.Tensor
    label_levels: torch.Tensor
    node_means: torch.Tensor
    label_means: torch.Tensor

    def __init__(
        self,
        n_features: int,
        *,
        parents: Sequence[int],
        n_code: int,
        n_labels: int = 0,
        n_hidden: int = 256,
        n_blocks: int = 3,
        gate: Gate = "soft",
        target: Target = "v",
        schedule: Literal["cosine", "linear"] = "cosine",
    ) -> None:
        super().__init__()
        if target not in ("v", "eps", "x0"):
            msg = f"target: {target!r} is none of v, eps, x0."
            raise ValueError(msg)
        self.target: Target = target
        self.schedule = NoiseSchedule(schedule)
        self.path = PathConditioner(parents, n_code, N_CONDITION, gate=gate)
        # labels part at one branch point: the tree over them is a star
        self.label = PathConditioner([-1, *[0] * n_labels], 1, N_CONDITION, gate=gate)
        self.denoiser = Denoiser(n_features, N_CONDITION, n_hidden=n_hidden, n_blocks=n_blocks)
        self.register_buffer("centre", torch.zeros(n_features))
        self.register_buffer("axes", torch.eye(n_features))
        self.register_buffer("spread", torch.ones(n_features))
        self.register_buffer("label_levels", torch.full((n_labels + 1, n_labels + 1), -torch.inf))
        self.register_buffer("node_means", torch.zeros(len(parents), n_features))
        self.register_buffer("label_means", torch.zeros(n_labels + 1, n_features))

    @torch.no_grad()
    def fit_whitening(self, points: torch.Tensor) -> None:
        """Learn from data (n, n_features) how to turn and scale them to unit variance."""
        self.centre.copy_(points.mean(0))
        centred = (points - self.centre).double()
        values, vectors = torch.linalg.eigh(centred.T @ centred / len(points))
        spread = values.clamp_min(0).sqrt()
        self.axes.copy_(vectors)
        self.spread.copy_(spread.clamp_min(max(float(spread.max()) * MIN_SPREAD, 1e-8)))

    def whiten(self, points: torch.Tensor) -> torch.Tensor:
        """From data to the space in which diffusion runs, both (n, n_features)."""
        return self.turn(points - self.centre)

    def turn(self, differences: torch.Tensor) -> torch.Tensor:
        """Differences of data, (n, n_features), in the space in which diffusion runs."""
        return differences @ self.axes / self.spread

    def unwhiten(self, whitened: torch.Tensor) -> torch.Tensor:
        """Back from the space in which diffusion runs."""
        return (whitened * self.spread) @ self.axes.T + self.centre

    def condition(self, where: Condition, level: torch.Tensor) -> torch.Tensor:
        """Condition vectors (n, width) at noise levels (n, 1)."""
        return self.path(where.node, level) + self.label(where.label, level)

    def drop_condition(self, where: Condition, generator: torch.Generator | None = None) -> Condition:
        """Conditions of which parts are left out at random, so that one network learns all of them.

        The path is whole, shortened and dropped in two, one and one of four rows, the label dropped in two of five.
        """
        fate = torch.rand(2, len(where.node), generator=generator, device=where.node.device)
        shorter = self.path.shorten(where.node, 1 / 3, generator)
        node = torch.where(fate[0] < 0.25, torch.zeros_like(shorter), shorter)
        return Condition(node, torch.where(fate[1] < 0.4, torch.zeros_like(where.label), where.label))

    def loss(self, x0: torch.Tensor, where: Condition, level: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        """Denoising loss (n,) of whitened data at noise levels (n, 1), see :func:`diffusion_loss`."""
        return diffusion_loss(lambda x, at: self.answer(x, at, where), x0, level, noise, self.target)

    def bound(self, x0: torch.Tensor, where: Condition, n_levels: int, generator: torch.Generator) -> torch.Tensor:
        """Upper bound of the negative log likelihood (n,) of whitened data, in nats of data that are not whitened."""

        def network(x: torch.Tensor, level: torch.Tensor) -> torch.Tensor:
            return self.answer(x, level, where)

        found = variational_bound(
            network, x0, self.schedule, n_levels=n_levels, target=self.target, generator=generator
        )
        return found + self.spread.log().sum()

    def answer(self, x: torch.Tensor, level: torch.Tensor, *conditions: Condition) -> torch.Tensor:
        """What the denoiser says of noised data at levels (n, 1), under the mean of some conditions."""
        condition = torch.stack([self.condition(where, level) for where in conditions]).mean(0)
        return self.denoiser(x, level, condition)

    def levels_for_training(self, n: int, generator: torch.Generator | None, device: torch.device) -> torch.Tensor:
        """Noise levels (n, 1), spread evenly over the schedule's time (stratified), in random order."""
        drawn = torch.rand(n, generator=generator, device=device, dtype=torch.float64)
        order = torch.randperm(n, generator=generator, device=device)
        return self.schedule.level((order + drawn) / n).float().unsqueeze(1)

    def data(self, x: torch.Tensor, level: torch.Tensor, where: Condition) -> torch.Tensor:
        """Estimate of the data, (n, n_features), from noised data at levels (n, 1)."""
        return data_and_noise(self.answer(x, level, where), x, level, self.target)[0]

    def network(
        self, conditions: Sequence[Condition], guidance: float = 1.0
    ) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
        """The denoiser under the mean of some conditions, away from no condition by classifier-free guidance."""

        def answer(x: torch.Tensor, level: torch.Tensor) -> torch.Tensor:
            given = self.answer(x, level, *conditions)
            if guidance == 1.0:
                return given
            free = self.answer(x, level, without_condition(conditions[0], node=True, label=True))
            return free + guidance * (given - free)

        return answer

    def flow(
        self,
        x: torch.Tensor,
        *conditions: Condition,
        start: float | None = None,
        stop: float | None = None,
        n_steps: int = 50,
        method: Method = "dpm",
        guidance: float = 1.0,
    ) -> torch.Tensor:
        """Carry whitened data from one noise level to another, under one condition or the mean of several.

        The steps are those of a whole run from noise to data, so that a way in parts costs what the whole costs.

        Parameters
        ----------
        x
            Data at ``start``, (n, n_features).
        *conditions
            Conditions.
        start
            Noise level to begin at, the highest by default.
        stop
            Noise level to end at, without noise by default.
        n_steps
            Network calls of a whole run.
        method
            See :func:`hdtree_sc.diffusion.integrate`.
        guidance
            Weight of the condition; 1 is the model as it was trained.
        """
        levels = self.way(start, stop, n_steps)
        return integrate(self.network(conditions, guidance), x, levels, method=method, target=self.target)

    def way(self, start: float | None, stop: float | None, n_steps: int) -> torch.Tensor:
        """Noise levels from one to another, as far apart as those of a whole run of ``n_steps`` are."""
        ends = [self.schedule.highest if start is None else start, CLEAN if stop is None else stop]
        times = self.schedule.time(torch.tensor([max(end, self.schedule.lowest) for end in ends], dtype=torch.float64))
        # a way over any part of the noise takes some steps, or the second order has nothing to begin with
        steps = max(round(n_steps * abs(float(times[1] - times[0]))) - (ends[1] == CLEAN), 3)
        return self.schedule.steps(steps, *ends)

    def noised(self, x: torch.Tensor, level: float) -> torch.Tensor:
        """Whitened data with fresh noise, at a noise level."""
        alpha, sigma = alpha_sigma(torch.tensor(level, dtype=torch.float64))
        return float(alpha) * x + float(sigma) * torch.randn_like(x)

    def mean_of(self, where: Condition) -> torch.Tensor:
        """Mean (n, n_features) of the whitened training data of each row's label, or of its node if it has none."""
        return torch.where(
            where.label.unsqueeze(1) != NO_LABEL, self.label_means[where.label], self.node_means[where.node]
        )

    def lca(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        """Lowest common ancestor of pairs of nodes, int (n,)."""
        return self.path.lca(a, b)

    def below(self, node: int) -> torch.Tensor:
        """Of each node whether it is one node or below it, bool (n_nodes,)."""
        return self.path.on_path[:, node] > 0

    def branch_levels(self, here: Condition, there: Condition) -> torch.Tensor:
        """Noise level (n,) at which two places are one: of their labels if both have one, else of their nodes.

        Never above the schedule, and minus infinity where the places are the same.
        """
        of_labels = self.label_levels[here.label, there.label]
        common = self.lca(here.node, there.node)
        of_nodes = self.path.heights[common]
        inside = (common == here.node) | (common == there.node)
        of_nodes = torch.where(inside, -torch.inf, of_nodes)
        both = (here.label != NO_LABEL) & (there.label != NO_LABEL)
        return torch.where(both, of_labels, of_nodes).clamp_max(self.schedule.highest)


def without_condition(where: Condition, *, node: bool = False, label: bool = False) -> Condition:
    """The same condition with its node (and the further condition) or its label dropped."""
    out = replace(where, node=torch.zeros_like(where.node), signal=None) if node else where
    return replace(out, label=torch.zeros_like(out.label)) if label else out
