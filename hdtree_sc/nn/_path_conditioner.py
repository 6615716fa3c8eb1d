"""Which place in a tree the diffusion is conditioned on: the nodes of a path, each visible below its branch point."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch
from torch import nn

if TYPE_CHECKING:
    from collections.abc import Sequence

Gate = Literal["none", "step", "soft"]
GATES = ("none", "step", "soft")

SOFT_WIDTH = 0.5


class PathConditioner(nn.Module):
    """Sum over the nodes of a path of ``gate(noise level, height of the parent) * embedding(node, code)``.

    A path may end at any node: the root alone is no condition at all. With a gate a node counts only where the noise is
    below the branch point it comes from, so that siblings share all that happens above it (branched diffusion);
    without, the whole path is known at every noise level (TreeDiffusion).

    Parameters
    ----------
    parents
        Position of each node's parent, of length n_nodes; -1 of the root, which comes first, and parents before
        children.
    n_code
        Width of the vector that describes a node.
    n_out
        Width of the condition vector.
    gate
        ``"none"``, ``"step"`` (a node counts if the noise is below the height of its parent, not at it) or ``"soft"``
        (sigmoid of the difference over half a unit: no jump in the score).

    Raises
    ------
    ValueError
        If the gate is unknown.

    References
    ----------
    Tseng et al., arXiv 2212.10777 (gates of branched diffusion); TreeDiffusion, arXiv 2410.16910 (whole path).
    """

    parent: torch.Tensor
    on_path: torch.Tensor
    depth: torch.Tensor
    codes: torch.Tensor
    heights: torch.Tensor

    def __init__(
        self,
        parents: Sequence[int],
        n_code: int,
        n_out: int,
        *,
        gate: Gate = "soft",
    ) -> None:
        super().__init__()
        if gate not in GATES:
            msg = f"gate: {gate!r} is none of {', '.join(GATES)}."
            raise ValueError(msg)
        self.gate = gate
        n_nodes = len(parents)
        on_path = torch.eye(n_nodes)
        depth = torch.zeros(n_nodes, dtype=torch.long)
        for node, above in enumerate(parents):
            if above >= 0:
                on_path[node] += on_path[above]
                depth[node] = depth[above] + 1
        self.register_buffer("parent", torch.tensor(list(parents), dtype=torch.long), persistent=False)
        self.register_buffer("on_path", on_path, persistent=False)
        self.register_buffer("depth", depth, persistent=False)
        self.register_buffer("codes", torch.zeros(n_nodes, n_code))
        self.register_buffer("heights", torch.full((n_nodes,), -torch.inf))
        self.node = nn.Embedding(n_nodes, n_out)
        nn.init.normal_(self.node.weight, std=0.1)
        self.code = nn.Linear(n_code, n_out, bias=False)

    @torch.no_grad()
    def describe(self, codes: torch.Tensor, heights: torch.Tensor) -> None:
        """Say what the nodes are.

        Parameters
        ----------
        codes
            A vector for each node, (n_nodes, n_code).
        heights
            Noise level ``-log SNR`` of each node's branch point, at which its children part, (n_nodes,).
        """
        self.codes.copy_(codes)
        self.heights.copy_(heights)

    def lca(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        """Lowest common ancestor of pairs of nodes, int (n,)."""
        return (self.on_path[a] * self.on_path[b] * (self.depth + 1)).argmax(1)

    def forward(self, node: torch.Tensor, level: torch.Tensor) -> torch.Tensor:
        """Condition vectors.

        Parameters
        ----------
        node
            Last node of each path, int (n,).
        level
            Noise levels, (n, 1).

        Returns
        -------
        Conditions, (n, n_out).
        """
        seen = self.on_path[node]
        if self.gate != "none":
            above = self.opens
            seen = seen * (level < above if self.gate == "step" else torch.sigmoid((above - level) / SOFT_WIDTH))
        return seen @ (self.node.weight + self.code(self.codes))

    @property
    def opens(self) -> torch.Tensor:
        """Noise level below which each node is visible, (n_nodes,): the branch point of its parent."""
        return torch.where(self.parent >= 0, self.heights[self.parent.clamp_min(0)], torch.inf)

    def deepest_open(self, node: torch.Tensor, level: torch.Tensor) -> torch.Tensor:
        """Deepest node, int (n,), of each path that is visible at noise levels (n, 1) under the ``"step"`` gate."""
        return (self.on_path[node] * (level < self.opens) * (self.depth + 1)).argmax(1)

    def shorten(self, node: torch.Tensor, share: float, generator: torch.Generator | None = None) -> torch.Tensor:
        """Cut paths at random, so that one network learns every node, and the data as a whole.

        Parameters
        ----------
        node
            Last node of each path, int (n,).
        share
            Share of the paths that are cut, each at a level drawn evenly from the root to the one above its end.
        generator
            Random numbers.

        Returns
        -------
        Last node of each path, int (n,).
        """
        depth = self.depth[node]
        drawn = torch.rand(2, len(node), generator=generator, device=node.device)
        kept = torch.where(drawn[0] < share, (drawn[1] * depth).floor().long(), depth)
        for _ in range(int(self.depth.max())):
            node = torch.where(self.depth[node] > kept, self.parent[node], node)
        return node
