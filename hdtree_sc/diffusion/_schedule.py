"""How much noise at which time, as one number: the noise level ``h = -log SNR``."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch.nn import functional as F

if TYPE_CHECKING:
    from collections.abc import Iterable

CLEAN = -math.inf
"""Noise level of data without noise."""


def alpha_sigma(level: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Scale of the signal and of the noise at a noise level, ``alpha^2 + sigma^2 = 1``.

    Parameters
    ----------
    level
        Noise levels ``h = log(sigma^2 / alpha^2)``, of any shape; :data:`CLEAN` gives 1 and 0.

    Returns
    -------
    ``alpha`` and ``sigma`` of the same shape.
    """
    return torch.sigmoid(-level).sqrt(), torch.sigmoid(level).sqrt()


@dataclass(frozen=True)
class NoiseSchedule:
    """Variance-preserving diffusion ``x_h = alpha(h) x_0 + sigma(h) eps`` between two noise levels.

    Noise levels are what everything else speaks of: branch heights in them hold whatever the schedule. Time in [0, 1]
    is a view: where training draws its levels and how a sampler spaces its steps.

    Parameters
    ----------
    kind
        ``"cosine"`` (Nichol and Dhariwal 2021, without their offset) or ``"linear"`` (Ho et al. 2020; Song et al. 2021:
        beta grows from .1 to 20 per unit of time).
    lowest
        Noise level at time 0.
    highest
        Noise level at time 1.

    Raises
    ------
    ValueError
        If the kind is unknown or the levels are not in order.

    References
    ----------
    Nichol and Dhariwal, arXiv 2102.09672 (cosine); Ho et al., arXiv 2006.11239, and Song et al., arXiv 2011.13456
    (linear); noise as a log signal-to-noise ratio: Kingma et al., arXiv 2107.00630.
    """

    kind: Literal["cosine", "linear"] = "cosine"
    lowest: float = -9.0
    highest: float = 9.0

    def __post_init__(self) -> None:
        if self.kind not in ("cosine", "linear"):
            msg = f"kind: {self.kind!r} is none of cosine, linear."
            raise ValueError(msg)
        if not self.lowest < self.highest:
            msg = f"lowest: {self.lowest} is not below highest={self.highest}."
            raise ValueError(msg)

    def level(self, time: torch.Tensor) -> torch.Tensor:
        """Noise level at times in [0, 1]."""
        first, last = self._raw_time(torch.tensor([self.lowest, self.highest], dtype=torch.float64)).tolist()
        return self._raw_level(first + (last - first) * time)

    def time(self, level: torch.Tensor) -> torch.Tensor:
        """Time of noise levels; levels outside the schedule count as its ends."""
        first, last = self._raw_time(torch.tensor([self.lowest, self.highest], dtype=torch.float64)).tolist()
        return (self._raw_time(level.clamp(self.lowest, self.highest)) - first) / (last - first)

    def _raw_level(self, time: torch.Tensor) -> torch.Tensor:
        if self.kind == "cosine":
            return 2.0 * torch.log(torch.tan(0.5 * math.pi * time))
        integral = _BETA_FIRST * time + 0.5 * (_BETA_LAST - _BETA_FIRST) * time.square()
        return torch.log(torch.expm1(integral))  # sigma^2 / alpha^2 with alpha^2 = exp(-integral)

    def _raw_time(self, level: torch.Tensor) -> torch.Tensor:
        if self.kind == "cosine":
            return (2.0 / math.pi) * torch.atan(torch.exp(0.5 * level))
        slope, integral = _BETA_LAST - _BETA_FIRST, F.softplus(level)
        # the root of a quadratic in a form that loses no digits at small times
        return 2.0 * integral / (_BETA_FIRST + torch.sqrt(_BETA_FIRST**2 + 2.0 * slope * integral))

    def steps(
        self,
        n_steps: int,
        start: float | None = None,
        stop: float | None = None,
        *,
        through: Iterable[float] = (),
    ) -> torch.Tensor:
        """Noise levels from one to another, evenly spaced in time.

        Parameters
        ----------
        n_steps
            Steps between the two ends, those to ``through`` and the last one to :data:`CLEAN` included in none of them.
        start
            First level, the highest by default.
        stop
            Last level, :data:`CLEAN` by default; then the step before it is the schedule's lowest.
        through
            Levels that the steps must not jump over, as those at which a condition changes.

        Returns
        -------
        Levels, float64 (n_steps + 1,) or longer, from ``start`` to ``stop``; only the ends where no time lies between
        them.

        Raises
        ------
        ValueError
            If there is less than one step, or data without noise are to be noised (begin at ``lowest``: an ODE has no
            noise to begin with).
        """
        start = self.highest if start is None else float(start)
        stop = CLEAN if stop is None else float(stop)
        if n_steps < 1:
            msg = f"n_steps: {n_steps} given, at least one is needed."
            raise ValueError(msg)
        if start == CLEAN:
            msg = "start: the way begins at a noise level of the schedule; give lowest for data without noise."
            raise ValueError(msg)
        ends = torch.tensor([start, min(start, self.lowest) if stop == CLEAN else stop], dtype=torch.float64)
        times = self.time(ends)
        if times[0] == times[1]:  # no way, or one outside the schedule: nothing to space steps over
            levels = ends[: 1 + int(ends[0] != ends[1])]
        else:
            levels = self.level(
                torch.lerp(times[:1], times[1:], torch.linspace(0, 1, n_steps + 1, dtype=torch.float64))
            )
            levels[[0, -1]] = ends
        low, high = sorted(ends.tolist())
        extra = [level for level in through if low < level < high]
        if extra:
            levels = torch.cat([levels, torch.tensor(extra, dtype=torch.float64)]).unique()
            levels = levels if start < stop else levels.flip(0)
        if stop == CLEAN:
            levels = torch.cat([levels, torch.tensor([CLEAN], dtype=torch.float64)])
        return levels


_BETA_FIRST, _BETA_LAST = 0.1, 20.0


def ddpm_levels(n_times: int = 1000, first: float = 1e-4, last: float = 0.02) -> torch.Tensor:
    """Noise levels of the discrete grid of Ho et al. (2020), whose betas grow linearly.

    Parameters
    ----------
    n_times
        Length of the grid.
    first, last
        Betas at its ends.

    Returns
    -------
    Levels, float64 (n_times,), ascending: those of times 1 to ``n_times``.
    """
    kept = torch.cumsum(torch.log1p(-torch.linspace(first, last, n_times, dtype=torch.float64)), 0)
    return torch.log(-torch.expm1(kept)) - kept
