"""Soft contrastive loss on neighbour pairs."""

from __future__ import annotations

from typing import Literal

import torch
from torch.nn import functional as F

Metric = Literal["euclidean", "hyperbolic"]


def soft_contrastive_loss(
    anchors: torch.Tensor,
    positives: torch.Tensor,
    *,
    nu: float = 0.2,
    exaggeration: float = 0.5,
    metric: Metric = "euclidean",
) -> torch.Tensor:
    r"""Pull each anchor to its positive and away from the positives of the other anchors.

    With :math:`q_{ij} = (1 + d_{ij}^2 / \nu)^{-(\nu + 1) / 2}`, :math:`p_{ij} = q_{ij} / \sum_{k \ne i} q_{ik}`,
    :math:`s_i = p_{ii}` and :math:`c_j = \sum_i p_{ij}` the loss is

    .. math:: -e\,\overline{\log s_i} + \tfrac12 \overline{\log(2 + s_i)} + \tfrac12 \overline{\log(1 + c_j)}.

    Only the anchor-positive distances enter: the anchor-anchor and positive-positive matrices of the published code
    are row-normalised and so constant. Everything is computed in float32 and log space.

    Parameters
    ----------
    anchors
        Latents, (n, d).
    positives
        Latents of one positive per anchor, (n, d).
    nu
        Degrees of freedom of the kernel. Small values give a heavy tail: sharper groups.
    exaggeration
        Weight :math:`e` of the attraction. At 0.5 the attraction saturates (trajectories); above, pairs are pulled
        together for ever (clusters).
    metric
        ``"euclidean"``, or ``"hyperbolic"``: distances in the Poincaré ball, of which the latents are the tangent
        space at the origin.

    Returns
    -------
    The loss, a scalar; 0 when there is no second pair to contrast with.

    References
    ----------
    HDTree, arXiv 2506.23287, Eq. 4. Distance in the Poincaré ball: Nickel and Kiela, arXiv 1705.08039, Eq. 1.
    """
    n = anchors.shape[0]
    if n < 2:
        return anchors.sum() * 0.0
    with torch.autocast(device_type=anchors.device.type, enabled=False):
        anchors, positives = anchors.float(), positives.float()
        squared = (squared_hyperbolic if metric == "hyperbolic" else squared_euclidean)(anchors, positives)
        log_q = -0.5 * (nu + 1.0) * torch.log1p(squared / nu)
        own = torch.eye(n, dtype=torch.bool, device=anchors.device)
        log_p = log_q - torch.logsumexp(log_q.masked_fill(own, -torch.inf), dim=1, keepdim=True)
        log_s = log_p.diagonal()
        # log(2 + s) and log(1 + c) without leaving log space
        log_two = torch.log(torch.tensor(2.0, device=anchors.device))
        spread = F.softplus(log_s - log_two) + log_two
        crowding = F.softplus(torch.logsumexp(log_p, dim=0))
        return -exaggeration * log_s.mean() + 0.5 * spread.mean() + 0.5 * crowding.mean()


def squared_euclidean(anchors: torch.Tensor, positives: torch.Tensor) -> torch.Tensor:
    """Squared distances, (n, m)."""
    # |a|^2 + |p|^2 - 2 a p costs one matrix product and has, unlike cdist, a gradient at distance 0.
    squared = anchors.square().sum(1, keepdim=True) + positives.square().sum(1) - 2.0 * anchors @ positives.T
    return squared.clamp_min(0.0)


def squared_hyperbolic(anchors: torch.Tensor, positives: torch.Tensor) -> torch.Tensor:
    """Squared distances in the Poincaré ball of points of its tangent space at the origin, (n, m)."""
    inside = []
    for z in (anchors, positives):
        norm = z.norm(dim=1, keepdim=True).clamp_min(1e-6)
        inside.append(z / norm * torch.tanh(0.5 * norm).clamp_max(1.0 - 1e-4))
    a, p = inside
    room = (1.0 - a.square().sum(1, keepdim=True)) * (1.0 - p.square().sum(1))
    # arcosh has no finite slope at 1
    excess = (2.0 * squared_euclidean(a, p) / room).clamp_min(1e-6)
    return torch.log1p(excess + (excess * (excess + 2.0)).sqrt()).square()
