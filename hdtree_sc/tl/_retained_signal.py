"""What a transmutation kept of its cells that is not type."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy import sparse

from hdtree_sc._errors import listing
from hdtree_sc.get import Values, source_cells, source_rows
from hdtree_sc.graph import nearest_neighbors, spread_rows
from hdtree_sc.tl._transmuted import averager, correlations, source_and_target

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData
    from numpy.typing import NDArray

MAX_CELLS = 20_000
"""Predictors are trained on at most this many cells."""
MAX_GENES = 2_000
"""Most variable genes that are looked at where cells are compared as a whole."""
N_FOLDS = 5
"""Folds of the cross-validation, and fewest cells of a class that is predicted."""
MIN_CELLS = 4 * N_FOLDS
"""Fewest cells that a predictor is trained on."""

Row = tuple[str, float, float, float, float, int, str]
"""A row of the table, without its name."""


def retained_signal(
    adata: AnnData,
    transmuted: AnnData,
    covariates: Sequence[str] | str,
    *,
    groupby: str | None = None,
    n_neighbors: int = 15,
    n_components: int = 30,
    layer: str | None = None,
    adata_layer: str | None = None,
    log_normalize: bool = True,
    target_sum: float = 1e4,
    key: str = "hdtree",
    seed: int = 0,
) -> pd.DataFrame:
    """How much of what is not type a transmutation keeps of its cells, beside how much there could be.

    A transmuted cell should still show what its source cell was apart from its type: its time, donor or condition.
    Whether it does is asked of a predictor that has only seen real cells of the target type: ridge regression for
    numbers, logistic regression with balanced classes for categories, both on principal components of the
    log-normalised expression. What it predicts of a transmuted cell is compared with what the source cell was.

    A covariate that cannot be read off real target cells cannot be found in transmuted ones either, so that
    ``retained`` means something only beside ``ceiling``. It may lie above it where the source cells span more of
    a covariate than the target cells do, and a covariate that follows from the type by the design of the
    experiment is no evidence of either.

    Parameters
    ----------
    adata
        Real cells: the source cells by their names, and cells of the target type.
    transmuted
        Cells after ``model.transmute``. Of several draws each is scored by itself, and the mean is returned.
    covariates
        Columns of ``adata.obs``. Numbers are scored by Spearman's correlation; all others, and booleans, by balanced
        accuracy (mean over the classes of the share that is found) over those classes that at least 5 cells of
        source and target each have. Cells without a value are left out.
    groupby
        ``obs`` column of ``adata`` with the types; by default the labels the model was set up with.
    n_neighbors
        Neighbours of a cell that the row ``neighbours`` counts; at most all other cells.
    n_components
        Number of principal components, at most a quarter of the cells that a predictor is trained on.
    layer
        Layer of ``transmuted`` that is put before the predictors. By default ``transmuted.X``, where counts are drawn
        and as noisy as those of real cells; expected values are smoother than any cell a predictor has seen.
    adata_layer
        Layer of ``adata`` with the values that the model was set up with; ``adata.X`` by default.
    log_normalize
        Whether values are counts, see :func:`rank_transmuted_genes`. With False they are taken as they are.
    target_sum
        Counts of a cell after the normalisation.
    key
        Key of the model's fields.
    seed
        Seed of the folds and of the principal components.

    Returns
    -------
    One row per covariate, then ``neighbours`` and ``expression``, with the columns

    ``measure``
        What is scored.
    ``retained``
        Score of the transmuted cells. A cell that is itself a target cell is predicted from the folds without it.
    ``ceiling``
        Score of the same predictor on real target cells, in five folds; 1 for the last two rows, whose cells would
        reach it by staying as they were.
    ``before``
        Score of a predictor of real source cells on such cells, in five folds.
    ``chance``
        Score of a guess: 0 for a correlation, 1 by the number of classes for balanced accuracy.
    ``n``
        Number of source cells scored.
    ``note``
        Why a score is missing, else ``""``.

    The row ``neighbours`` is the share of a cell's nearest source cells, in principal components of the layer
    ``"source_mean"``, that are its nearest ones in those of ``"mean"`` too; chance is ``n_neighbors / (n - 1)``. The
    row ``expression`` is the mean over genes of Pearson's correlation across cells between these layers, 0 for a gene
    that is constant after; a gene's change by the same amount in all cells does not lower it. Both average the draws
    of a cell and use the 2,000 genes that vary most within the real source and target cells.

    Raises
    ------
    KeyError
        If a layer or a column is missing.
    ValueError
        If source cells are not in ``adata``, ``adata`` lacks genes or types, ``n_neighbors`` or ``n_components`` are
        not positive, or values are negative while ``log_normalize=True``.

    Examples
    --------
    >>> import hdtree_sc as ht
    >>> transmuted = model.transmute(source="ASG", target="AWA", seed=0)
    >>> table = ht.tl.retained_signal(adata, transmuted, "time")
    >>> table.index.tolist()
    ['time', 'neighbours', 'expression']
    """
    wanted = [covariates] if isinstance(covariates, str) else list(covariates)
    unknown = [name for name in wanted if name not in adata.obs]
    if unknown:
        msg = f"covariates: adata.obs has no column {listing(unknown)}. It has: {listing(adata.obs.columns, 30)}."
        raise KeyError(msg)
    for argument, value in (("n_neighbors", n_neighbors), ("n_components", n_components)):
        if value < 1:
            msg = f"{argument}: {value} given, it must be positive."
            raise ValueError(msg)
    scale = target_sum if log_normalize else None
    cell, names = source_cells(transmuted)
    draw = transmuted.obs["draw"].astype(str).to_numpy() if "draw" in transmuted.obs else np.zeros(len(cell))
    n_draws = len(pd.unique(draw))
    kept = np.flatnonzero(np.isin(cell, spread_rows(len(names), max(1, MAX_CELLS // max(n_draws, 1)))))
    own = source_rows(adata, transmuted)[kept]
    real = Values(adata, adata_layer, scale, "adata", genes=transmuted.var_names)
    values = Values(transmuted, layer, scale, "transmuted")
    before, after = (Values(transmuted, name, scale, "transmuted") for name in ("source_mean", "mean"))
    source, target = (
        rows[spread_rows(len(rows), MAX_CELLS)] for rows in source_and_target(adata, transmuted, groupby, key)
    )
    genes = _variable(real, [source, target])
    predictors = _Predictors(
        source=real.dense(genes, source),
        target=real.dense(genes, target),
        transmuted=values.dense(genes, kept),
        target_of=pd.Index(target).get_indexer(own),
        draws=[np.flatnonzero(draw[kept] == one) for one in pd.unique(draw[kept])],
        n_components=n_components,
        seed=seed,
    )
    rows = [_covariate(predictors, *(adata.obs[name].iloc[part] for part in (source, target, own))) for name in wanted]
    number, held = pd.factorize(cell[kept])
    average = averager(number, len(held))
    x, y = (average @ each.dense(genes, kept) for each in (before, after))
    rows += [_neighbors_kept(x, y, n_neighbors, n_components, seed), _expression_kept(x, y)]
    columns = ["measure", "retained", "ceiling", "before", "chance", "n", "note"]
    return pd.DataFrame(rows, index=[*wanted, "neighbours", "expression"], columns=columns)


def _variable(values: Values, groups: list[NDArray[np.int64]]) -> NDArray[np.int64]:
    """The genes that vary most within groups of cells."""
    variance = np.sum([values.moments(rows)[1] for rows in groups], axis=0)
    return np.sort(np.argsort(-variance, kind="stable")[:MAX_GENES])


class _Predictors:
    """Predictors of a covariate from the expression of real cells, and what they say of transmuted ones.

    Parameters
    ----------
    source, target, transmuted
        Expression of real source and target cells and of transmuted rows, (n, n_genes).
    target_of
        Row in ``target`` of each transmuted row's own source cell, -1 for none.
    draws
        Rows of ``transmuted`` of each draw.
    n_components
        Number of principal components.
    seed
        Seed of folds and components.
    """

    def __init__(
        self,
        *,
        source: NDArray[np.float64],
        target: NDArray[np.float64],
        transmuted: NDArray[np.float64],
        target_of: NDArray[np.int64],
        draws: list[NDArray[np.int64]],
        n_components: int,
        seed: int,
    ) -> None:
        self.source, self.target, self.draws = source, target, draws
        self._transmuted, self._target_of = transmuted, target_of
        self._n_components, self._seed = n_components, seed

    def held_out(self, x: NDArray, y: NDArray, *, numeric: bool) -> NDArray:
        """Prediction for each training cell from the folds it is not in."""
        out = np.empty(len(y))
        for train, test in self._folds(x, y, numeric=numeric):
            out[test] = self._fit(x[train], y[train], numeric=numeric).predict(x[test])
        return out

    def of_transmuted(self, y: NDArray, has: NDArray[np.bool_], *, numeric: bool) -> NDArray:
        """Prediction for each transmuted row from target cells, without its own source cell where that is one.

        Parameters
        ----------
        y
            Covariate of the target cells.
        has
            Which of them have one.
        numeric
            Whether it is a number.
        """
        x, y = self.target[has], y[has]
        out = np.asarray(self._fit(x, y, numeric=numeric).predict(self._transmuted), dtype=float)
        row = np.where(has, np.cumsum(has) - 1, -1)
        own = np.where(self._target_of >= 0, row[self._target_of], -1)
        if (own >= 0).any():
            for train, test in self._folds(x, y, numeric=numeric):
                inside = np.isin(own, test)
                if inside.any():
                    out[inside] = self._fit(x[train], y[train], numeric=numeric).predict(self._transmuted[inside])
        return out

    def _folds(self, x: NDArray, y: NDArray, *, numeric: bool) -> Any:
        from sklearn.model_selection import KFold, StratifiedKFold

        kind = KFold if numeric else StratifiedKFold
        return kind(N_FOLDS, shuffle=True, random_state=self._seed).split(x, y)

    def _fit(self, x: NDArray, y: NDArray, *, numeric: bool) -> Any:
        from sklearn.linear_model import LogisticRegression, Ridge
        from sklearn.pipeline import make_pipeline

        pca = _pca(min(self._n_components, len(x) // 4, x.shape[1]), self._seed, whiten=True)
        last = Ridge() if numeric else LogisticRegression(C=0.1, class_weight="balanced", max_iter=1000)
        return make_pipeline(pca, last).fit(x, y)


def _pca(n_components: int, seed: int, *, whiten: bool = False) -> Any:
    from sklearn.decomposition import PCA

    return PCA(max(1, n_components), whiten=whiten, svd_solver="randomized", random_state=seed)


def _covariate(predictors: _Predictors, source: pd.Series, target: pd.Series, own: pd.Series) -> Row:
    """Scores of one covariate, given its values of the real source and target cells and of each transmuted row."""
    numeric = bool(pd.api.types.is_numeric_dtype(target) and not pd.api.types.is_bool_dtype(target))
    measure = "Spearman" if numeric else "balanced accuracy"
    missing = float("nan")
    known = target.dropna()
    if known.nunique() < 2:
        return measure, missing, missing, missing, missing, 0, "does not vary in the target cells"
    if numeric:
        a, b, c = (column.to_numpy(dtype=float, na_value=np.nan) for column in (source, target, own))
        chance = 0.0
    else:
        counts = [column.dropna().astype(str).value_counts() for column in (source, target)]
        common = counts[0].index[counts[0] >= N_FOLDS].intersection(counts[1].index[counts[1] >= N_FOLDS])
        classes = pd.Index(sorted(common))
        if len(classes) < 2:
            note = f"fewer than 2 classes with {N_FOLDS} source and {N_FOLDS} target cells"
            return measure, missing, missing, missing, missing, 0, note
        codes = (classes.get_indexer(column.astype(str).where(column.notna())) for column in (source, target, own))
        a, b, c = (np.where(code >= 0, code, np.nan) for code in codes)
        chance = 1 / len(classes)
    has_a, has_b, has_c = (np.isfinite(values) for values in (a, b, c))
    n = max((int(has_c[rows].sum()) for rows in predictors.draws), default=0)
    if has_b.sum() < MIN_CELLS:
        return measure, missing, missing, missing, chance, n, f"fewer than {MIN_CELLS} target cells have a value"

    score = _spearman if numeric else _balanced_accuracy
    ceiling = score(b[has_b], predictors.held_out(predictors.target[has_b], b[has_b], numeric=numeric))
    before, retained, note = missing, missing, ""
    if has_a.sum() >= MIN_CELLS and len(np.unique(a[has_a])) > 1:
        before = score(a[has_a], predictors.held_out(predictors.source[has_a], a[has_a], numeric=numeric))
    if len(np.unique(c[has_c])) < 2:
        note = "does not vary in the transmuted cells"
    else:
        said = predictors.of_transmuted(b, has_b, numeric=numeric)
        scored = [rows[has_c[rows]] for rows in predictors.draws]
        retained = float(np.mean([score(c[rows], said[rows]) for rows in scored if len(rows)]))
    return measure, retained, ceiling, before, chance, n, note


def _spearman(truth: NDArray, said: NDArray) -> float:
    """Spearman's correlation; 0 for predictions that are all the same."""
    from scipy.stats import rankdata

    found = correlations(rankdata(truth)[:, None], rankdata(said)[:, None])[0]
    return float(np.nan_to_num(found))


