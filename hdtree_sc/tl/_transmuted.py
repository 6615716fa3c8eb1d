"""What a transmutation changed in cells, and what it kept."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy import sparse

from hdtree_sc._errors import listing
from hdtree_sc.data._neighbors import nearest_neighbors, spread_rows
from hdtree_sc.tl._root import cells_of_group

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData
    from numpy.typing import NDArray

RUN = "model.transmute(adata, target=..., source=...)"
BLOCK = 4_000_000
"""Values of a block of genes that is made dense at once."""
MAX_CELLS = 20_000
"""Predictors are trained on at most this many cells."""
MAX_GENES = 2_000
"""Most variable genes that are looked at where cells are compared as a whole."""
N_FOLDS = 5
"""Folds of the cross-validation, and fewest cells of a class that is predicted."""
MIN_CELLS = 4 * N_FOLDS
"""Fewest cells that a predictor is trained on."""


def rank_transmuted_genes(
    transmuted: AnnData,
    adata: AnnData | None = None,
    *,
    groupby: str | None = None,
    layer: str = "mean",
    source_layer: str = "source_mean",
    adata_layer: str | None = None,
    log_normalize: bool = True,
    target_sum: float = 1e4,
    key: str = "hdtree",
) -> pd.DataFrame:
    """Genes by how much a transmutation changed them, each cell compared with itself.

    A cell's change in a gene is the difference of its values after and before. Of several draws of a cell the mean is
    taken first: cells are the replicates, draws are not. Nothing is scaled to the target cells.

    The p-values speak of the model and not of biology: they say that the model changes a gene in one direction in
    most of the cells it was given. Values that a model decodes vary little, so that nearly every gene is significant;
    read ``effect`` and ``log_fold_change`` first, and with ``adata`` whether real cells differ in the same genes.

    Parameters
    ----------
    transmuted
        Cells after ``model.transmute``.
    adata
        Real cells that hold the source and the target type; with them each change is set beside what is observed.
    groupby
        ``obs`` column of ``adata`` with the types; by default the labels the model was set up with.
    layer
        Layer of ``transmuted`` with the expression after.
    source_layer
        Layer of ``transmuted`` with the expression of the same cells before, made in the same way.
    adata_layer
        Layer of ``adata`` with the values that the model was set up with; ``adata.X`` by default.
    log_normalize
        Whether values are counts: those of a cell are divided by their sum over the genes of ``transmuted``, times
        ``target_sum``, and ``log(1 + x)`` is taken. With False values are compared as they are.
    target_sum
        Counts of a cell after the normalisation.
    key
        Key of the model's fields.

    Returns
    -------
    One row per gene, sorted by ``effect`` from what rose most to what fell most:

    ``mean_before``, ``mean_after``
        Mean over the cells of the (log-normalised) values.
    ``log_fold_change``
        Their difference: a natural logarithm where ``log_normalize=True``, else in the units of the values.
    ``effect``
        Paired Cohen's d: mean of the cells' changes by their standard deviation. 0 where nothing changes, infinite
        where all cells change by the same.
    ``p``, ``fdr``
        Wilcoxon's signed-rank test, two-sided, over the cells (1 where nothing changes), and after Benjamini and
        Hochberg over the genes.
    ``observed_log_fold_change``
        With ``adata``: mean of the real target cells less mean of the real source cells, on the same scale. Counts
        are noisier than what a model expects, and the mean of their logarithms differs less between types: compare
        sign and order of the two columns, not their size.

    ``table.attrs`` has ``n_cells`` and, with ``adata``, ``correlation``: Pearson's, over the genes, between
    ``log_fold_change`` and ``observed_log_fold_change`` (NaN where one of them is constant).

    Raises
    ------
    KeyError
        If a layer or column is missing.
    ValueError
        If there are fewer than two cells, values are negative while ``log_normalize=True``, the transmuted cells have
        several targets, or ``adata`` lacks genes or types.
    """
    scale = target_sum if log_normalize else None
    cell, names = _draws(transmuted)
    if len(names) < 2:
        msg = f"transmuted: it has {len(names)} source cells, the test needs at least 2."
        raise ValueError(msg)
    before, after = (_Values(transmuted, name, scale, "transmuted") for name in (source_layer, layer))
    average = _averager(cell, len(names))
    blocks = []
    for genes in _blocks(transmuted.n_vars, transmuted.n_obs):
        x, y = (average @ values.dense(genes) for values in (before, after))
        blocks.append(_paired(x, y))
    columns = ["mean_before", "mean_after", "log_fold_change", "effect", "p"]
    table = pd.DataFrame(np.concatenate(blocks), index=transmuted.var_names.copy(), columns=columns)
    from scipy.stats import false_discovery_control

    table["fdr"] = false_discovery_control(table["p"].to_numpy())
    table.attrs["n_cells"] = len(names)
    if adata is not None:
        real = _Values(adata, adata_layer, scale, "adata", genes=transmuted.var_names)
        source, target = _source_and_target(adata, transmuted, groupby, key)
        table["observed_log_fold_change"] = real.mean(target) - real.mean(source)
        modelled, observed = table["log_fold_change"].to_numpy(), table["observed_log_fold_change"].to_numpy()
        table.attrs["correlation"] = float(_correlations(modelled[:, None], observed[:, None])[0])
    return table.sort_values("effect", ascending=False, kind="stable")


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

    A transmuted cell should still tell what its source cell was apart from its type: its time, donor or condition.
    Whether it does is asked of a predictor that has only seen real cells of the target type: ridge regression for
    numbers, logistic regression with balanced classes for categories, both on principal components of the
    log-normalised expression. What it predicts of a transmuted cell is compared with what the source cell was.

    A covariate that can not be read off real target cells can not be found in transmuted ones either, so that
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
    cell, names = _draws(transmuted)
    draw = transmuted.obs["draw"].astype(str).to_numpy() if "draw" in transmuted.obs else np.zeros(len(cell))
    n_draws = len(pd.unique(draw))
    kept = np.flatnonzero(np.isin(cell, spread_rows(len(names), max(1, MAX_CELLS // max(n_draws, 1)))))
    own = _rows_of(adata, names)[cell[kept]]
    real = _Values(adata, adata_layer, scale, "adata", genes=transmuted.var_names)
    values = _Values(transmuted, layer, scale, "transmuted")
    before, after = (_Values(transmuted, name, scale, "transmuted") for name in ("source_mean", "mean"))
    source, target = (
        rows[spread_rows(len(rows), MAX_CELLS)] for rows in _source_and_target(adata, transmuted, groupby, key)
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
    average = _averager(number, len(held))
    x, y = (average @ each.dense(genes, kept) for each in (before, after))
    rows += [_neighbors_kept(x, y, n_neighbors, n_components, seed), _expression_kept(x, y)]
    columns = ["measure", "retained", "ceiling", "before", "chance", "n", "note"]
    return pd.DataFrame(rows, index=[*wanted, "neighbours", "expression"], columns=columns)


# -- cells and their values --------------------------------------------------------------------------------------


class _Values:
    """Log-normalised values of some genes of an AnnData, made dense only where they are read.

    Parameters
    ----------
    adata
        The cells.
    layer
        Layer, ``X`` for None.
    target_sum
        Counts of a cell after the normalisation; None: values as they are.
    name
        What messages call ``adata``.
    genes
        Names of the genes, in order; default: all. A cell's counts are summed over these.
    """

    def __init__(
        self, adata: AnnData, layer: str | None, target_sum: float | None, name: str, *, genes: pd.Index | None = None
    ) -> None:
        if layer is not None and layer not in adata.layers:
            msg = f"{name}.layers has no {layer!r}. It has: {listing(adata.layers)}; {RUN} writes those of its result."
            raise KeyError(msg)
        matrix = adata.X if layer is None else adata.layers[layer]
        if genes is not None and not genes.equals(adata.var_names):
            columns = adata.var_names.get_indexer(genes) if adata.var_names.is_unique else None
            if columns is None or (columns < 0).any():
                lost = genes if columns is None else genes[columns < 0]
                msg = (
                    f"{name}: its var_names lack, or have more than once, {listing(lost)}; give the cells of the model."
                )
                raise ValueError(msg)
            matrix = matrix[:, columns]
        self._matrix = matrix.tocsc() if sparse.issparse(matrix) else np.asarray(matrix)
        self._scale: NDArray[np.float64] | None = None
        if target_sum is not None:
            if self._matrix.shape[0] and self._matrix.shape[1] and self._matrix.min() < 0:
                where = f"{name}.X" if layer is None else f"{name}.layers[{layer!r}]"
                msg = f"{where} has negative values, so it holds no counts: use log_normalize=False, or name counts."
                raise ValueError(msg)
            total = np.asarray(self._matrix.sum(1, dtype=float)).ravel()
            self._scale = np.divide(target_sum, total, out=np.zeros_like(total), where=total > 0)

    @property
    def shape(self) -> tuple[int, int]:
        """Numbers of cells and genes."""
        return self._matrix.shape

    def dense(self, genes: NDArray[np.int64], rows: NDArray[np.int64] | None = None) -> NDArray[np.float64]:
        """Values of some genes in some cells, (n_rows, n_genes)."""
        part: Any = self._matrix[:, genes]
        part = part if rows is None else part[rows]
        values = np.asarray(part.toarray() if sparse.issparse(part) else part, dtype=float)
        if self._scale is None:
            return values
        return np.log1p(values * (self._scale if rows is None else self._scale[rows])[:, None])

    def mean(self, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        """Mean of each gene over some cells."""
        return np.concatenate([self.dense(genes, rows).mean(0) for genes in _blocks(self.shape[1], len(rows))])

    def variance(self, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        """Variance of each gene over some cells."""
        return np.concatenate([self.dense(genes, rows).var(0) for genes in _blocks(self.shape[1], len(rows))])


def _blocks(n_genes: int, n_cells: int) -> list[NDArray[np.int64]]:
    size = max(1, BLOCK // max(n_cells, 1))
    return [np.arange(start, min(start + size, n_genes)) for start in range(0, n_genes, size)]


def _draws(transmuted: AnnData) -> tuple[NDArray[np.int64], pd.Index]:
    """Number of the source cell of each row, and the names of the source cells."""
    held = transmuted.obs["source_cell"] if "source_cell" in transmuted.obs else transmuted.obs_names
    number, names = pd.factorize(np.asarray(held.astype(str), dtype=object))
    return number, pd.Index(names)


def _averager(cell: NDArray[np.int64], n_cells: int) -> sparse.csr_matrix:
    """Matrix (n_cells, n_rows) that takes the mean of each cell's draws."""
    weight = 1 / np.bincount(cell, minlength=n_cells)[cell]
    return sparse.csr_matrix((weight, (cell, np.arange(len(cell)))), shape=(n_cells, len(cell)))


