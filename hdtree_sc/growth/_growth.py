"""How a tree of latents grows: splits proposed on cached embeddings, and made where held-out cells gain by them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from sklearn.cluster import KMeans
from torch.nn import functional as F

from hdtree_sc.graph import (
    WALK_NEIGHBORS,
    best_bisection,
    entropy_of,
    group_means,
    link_counts,
    nearest_neighbors,
    spread_rows,
    walk_information,
)
from hdtree_sc.growth._row_optimizer import train_rows
from hdtree_sc.nn import MIN_SHARE, MIN_SHARE_IN_BOUNDS
from hdtree_sc.tree import path_names

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import NDArray

    from hdtree_sc.module import TreeVAEModule

SplitRule = Literal["gain", "largest"]
SPLIT_RULES = ("gain", "largest")
STEPS = 150
"""Steps in which the latents of new leaves are trained, all else frozen."""
ROUTER_STEPS = 100
BATCH = 512
LEARNING_RATE = 1e-3
ROUTER_LEARNING_RATE = 1e-2
DRAWS = 4
"""Draws of the latents over which a gain in bound is averaged."""
MIN_GAIN_RATIO = 0.5
"""A split is made if held-out cells gain at least this share of the entropy of its sides."""
PRUNE_RATIO = 0.4
"""A split is kept in the end if they still gain this share."""
PROPOSAL_CELLS = 5_000
"""A split is proposed by at most so many cells of its leaf."""
MICRO_CODES = 32


@dataclass
class Cells:
    """What growing needs of cells, computed once: the encoder stands still meanwhile.

    Parameters
    ----------
    x
        Expression, (n, n_features).
    embedding
        Embeddings and details, (n, width).
    covariates
        Covariate vectors, (n, width).
    library
        Library sizes, (n, 1).
    """

    x: torch.Tensor
    embedding: torch.Tensor
    covariates: torch.Tensor
    library: torch.Tensor

    @classmethod
    @torch.no_grad()
    def read(cls, module: Any, batches: Iterable[dict[str, torch.Tensor]]) -> Cells:
        """Cells of minibatches, of which there may be none.

        Parameters
        ----------
        module
            The module that encodes them.
        batches
            The minibatches.
        """
        parts = []
        for tensors in batches:
            found = module.inferred(tensors)
            parts.append((tensors["X"], found["z"], module.covariates(tensors), found["library"]))
        if parts:
            return cls(*(torch.cat(part) for part in zip(*parts, strict=True)))
        widths = (1, module.tree.posterior.first.weight.shape[1], module.covariates.width, 1)
        return cls(*(torch.zeros(0, width, device=module.device) for width in widths))

    def __len__(self) -> int:
        return len(self.embedding)

    def __getitem__(self, rows: Any) -> Cells:
        return Cells(self.x[rows], self.embedding[rows], self.covariates[rows], self.library[rows])

    def parts(self, size: int) -> Iterator[Cells]:
        """Some at a time."""
        for rows in torch.arange(len(self), device=self.embedding.device).split(size):
            yield self[rows]


@dataclass(frozen=True)
class Proposal:
    """A split that could be made.

    Parameters
    ----------
    slot
        The leaf.
    rows
        Its training cells, int (n,).
    side
        Side, 0 or 1, of each of them, (n,).
    information
        Mutual information between the side of a held-out cell of the leaf and the side on which a walk from it ends, in
        nats.
    entropy
        Entropy of the sides of the training cells, in nats.
    gain
        The information times the share of the training cells that are in the leaf, in nats per cell of all.
    """

    slot: int
    rows: torch.Tensor
    side: torch.Tensor
    information: float
    entropy: float
    gain: float


class Growth:
    r"""Splits the leaves of a module's tree as long as held-out cells gain by it.

    A leaf is cut in two where the cut is most informative about walks over its cells' nearest-neighbour links
    (:func:`~hdtree_sc.graph.best_bisection`). The gain is the mutual information between the side of a held-out cell
    and the side on which a walk of eight steps from it ends; gains of splits add up to the information of the leaves on
    walks. All of it is worked out on embeddings that are computed once, so that no candidate is trained.

    Parameters
    ----------
    module
        The module; changed in place.
    train
        Training cells.
    held_out
        Cells that were not trained on. Without any, training cells are in their place.
    max_leaves
        Largest number of leaves.
    max_depth
        Largest number of levels below the root.
    min_leaf_size
        Smallest number of training cells of a leaf, of those given.
    rule
        ``"gain"``: the best gain first, and none that is less than half of the entropy of its sides. ``"largest"``: the
        largest leaf first whatever it gains, as published.
    generator
        Random numbers.
    """

    def __init__(
        self,
        module: TreeVAEModule,
        train: Cells,
        held_out: Cells,
        *,
        max_leaves: int,
        max_depth: int,
        min_leaf_size: int,
        rule: SplitRule = "gain",
        generator: torch.Generator,
    ) -> None:
        self.module, self.train = module, train
        self.held_out = held_out if len(held_out) else train
        self.max_leaves, self.max_depth, self.min_leaf_size = max_leaves, max_depth, min_leaf_size
        self.rule, self.generator = rule, generator
        self.proposals: dict[int, Proposal | None] = {}

    # -- growing ---------------------------------------------------------------------------------------------

    def run(self) -> list[dict[str, Any]]:
        """Grow, and return a record of each split made."""
        tree = self.module.tree
        made: list[tuple[Proposal, tuple[int, int]]] = []
        records = []
        while len(tree.leaf_slots()) < self.max_leaves:
            proposal = self._best()
            if proposal is None:
                break
            names = self._names()
            children = tree.attach(proposal.slot)
            for new in children:
                self.module.decoder.begin_as(new, proposal.slot)
            self._fit_router(proposal)
            self.proposals.pop(proposal.slot)
            made.append((proposal, children))
            records.append(
                {
                    "node": names[proposal.slot],
                    "n_cells": len(proposal.rows),
                    "smaller": int(min(proposal.side.sum(), (1 - proposal.side).sum())),
                    "information": proposal.information,
                    "entropy": proposal.entropy,
                    "gain": proposal.gain,
                    "n_leaves": len(tree.leaf_slots()),
                }
            )
        if made:
            self._fit_leaves([new for _, children in made for new in children], [proposal.slot for proposal, _ in made])
            for record, gain in zip(records, self._bound_gains([proposal.slot for proposal, _ in made]), strict=True):
                record["bound_gain"] = gain
        return records

    def _best(self) -> Proposal | None:
        """The split to make next."""
        own = self._own_leaf(self.train)
        held_out = own if self.held_out is self.train else self._own_leaf(self.held_out)
        waiting = []
        for slot in self.module.tree.leaf_slots().tolist():
            if slot not in self.proposals:
                self.proposals[slot] = self._proposed(slot, own, held_out)
            proposal = self.proposals[slot]
            if proposal is not None:
                waiting.append(proposal)
        if self.rule == "largest":
            return max(waiting, key=lambda proposal: len(proposal.rows), default=None)
        worth = [proposal for proposal in waiting if proposal.information >= MIN_GAIN_RATIO * proposal.entropy]
        return max(worth, key=lambda proposal: proposal.gain, default=None)

    def _names(self) -> dict[int, str]:
        """Names of the nodes by slot, as the tree is now."""
        plan = self.module.tree.plan
        return dict(zip(plan.slots[plan.shown].tolist(), path_names(plan.shown_parents), strict=True))

    @torch.no_grad()
    def _own_leaf(self, cells: Cells) -> torch.Tensor:
        """Slot of each cell's likeliest leaf, int (n,)."""
        tree = self.module.tree
        own = [self.module.likeliest(tree.log_shares(part)) for part in cells.embedding.split(8192)]
        return tree.plan.slots[torch.cat(own)]

    def _points(self, cells: Cells, rows: torch.Tensor) -> NDArray[np.float32]:
        return self.module.shown(cells.embedding[rows]).cpu().numpy()

    def _proposed(self, slot: int, own: torch.Tensor, held_out: torch.Tensor) -> Proposal | None:
        """The best cut of a leaf, if it may be cut."""
        rows, others = (own == slot).nonzero().squeeze(1), (held_out == slot).nonzero().squeeze(1)
        if len(rows) < 2 * self.min_leaf_size or self.module.tree.depth_of(slot) >= self.max_depth:
            return None
        points = self._points(self.train, rows)
        seed = int(torch.randint(2**31 - 1, (1,), generator=self.generator))
        some = points[spread_rows(len(points), PROPOSAL_CELLS)]
        n_codes = int(np.clip(len(some) // max(self.min_leaf_size // 2, 10), 2, MICRO_CODES))
        codes = KMeans(n_codes, n_init=1, random_state=seed).fit(some)
        # of cells that are alike, k-means leaves groups empty
        held, group = np.unique(codes.labels_, return_inverse=True)
        neighbors, _ = nearest_neighbors(some, WALK_NEIGHBORS, seed=seed)
        links = link_counts(neighbors, group, len(held))
        least = max(1, self.min_leaf_size * len(some) // len(points))
        of_group = None
        if len(held) > 1:
            of_group = best_bisection(links, group_means(some, group), np.bincount(group), least=least)
        if of_group is None:
            return None
        cut = np.zeros(n_codes, dtype=bool)
        cut[held] = of_group
        side = cut[codes.predict(points)]
        if min(side.sum(), (~side).sum()) < self.min_leaf_size:
            return None
        information = 0.0
        if len(others):
            queries = self._points(self.held_out, others)
            information = walk_information(some, of_group[group], neighbors, queries, cut[codes.predict(queries)])
        return Proposal(
            slot, rows, torch.from_numpy(side.astype(np.int64)).to(rows.device), information, entropy_of(side),
            information * len(rows) / len(self.train),
        )  # fmt: skip

    # -- training rows --------------------------------------------------------------------------------------------

    def _fit_router(self, proposal: Proposal) -> None:
        """Teach the router of a leaf that was split the proposed sides."""
        stack, member = self.module.tree.router, torch.tensor([proposal.slot], device=proposal.rows.device)
        embedding, first = self.module.shown(self.train.embedding[proposal.rows]), 1.0 - proposal.side.float()
        with train_rows(
            self.module, dict.fromkeys(stack.parameters(), [proposal.slot]), lr=ROUTER_LEARNING_RATE
        ) as step:
            for _ in range(ROUTER_STEPS):
                rows = torch.randint(len(first), (min(BATCH, len(first)),), generator=self.generator).to(first.device)
                logits = stack(embedding[rows], member)[0, :, 0]
                step(F.binary_cross_entropy_with_logits(logits, first[rows]))

    def _fit_leaves(self, new: list[int], above: list[int]) -> None:
        """Teach new leaves, and the routers above them that see latents, by the bound."""
        tree, decoder = self.module.tree, self.module.decoder
        own = self._own_leaf(self.train)
        inside = torch.isin(own, torch.tensor(new, device=own.device)).nonzero().squeeze(1)
        stacks = [*tree.posterior.parameters(), *tree.prior.parameters(), decoder.gain, decoder.shift, decoder.mix]
        trained = dict.fromkeys(stacks, new) | dict.fromkeys(tree.prior_router.parameters(), above)
        with train_rows(self.module, trained, lr=LEARNING_RATE) as step:
            for _ in range(STEPS):
                cells = self.train[inside[self._drawn(own[inside])]]
                expected, divergence = self.module.bound(
                    cells.x, cells.embedding, cells.covariates, cells.library, min_share=MIN_SHARE, most=1
                )
                step((expected + divergence).mean() / cells.x.shape[1])

    def _drawn(self, own: torch.Tensor) -> torch.Tensor:
        """Rows of a minibatch in which small leaves have more than their share."""
        _, group, size = own.unique(return_inverse=True, return_counts=True)
        weight = size[group].double().rsqrt()
        drawn = torch.multinomial(weight.cpu(), min(BATCH, len(own)), replacement=True, generator=self.generator)
        return drawn.to(own.device)

    @torch.no_grad()
    def _bound_gains(self, slots: list[int]) -> list[float]:
        """What held-out cells gain in bound by the split of each of some nodes, in nats per cell of all.

        A node whose children have been split in turn is compared with these children alone. Both bounds are taken at
        the same draws of the latents above, as most of their scatter is that of the draws.
        """
        tree = self.module.tree
        place = {slot: i for i, slot in enumerate(tree.plan.slots.tolist())}
        here = torch.tensor([place[slot] for slot in slots], device=self.held_out.x.device)
        below = torch.tensor([[place[new] for new in tree.child[slot].tolist()] for slot in slots]).to(here.device)
        total = torch.zeros(len(slots), device=here.device)
        for _ in range(DRAWS):
            for cells in self.held_out.parts(2048):
                passage = tree(cells.embedding, draw=True)
                node, cell, neg_log_likelihood = self.module.neg_log_likelihood(
                    passage, cells.x, cells.covariates, cells.library, min_share=MIN_SHARE_IN_BOUNDS,
                    also=torch.cat([here, below.flatten()]),
                )  # fmt: skip
                share = passage.log_share.exp()
                cost = torch.zeros_like(share)
                cost[node, cell] = share[node, cell] * neg_log_likelihood
                split = (cost + share * passage.divergence())[below].sum(1) + (share * passage.decision)[here]
                total += (cost[here] - split).sum(1) / (DRAWS * len(self.held_out))
        return total.tolist()

    # -- pruning ---------------------------------------------------------------------------------------------

    def prune(self) -> list[dict[str, Any]]:
        """Take leaves away that are too small, or whose split has too little gain, and return a record of each."""
        records = []
        while (gone := self._to_go()) is not None:
            slot, n_cells, information = gone
            names = self._names()
            self.module.tree.detach(slot)
            records.append(
                {
                    "node": names[slot],
                    "n_cells": n_cells,
                    "information": information,
                    "n_leaves": len(self.module.tree.leaf_slots()),
                }
            )
        return records

    def _to_go(self) -> tuple[int, int, float] | None:
        """Slot, cells and information of a leaf to take away."""
        tree = self.module.tree
        own, leaves = self._own_leaf(self.train), tree.leaf_slots().tolist()
        sizes = {slot: int((own == slot).sum()) for slot in leaves}
        small = [slot for slot in leaves if sizes[slot] < self.min_leaf_size // 2 and len(leaves) > 1]
        if small:
            slot = min(small, key=lambda slot: sizes[slot])
            return slot, sizes[slot], 0.0
        if self.rule == "largest":
            return None
        held_out = own if self.held_out is self.train else self._own_leaf(self.held_out)
        for pair in self._last_splits():
            rows = torch.isin(own, torch.tensor(pair, device=own.device)).nonzero().squeeze(1)
            others = torch.isin(held_out, torch.tensor(pair, device=own.device)).nonzero().squeeze(1)
            if not len(others):
                continue
            side, theirs = (own[rows] == pair[1]).cpu().numpy(), (held_out[others] == pair[1]).cpu().numpy()
            some = spread_rows(len(rows), PROPOSAL_CELLS)
            points = self._points(self.train, rows)[some]
            neighbors, _ = nearest_neighbors(points, WALK_NEIGHBORS)
            queries = self._points(self.held_out, others)
            information = walk_information(points, side[some], neighbors, queries, theirs)
            if information < PRUNE_RATIO * entropy_of(side):
                slot = min(pair, key=lambda slot: sizes[slot])
                return slot, sizes[slot], information
        return None

    def _last_splits(self) -> list[list[int]]:
        """Slots of the two leaves of every split that has no split below it."""
        plan = self.module.tree.plan
        slots, is_leaf = plan.slots[plan.shown].tolist(), plan.is_leaf[plan.shown].tolist()
        below: dict[int, list[int]] = {}
        for node, above in enumerate(plan.shown_parents):
            if is_leaf[node] and above >= 0:
                below.setdefault(above, []).append(slots[node])
        return [pair for pair in below.values() if len(pair) == 2]
