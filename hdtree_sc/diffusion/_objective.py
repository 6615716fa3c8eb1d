"""What the network of a diffusion model is asked for, and how errors are weighted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch

from hdtree_sc.diffusion._schedule import alpha_sigma

if TYPE_CHECKING:
    from collections.abc import Callable

Target = Literal["v", "eps", "x0"]

SNR_CAP = 5.0


def regression_target(x0: torch.Tensor, noise: torch.Tensor, level: torch.Tensor, target: Target) -> torch.Tensor:
    """What the network should answer, of the shape of ``x0``; ``level`` is (n, 1)."""
    if target == "x0":
        return x0
    if target == "eps":
        return noise
    alpha, sigma = alpha_sigma(level)
    return alpha * noise - sigma * x0


def data_and_noise(
    answer: torch.Tensor, x: torch.Tensor, level: torch.Tensor, target: Target
) -> tuple[torch.Tensor, torch.Tensor]:
    """Data and noise that a network's answer about noised data ``x`` means. Nothing is clipped."""
    alpha, sigma = alpha_sigma(level)
    if target == "v":
        return alpha * x - sigma * answer, sigma * x + alpha * answer
    if target == "eps":
        return (x - sigma * answer) / alpha, answer
    return answer, (x - alpha * answer) / sigma


def loss_weight(level: torch.Tensor, target: Target) -> torch.Tensor:
    """Weight of the squared error such that the one of the data is weighted by ``min(SNR, 5)`` (Hang et al. 2023)."""
    snr = torch.exp(-level)
    of_data = snr.clamp_max(SNR_CAP)
    if target == "x0":
        return of_data
    return of_data / snr if target == "eps" else of_data / (snr + 1.0)


def diffusion_loss(
    network: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    x0: torch.Tensor,
    level: torch.Tensor,
    noise: torch.Tensor,
    target: Target = "v",
) -> torch.Tensor:
    """Weighted squared error of a network at noised data.

    Parameters
    ----------
    network
        Answers ``target`` (n, d) for noised data (n, d) and levels (n, 1).
    x0
        Data, (n, d).
    level
        Noise levels, (n, 1).
    noise
        Standard normal, (n, d).
    target
        ``"v"`` (Salimans and Ho 2022), ``"eps"`` or ``"x0"``.

    Returns
    -------
    Loss of each row, (n,).

    References
    ----------
    Min-SNR weights: Hang et al., arXiv 2303.09556. Target ``"v"``: Salimans and Ho, arXiv 2202.00512.
    """
    alpha, sigma = alpha_sigma(level)
    answer = network(alpha * x0 + sigma * noise, level)
    error = (answer - regression_target(x0, noise, level, target)).square().mean(1, keepdim=True)
    return (loss_weight(level, target) * error)[:, 0]
