"""From points of the generator to AnnData of cells."""

from __future__ import annotations

import hashlib
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from anndata import AnnData
from scipy import sparse

from hdtree_sc._errors import whole_number
from hdtree_sc._keys import Keys
from hdtree_sc.module import SPACES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from numpy.typing import NDArray

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


@dataclass
class Surroundings:
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

    def __getitem__(self, rows: Any) -> Surroundings:
        return Surroundings(self.library[rows], self.covariates[rows], self.node[rows])

    def in_batch(self, batch: int, n_batch: int) -> Surroundings:
        """The same in one batch."""
        covariates = self.covariates.clone()
        if n_batch > 1:
            covariates[:, :n_batch] = 0.0
            covariates[:, batch] = 1.0
        return replace(self, covariates=covariates)


@dataclass
class Made:
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


def draw(module: Any, distribution: Any) -> torch.Tensor:
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


def make_cells(
    module: Any, whitened: torch.Tensor, surroundings: Surroundings, *, keep_mean: bool, batch_size: int
) -> Made:
    """Decode points of the generator, some at a time."""
    space = SPACES[module.space]
    parts = (
        (likelihood, lambda _, points=points, around=around: space.latent(module, points, around.covariates))
        for points, around, likelihood in _decoded(module, whitened, surroundings, batch_size)
    )
    return drawn_cells(module, parts, keep_mean=keep_mean)


def drawn_cells(
    module: Any, parts: Iterable[tuple[Any, Callable[[torch.Tensor], torch.Tensor]]], *, keep_mean: bool
) -> Made:
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
    return Made(joined, np.concatenate(means) if keep_mean else None, np.concatenate(latents), np.concatenate(maps))


def expected(
    module: Any, whitened: torch.Tensor, surroundings: Surroundings, *, batch_size: int
) -> NDArray[np.float32]:
    """Expected expression of points of the generator, float32 (n, n_vars)."""
    parts = _decoded(module, whitened, surroundings, batch_size)
    return np.concatenate([likelihood.mean.cpu().numpy().astype(np.float32) for _, _, likelihood in parts])


def _decoded(
    module: Any, whitened: torch.Tensor, surroundings: Surroundings, batch_size: int
) -> Iterator[tuple[torch.Tensor, Surroundings, Any]]:
    """Points, what they are decoded with and the likelihood of their expression, some at a time."""
    for rows in torch.arange(len(whitened)).split(batch_size):
        around, points = surroundings[rows], module.diffusion.colour(whitened[rows])
        told = (around.covariates, around.library, around.node)
        yield points, around, SPACES[module.space].expression(module, points, *told)


def covariate_columns(registry: dict[str, Any], module: Any, surroundings: Surroundings) -> pd.DataFrame:
    """What cells were decoded with, as the ``obs`` columns that the model was set up with."""
    fields, setup = registry["field_registries"], registry["setup_args"]
    vector, n_batch = surroundings.covariates, module.covariates.n_batch
    columns: dict[str, Any] = {}
    start = n_batch if n_batch > 1 else 0
    if setup.get("batch_key") is not None:
        names = np.asarray(fields["batch"]["state_registry"]["categorical_mapping"])
        number = vector[:, :n_batch].argmax(1).cpu().numpy() if n_batch > 1 else np.zeros(len(vector), dtype=int)
        columns[setup["batch_key"]] = names[number]
    for key in setup.get("categorical_covariate_keys") or []:
        names = np.asarray(fields["extra_categorical_covs"]["state_registry"]["mappings"][key])
        columns[key] = names[vector[:, start : start + len(names)].argmax(1).cpu().numpy()]
        start += len(names)
    for key in setup.get("continuous_covariate_keys") or []:
        columns[key] = vector[:, start].cpu().numpy()
        start += 1
    if setup.get("size_factor_key") is not None:
        columns[setup["size_factor_key"]] = surroundings.library[:, 0].cpu().numpy()
    return pd.DataFrame(columns, index=pd.RangeIndex(len(vector)))


def new_names(cells: AnnData, key: str, arguments: dict[str, Any]) -> list[str]:
    """Names of new cells, with a digest of them and of how they were made: no other set of cells has the same names."""
    values = cells.X.data if sparse.issparse(cells.X) else cells.X
    made = repr(sorted(arguments.items())).encode() + cells.obsm[Keys(key).latent].tobytes() + values.tobytes()
    digest = hashlib.blake2s(made, digest_size=4).hexdigest()
    return [f"generated_{digest}_{i}" for i in range(cells.n_obs)]


def as_anndata(made: Made, names: Sequence[str] | pd.Index | None, var_names: pd.Index, *, key: str) -> AnnData:
    """Cells as AnnData, with the fields that every generated AnnData has but for its leaves; no names: numbers."""
    names = range(len(made.latent)) if names is None else names
    out = AnnData(
        made.values, obs=pd.DataFrame(index=pd.Index(names).astype(str)), var=pd.DataFrame(index=pd.Index(var_names))
    )
    if made.mean is not None:
        out.layers["mean"] = made.mean
    out.obsm[Keys(key).latent] = made.latent
    out.obsm[Keys(key).map_2d] = made.map_2d
    return out
