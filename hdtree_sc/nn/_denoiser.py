"""The network of the diffusion: from noised data, noise level and condition to what it is asked for."""

from __future__ import annotations

import math

import torch
from torch import nn

N_FREQUENCIES = 16
N_MODULATION = 64
"""Width in which the blocks read noise level and condition: wider, most of the work would be there."""


class Denoiser(nn.Module):
    """Residual MLP whose layers are shifted, scaled and gated by noise level and condition (AdaLN-zero).

    After Peebles and Xie (2023): every block starts as the identity, so that deep networks train from the first step.
    LayerNorm only: what a cell gets does not depend on the cells beside it.

    Parameters
    ----------
    n_features
        Width of the data.
    n_condition
        Width of the condition vector.
    n_hidden
        Width of the blocks.
    n_blocks
        Number of blocks.
    dropout
        Dropout rate within the blocks: few cells are soon known by heart.
    """

    frequencies: torch.Tensor

    def __init__(
        self, n_features: int, n_condition: int, *, n_hidden: int = 256, n_blocks: int = 3, dropout: float = 0.1
    ) -> None:
        super().__init__()
        # waves from far longer than the range of noise levels, some 20, down to a fraction of a unit
        waves = torch.logspace(math.log10(40.0), math.log10(0.5), N_FREQUENCIES)
        self.register_buffer("frequencies", 2.0 * math.pi / waves, persistent=False)
        self.level = nn.Sequential(
            nn.Linear(2 * N_FREQUENCIES, N_MODULATION), nn.SiLU(), nn.Linear(N_MODULATION, N_MODULATION)
        )
        self.condition = nn.Linear(n_condition, N_MODULATION)
        self.first = nn.Linear(n_features, n_hidden)
        self.blocks = nn.ModuleList(_Block(n_hidden, dropout) for _ in range(n_blocks))
        answer = nn.Linear(n_hidden, n_features)
        nn.init.zeros_(answer.weight)
        nn.init.zeros_(answer.bias)
        self.last = nn.Sequential(nn.LayerNorm(n_hidden), nn.SiLU(), answer)

    def forward(self, x: torch.Tensor, level: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
        """Answer for noised data.

        Parameters
        ----------
        x
            Noised data, (n, n_features), of unit variance.
        level
            Noise levels ``-log SNR``, (n, 1).
        condition
            Condition vectors, (n, n_condition).

        Returns
        -------
        Answer, float32 (n, n_features).
        """
        return self.last(self.trunk(x, level, condition)[0]).float()

    def trunk(self, x: torch.Tensor, level: torch.Tensor, condition: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """What comes out of the blocks, (n, n_hidden), and what they read of level and condition, (n, N_MODULATION)."""
        angle = level.float() * self.frequencies
        modulator = nn.functional.silu(self.level(torch.cat([angle.sin(), angle.cos()], 1)) + self.condition(condition))
        hidden = self.first(x)
        for block in self.blocks:
            hidden = block(hidden, modulator)
        return hidden, modulator


class _Block(nn.Module):
    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.net = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Dropout(dropout), nn.Linear(width, width))
        self.modulation = nn.Linear(N_MODULATION, 3 * width)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)

    def forward(self, x: torch.Tensor, modulator: torch.Tensor) -> torch.Tensor:
        shift, scale, gate = self.modulation(modulator).chunk(3, dim=1)
        return x + gate * self.net(torch.addcmul(shift, self.norm(x), 1.0 + scale))