def _balanced_accuracy(truth: NDArray, said: NDArray) -> float:
    """Mean over the classes of the share of their cells that are predicted right."""
    return float(np.mean([(said[truth == one] == one).mean() for one in np.unique(truth)]))


def _neighbors_kept(
    x: NDArray[np.float64], y: NDArray[np.float64], n_neighbors: int, n_components: int, seed: int
) -> Row:
    """Share of each cell's nearest cells before that are its nearest after."""
    n, measure = len(x), "share of neighbours"
    if n < 3:
        return measure, np.nan, 1.0, np.nan, np.nan, n, "fewer than 3 source cells"
    k = min(n_neighbors, n - 1)
    near = []
    for values in (x, y):
        with np.errstate(divide="ignore", invalid="ignore"):  # cells that are all the same have no variance to share
            points = _pca(min(n_components, n - 1, x.shape[1]), seed).fit_transform(values)
        near.append(nearest_neighbors(points, k, seed=seed)[0])
    links = [sparse.csr_matrix((np.ones(n * k), (np.repeat(np.arange(n), k), one.ravel())), (n, n)) for one in near]
    share = float(links[0].multiply(links[1]).sum() / (n * k))
    return measure, share, 1.0, np.nan, k / (n - 1), n, ""


def _expression_kept(x: NDArray[np.float64], y: NDArray[np.float64]) -> Row:
    """Mean over the genes that vary before of the correlation across cells between before and after."""
    measure, varies = "Pearson", x.std(0) > 1e-12
    if len(x) < 3 or not varies.any():
        return measure, np.nan, 1.0, np.nan, 0.0, len(x), "no gene varies in the source cells"
    found = np.nan_to_num(correlations(x[:, varies], y[:, varies]))
    return measure, float(found.mean()), 1.0, np.nan, 0.0, len(x), ""
