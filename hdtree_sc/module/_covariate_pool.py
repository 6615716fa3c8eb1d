"""Library sizes and covariates of real cells, to decode generated ones with."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from hdtree_sc.module._latent_diffusion import Condition

POOL_NAME = "donors"
"""Name of the pool in saved models."""


class CovariatePool(nn.Module):
    """What is kept of training cells: leaf, label, library size and covariates; no expression.

    Parameters
    ----------
    n_cells
        Number of cells kept.
    n_covariates
        Width of the covariate vector.
    """

    node: torch.Tensor
    label: torch.Tensor
    batch: torch.Tensor
    library: torch.Tensor
    covariates: torch.Tensor

    def __init__(self, n_cells: int, n_covariates: int) -> None:
        super().__init__()
        self.register_buffer("node", torch.zeros(n_cells, dtype=torch.long))
        self.register_buffer("label", torch.zeros(n_cells, dtype=torch.long))
        self.register_buffer("batch", torch.zeros(n_cells, dtype=torch.long))
        self.register_buffer("library", torch.ones(n_cells, 1))
        self.register_buffer("covariates", torch.zeros(n_cells, n_covariates))

    @torch.no_grad()
    def fill(self, where: Condition, batch: torch.Tensor, library: torch.Tensor, covariates: torch.Tensor) -> None:
        """Keep cells, all of which are given in the same order."""
        self.node.copy_(where.node)
        self.label.copy_(where.label)
        self.batch.copy_(batch)
        self.library.copy_(library)
        self.covariates.copy_(covariates)

    def joined(self, other: CovariatePool) -> CovariatePool:
        """These cells and, behind them, others."""
        out = CovariatePool(len(self.node) + len(other.node), self.covariates.shape[1]).to(self.node.device)
        for name, values in out.named_buffers():
            values.copy_(torch.cat([getattr(self, name), getattr(other, name).to(values.device)]))
        return out

    def draw(self, leaf: torch.Tensor, batch: int | None = None) -> torch.Tensor:
        """A random training cell of the same leaf for each cell; each is used equally often within its leaf.

        A leaf asked for as often as it has training cells gives each of them once, so that the library sizes of
        generated cells spread as those of real ones do and vary less from draw to draw.

        Parameters
        ----------
        leaf
            Leaves, int (n,).
        batch
            Batch from which cells are drawn if it has any: of the leaf where the leaf has some there, else of any leaf.

        Returns
        -------
        Rows of the pool, int (n,). A leaf without cells draws from all.
        """
        row = self._spread(leaf)
        out = (row * len(self.node)).long()
        pools = [torch.ones_like(self.batch, dtype=torch.bool)]
        if batch is not None:
            pools.append(self.batch == batch)
        for pool in pools:
            kept = pool.nonzero().squeeze(1)
            if batch is not None and pool is pools[-1] and len(kept):
                # of the batch at least, if not of the leaf
                out = torch.where(self.batch[out] == batch, out, kept[(row * len(kept)).long()])
            order = kept[torch.argsort(self.node[kept], stable=True)]
            held = self.node[order].contiguous()
            first, last = torch.searchsorted(held, leaf), torch.searchsorted(held, leaf, right=True)
            found = last > first
            # rounding up to the last place and past it is possible in float32
            place = (first + (row * (last - first)).long()).minimum(last - 1).clamp_min(0)
            out = torch.where(found, order[place], out) if len(order) else out
        return out

    @staticmethod
    def _spread(leaf: torch.Tensor) -> torch.Tensor:
        """Numbers in [0, 1), one in each of as many equal parts as a leaf has cells, in random order."""
        order = torch.randperm(len(leaf), device=leaf.device)
        order = order[torch.argsort(leaf[order], stable=True)]
        held = leaf[order].contiguous()
        first, last = torch.searchsorted(held, held), torch.searchsorted(held, held, right=True)
        place = torch.arange(len(leaf), device=leaf.device) - first
        within = (place + torch.rand(len(leaf), device=leaf.device)) / (last - first)
        return torch.empty_like(within).index_put_((order,), within)

    def label_shares(self, n_nodes: int, n_labels: int) -> torch.Tensor:
        """Share of each label (from 1) among the labelled cells of each node alone, (n_nodes, n_labels)."""
        known = self.label > 0
        counts = torch.zeros(n_nodes, n_labels, device=self.label.device)
        counts.index_put_(
            (self.node[known], self.label[known] - 1),
            torch.ones(int(known.sum()), device=counts.device),
            accumulate=True,
        )
        return counts / counts.sum(1, keepdim=True).clamp_min(1)
