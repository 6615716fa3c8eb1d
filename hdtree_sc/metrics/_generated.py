"""How real generated cells look: as points, and in the genes' zeros and correlations."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from hdtree_sc.metrics import _check
from hdtree_sc.metrics._distributions import _two, frechet_distance, mmd2

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import TypeAlias

    from numpy.typing import ArrayLike, NDArray
    from scipy.sparse import sparray, spmatrix

    Matrix: TypeAlias = ArrayLike | sparray | spmatrix

# Genes of which `compare_cells` takes the correlations, at most: with more, the noise of rare genes drowns the rest.
CORRELATED_GENES = 200
_BLOCK = 2048  # cells made dense at a time


def classifier_auc(X: ArrayLike, Y: ArrayLike, *, n_estimators: int = 200, n_splits: int = 3, seed: int = 0) -> float:
    """How well a random forest distinguishes the cells of two samples: area under the ROC curve.

    0.5 if it cannot, 1 if it always does. Each cell is judged by a forest that has not seen it, and the areas of the
    folds are averaged. A copy of a cell in the other sample misleads the forest: samples that share cells fall below
    0.5.

    Parameters
    ----------
    X, Y
        ``(n, d)`` and ``(m, d)``: coordinates of real and of generated cells.
    n_estimators
        Trees of the forest.
    n_splits
        Folds, shuffled, each with the same share of both samples.
    seed
        Seed of the folds and of the forests.

    Returns
    -------
    Area in [0, 1].

    Raises
    ------
    ValueError
        Fewer cells than folds in a sample, coordinates that are not finite, different dimensions, or fewer than two
        folds.

    References
    ----------
    Lopez-Paz and Oquab, Revisiting classifier two-sample tests, arXiv 1610.06545 (2017).

    Examples
    --------
    >>> import hdtree_sc as ht
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> X, Y = rng.normal(size=(50, 3)), rng.normal(4, 1, size=(50, 3))
    >>> ht.metrics.classifier_auc(X, Y, n_estimators=20) > 0.99
    True
    """
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.model_selection import StratifiedKFold, cross_val_score

    x, y = _two(X, Y)
    if not 2 <= n_splits <= min(len(x), len(y)):
        msg = (
            f"n_splits={n_splits}: two or more folds wanted, and a cell of each sample in every fold; got {len(x)} "
            f"cells in X and {len(y)} in Y."
        )
        raise ValueError(msg)
    forest = RandomForestClassifier(n_estimators=n_estimators, random_state=seed)
    folds = StratifiedKFold(n_splits, shuffle=True, random_state=seed)
    sample = np.repeat([0, 1], [len(x), len(y)])
    areas = cross_val_score(forest, np.vstack([x, y]), sample, cv=folds, scoring="roc_auc", error_score="raise")
    return float(areas.mean())


def gene_correlation_error(X: Matrix, Y: Matrix, *, n_genes: int | None = None) -> float:
    """Root mean square difference between the gene-gene correlations of two samples.

    Pearson correlations of all pairs of two different genes; a gene that is constant in either sample has none and is
    left out. The sampling error of a correlation shrinks with cells: compare at equal sizes, against the error between
    two samples of real cells.

    Parameters
    ----------
    X, Y
        ``(n, g)`` and ``(m, g)``: expression of real and of generated cells, dense or sparse, best log-normalised.
        Memory grows with genes squared: three tables of 0.8 GB for 10,000 genes.
    n_genes
        Take only so many genes, those with the highest variance in `X`; by default all.

    Returns
    -------
    Error in [0, 2].

    Raises
    ------
    ValueError
        Values that are not finite, different genes, or fewer than two genes that vary in both samples.

    Examples
    --------
    >>> import hdtree_sc as ht
    >>> X = [[0.0, 0.0], [1.0, 1.0], [2.0, 2.0]]
    >>> Y = [[0.0, 2.0], [1.0, 1.0], [2.0, 0.0]]
    >>> round(ht.metrics.gene_correlation_error(X, Y), 6)
    2.0
    """
    x, y = _pair(X, Y)
    if n_genes is not None and n_genes < 2:
        msg = f"n_genes={n_genes}: two or more wanted."
        raise ValueError(msg)
    genes = np.arange(x.shape[1])
    if n_genes is not None:
        genes = np.sort(np.argsort(-_variances(x), kind="stable")[:n_genes])
    genes = genes[_varies(x[:, genes]) & _varies(y[:, genes])]
    if len(genes) < 2:
        msg = f"two or more genes wanted that vary in both samples, got {len(genes)} of {x.shape[1]}."
        raise ValueError(msg)
    gap = _correlations(x[:, genes])
    gap -= _correlations(y[:, genes])
    np.fill_diagonal(gap, 0)
    return float(np.linalg.norm(gap) / np.sqrt(len(genes) * (len(genes) - 1)))


def zero_fraction(X: Matrix) -> float:
    """Share of the entries of a matrix that are zero.

    Parameters
    ----------
    X
        ``(n, g)``: expression of cells, dense or sparse.

    Returns
    -------
    Share in [0, 1].

    Raises
    ------
    ValueError
        Values that are not finite, no cells, or no genes.

    Examples
    --------
    >>> import hdtree_sc as ht
    >>> ht.metrics.zero_fraction([[0, 1], [0, 2]])
    0.5
    """
    return float(_zeros(_matrix("X", X)).mean())


def zero_fraction_error(X: Matrix, Y: Matrix) -> float:
    """Mean, over genes, of the absolute difference between two samples' shares of cells without the gene.

    Parameters
    ----------
    X, Y
        ``(n, g)`` and ``(m, g)``: expression of real and of generated cells, dense or sparse, best counts.

    Returns
    -------
    Error in [0, 1].

    Raises
    ------
    ValueError
        Values that are not finite, different genes, no cells, or no genes.

    Examples
    --------
    >>> import hdtree_sc as ht
    >>> ht.metrics.zero_fraction_error([[0, 1], [0, 2]], [[0, 1], [3, 2]])
    0.25
    """
    x, y = _pair(X, Y)
    return float(np.abs(_zeros(x) - _zeros(y)).mean())


def compare_cells(
    real: Matrix,
    generated: Matrix,
    *,
    reference: Matrix | None = None,
    n_components: int = 30,
    target_sum: float = 1e4,
    is_count: bool = True,
    seed: int = 0,
) -> pd.DataFrame:
    """Generated cells against real ones by all measures, each beside what it is between two samples of real cells.

    Frechet distance, MMD and classifier are taken in principal components of log-normalised values, correlations of
    these values for the 200 genes with the highest variance in `real`, and zeros of the values as given. All samples
    are of one size, as Frechet distance and correlation error grow when samples shrink. The components are fitted to
    cells of `reference` that are not compared: cells stand out in components fitted to their own noise, and among a few
    hundred a classifier finds nearly all of them. So it finds generated cells that repeat them.

    Parameters
    ----------
    real
        ``(n, g)``: expression of real cells that the generator was not trained on, dense or sparse.
    generated
        ``(m, g)``: expression of generated cells, of the same genes. A few thousand cells are enough: memory grows with
        the square of the cells compared.
    reference
        ``(k, g)``: other real cells, e.g. those that the generator was trained on; none may be in `real`, and what
        differs between the two, such as a batch, is in the floor. At most half of them are compared, and the others
        give the components. By default a random two thirds of `real` are the reference.
    n_components
        Principal components, at most; always fewer than genes and than the cells they are fitted to.
    target_sum
        Total to which the counts of each cell are scaled before the logarithm ``log(1 + x)``. Cells without counts stay
        as they are.
    is_count
        Whether values are counts. If not, they are taken as they are, as log-normalised values.
    seed
        Seed of the thirds, of the cells kept and of the forests.

    Returns
    -------
    One row a measure, with `value`, of `generated` against `real`, and `floor`, of `reference` against `real`;
    ``.attrs["n_cells"]`` is the number of cells in each sample.

    Raises
    ------
    ValueError
        Values that are not finite, negative counts, different genes, or fewer cells than 3 real, 3
        generated and 6 reference ones.

    Examples
    --------
    >>> import hdtree_sc as ht
    >>> generated = model.generate(60, seed=0)
    >>> table = ht.metrics.compare_cells(adata.X, generated.X)
    >>> table.columns.tolist()
    ['value', 'floor']
    """
    samples = {"real": _matrix("real", real), "generated": _matrix("generated", generated)}
    if reference is not None:
        samples["reference"] = _matrix("reference", reference)
    _refuse(samples, n_components, target_sum, is_count=is_count)
    rng = np.random.default_rng(seed)
    if reference is None:
        order = rng.permutation(samples["real"].shape[0])
        third = len(order) // 3
        samples["reference"] = samples["real"][order[third:]]
        samples["real"] = samples["real"][order[:third]]
    n_cells = min(samples["real"].shape[0], samples["generated"].shape[0], samples["reference"].shape[0] // 2)
    if n_cells < 3:
        sizes = ", ".join(f"{values.shape[0]} {name}" for name, values in samples.items())
        msg = f"3 real, 3 generated and 6 reference cells wanted, or 9 real ones without a reference; got {sizes}."
        raise ValueError(msg)

    samples = {name: values[rng.permutation(values.shape[0])] for name, values in samples.items()}
    logs = {name: _log_normalized(values, target_sum) if is_count else values for name, values in samples.items()}
    pca = _pca(logs["reference"][n_cells:], n_components, seed)
    samples = {name: values[:n_cells] for name, values in samples.items()}
    logs = {name: values[:n_cells] for name, values in logs.items()}
    places = {name: pca.transform(values) for name, values in logs.items()}

    def measures(name: str) -> dict[str, float]:
        return {
            "frechet_distance": frechet_distance(places["real"], places[name]),
            "mmd2": mmd2(places["real"], places[name]),
            "classifier_auc": classifier_auc(places["real"], places[name], seed=seed),
            "gene_correlation_error": gene_correlation_error(logs["real"], logs[name], n_genes=CORRELATED_GENES),
            "zero_fraction_error": zero_fraction_error(samples["real"], samples[name]),
        }

    out = pd.DataFrame({"value": measures("generated"), "floor": measures("reference")})
    out.attrs["n_cells"] = n_cells
    return out.rename_axis("measure")


def _matrix(name: str, values: Matrix) -> Any:
    """``(n, g)`` finite values with cells and genes, as a float64 array or, if sparse, a CSR copy without zeros."""
    from scipy import sparse

    out: Any = values
    if sparse.issparse(out):
        out = out.tocsr().astype(np.float64)
        out.sum_duplicates()
        if not np.isfinite(out.data).all():
            msg = f"{name}: NaN or infinite values."
            raise ValueError(msg)
        out.eliminate_zeros()
    else:
        out = _check.points(name, values)
    if 0 in out.shape:
        msg = f"{name}: no cells or no genes were given, shape {out.shape}."
        raise ValueError(msg)
    return out


def _pair(X: Matrix, Y: Matrix) -> tuple[Any, Any]:
    x, y = _matrix("X", X), _matrix("Y", Y)
    if x.shape[1] != y.shape[1]:
        msg = f"X has {x.shape[1]} genes and Y has {y.shape[1]}; give the same genes in the same order."
        raise ValueError(msg)
    return x, y


def _refuse(samples: dict[str, Any], n_components: int, target_sum: float, *, is_count: bool) -> None:
    """Refuse what :func:`compare_cells` cannot compare."""
    genes = {name: values.shape[1] for name, values in samples.items()}
    if len(set(genes.values())) > 1:
        msg = "the same genes in the same order wanted, got " + ", ".join(f"{n} in {name}" for name, n in genes.items())
        raise ValueError(msg + ".")
    if genes["real"] < 2:
        msg = "two or more genes wanted, got 1."
        raise ValueError(msg)
    if n_components < 1:
        msg = f"n_components={n_components}: one or more wanted."
        raise ValueError(msg)
    if not 0 < target_sum < np.inf:
        msg = f"target_sum={target_sum}: a positive number wanted."
        raise ValueError(msg)
    for name, values in samples.items():
        if is_count and values.min() < 0:
            msg = f"{name}: negative values are no counts; use is_count=False for log-normalised values."
            raise ValueError(msg)


def _log_normalized(counts: Any, target_sum: float) -> Any:
    from scipy import sparse

    total = np.asarray(counts.sum(axis=1)).reshape(-1, 1)
    scale = np.divide(target_sum, total, out=np.zeros_like(total), where=total > 0)
    return counts.multiply(scale).tocsr().log1p() if sparse.issparse(counts) else np.log1p(counts * scale)


def _pca(values: Any, n_components: int, seed: int) -> Any:
    """Principal components, by a solver that takes dense and sparse values alike."""
    from sklearn.decomposition import PCA

    n_components = min(n_components, *(length - 1 for length in values.shape))
    return PCA(n_components, svd_solver="arpack", random_state=seed).fit(values)


def _zeros(values: Any) -> NDArray[np.float64]:
    """``(g,)``: share of the cells in which each gene is zero."""
    n, n_genes = values.shape
    if isinstance(values, np.ndarray):
        return (values == 0).mean(axis=0)
    return 1 - np.bincount(values.indices, minlength=n_genes) / n


def _blocks(values: Any) -> Iterator[NDArray[np.float64]]:
    """Some cells at a time, dense."""
    for start in range(0, values.shape[0], _BLOCK):
        block = values[start : start + _BLOCK]
        yield block if isinstance(block, np.ndarray) else block.toarray()


def _mean(values: Any) -> NDArray[np.float64]:
    return np.asarray(values.mean(axis=0)).ravel()


def _variances(values: Any) -> NDArray[np.float64]:
    mean = _mean(values)
    return sum(((block - mean) ** 2).sum(axis=0) for block in _blocks(values)) / values.shape[0]


def _varies(values: Any) -> NDArray[np.bool_]:
    """``(g,)``: whether the gene is not the same in all cells; exact, as a variance of rounded numbers is not."""
    if isinstance(values, np.ndarray):
        return np.ptp(values, axis=0) > 0
    return (values.max(axis=0) - values.min(axis=0)).toarray().ravel() > 0


def _correlations(values: Any) -> NDArray[np.float64]:
    """``(g, g)``: Pearson correlations of genes that vary."""
    mean = _mean(values)
    scatter = np.zeros((len(mean), len(mean)))
    for block in _blocks(values):
        centered = block - mean
        scatter += centered.T @ centered
    scale = np.sqrt(np.diagonal(scatter))
    scatter /= scale
    scatter /= scale[:, None]
    return scatter
