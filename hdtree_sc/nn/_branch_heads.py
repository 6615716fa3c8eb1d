"""One head per branch on a shared trunk, all heads in stacked tensors."""

from __future__ import annotations

import math

import torch
from torch import nn

from hdtree_sc.nn._denoiser import N_MODULATION, Denoiser
from hdtree_sc.nn._stacked import StackedLinear

HEAD_WIDTH = 128


class BranchHeads(nn.Module):
    """Small networks, one for each branch, that end a shared trunk.

    The parameters of all heads lie in stacked tensors. Rows are sorted by head and cut into tiles of about the mean
    number of rows per head, so that one batched product serves all of them and padding at most doubles the work.

    Parameters
    ----------
    n_heads
        Number of heads.
    n_hidden
        Width of the trunk.
    n_features
        Width of the answer.
    width
        Width of a head.
    """

    def __init__(self, n_heads: int, n_hidden: int, n_features: int, *, width: int = HEAD_WIDTH) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.first = StackedLinear(n_heads, n_hidden, width)
        self.modulation = StackedLinear(n_heads, N_MODULATION, 3 * width, zero=True)
        self.inner = StackedLinear(n_heads, width, width)
        self.answer = StackedLinear(n_heads, width, n_features, zero=True)

    def forward(self, hidden: torch.Tensor, modulator: torch.Tensor, head: torch.Tensor) -> torch.Tensor:
        """Answer of each row's head.

        Parameters
        ----------
        hidden
            What the trunk says, (n, n_hidden).
        modulator
            Noise level and condition, (n, N_MODULATION).
        head
            Head of each row, int (n,).

        Returns
        -------
        Answers, (n, n_features).
        """
        slot, tile_head, size = tiles(head, self.n_heads)

        def laid_out(rows: torch.Tensor) -> torch.Tensor:
            room = rows.new_zeros(len(tile_head) * size, rows.shape[1])
            return room.index_copy(0, slot, rows).reshape(len(tile_head), size, -1)

        x = self.first(laid_out(hidden), tile_head)
        shift, scale, gate = self.modulation(laid_out(modulator), tile_head).chunk(3, dim=2)
        inner = self.inner(nn.functional.silu(torch.addcmul(shift, self.norm(x), 1.0 + scale)), tile_head)
        x = nn.functional.silu(self.norm(x + gate * inner))
        return self.answer(x, tile_head).flatten(0, 1)[slot]


class HeadedDenoiser(Denoiser):
    """:class:`Denoiser` whose trunk knows noise and label only; each branch of the tree has a head of its own.

    After Tseng et al. (arXiv 2212.10777): what one branch learns changes no parameter of another's head. The trunk is
    evaluated once for each row, however many heads it is asked for.

    Parameters
    ----------
    n_features, n_condition, n_hidden, n_blocks, dropout
        See :class:`Denoiser`.
    n_heads
        Number of heads.
    """

    def __init__(
        self,
        n_features: int,
        n_condition: int,
        n_heads: int,
        *,
        n_hidden: int = 256,
        n_blocks: int = 3,
        dropout: float = 0.1,
    ) -> None:
        super().__init__(n_features, n_condition, n_hidden=n_hidden, n_blocks=n_blocks, dropout=dropout)
        self.last = nn.Sequential(nn.LayerNorm(n_hidden), nn.SiLU())
        self.heads = BranchHeads(n_heads, n_hidden, n_features)

    def forward(
        self, x: torch.Tensor, level: torch.Tensor, condition: torch.Tensor, *heads: torch.Tensor
    ) -> torch.Tensor:
        """Mean answer of some heads for noised data.

        Parameters
        ----------
        x, level, condition
            See :class:`Denoiser`.
        *heads
            Head of each row, int (n,).

        Returns
        -------
        Answer, float32 (n, n_features).
        """
        hidden, modulator = self.trunk(x, level, condition)
        hidden = self.last(hidden)
        return torch.stack([self.heads(hidden, modulator, head) for head in heads]).mean(0).float()


def tiles(head: torch.Tensor, n_heads: int) -> tuple[torch.Tensor, torch.Tensor, int]:
    """Where rows go so that each tile holds rows of one head.

    Parameters
    ----------
    head
        Head of each row, int (n,).
    n_heads
        Number of heads.

    Returns
    -------
    Place of each row among all places of all tiles, int (n,); head of each tile, int (n_tiles,); rows of a tile.
    """
    counts = torch.bincount(head, minlength=n_heads)
    size = max(1, math.ceil(len(head) / max(1, int((counts > 0).sum()))))
    n_tiles = -(-counts // size)
    tile_head = torch.arange(n_heads, device=head.device).repeat_interleave(n_tiles)
    order = head.argsort(stable=True)
    ordered = head[order]
    within = torch.arange(len(head), device=head.device) - (counts.cumsum(0) - counts)[ordered]
    slot = torch.empty_like(order)
    slot[order] = (n_tiles.cumsum(0) - n_tiles)[ordered] * size + within
    return slot, tile_head, size
