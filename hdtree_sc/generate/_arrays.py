"""From points of the generator to cells as arrays."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scipy import sparse

from hdtree_sc._errors import whole_number
from hdtree_sc.module import SPACES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from numpy.typing import ArrayLike, NDArray

    from hdtree_sc.module import CellModule

TRIES = 20
"""Cells without a count are drawn again so many times."""


@contextmanager
def seeded(seed: int | None) -> Iterator[None]:
    """Random numbers of a seed within the block; the global ones are as before after it. None: the global ones."""
    if seed is None:
        yield
        return
    seed = whole_number("seed", seed, least=None)
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(seed)
        yield


def library_sizes(library: float | ArrayLike, n_cells: int) -> NDArray[np.float32]:
    """Library sizes (1, 1) or (n_cells, 1) that were asked for."""
    try:
        size = np.asarray(library, dtype=np.float32).reshape(-1, 1)
    except (TypeError, ValueError):
        size = np.empty((0, 1), dtype=np.float32)
    if len(size) not in (1, n_cells) or not (np.isfinite(size) & (size > 0)).all():
        msg = f"library: one positive number, or one for each of {n_cells} cells wanted."
        raise ValueError(msg)
    return size


@dataclass
class DecoderInputs:
    """What cells are decoded with.

    Parameters
    ----------
    library
        Library sizes, (n, 1).
    covariates
        Covariate vectors, (n, width).
    node
        Number of the node that cells are of, int (n,).
    """

    library: torch.Tensor
    covariates: torch.Tensor
    node: torch.Tensor

    def __getitem__(self, rows: Any) -> DecoderInputs:
        return DecoderInputs(self.library[rows], self.covariates[rows], self.node[rows])

    def in_batch(self, batch: int, n_batch: int) -> DecoderInputs:
        """The same in one batch."""
        covariates = self.covariates.clone()
        if n_batch > 1:
            covariates[:, :n_batch] = 0.0
            covariates[:, batch] = 1.0
        return replace(self, covariates=covariates)


@dataclass
class GeneratedArrays:
    """Cells as arrays.

    Parameters
    ----------
    values
        Drawn expression, CSR of counts or dense, float32 (n, n_vars).
    mean
        Expected expression, float32 (n, n_vars), or None.
    latent
        Latents, float32 (n, n_latent).
    map_2d
        Map for plots, float32 (n, 2).
    """

    values: sparse.csr_matrix | NDArray[np.float32]
    mean: NDArray[np.float32] | None
    latent: NDArray[np.float32]
    map_2d: NDArray[np.float32]


def draw(module: CellModule, distribution: Any) -> torch.Tensor:
    """Expression from a likelihood: counts and continuous values at random, values in [0, 1] as expected.

    A cell without a single count is drawn again, as nobody would have kept it.
    """
    if module.gene_likelihood == "bernoulli":
        return distribution.mean
    drawn = distribution.sample()
    if module.is_count:
        for _ in range(TRIES):
            empty = drawn.sum(1) == 0
            if not bool(empty.any()):
                break
            drawn = torch.where(empty.unsqueeze(1), distribution.sample(), drawn)
    return drawn


def decoded_cells(
    module: CellModule, whitened: torch.Tensor, inputs: DecoderInputs, *, keep_mean: bool, batch_size: int
) -> GeneratedArrays:
    """Decode points of the generator, some at a time."""
    space = SPACES[module.space]
    parts = (
        (likelihood, lambda _, points=points, own=own: space.latent(module, points, own.covariates))
        for points, own, likelihood in _decoded(module, whitened, inputs, batch_size)
    )
    return drawn_cells(module, parts, keep_mean=keep_mean)


def drawn_cells(
    module: CellModule, parts: Iterable[tuple[Any, Callable[[torch.Tensor], torch.Tensor]]], *, keep_mean: bool
) -> GeneratedArrays:
    """Draw cells some at a time, of likelihoods, each with what gives the latents of the cells drawn."""
    values, means, latents, maps = [], [], [], []
    for likelihood, latent_of in parts:
        drawn = draw(module, likelihood)
        latent = module.shown(latent_of(drawn))
        dense = drawn.cpu().numpy().astype(np.float32)
        values.append(sparse.csr_matrix(dense) if module.is_count else dense)
        if keep_mean:
            means.append(likelihood.mean.cpu().numpy().astype(np.float32))
        latents.append(latent.float().cpu().numpy())
        maps.append(module.map_head(latent).float().cpu().numpy())
    joined = sparse.vstack(values, format="csr") if module.is_count else np.concatenate(values)
    mean = np.concatenate(means) if keep_mean else None
    return GeneratedArrays(joined, mean, np.concatenate(latents), np.concatenate(maps))


def expected(
    module: CellModule, whitened: torch.Tensor, inputs: DecoderInputs, *, batch_size: int
) -> NDArray[np.float32]:
    """Expected expression of points of the generator, float32 (n, n_vars)."""
    parts = _decoded(module, whitened, inputs, batch_size)
    return np.concatenate([likelihood.mean.cpu().numpy().astype(np.float32) for _, _, likelihood in parts])


def _decoded(
    module: CellModule, whitened: torch.Tensor, inputs: DecoderInputs, batch_size: int
) -> Iterator[tuple[torch.Tensor, DecoderInputs, Any]]:
    """Points, what they are decoded with and the likelihood of their expression, some at a time."""
    assert module.diffusion is not None
    for rows in torch.arange(len(whitened)).split(batch_size):
        own, points = inputs[rows], module.diffusion.unwhiten(whitened[rows])
        yield points, own, SPACES[module.space].expression(module, points, own.covariates, own.library, own.node)
