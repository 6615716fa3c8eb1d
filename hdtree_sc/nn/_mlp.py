"""The fully connected block that encoder, decoder and heads are made of."""

from __future__ import annotations

import torch
from torch import nn


class MLP(nn.Module):
    """Fully connected network: (Linear, LayerNorm, SiLU, Dropout) per hidden layer, then a Linear.

    LayerNorm, not BatchNorm: training and evaluation agree, a last batch of one cell works, and several
    processes need no synchronised statistics.

    Parameters
    ----------
    n_in
        Width of the input.
    n_out
        Width of the output.
    n_hidden
        Width of the hidden layers.
    n_layers
        Number of hidden layers; 0 gives one linear map.
    dropout
        Dropout rate of the hidden layers.
    """

    def __init__(self, n_in: int, n_out: int, *, n_hidden: int = 256, n_layers: int = 2, dropout: float = 0.1) -> None:
        super().__init__()
        widths = [n_in] + [n_hidden] * n_layers
        blocks: list[nn.Module] = []
        for before, after in zip(widths[:-1], widths[1:], strict=True):
            blocks += [nn.Linear(before, after), nn.LayerNorm(after), nn.SiLU(), nn.Dropout(dropout)]
        blocks.append(nn.Linear(widths[-1], n_out))
        self.layers = nn.Sequential(*blocks)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map ``x`` of shape (..., n_in) to (..., n_out); the last layer in float32 whatever the precision."""
        for layer in list(self.layers)[:-1]:
            x = layer(x)
        # distances between latents are taken later, and bfloat16 has eight bits
        with torch.autocast(device_type=x.device.type, enabled=False):
            return self.layers[-1](x.float())
