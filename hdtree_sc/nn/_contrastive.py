"""Soft contrastive loss on neighbour pairs."""

from __future__ import annotations

import torch
from torch.nn import functional as F


def soft_contrastive_loss(
    anchors: torch.Tensor, positives: torch.Tensor, *, nu: float = 0.2, exaggeration: float = 0.5
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

    Returns
    -------
    The loss, a scalar; 0 when there is no second pair to contrast with.

    References
    ----------
    HDTree, arXiv 2506.23287, Eq. 4.
    """
    n = anchors.shape[0]
    if n < 2:
        return anchors.sum() * 0.0
    with torch.autocast(device_type=anchors.device.type, enabled=False):
        anchors, positives = anchors.float(), positives.float()
        # |a|^2 + |p|^2 - 2 a p costs one matrix product and has, unlike cdist, a gradient at distance 0.
        squared = (
            anchors.square().sum(1, keepdim=True) + positives.square().sum(1) - 2.0 * anchors @ positives.T
        ).clamp_min(0.0)
        log_q = -0.5 * (nu + 1.0) * torch.log1p(squared / nu)
        own = torch.eye(n, dtype=torch.bool, device=anchors.device)
        log_p = log_q - torch.logsumexp(log_q.masked_fill(own, -torch.inf), dim=1, keepdim=True)
        log_s = log_p.diagonal()
        # log(2 + s) and log(1 + c) without leaving log space
        log_two = torch.log(torch.tensor(2.0, device=anchors.device))
        spread = F.softplus(log_s - log_two) + log_two
        crowding = F.softplus(torch.logsumexp(log_p, dim=0))
        return -exaggeration * log_s.mean() + 0.5 * spread.mean() + 0.5 * crowding.mean()
