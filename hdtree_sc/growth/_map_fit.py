"""A 2-D map of latents, learned after them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from hdtree_sc.graph import nearest_neighbors
from hdtree_sc.nn import soft_contrastive_loss

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import nn

STEPS = 400
BATCH = 256
N_NEIGHBORS = 15


def fit_map(head: nn.Module, latent: NDArray[np.float32], *, seed: int) -> None:
    """Train a head so that neighbours in the latent meet in the map; for the eye only.

    Parameters
    ----------
    head
        From latents to (n, 2); changed in place.
    latent
        Latents of training cells, (n, n_latent).
    seed
        Seed; global random numbers are as before.
    """
    neighbors, _ = nearest_neighbors(latent, min(N_NEIGHBORS, len(latent) - 1), seed=seed)
    device = next(head.parameters()).device
    z, rng = torch.from_numpy(latent).to(device), np.random.default_rng(seed)
    optimizer = torch.optim.AdamW(head.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=2e-3, total_steps=STEPS)
    head.train()
    with torch.enable_grad():
        for _ in range(STEPS):
            rows = rng.choice(len(z), min(BATCH, len(z)), replace=False)
            near = neighbors[rows, rng.integers(neighbors.shape[1], size=len(rows))]
            flat, flat_near = head(torch.cat([z[rows], z[near]])).chunk(2)
            loss = soft_contrastive_loss(flat, flat_near, nu=1.0, exaggeration=0.5)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    head.eval()
