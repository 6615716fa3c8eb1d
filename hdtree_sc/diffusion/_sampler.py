"""From one noise level to another, up or down, starting and stopping anywhere."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch

from hdtree_sc.diffusion._objective import Target, data_and_noise
from hdtree_sc.diffusion._schedule import alpha_sigma

if TYPE_CHECKING:
    from collections.abc import Callable

Method = Literal["ancestral", "ddim", "dpm"]
METHODS = ("ancestral", "ddim", "dpm")

MIN_RATIO = 1e-3
"""A step that is shorter than this share of the next one is not looked back at."""


def integrate(
    network: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    x: torch.Tensor,
    levels: torch.Tensor,
    *,
    method: Method = "dpm",
    target: Target = "v",
    generator: torch.Generator | None = None,
) -> torch.Tensor:
    """Carry noised data along a way of noise levels.

    A way may be cut anywhere: walking it in parts gives what walking it at once does (for ``"dpm"`` but for its memory
    of one step), as no noise is dropped at a stop. Only :data:`~hdtree_sc.diffusion.CLEAN` ends without noise.

    Parameters
    ----------
    network
        Answers ``target`` (n, d) for noised data (n, d) and levels (n, 1).
    x
        Data at the first level, (n, d).
    levels
        The way, as :meth:`NoiseSchedule.steps` makes it: descending to take noise away; ascending to add it along the
        probability-flow ODE, for the methods that are deterministic.
    method
        ``"ancestral"`` (Ho et al. 2020: the exact posterior given the estimate of the data, with fresh noise),
        ``"ddim"`` (Song et al. 2021: deterministic, first order) or ``"dpm"`` (Lu et al. 2022, DPM-Solver++ 2M:
        deterministic, second order). All call the network once a step.
    target
        What the network answers.
    generator
        Random numbers of ``"ancestral"``.

    Returns
    -------
    Data at the last level, (n, d).

    Raises
    ------
    ValueError
        If the method is unknown, or the way of ``"ancestral"`` leads up: noise is added with
        ``alpha_sigma``, not integrated.

    References
    ----------
    Ho et al., arXiv 2006.11239 (ancestral); Song et al., arXiv 2010.02502 (DDIM); Lu et al., arXiv 2211.01095
    (DPM-Solver++).
    """
    if method not in METHODS:
        msg = f"method: {method!r} is none of {', '.join(METHODS)}."
        raise ValueError(msg)
    if method == "ancestral" and bool((levels[1:] > levels[:-1]).any()):
        msg = "levels: the ancestral sampler takes noise away only; use ddim or dpm for the way up."
        raise ValueError(msg)
    # the scalars of the steps in float64: differences of neighbouring levels lose digits
    alphas, sigmas = (scale.tolist() for scale in alpha_sigma(levels.double()))
    before: torch.Tensor | None = None
    for i, (level, after) in enumerate(zip(levels[:-1].tolist(), levels[1:].tolist(), strict=True)):
        (alpha, alpha_next), (sigma, sigma_next) = alphas[i : i + 2], sigmas[i : i + 2]
        here = x.new_full((x.shape[0], 1), level)
        data, noise = data_and_noise(network(x, here), x, here, target)
        if method == "ancestral":
            # variance of x at the next level given x and the data
            variance = sigma_next**2 / sigma**2 * max(1.0 - (alpha / alpha_next) ** 2, 0.0)
            x = alpha_next * data + max(sigma_next**2 - variance, 0.0) ** 0.5 * noise
            if variance > 0.0:
                x = x + variance**0.5 * torch.randn(x.shape, generator=generator, device=x.device, dtype=x.dtype)
            continue
        estimate = data
        last = levels[i - 1].item() - level
        # a last step that is tiny beside this one gives no slope: all it saw is rounding
        if method == "dpm" and before is not None and sigma_next > 0.0 and abs(last) > MIN_RATIO * abs(level - after):
            # straight line in log-SNR through the estimates of this step and of the last, taken at its middle
            ratio = (level - after) / last
            estimate = data + 0.5 * ratio * (data - before)
        # equals ddim's alpha' data + sigma' noise where the estimate is the data of this step
        x = (
            alpha_next * data + sigma_next * noise
            if estimate is data
            else (sigma_next / sigma * x + (alpha_next - sigma_next * alpha / sigma) * estimate)
        )
        before = data
    return x
