"""The biology of a simulated data set: a tree of branches and the expression programmes that run along it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

STEPS_PER_LENGTH = 50
"""Grid points of a programme on a branch of average length."""

COMMITMENT = 0.1
"""Time in which a branch nears its state by a factor e, in average branch lengths: most change is early."""

WANDER, MEMORY = 0.9, 0.15
"""Size of an activity's wandering on top, per average branch length, and the correlation time of its velocity."""


@dataclass(frozen=True)
class Branches:
    """A rooted tree whose nodes are branches with a length; parents come before their children.

    Parameters
    ----------
    names
        One name per branch.
    parents
        (n_branches,) position of the parent branch, -1 for the root branch.
    lengths
        (n_branches,) lengths, in average branch lengths.
    """

    names: tuple[str, ...]
    parents: NDArray[np.int64]
    lengths: NDArray[np.float64]

    @property
    def starts(self) -> NDArray[np.float64]:
        """(n_branches,) distance of each branch's beginning from the beginning of the root branch."""
        starts = np.zeros(len(self.names))
        for child in range(1, len(self.names)):
            starts[child] = starts[self.parents[child]] + self.lengths[self.parents[child]]
        return starts

    @property
    def is_tip(self) -> NDArray[np.bool_]:
        """(n_branches,) whether no branch follows."""
        return ~np.isin(np.arange(len(self.names)), self.parents)


def random_branches(n_tips: int, rng: np.random.Generator) -> Branches:
    """Grow a binary tree by splitting a random tip until there are `n_tips`; lengths are uniform in [0.6, 1.4]."""
    children: dict[str, tuple[str, str]] = {}
    tips = ["root"]
    while len(tips) < n_tips:
        mother = tips.pop(int(rng.integers(len(tips))))
        prefix = "" if mother == "root" else f"{mother}."
        children[mother] = (f"{prefix}0", f"{prefix}1")
        tips.extend(children[mother])
    names, parents = ["root"], [-1]
    stack = [(child, 0) for child in reversed(children.get("root", ()))]
    while stack:  # depth first, so that the order is that of hdtree_sc.Tree
        name, parent = stack.pop()
        names.append(name)
        parents.append(parent)
        stack.extend((child, len(names) - 1) for child in reversed(children.get(name, ())))
    return Branches(tuple(names), np.array(parents), rng.uniform(0.6, 1.4, len(names)))


@dataclass(frozen=True)
class Programmes:
    """Activities of all modules on a grid along every branch, continuous at branch points.

    Parameters
    ----------
    grid
        (n_points, n_modules) activities, branch after branch.
    offsets
        (n_branches,) row of each branch's first grid point, which repeats its parent's last.
    n_steps
        (n_branches,) number of grid intervals of each branch.
    """

    grid: NDArray[np.float64]
    offsets: NDArray[np.int64]
    n_steps: NDArray[np.int64]

    def at(self, branch: NDArray[np.int64], fraction: NDArray[np.float64]) -> NDArray[np.float64]:
        """Activities (n, n_modules) at `fraction` in [0, 1] of each `branch`, linear between grid points."""
        position = fraction * self.n_steps[branch]
        step = np.minimum(position.astype(np.int64), self.n_steps[branch] - 1)
        weight = (position - step)[:, None]
        row = self.offsets[branch] + step
        return (1 - weight) * self.grid[row] + weight * self.grid[row + 1]


def random_programmes(branches: Branches, n_modules: int, persistence: float, rng: np.random.Generator) -> Programmes:
    """Let every module walk smoothly along the branches; sisters start at one place and then go their own ways.

    Each branch draws a state of its own, whose correlation with the state at the branch's start is `persistence`, and
    tends to it, fast at first, as cells that commit to a fate do; on top the activities wander with an
    Ornstein-Uhlenbeck velocity. Activities are scaled so that their change along a branch
    of average length has standard deviation 1; they do not drift without bounds, so distances level off.
    """
    n_steps = np.maximum(2, np.rint(branches.lengths * STEPS_PER_LENGTH)).astype(np.int64)
    offsets = np.concatenate([[0], np.cumsum(n_steps + 1)[:-1]])
    grid = np.zeros((int(np.sum(n_steps + 1)), n_modules))
    # Variance of the displacement over length 1 at unit velocity, and of the whole change over a branch.
    displacement = 2 * MEMORY * (1 - MEMORY * (1 - np.exp(-1 / MEMORY)))
    change = 2 * (1 - persistence) * (1 - np.exp(-1 / COMMITMENT)) ** 2 + WANDER**2
    for branch, parent in enumerate(branches.parents):
        length, first = branches.lengths[branch], offsets[branch]
        start = rng.standard_normal(n_modules) if parent < 0 else grid[offsets[parent] + n_steps[parent]]
        state = persistence * start + np.sqrt(1 - persistence**2) * rng.standard_normal(n_modules)
        passed = np.linspace(0.0, length, n_steps[branch] + 1)[:, None]
        grid[first : first + n_steps[branch] + 1] = state + (start - state) * np.exp(-passed / COMMITMENT)

        dt = length / n_steps[branch]
        keep = np.exp(-dt / MEMORY)
        velocity = rng.standard_normal((n_steps[branch], n_modules))
        velocity[1:] *= np.sqrt(1 - keep**2)
        for step in range(1, n_steps[branch]):
            velocity[step] += keep * velocity[step - 1]
        wander = np.cumsum(velocity, axis=0) * dt * WANDER / np.sqrt(displacement)
        grid[first + 1 : first + 1 + n_steps[branch]] += wander
    return Programmes(grid / np.sqrt(change), offsets, n_steps)


@dataclass(frozen=True)
class Genes:
    """How genes follow the programmes, and how noisy they are.

    Parameters
    ----------
    loadings
        (n_modules, n_genes) sparse weights of the modules in log expression.
    log_base
        (n_genes,) log of the base expression.
    alpha, beta
        (n_genes,) noise: ``var = mu + alpha * mu + beta * mu**2``.
    """

    loadings: NDArray[np.float64]
    log_base: NDArray[np.float64]
    alpha: NDArray[np.float64]
    beta: NDArray[np.float64]


def random_genes(
    n_genes: int, n_modules: int, *, divergence: float, alpha: float, beta: float, rng: np.random.Generator
) -> Genes:
    """Draw genes: each follows one to three modules, one in five follows none; base expression is log-normal."""
    n_follow = np.minimum(rng.integers(1, 4, n_genes), n_modules)
    order = np.argsort(rng.random((n_modules, n_genes)), axis=0)
    loadings = np.where(order < n_follow, rng.standard_normal((n_modules, n_genes)), 0.0)
    loadings *= rng.random(n_genes) >= 0.2
    # A gene's log change along a branch of length 1 has variance sum(loadings**2); its root mean square is divergence.
    scale = np.sqrt(np.mean(np.sum(loadings**2, axis=0)))
    if scale > 0:
        loadings *= divergence / scale
    spread = rng.standard_normal((2, n_genes)) * 0.4
    return Genes(
        loadings=loadings,
        log_base=rng.standard_normal(n_genes) * 1.3,
        alpha=alpha * np.exp(spread[0]),
        beta=beta * np.exp(spread[1]),
    )
