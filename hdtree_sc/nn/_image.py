"""Convolutions for features that are the pixels of an image."""

from __future__ import annotations

import math

import torch
from torch import nn

ENCODER_CHANNELS = (32, 64)
"""Channels of the encoder's layers, each of which halves the image."""
HEAD_CHANNELS = (32, 16)
"""Channels of the head's layers, each of which doubles the image."""


class ImageEncoder(nn.Module):
    """From images and covariates to a vector: blocks of four pixels, two strided convolutions and a hidden layer.

    Parameters
    ----------
    shape
        Height and width of the images.
    n_covariates
        Width of the covariate vector behind the pixels.
    n_out
        Width of the output.
    n_hidden
        Width of the hidden layer.
    dropout
        Dropout rate of the hidden layer.
    """

    def __init__(
        self, shape: tuple[int, int], n_covariates: int, n_out: int, *, n_hidden: int = 256, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.shape = shape
        # four pixels become four channels of one: at full size, memory would cost more time than arithmetic
        padded = [math.ceil(side / 2) * 2 for side in shape]
        self.padding = (0, padded[1] - shape[1], 0, padded[0] - shape[0])
        layers: list[nn.Module] = [nn.PixelUnshuffle(2)]
        height, width, before = padded[0] // 2, padded[1] // 2, 4
        for channels in ENCODER_CHANNELS:
            # one group: as LayerNorm, what an image gets does not depend on the images beside it
            layers += [nn.Conv2d(before, channels, 3, stride=2, padding=1), nn.GroupNorm(1, channels), nn.SiLU()]
            height, width, before = math.ceil(height / 2), math.ceil(width / 2), channels
        self.convolutions = nn.Sequential(*layers)
        self.hidden = nn.Sequential(
            nn.Linear(before * height * width + n_covariates, n_hidden),
            nn.LayerNorm(n_hidden),
            nn.SiLU(),
            nn.Dropout(dropout),
        )
        self.last = nn.Linear(n_hidden, n_out)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """From pixels row by row with covariates behind them, (n, height * width + n_covariates), to (n, n_out)."""
        n_pixels = self.shape[0] * self.shape[1]
        image = nn.functional.pad(x[:, :n_pixels].reshape(-1, 1, *self.shape), self.padding)
        hidden = self.hidden(torch.cat([self.convolutions(image).flatten(1), x[:, n_pixels:]], dim=1))
        with torch.autocast(device_type=x.device.type, enabled=False):
            return self.last(hidden.float())


class ImageHead(nn.Module):
    """From a hidden layer to an image: a small image that is doubled twice, and an intercept for each pixel.

    Parameters
    ----------
    n_hidden
        Width of the hidden layer.
    shape
        Height and width of the images.
    """

    def __init__(self, n_hidden: int, shape: tuple[int, int]) -> None:
        super().__init__()
        wide, narrow = HEAD_CHANNELS
        self.shape = shape
        self.small = math.ceil(shape[0] / 4), math.ceil(shape[1] / 4)
        self.first = nn.Linear(n_hidden, wide * self.small[0] * self.small[1])
        self.rest = nn.Sequential(
            nn.GroupNorm(1, wide),
            nn.SiLU(),
            nn.ConvTranspose2d(wide, narrow, 4, stride=2, padding=1),
            nn.GroupNorm(1, narrow),
            nn.SiLU(),
            nn.ConvTranspose2d(narrow, 1, 4, stride=2, padding=1),
        )
        self.intercept = nn.Parameter(torch.zeros(shape[0] * shape[1]))

    def forward(self, h: torch.Tensor) -> torch.Tensor:
        """From (n, n_hidden) to pixels row by row, (n, height * width)."""
        image = self.rest(self.first(h).reshape(-1, HEAD_CHANNELS[0], *self.small))
        return image[:, 0, : self.shape[0], : self.shape[1]].flatten(1) + self.intercept
