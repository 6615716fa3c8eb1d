"""A tree of latents: posteriors, priors and routers of all nodes in stacked tensors."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

from hdtree_sc.nn._stacked import StackedMLP

LOG_VARIANCE = (-8.0, 4.0)
"""Range of the log variances of node latents."""
FIRST_LOG_VARIANCE = -4.0
"""Log variance of a new node's prior about its parent's latent."""


@dataclass(frozen=True)
class Plan:
    """Which nodes there are, in the order in which they are worked out: the root first, then level by level.

    Parameters
    ----------
    slots
        Slot of each node, int (s,).
    above
        Position of each node's parent among the nodes, int (s,); 0 for the root.
    levels
        First and last position (exclusive) of each level.
    side
        Child number of each node, float (s,): +1 for the first, -1 for the second, 0 for one without a sibling.
    splits
        Whether a node has two children, bool (s,).
    is_leaf
        Whether a node has none, bool (s,).
    shown
        Positions of the nodes that are more than a step on the way, each before those below it, int (m,): a node with
        one child is left out.
    shown_parents
        Place of each one's parent among them, -1 of the root.
    """

    slots: torch.Tensor
    above: torch.Tensor
    levels: tuple[tuple[int, int], ...]
    side: torch.Tensor
    splits: torch.Tensor
    is_leaf: torch.Tensor
    shown: torch.Tensor
    shown_parents: tuple[int, ...]


@dataclass(frozen=True)
class Passage:
    """What the tree says of cells; the first axis is that of the nodes of a :class:`Plan`.

    Parameters
    ----------
    z
        Latents, (s, n, n_latent): drawn, or posterior means.
    mean, variance
        Of the posterior of each node's latent given the cell and the parent's latent, (s, n, n_latent).
    prior_mean, prior_variance
        Of its prior given the parent's latent.
    log_share
        Log probability that the cell passes the node, by the routers that see the cell, (s, n).
    decision
        Divergence of a node's router that sees the cell from the one that sees the latent, (s, n); 0 where nothing
        is decided.
    log_prior_share
        Log probability of the node by the routers that see latents, (s, n).
    """

    z: torch.Tensor
    mean: torch.Tensor
    variance: torch.Tensor
    prior_mean: torch.Tensor
    prior_variance: torch.Tensor
    log_share: torch.Tensor
    decision: torch.Tensor
    log_prior_share: torch.Tensor

    def divergence(self) -> torch.Tensor:
        """Kullback-Leibler divergence of each node's posterior from its prior, (s, n)."""
        ratio = self.variance / self.prior_variance
        apart = (self.mean - self.prior_mean).square() / self.prior_variance
        return 0.5 * (ratio + apart - 1.0 - ratio.log()).sum(-1)


