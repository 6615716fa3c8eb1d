"""How likely data are under a diffusion model, by its variational bound."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from hdtree_sc.diffusion._objective import data_and_noise
from hdtree_sc.diffusion._schedule import alpha_sigma

if TYPE_CHECKING:
    from collections.abc import Callable

    from hdtree_sc.diffusion._objective import Target
    from hdtree_sc.diffusion._schedule import NoiseSchedule


def variational_bound(
    network: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    x0: torch.Tensor,
    schedule: NoiseSchedule,
    *,
    n_levels: int,
    target: Target = "v",
    generator: torch.Generator | None = None,
) -> torch.Tensor:
    r"""Upper bound of the negative log likelihood, in nats.

    With :math:`h = \log \sigma^2 / \alpha^2` from :math:`h_0` to :math:`h_1`

    .. math:: -\log p(x) \le \mathrm{KL}(q(x_{h_1} | x) \| N(0, 1)) + \tfrac12 \int_{h_0}^{h_1}
        \lVert \epsilon - \hat\epsilon \rVert^2 \, dh + \tfrac d2 \left(1 + \log 2 \pi e^{h_0}\right),

    the last term for :math:`p(x | x_{h_0}) = N(x_{h_0} / \alpha, \sigma^2 / \alpha^2)`. The integral is a mean over
    levels that are spread evenly.

    Parameters
    ----------
    network
        Answers ``target`` (n, d) for noised data (n, d) and levels (n, 1).
    x0
        Data, (n, d).
    schedule
        Noise levels; all between its ends count.
    n_levels
        Levels, and network calls, for each row.
    target
        What the network answers.
    generator
        Random numbers.

    Returns
    -------
    Bound of each row, (n,).

    References
    ----------
    Kingma et al., Variational Diffusion Models, arXiv 2107.00630, Eq. 11, 12 and 18.
    """
    (n, d), device, width = x0.shape, x0.device, schedule.highest - schedule.lowest
    integral = torch.zeros(n, device=device)
    for step in range(n_levels):
        share = (step + torch.rand(n, 1, generator=generator, device=device)) / n_levels
        level = schedule.lowest + width * share
        alpha, sigma = alpha_sigma(level)
        noise = torch.randn(x0.shape, generator=generator, device=device)
        x = alpha * x0 + sigma * noise
        estimate = data_and_noise(network(x, level), x, level, target)[1]
        integral += (noise - estimate).square().sum(1)
    alpha, sigma = alpha_sigma(torch.tensor(schedule.highest, dtype=torch.float64))
    noise_left = float(sigma.square())
    prior = 0.5 * (float(alpha.square()) * x0.square() + noise_left - 1.0 - math.log(noise_left)).sum(1)
    last = 0.5 * d * (1.0 + math.log(2.0 * math.pi) + schedule.lowest)
    return prior + 0.5 * width * integral / n_levels + last
