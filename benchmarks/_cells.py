"""One data set under one seed, with the spaces that methods work in; each is computed once and kept on disk."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import scanpy as sc
from sklearn.decomposition import PCA

from benchmarks import _clusters, _data, _measures
from hdtree_sc.graph._neighbors import medoid

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from anndata import AnnData
    from numpy.typing import NDArray

N_PCS = 30
AS_IS = 50
"""Up to so many features (qPCR) all components are kept, which is the values as they are, turned."""
QUIET = {"enable_progress_bar": False, "accelerator": "cpu"}
"""Trainer arguments: peers and we are timed on the same processor."""


class NotApplicable(Exception):
    """Why a method has no number on a data set."""


@dataclass(frozen=True)
class Space:
    """Coordinates of all cells, and what it cost to get them from the values."""

    points: NDArray[np.float32]
    cost: dict[str, float]


class Cells:
    """The cells of a data set, with what a method may ask for.

    Parameters
    ----------
    folder
        Where the data are.
    name
        Key of `SETS`.
    seed
        Seed of the methods and of the held-out cells.
    cache
        Folder of what is kept from run to run.
    """

    def __init__(self, folder: Path, name: str, seed: int, cache: Path) -> None:
        self.data, self.seed, self.cache, self._folder = _data.SETS[name], seed, cache, folder
        self._spaces: dict[tuple[str, bool], Space] = {}

    @cached_property
    def adata(self) -> AnnData:
        """The cells; nobody may change them."""
        return _data.read(self._folder, self.data.name)

    @cached_property
    def labels(self) -> NDArray[np.object_]:
        """Label of each cell, as text."""
        return self.adata.obs[self.data.labels].astype(str).to_numpy()

    @property
    def n_labels(self) -> int:
        """K: for cutting trees, never for training."""
        return len(np.unique(self.labels))

    @cached_property
    def time(self) -> NDArray[np.float64]:
        """Real time of each cell."""
        if self.data.time is None:
            msg = "no time in this data set"
            raise NotApplicable(msg)
        return self.adata.obs[self.data.time].to_numpy(float)

    @cached_property
    def bins(self) -> NDArray[np.object_]:
        """Time bin of each cell, as text."""
        if self.data.bins is None:
            msg = "no time bins in this data set"
            raise NotApplicable(msg)
        return self.adata.obs[self.data.bins].astype(str).to_numpy()

    @cached_property
    def root(self) -> int:
        """Row of the root of every order: the medoid of the earliest cells in principal components."""
        return medoid(self.space("PCA").points, _data.earliest(self.time))

    @cached_property
    def kept(self) -> NDArray[np.bool_]:
        """Which cells are fitted on where others are held out."""
        return _data.kept_for_training(self.adata.n_obs, self.seed)

    def shuffled(self, values: NDArray) -> NDArray:
        """Values in random order: what chance gives."""
        return np.random.default_rng(self.seed).permutation(values)

    def space(self, name: str, *, held_out: bool = False) -> Space:
        """Coordinates of all cells.

        Parameters
        ----------
        name
            Key of `SPACES`.
        held_out
            Whether the space is fitted on the kept cells alone and the others are projected.
        """
        if (name, held_out) not in self._spaces:
            mark = f"{self.data.name}-{name.replace(' ', '_')}-{self.seed}{'-held_out' if held_out else ''}"
            file = self.cache / "spaces" / f"{mark}.npz"
            if not file.exists():
                self._keep(file, name, held_out)
            with np.load(file) as kept:
                cost = dict(zip(_measures.COST, kept["cost"].tolist(), strict=True))
                self._spaces[name, held_out] = Space(kept["points"], cost)
        return self._spaces[name, held_out]

    def _keep(self, file: Path, name: str, held_out: bool) -> None:
        fit = self.kept if held_out else np.ones(self.adata.n_obs, dtype=bool)
        points, cost = SPACES[name](self, fit)
        file.parent.mkdir(parents=True, exist_ok=True)
        np.savez(file, points=points.astype(np.float32), cost=[cost[name] for name in _measures.COST])


Fitted = tuple["NDArray[np.floating]", dict[str, float]]


def _pca(cells: Cells, fit: NDArray[np.bool_]) -> Fitted:
    with _measures.Step() as step:
        values = _data.dense(cells.adata.layers[_data.EXPRESSION])
        n_components = N_PCS if values.shape[1] > AS_IS else values.shape[1]
        points = PCA(n_components, random_state=cells.seed).fit(values[fit]).transform(values)
    return points, step.cost


def _diffusion_map(cells: Cells, fit: NDArray[np.bool_]) -> Fitted:
    _needs_all(fit)
    components = cells.space("PCA")
    with _measures.Step() as step:
        graph = _clusters.neighbors(components.points)
        sc.tl.diffmap(graph, random_state=cells.seed)
    # the first component is constant
    return graph.obsm["X_diffmap"][:, 1:], _measures.total_cost(components.cost, step.cost)


def _umap(cells: Cells, fit: NDArray[np.bool_]) -> Fitted:
    _needs_all(fit)
    components = cells.space("PCA")
    with _measures.Step() as step:
        graph = _clusters.neighbors(components.points)
        sc.tl.umap(graph, random_state=cells.seed)
    return graph.obsm["X_umap"], _measures.total_cost(components.cost, step.cost)


def _scvi(cells: Cells, fit: NDArray[np.bool_]) -> Fitted:
    if not cells.data.counts:
        msg = "needs raw counts"
        raise NotApplicable(msg)
    import scvi

    scvi.settings.seed = cells.seed
    everything, fitted = cells.adata.copy(), cells.adata[fit].copy()
    with _measures.Step() as step:
        scvi.model.SCVI.setup_anndata(fitted)
        model = scvi.model.SCVI(fitted)
        model.train(**QUIET)
        points = model.get_latent_representation(everything)
    return points, step.cost


def _needs_all(fit: NDArray[np.bool_]) -> None:
    if not fit.all():
        msg = "does not place cells that it was not fitted on"
        raise NotApplicable(msg)


SPACES: dict[str, Callable[[Cells, NDArray[np.bool_]], Fitted]] = {
    "PCA": _pca,
    "diffusion map": _diffusion_map,
    "UMAP": _umap,
    "scVI": _scvi,
}
"""How each space is made; scVI is trained as it comes."""