def precision_weighted(
    mean: torch.Tensor, variance: torch.Tensor, prior_mean: torch.Tensor, prior_variance: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and variance of the product of two normal densities, elementwise.

    Parameters
    ----------
    mean, variance
        What the cell says.
    prior_mean, prior_variance
        What the parent's latent says.
    """
    joint = 1.0 / (1.0 / variance + 1.0 / prior_variance)
    return joint * (mean / variance + prior_mean / prior_variance), joint


class LatentTree(nn.Module):
    r"""Latents at the nodes of a binary tree that can be grown and pruned.

    Every node has a slot in tensors of fixed size, so that a file loads strictly whatever the tree looks like, and an
    optimiser goes on when it grows. Of a cell's embedding :math:`e` and the parent's latent :math:`z_\pi`

    .. math:: q(z_n | e, z_\pi) \propto N(\hat\mu_n(e), \hat v_n(e))\; N(z_\pi + f_n(z_\pi), v_n(z_\pi)),

    the second factor being the prior; that of the root is standard normal. At a node with two children one router sees
    the embedding (inference), one the latent (generation). A node with one child passes all cells on.

    Parameters
    ----------
    n_embedding
        Width of the embedding that the routers read.
    n_latent
        Width of the latents.
    n_slots
        Largest number of nodes.
    n_detail
        Width of what else the posteriors read, behind the embedding.
    n_hidden
        Width of the hidden layers of the nodes' networks.

    References
    ----------
    TreeVAE, arXiv 2306.08984, Eq. 1 to 9. The embedding stands for its bottom-up path: each node reads it with a layer
    of its own, so that to grow the tree changes nothing above.
    """

    parent: torch.Tensor
    child: torch.Tensor
    active: torch.Tensor

    def __init__(self, n_embedding: int, n_latent: int, n_slots: int, *, n_detail: int = 0, n_hidden: int = 64) -> None:
        super().__init__()
        self.n_embedding = n_embedding
        self.register_buffer("parent", torch.full((n_slots,), -1))
        self.register_buffer("child", torch.full((n_slots, 2), -1))
        self.register_buffer("active", torch.zeros(n_slots, dtype=torch.bool))
        self.active[0] = True
        self.posterior = StackedMLP(n_slots, n_embedding + n_detail, n_hidden, 2 * n_latent)
        self.router = StackedMLP(n_slots, n_embedding, n_hidden, 1, zero=True)
        self.prior = StackedMLP(n_slots, n_latent, n_hidden, 2 * n_latent, zero=True)
        self.prior_router = StackedMLP(n_slots, n_latent, n_hidden, 1, zero=True)
        self._plan: Plan | None = None
        self.register_load_state_dict_post_hook(LatentTree._drop_plan)

    def _drop_plan(self, _: object = None) -> None:
        self._plan = None

    # -- structure -------------------------------------------------------------------------------------------

    @property
    def plan(self) -> Plan:
        """The nodes in order; worked out once for each shape of the tree."""
        if self._plan is None or self._plan.slots.device != self.parent.device:
            self._plan = self._made_plan()
        return self._plan

    def _made_plan(self) -> Plan:
        parent, child, device = self.parent.tolist(), self.child.tolist(), self.parent.device
        order, levels = [0], [(0, 1)]
        while levels[-1][1] > levels[-1][0]:
            first, last = levels[-1]
            order += [below for slot in order[first:last] for below in child[slot] if below >= 0]
            levels.append((last, len(order)))
        place = {slot: i for i, slot in enumerate(order)}
        n_children = [sum(below >= 0 for below in child[slot]) for slot in order]
        side = []
        for slot in order:
            alone = parent[slot] < 0 or n_children[place[parent[slot]]] < 2
            side.append(0.0 if alone else (1.0 if child[parent[slot]][0] == slot else -1.0))
        shown, shown_parents, stack = [], [], [(0, -1)]
        while stack:
            slot, above = stack.pop()
            below = [new for new in child[slot] if new >= 0]
            if len(below) != 1:
                shown.append(place[slot])
                shown_parents.append(above)
                above = len(shown) - 1
            stack += [(new, above) for new in reversed(below)]
        return Plan(
            slots=torch.tensor(order, device=device),
            above=torch.tensor([place.get(parent[slot], 0) for slot in order], device=device),
            levels=tuple(levels[:-1]),
            side=torch.tensor(side, device=device),
            splits=torch.tensor([n == 2 for n in n_children], device=device),
            is_leaf=torch.tensor([n == 0 for n in n_children], device=device),
            shown=torch.tensor(shown, device=device),
            shown_parents=tuple(shown_parents),
        )

    def leaf_slots(self) -> torch.Tensor:
        """Slots of the leaves, in the order of the plan, int (n_leaves,)."""
        return self.plan.slots[self.plan.is_leaf]

    def depth_of(self, slot: int) -> int:
        """Number of splits between the root and a node."""
        up, depth = int(self.parent[slot]), 0
        while up >= 0:
            depth += int((self.child[up] >= 0).all())
            up = int(self.parent[up])
        return depth

    @torch.no_grad()
    def attach(self, slot: int) -> tuple[int, int]:
        """Give a leaf two children, which begin as what it is, and return their slots.

        Raises
        ------
        ValueError
            If the node is no leaf, or no slots are left.
        """
        free = (~self.active).nonzero().squeeze(1)[:2].tolist()
        if len(free) < 2 or bool((self.child[slot] >= 0).any()) or not bool(self.active[slot]):
            msg = f"slot {slot} cannot be split: it is no leaf, or fewer than two slots are free."
            raise ValueError(msg)
        for side, new in enumerate(free):
            self.parent[new], self.child[slot, side], self.active[new] = slot, new, True
            self.child[new] = -1
            for stack in (self.posterior.first, self.posterior.last):
                stack.weight[new], stack.bias[new] = stack.weight[slot], stack.bias[slot]
            for stack in (self.prior.last, self.router.last, self.prior_router.last):
                stack.weight[new], stack.bias[new] = 0.0, 0.0
        self._plan = None
        return free[0], free[1]

    @torch.no_grad()
    def detach(self, slot: int) -> None:
        """Take a node and all below it away; its sibling then gets all cells of their parent.

        Nodes above it that have no other child go with it.

        Raises
        ------
        ValueError
            If nothing would be left.
        """
        up = int(self.parent[slot])
        while up >= 0 and int((self.child[up] >= 0).sum()) == 1:
            slot, up = up, int(self.parent[up])
        if up < 0:
            msg = "the root cannot be taken away."
            raise ValueError(msg)
        gone = [slot]
        for here in gone:
            gone += [below for below in self.child[here].tolist() if below >= 0]
        self.child[up][self.child[up] == slot] = -1
        self.parent[gone], self.child[gone], self.active[gone] = -1, -1, False
        self._plan = None

    # -- from cells to nodes ---------------------------------------------------------------------------------

    def log_shares(self, embedding: torch.Tensor) -> torch.Tensor:
        """Log probability of each node of the plan, (s, n), of embeddings (n, n_embedding or more)."""
        return self._down(self._logits(embedding))

    def _logits(self, embedding: torch.Tensor) -> torch.Tensor:
        """What the routers say of embeddings, (s, n); anything where nothing is decided."""
        return self.router(embedding[:, : self.n_embedding], self.plan.slots).squeeze(-1).float()

    def _down(self, logits: torch.Tensor) -> torch.Tensor:
        """Log probabilities of nodes from their routers' logits."""
        side = self.plan.side.unsqueeze(1)
        return self.summed_down(torch.where(side == 0, 0.0, F.logsigmoid(side * logits[self.plan.above])))

    def summed_down(self, values: torch.Tensor) -> torch.Tensor:
        """Sum of the nodes' values (s, n) on the way from the root to each node."""
        out = values[:1]
        for first, last in self.plan.levels[1:]:
            out = torch.cat([out, out[self.plan.above[first:last]] + values[first:last]])
        return out

    def forward(self, embedding: torch.Tensor, *, draw: bool, generator: torch.Generator | None = None) -> Passage:
        """Latents of all nodes and the way through them.

        Parameters
        ----------
        embedding
            Embeddings with what else there is, (n, n_embedding + n_detail).
        draw
            Whether latents are drawn from their posteriors; their means otherwise.
        generator
            Random numbers; by default torch's global ones.
        """
        plan = self.plan
        said_mean, said_variance = self._condition_of(self.posterior(embedding, plan.slots))
        parts: list[tuple[torch.Tensor, ...]] = []
        z = said_mean[:0]
        for level, (first, last) in enumerate(plan.levels):
            if level == 0:
                # the root reads the cell alone, as published
                prior = torch.zeros_like(said_mean[:1]), torch.ones_like(said_mean[:1])
                mean, variance = said_mean[:1], said_variance[:1]
            else:
                prior = self.given(z[plan.above[first:last]], plan.slots[first:last])
                mean, variance = precision_weighted(said_mean[first:last], said_variance[first:last], *prior)
            here = mean
            if draw:
                here = mean + variance.sqrt() * torch.randn(mean.shape, generator=generator, device=mean.device)
            z = torch.cat([z, here])
            parts.append((mean, variance, *prior))
        mean, variance, prior_mean, prior_variance = (torch.cat(part) for part in zip(*parts, strict=True))
        logits, prior_logits = self._logits(embedding), self._prior_logits(z)
        share = logits.sigmoid()
        decision = share * (F.logsigmoid(logits) - F.logsigmoid(prior_logits)) + (1.0 - share) * (
            F.logsigmoid(-logits) - F.logsigmoid(-prior_logits)
        )
        return Passage(
            z, mean, variance, prior_mean, prior_variance, self._down(logits),
            torch.where(plan.splits[:, None], decision, 0.0), self._down(prior_logits),
        )  # fmt: skip

    # -- from the root down ----------------------------------------------------------------------------------

    def _condition_of(self, answer: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        mean, log_variance = answer.float().chunk(2, dim=-1)
        return mean, log_variance.clamp(*LOG_VARIANCE).exp()

    def given(self, z: torch.Tensor, slots: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and variance of the priors of nodes given their parents' latents, all (m, n, n_latent)."""
        shift, log_variance = self.prior(z, slots).float().chunk(2, dim=-1)
        return z + shift, (log_variance + FIRST_LOG_VARIANCE).clamp(*LOG_VARIANCE).exp()

    def _prior_logits(self, z: torch.Tensor) -> torch.Tensor:
        return self.prior_router(z, self.plan.slots).squeeze(-1).float()

    def descend(self, root: torch.Tensor, *, draw: bool = True) -> tuple[torch.Tensor, torch.Tensor]:
        """Latents of all nodes given those of the root, and log probabilities of the nodes.

        Parameters
        ----------
        root
            Latents of the root, (n, n_latent).
        draw
            Whether latents are drawn from their priors; their means otherwise.

        Returns
        -------
        Latents (s, n, n_latent) and log probabilities (s, n), in the order of the plan.
        """
        plan, z = self.plan, root.unsqueeze(0)
        for first, last in plan.levels[1:]:
            mean, variance = self.given(z[plan.above[first:last]], plan.slots[first:last])
            z = torch.cat([z, mean + variance.sqrt() * torch.randn_like(mean) if draw else mean])
        return z, self._down(self._prior_logits(z))
