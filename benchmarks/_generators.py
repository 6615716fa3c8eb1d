"""Plain ways to make new cells of old ones, and scVI: what a generator has to beat."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.neighbors import NearestNeighbors

from benchmarks import _measures
from benchmarks._cells import QUIET, NotApplicable
from benchmarks._halves import halves

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from benchmarks._cells import Cells
    from benchmarks._halves import Halves

    Make = Callable[[Halves, np.random.Generator], NDArray]

FEWEST_VARIANCE = 1e-8


def measured(make: Make) -> Callable[[Cells], dict[str, float]]:
    """Measures of a plain generator.

    Parameters
    ----------
    make
        From the halves and random numbers to as many cells as are compared.
    """

    def run(cells: Cells) -> dict[str, float]:
        half = halves(cells)
        with _measures.Step() as step:
            values = make(half, np.random.default_rng(cells.seed + 1))
        return half.scores(values) | step.cost

    return run


def floor(cells: Cells) -> dict[str, float]:
    """Measures of the fitted cells themselves."""
    return halves(cells).scores()


def mixed(one: NDArray, other: NDArray, rng: np.random.Generator, *, thinned: bool) -> NDArray:
    """Cells of two others each.

    Parameters
    ----------
    one, other
        Values of the parents, ``(n, genes)``.
    rng
        Random numbers.
    thinned
        Whether each count of the two together is kept with a chance of one half; else each gene's value is that of one
        of the two.
    """
    if thinned:
        return rng.binomial(np.rint(one + other).astype(np.int64), 0.5).astype(np.float32)
    return np.where(rng.random(one.shape) < 0.5, one, other)


def of_a_label(half: Halves, rng: np.random.Generator) -> NDArray:
    """Each gene from one of two random cells of one label."""
    one = rng.integers(half.fit.n_obs, size=half.n)
    other = np.array([rng.choice(np.flatnonzero(half.fit_labels == half.fit_labels[i])) for i in one])
    return mixed(half.fit_values[one], half.fit_values[other], rng, thinned=False)


def of_neighbours(half: Halves, rng: np.random.Generator) -> NDArray:
    """A cell and one of its 15 nearest: their counts together, halved binomially; without counts, gene by gene."""
    points = half.place(half.fit_values)
    near = NearestNeighbors(n_neighbors=_measures.K_NEIGHBORS + 1).fit(points).kneighbors(points)[1][:, 1:]
    one = rng.integers(half.fit.n_obs, size=half.n)
    other = near[one, rng.integers(_measures.K_NEIGHBORS, size=half.n)]
    return mixed(half.fit_values[one], half.fit_values[other], rng, thinned=half.is_count)


def shuffled_genes(half: Halves, rng: np.random.Generator) -> NDArray:
    """Fitted cells, each gene permuted among the cells of a label."""
    out = half.fit_values.copy()
    for label in np.unique(half.fit_labels):
        rows = np.flatnonzero(half.fit_labels == label)
        out[rows] = rng.permuted(out[rows], axis=0)
    return out[half.of_fit]


def by_moments(half: Halves, rng: np.random.Generator) -> NDArray:
    """Each gene by itself, from a distribution with the mean and variance it has in the label.

    Negative binomial of counts (Poisson where the variance is not above the mean), normal of other values.
    """
    labels = half.fit_labels[half.of_fit]
    out = np.empty((half.n, half.fit.n_vars), dtype=np.float32)
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        out[rows] = with_moments(half.fit_values[half.fit_labels == label], len(rows), rng, is_count=half.is_count)
    return out


def with_moments(known: NDArray, n: int, rng: np.random.Generator, *, is_count: bool) -> NDArray:
    """``n`` cells whose genes have, each by itself, the mean and variance of some cells, see `by_moments`."""
    mean, variance = known.astype(float).mean(0), known.astype(float).var(0)
    shape = (n, len(mean))
    if not is_count:
        return rng.normal(mean, np.sqrt(variance), shape)
    excess = variance - mean
    over = excess > FEWEST_VARIANCE
    size = np.divide(mean**2, excess, out=np.ones_like(mean), where=over)
    rate = np.where(over, rng.gamma(size, np.divide(mean, size, out=mean.copy(), where=over), shape), mean)
    return rng.poisson(rate)


# -- scVI ----------------------------------------------------------------------------------------------------------


def scvi_cells(draw: Callable[[Any, Halves], NDArray]) -> Callable[[Cells], dict[str, float]]:
    """Measures of cells that scVI makes, trained as it comes.

    Parameters
    ----------
    draw
        From the model and the halves to cells.
    """

    def run(cells: Cells) -> dict[str, float]:
        if not cells.data.counts:
            msg = "needs raw counts"
            raise NotApplicable(msg)
        half = halves(cells)
        model, cost = scvi_model(half)
        with _measures.Step() as step:
            values = draw(model, half)
        return half.scores(values) | _measures.total_cost(cost, step.cost)

    return run


def scvi_model(half: Halves) -> tuple[Any, dict[str, float]]:
    """The model of the fitted half; kept on disk, as two rows need it."""
    import scvi

    from benchmarks._kept import kept

    def fit() -> Any:
        scvi.settings.seed = half.seed
        scvi.model.SCVI.setup_anndata(half.fit)
        model = scvi.model.SCVI(half.fit)
        model.train(**QUIET)
        return model

    folder = half.cells.cache / "generators" / f"{half.cells.data.name}-{half.seed}-scvi-{scvi.__version__}"
    return kept(folder, scvi.model.SCVI, half.fit, fit)


def prior(model: Any, half: Halves) -> NDArray:
    """Latents of the prior, decoded at the library sizes of fitted cells."""
    import torch

    torch.manual_seed(half.seed)
    library = torch.from_numpy(half.fit_values[half.of_fit].sum(1, keepdims=True)).float().clamp_min(1.0).log()
    with torch.inference_mode():
        z = torch.randn(half.n, model.module.n_latent)
        made = model.module.generative(z, library, torch.zeros(half.n, 1))
        return made["px"].sample().numpy()


def posterior(model: Any, half: Halves) -> NDArray:
    """Fitted cells, encoded and decoded: each new cell is one of them once more."""
    import scvi

    scvi.settings.seed = half.seed
    drawn = model.posterior_predictive_sample(indices=half.of_fit.tolist())
    return np.asarray(drawn.todense())
