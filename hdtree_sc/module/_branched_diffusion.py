"""Diffusion over a tree of classes that can be given further branches without a change to those it has."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import nn

from hdtree_sc.diffusion import diffusion_loss
from hdtree_sc.module._latent_diffusion import N_CONDITION, Condition, LatentDiffusion
from hdtree_sc.nn import Denoiser, HeadedDenoiser

if TYPE_CHECKING:
    from collections.abc import Sequence

Conditioning = Literal["gated_path", "multi_head"]
CONDITIONINGS = ("gated_path", "multi_head")
BRANCH_HIDDEN = 128
BRANCH_BLOCKS = 2


class Branch(nn.Module):
    """What a class that was added has of its own: a small network whose answer is added below its branch point.

    It answers nothing at first, so that the class begins as what lies at the node it was attached to.

    Parameters
    ----------
    n_features
        Width of the space.
    """

    def __init__(self, n_features: int) -> None:
        super().__init__()
        self.network = Denoiser(n_features, N_CONDITION, n_hidden=BRANCH_HIDDEN, n_blocks=BRANCH_BLOCKS)

    def forward(self, x: torch.Tensor, level: torch.Tensor) -> torch.Tensor:
        """What is added to the answer, (n, n_features)."""
        return self.network(x, level, x.new_zeros(len(x), N_CONDITION))


class BranchedLatentDiffusion(LatentDiffusion):
    """:class:`LatentDiffusion` with classes that were added later.

    Nodes are known by number: those that were trained together first, then the added ones in the order they came. The
    condition of an added class is that of the node it was attached to; below its own branch point its
    :class:`Branch` speaks as well. Rows of other classes never meet it, so that what they give is the same to the bit.

    Parameters
    ----------
    n_features
        Width of the space.
    attached
        Node to which each added class was attached.
    conditioning
        ``"gated_path"``: one network that is conditioned on the nodes of the path; ``"multi_head"``: a shared trunk and
        one head for each node, which speaks where it is the deepest node of the path below its branch point.
    **kwargs
        Arguments of :class:`LatentDiffusion`.
    """

    anchor: torch.Tensor
    opens: torch.Tensor
    within: torch.Tensor

    def __init__(
        self,
        n_features: int,
        *,
        attached: Sequence[int] = (),
        conditioning: Conditioning = "gated_path",
        n_hidden: int = 256,
        n_blocks: int = 3,
        **kwargs: Any,
    ) -> None:
        super().__init__(n_features, n_hidden=n_hidden, n_blocks=n_blocks, **kwargs)
        self.n_first = len(self.path.parent)
        if conditioning == "multi_head":
            self.denoiser = HeadedDenoiser(n_features, N_CONDITION, self.n_first, n_hidden=n_hidden, n_blocks=n_blocks)
        self.branches = nn.ModuleList()
        self.register_buffer("anchor", torch.arange(self.n_first), persistent=False)
        self.register_buffer("opens", torch.full((self.n_first,), torch.inf))
        # covariance within classes, by which later ones are compared with them
        self.register_buffer("within", torch.eye(n_features))
        for node in attached:
            self.grow(node)

    @torch.no_grad()
    def grow(self, node: int, opens: float = torch.inf, mean: torch.Tensor | None = None) -> Branch:
        """Make room for one more class.

        Parameters
        ----------
        node
            Number of the node to which it is attached.
        opens
            Noise level of its branch point.
        mean
            Mean of its whitened cells, (n_features,).
        """
        device = self.centre.device
        branch = Branch(self.centre.shape[0]).to(device)
        self.branches.append(branch)
        self.anchor = torch.cat([self.anchor, torch.tensor([node], device=device)])
        self.opens = torch.cat([self.opens, torch.tensor([opens], device=device, dtype=self.opens.dtype)])
        row = self.centre.new_zeros(1, self.centre.shape[0]) if mean is None else mean.reshape(1, -1).to(device)
        self.node_means = torch.cat([self.node_means, row])
        return branch

    def condition(self, where: Condition, level: torch.Tensor) -> torch.Tensor:
        """Condition vectors (n, width) at noise levels (n, 1): an added class has those of its node."""
        return super().condition(Condition(self.anchor[where.node], where.label), level)

    def shared_answer(self, x: torch.Tensor, level: torch.Tensor, *conditions: Condition) -> torch.Tensor:
        """What the denoiser says without the branches that were added."""
        if not isinstance(self.denoiser, HeadedDenoiser):
            return super().answer(x, level, *conditions)
        condition = torch.stack([self.label(where.label, level) for where in conditions]).mean(0)
        heads = [self.path.deepest_open(self.anchor[where.node], level) for where in conditions]
        return self.denoiser(x, level, condition, *heads)

    def answer(self, x: torch.Tensor, level: torch.Tensor, *conditions: Condition) -> torch.Tensor:
        """What the denoiser says, with the branches of the classes that were added."""
        out = self.shared_answer(x, level, *conditions)
        for i, branch in enumerate(self.branches, self.n_first):
            for where in conditions:
                own = ((where.node == i) & (level[:, 0] < self.opens[i])).nonzero().squeeze(1)
                if len(own):
                    out = out.index_add(0, own, branch(x[own], level[own]) / len(conditions))
        return out

    def lca(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        """Lowest common ancestor of pairs of nodes, int (n,)."""
        return torch.where(a == b, a, super().lca(self.anchor[a], self.anchor[b]))

    def below(self, node: int) -> torch.Tensor:
        """Of each node whether it is one node or below it, bool (n_nodes,)."""
        numbers = torch.arange(len(self.anchor), device=self.anchor.device)
        if node >= self.n_first:
            return numbers == node
        return super().below(node)[self.anchor]

    def branch_levels(self, here: Condition, there: Condition) -> torch.Tensor:
        """Noise level (n,) at which two places are one; an added class also has its own branch point to pass."""
        common = self.lca(here.node, there.node)
        levels = self.path.heights[self.anchor[common]]
        for node in (here.node, there.node):
            levels = torch.where(
                (node >= self.n_first) & (self.anchor[node] == common), levels.maximum(self.opens[node]), levels
            )
        inside = (common == here.node) | (common == there.node)
        return torch.where(inside, -torch.inf, levels).clamp_max(self.schedule.highest)


class BranchTraining(nn.Module):
    """One branch as :class:`hdtree_sc.train.DiffusionPlan` trains it; all else stays as it is.

    Parameters
    ----------
    branch
        The branch.
    diffusion
        What it belongs to, which is not trained.
    node
        Its number.
    """

    def __init__(self, branch: Branch, diffusion: BranchedLatentDiffusion, node: int) -> None:
        super().__init__()
        self.branch = branch
        # in a list: not a part of this module, so that no optimiser and no running mean ever sees it
        self._whole = [diffusion]
        self.node = node

    def turn(self, differences: torch.Tensor) -> torch.Tensor:
        """See :class:`LatentDiffusion`."""
        return self._whole[0].turn(differences)

    def drop_condition(self, where: Condition, generator: torch.Generator | None = None) -> Condition:
        """Nothing is left out: without its class a branch is not asked."""
        return where

    def levels_for_training(self, n: int, generator: torch.Generator | None, device: torch.device) -> torch.Tensor:
        """Noise levels (n, 1) below the branch point."""
        whole = self._whole[0]
        top = float(whole.schedule.time(whole.opens[self.node].double().cpu()))
        time = whole.schedule.time(whole.levels_for_training(n, generator, device).double()) * top
        return whole.schedule.level(time).float()

    def loss(self, x0: torch.Tensor, where: Condition, level: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        """Denoising loss (n,) of the class."""
        whole = self._whole[0]

        def answer(x: torch.Tensor, at: torch.Tensor) -> torch.Tensor:
            with torch.no_grad():
                shared = whole.shared_answer(x, at, where)
            return shared + self.branch(x, at)

        return diffusion_loss(answer, x0, level, noise, whole.target)
