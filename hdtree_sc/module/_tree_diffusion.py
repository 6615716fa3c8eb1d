"""Diffusion that is conditioned on latents of a tree beside the path."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import torch

from hdtree_sc.module._latent_diffusion import N_CONDITION, Condition, LatentDiffusion
from hdtree_sc.nn import MLP

if TYPE_CHECKING:
    from collections.abc import Sequence

TreeCondition = Literal["path", "reconstruction"]
TREE_CONDITIONS = ("path", "reconstruction")
DROP_SHARE = 0.5
"""Share of the rows whose condition is path and label alone in training."""


def paths_to(parents: Sequence[int]) -> list[list[int]]:
    """Nodes from the root to each node, -1 behind it; the root comes first, and parents before children."""
    paths: list[list[int]] = []
    for node, above in enumerate(parents):
        paths.append([*(paths[above] if above >= 0 else []), node])
    depth = max(map(len, paths))
    return [path + [-1] * (depth - len(path)) for path in paths]


class TreeLatentDiffusion(LatentDiffusion):
    r"""Diffusion that is conditioned on more of a cell than its place in the tree.

    ``"path"``: the latents of the nodes of the path, :math:`\sum_i [f(z_i, \mathrm{node}_i) + \mathrm{embed}_i]`.
    ``"reconstruction"``: what the leaf's decoder makes of its latent, encoded again, and the leaf.

    In half of the rows the signal is left out in training, so that the same network makes cells of a path alone.

    Parameters
    ----------
    n_features
        Width of the space.
    parents
        Position of each tree node's parent, -1 of the root, which comes first.
    condition
        ``"path"`` or ``"reconstruction"``.
    n_node_latent
        Width of the nodes' latents.
    **kwargs
        Arguments of :class:`LatentDiffusion`.

    References
    ----------
    TreeDiffusion, arXiv 2410.16910 (path); Diffuse-TreeVAE, arXiv 2407.06124 (reconstruction). Their condition is on
    pixels and a number for the leaf; here on latents, with an embedding for each node.
    """

    path_to: torch.Tensor
    root_mean: torch.Tensor
    root_factor: torch.Tensor
    spread_of_signal: torch.Tensor

    def __init__(
        self,
        n_features: int,
        *,
        parents: Sequence[int],
        condition: TreeCondition = "path",
        n_node_latent: int = 10,
        **kwargs: Any,
    ) -> None:
        super().__init__(n_features, parents=parents, **kwargs)
        self.condition_on = condition
        self.n_node_latent = n_node_latent
        self.register_buffer("path_to", torch.tensor(paths_to(parents)), persistent=False)
        n_in = n_node_latent + N_CONDITION if condition == "path" else n_features
        self.signal = MLP(n_in, N_CONDITION, n_hidden=N_CONDITION, n_layers=1, dropout=0.0)
        # where roots' latents of the cells of each node lie: a standard normal root has them only on average
        self.register_buffer("root_mean", torch.zeros(len(parents), n_node_latent))
        self.register_buffer("root_factor", torch.eye(n_node_latent).repeat(len(parents), 1, 1))
        self.register_buffer("spread_of_signal", torch.ones(()))

    @torch.no_grad()
    def fit_roots(self, root: torch.Tensor, node: torch.Tensor, signal: torch.Tensor) -> None:
        """Learn where the root's latents of cells lie, and the scale of the signal.

        Parameters
        ----------
        root
            Latents of the root, (n, n_node_latent).
        node
            Leaf of each cell, int (n,).
        signal
            The further condition of the cells, (n, n_signal).
        """
        self.spread_of_signal.copy_(signal.nan_to_num().square().mean().sqrt().clamp_min(1e-6))
        for leaf in node.unique().tolist():
            own = root[node == leaf]
            self.root_mean[leaf] = own.mean(0)
            centred = (own - own.mean(0)).double()
            # as if ten more cells were spread as the standard normal root has it
            covariance = (centred.T @ centred + 10.0 * torch.eye(own.shape[1])) / (len(own) + 10.0)
            self.root_factor[leaf] = torch.linalg.cholesky(covariance)

    def draw_roots(self, leaf: torch.Tensor) -> torch.Tensor:
        """Latents of the root, (n, n_node_latent), of cells of leaves (n,)."""
        noise = torch.randn(len(leaf), self.n_node_latent, device=leaf.device)
        return self.root_mean[leaf] + torch.einsum("nij,nj->ni", self.root_factor[leaf], noise)

    def condition(self, where: Condition, level: torch.Tensor) -> torch.Tensor:
        """Condition vectors (n, width) at noise levels (n, 1)."""
        out = super().condition(where, level)
        if where.signal is None:
            return out
        known = ~where.signal[:, :1].isnan()
        signal = where.signal.nan_to_num()
        if self.condition_on == "reconstruction":
            return out + known * self.signal(self.whiten(signal))
        way = self.path_to[where.node]
        signal = signal.reshape(len(way), way.shape[1], self.n_node_latent) / self.spread_of_signal
        nodes = self.path.node.weight[way.clamp_min(0)]
        said = self.signal(torch.cat([signal, nodes], dim=-1)) * (way >= 0).unsqueeze(-1)
        return out + known * said.sum(1)

    def drop_condition(self, where: Condition, generator: torch.Generator | None = None) -> Condition:
        """See :meth:`LatentDiffusion.drop_condition`; the signal is left out in half of the rows, and with the path."""
        out = super().drop_condition(where, generator)
        if where.signal is None:
            return out
        drawn = torch.rand(len(where.node), generator=generator, device=where.node.device)
        gone = (drawn < DROP_SHARE) | (out.node == 0)
        return Condition(out.node, out.label, where.signal.masked_fill(gone.unsqueeze(1), torch.nan))
