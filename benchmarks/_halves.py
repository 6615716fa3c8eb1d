"""A data set in two random halves: generators are fitted on one, their cells are compared with the other."""

from __future__ import annotations

from functools import cached_property, lru_cache
from typing import TYPE_CHECKING

import anndata as ad
import numpy as np
import pandas as pd
from sklearn.decomposition import PCA
from sklearn.neighbors import NearestNeighbors

from benchmarks import _data
from benchmarks._cells import N_PCS
from hdtree_sc import metrics

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from benchmarks._cells import Cells

LABEL = "label"
"""``obs`` column of the labels, in every set."""
TIME = "time"
MOST = 2000
"""Most cells of a sample that is compared: time and memory grow with their square."""
REALISM = ("Frechet", "MMD2 x 1000", "AUC")
"""Measures in principal components."""
APART = tuple(f"{measure}, other PCs" for measure in REALISM)
"""The same in components of cells that are not compared."""
NEARER = "nearer training"

# letters are in no other benchmark
_data.SETS.setdefault("letters", _data.DataSet("letters", "label", likelihood="normal"))


def logged(values: NDArray, *, is_count: bool) -> NDArray[np.float64]:
    """Counts scaled to 10,000 over the genes given and logged; other values as they are."""
    values = np.asarray(values, dtype=float)
    if not is_count:
        return values
    total = values.sum(axis=1, keepdims=True)
    return np.log1p(values * np.divide(1e4, total, out=np.zeros_like(total), where=total > 0))


def components(logs: NDArray, n_components: int = N_PCS) -> PCA:
    """Principal components of some cells."""
    return PCA(min(n_components, *logs.shape), random_state=0).fit(logs)


def part(cells: Cells, rows: NDArray) -> ad.AnnData:
    """Some of the cells, with labels (missing if it has fewer than two cells there), time and shape of images alone."""
    label = pd.Series(cells.labels[rows])
    label = label.where(label.map(label.value_counts()) > 1)
    obs = pd.DataFrame({LABEL: pd.Categorical(label)}, index=cells.adata.obs_names[rows])
    if cells.data.time:
        obs[TIME] = cells.time[rows]
    shape = {name: value for name, value in cells.adata.uns.items() if name == "image_shape"}
    return ad.AnnData(cells.adata.X[rows], obs=obs, var=cells.adata.var, uns=shape)


class Halves:
    """The halves of a data set under a seed, and how generated cells compare with the one held out.

    Parameters
    ----------
    cells
        The data set.
    """

    def __init__(self, cells: Cells) -> None:
        self.cells, self.seed, self.is_count = cells, cells.seed, cells.data.counts
        first = np.random.default_rng(cells.seed).random(cells.adata.n_obs) < 0.5
        self.fit, self.held = part(cells, np.flatnonzero(first)), part(cells, np.flatnonzero(~first))
        self.fit_labels, self.held_labels = cells.labels[first], cells.labels[~first]
        self.fit_values, self.held_values = (_data.dense(half.X) for half in (self.fit, self.held))
        self.n = min(self.fit.n_obs, self.held.n_obs, MOST)
        rng = np.random.default_rng(cells.seed)
        # cells of each half that stand for it, in random order
        self.of_fit, self.of_held = (rng.permutation(half.n_obs)[: self.n] for half in (self.fit, self.held))

    @cached_property
    def pca(self) -> PCA:
        """Components of the fitted half."""
        return components(logged(self.fit_values, is_count=self.is_count))

    @cached_property
    def places(self) -> NDArray[np.float64]:
        """Held-out cells in these components."""
        return self.place(self.held_values[self.of_held])

    def place(self, values: NDArray) -> NDArray[np.float64]:
        """Any cells in these components."""
        return self.pca.transform(logged(values, is_count=self.is_count))

    def frechet(self, values: NDArray) -> float:
        """Frechet distance of cells from those held out."""
        return metrics.frechet_distance(self.places, self.place(values))

    def scores(self, values: NDArray | None = None) -> dict[str, float]:
        """All measures of generated cells; of the fitted cells themselves, which is the floor, by default.

        Parameters
        ----------
        values
            ``(n, genes)``: as many cells as `n`.
        """
        is_floor = values is None
        values = self.fit_values[self.of_fit] if values is None else np.asarray(values)
        real, fake = self.places, self.place(values)
        found = dict(zip(REALISM, (
            metrics.frechet_distance(real, fake), 1000 * metrics.mmd2(real, fake),
            metrics.classifier_auc(real, fake, seed=self.seed),
        ), strict=True))  # fmt: skip
        # as many reference cells as samples and components need: half of them are compared
        reference = self.fit_values[np.random.default_rng(self.seed).permutation(len(self.fit_values))[: 2 * MOST]]
        apart = metrics.compare_cells(
            self.held_values[self.of_held], values, reference=reference, n_components=N_PCS, is_count=self.is_count,
            seed=self.seed,
        )["floor" if is_floor else "value"]  # fmt: skip
        found |= dict(zip(APART, (apart.iloc[0], 1000 * apart.iloc[1], apart.iloc[2]), strict=True))
        found["correlation error"] = apart["gene_correlation_error"]
        if self.is_count:
            found["zero error"] = apart["zero_fraction_error"]
        return found | {NEARER: self.nearer(values, themselves=is_floor)}

    def nearer(self, values: NDArray, *, themselves: bool = False) -> float:
        """Share of cells whose nearest fitted cell is nearer than their nearest held-out cell, of as many of each.

        In components of both halves together: those of one alone would hold its noise. A tie counts half.

        Parameters
        ----------
        values
            Cells.
        themselves
            Whether they are fitted cells, which are not their own nearest.
        """
        halves = [
            logged(v[rows], is_count=self.is_count)
            for v, rows in ((self.fit_values, self.of_fit), (self.held_values, self.of_held))
        ]
        both = components(np.vstack(halves))
        fit, held = (both.transform(half) for half in halves)
        points = both.transform(logged(values, is_count=self.is_count))
        of_fit = NearestNeighbors(n_neighbors=2).fit(fit).kneighbors(points)[0][:, int(themselves)]
        of_held = NearestNeighbors(n_neighbors=1).fit(held).kneighbors(points)[0][:, 0]
        return float((of_fit < of_held).mean() + 0.5 * (of_fit == of_held).mean())


@lru_cache(maxsize=1)
def halves(cells: Cells) -> Halves:
    """The halves of a data set, computed once while its methods run."""
    return Halves(cells)