def _rows_of(adata: AnnData, names: pd.Index) -> NDArray[np.int64]:
    if not adata.obs_names.is_unique:
        msg = "adata: its obs_names are not unique, so that source cells can not be found: obs_names_make_unique()."
        raise ValueError(msg)
    rows = adata.obs_names.get_indexer(names)
    if (rows < 0).any():
        lost = listing(names[rows < 0])
        msg = f"adata: it lacks source cells of transmuted, {lost}; give the cells that were transmuted."
        raise ValueError(msg)
    return rows


def _source_and_target(
    adata: AnnData, transmuted: AnnData, groupby: str | None, key: str
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows of the real cells of the source and of the target type."""
    made = transmuted.uns.get(key, {})
    column = groupby or (made.get("labels_key") if isinstance(made, dict) else None)
    if not column:
        msg = f"groupby: transmuted.uns[{key!r}] has no 'labels_key'; name the column of adata.obs with the types."
        raise ValueError(msg)
    found = []
    for name in ("source_label", "target_label"):
        if name not in transmuted.obs:
            msg = f"transmuted.obs has no {name!r}: run {RUN}. It has: {listing(transmuted.obs.columns)}."
            raise KeyError(msg)
        labels = pd.unique(transmuted.obs[name].astype(str))
        if name == "target_label" and len(labels) > 1:
            msg = f"transmuted: it has several targets, {listing(labels)}; give the cells of one."
            raise ValueError(msg)
        found.append(np.concatenate([cells_of_group(adata, column, label, argument="groupby") for label in labels]))
    return found[0], found[1]


# -- genes ---------------------------------------------------------------------------------------------------------


def _paired(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """Means before and after, difference, effect and p-value of some genes, (n_genes, 5)."""
    from scipy.stats import wilcoxon

    change = y - x
    mean, spread = change.mean(0), change.std(0, ddof=1)
    # what rounding leaves of a change that is the same in all cells is no spread
    spread[spread <= 1e-12 * np.abs(x).max(0)] = 0
    with np.errstate(divide="ignore", invalid="ignore"):
        effect = np.where(mean == 0, 0.0, mean / spread)
    p = np.ones(change.shape[1])
    moved = (change != 0).any(0)
    if moved.any():
        p[moved] = wilcoxon(change[:, moved], axis=0).pvalue
    return np.stack([x.mean(0), y.mean(0), mean, effect, p], 1)


def _correlations(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """Pearson's correlation of each column; NaN where x or y is constant."""
    x, y = x - x.mean(0), y - y.mean(0)
    norm = np.sqrt((x**2).sum(0) * (y**2).sum(0))
    return np.divide((x * y).sum(0), norm, out=np.full(x.shape[1], np.nan), where=norm > 1e-12)


def _variable(values: _Values, groups: list[NDArray[np.int64]]) -> NDArray[np.int64]:
    """The genes that vary most within groups of cells."""
    variance = np.sum([values.variance(rows) for rows in groups], axis=0)
    return np.sort(np.argsort(-variance, kind="stable")[:MAX_GENES])


# -- what is kept --------------------------------------------------------------------------------------------------

Row = tuple[str, float, float, float, float, int, str]


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

    found = _correlations(rankdata(truth)[:, None], rankdata(said)[:, None])[0]
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
    found = np.nan_to_num(_correlations(x[:, varies], y[:, varies]))
    return measure, float(found.mean()), 1.0, np.nan, 0.0, len(x), ""
