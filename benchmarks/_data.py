"""The data sets, how they are read, and what every method gets of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import anndata as ad
import numpy as np
import scanpy as sc
from scipy import sparse

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

N_GENES = 2000
"""Most variable genes that every method gets."""
EXPRESSION = "expression"
"""Layer of the values that go into principal components."""


@dataclass(frozen=True)
class DataSet:
    """What a data set holds.

    Parameters
    ----------
    name
        Name of the file, less ``.h5ad``.
    labels
        ``obs`` column of the classes; their number is K, which no method sees before its tree is cut.
    time
        ``obs`` column of a numeric time.
    bins
        ``obs`` column of time bins, for the neighbourhood ratio.
    likelihood
        The model's ``gene_likelihood``.
    """

    name: str
    labels: str
    time: str | None = None
    bins: str | None = None
    likelihood: str = "nb"

    @property
    def counts(self) -> bool:
        """Whether the values are raw counts."""
        return self.likelihood == "nb"


SETS = {
    data.name: data
    for data in (
        DataSet("celegans_amphid_embryo", "cell_type", "time", "embryo_time_bin"),
        DataSet("mouse_bladder_2100", "cell_type"),
        DataSet("simulated_tree_e3", "branch", "pt"),
        DataSet("simulated_tree_b5", "branch", "pt"),
        DataSet("schlitzer15_dendritic", "cell_type", "time", "time", "normal"),
        DataSet("guo10_blastocyst", "stage", "time", "time", "normal"),
        DataSet("moignard15_blood_qpcr", "stage", "time", "time", "normal"),
        DataSet("olsson16_myeloid", "cell_type", likelihood="normal"),
        DataSet("pbmc68k_reduced", "bulk_labels", likelihood="normal"),
        DataSet("mnist", "label", likelihood="bernoulli"),
    )
}
"""All data sets by name. ``pbmc68k_reduced`` comes with scanpy, the others are files."""
CELLS = tuple(name for name in SETS if name != "mnist")
TIMED = tuple(name for name in CELLS if SETS[name].time)


def read(folder: Path, name: str, *, n_genes: int | None = None, kept_by: int | None = None) -> ad.AnnData:
    """Read a data set as every method gets it.

    Parameters
    ----------
    folder
        Where the files are.
    name
        Key of `SETS`.
    n_genes
        Most variable genes to keep; `N_GENES` unless given.
    kept_by
        Seed by which 80 % of the cells are drawn before genes are chosen, as if there were no others; all without.

    Returns
    -------
    Cells with ``X`` in float32 and the most variable genes; ``layers["expression"]`` holds counts scaled to
    10,000 a cell and logged, all genes counted, and other values as they are. Pixels are 0 to 1, and ``uns`` holds the
    shape of images.
    """
    # scanpy's set brings its own components, neighbours and clusters along, which nobody may use
    source = sc.datasets.pbmc68k_reduced() if name == "pbmc68k_reduced" else ad.read_h5ad(folder / f"{name}.h5ad")
    adata = ad.AnnData(source.X.astype(np.float32), obs=source.obs, var=source.var[[]])
    adata.uns |= {name: value for name, value in source.uns.items() if name == "image_shape"}
    if kept_by is not None:
        adata = adata[kept_for_training(adata.n_obs, kept_by)].copy()
    if SETS[name].likelihood == "bernoulli":
        adata.X /= 255
    logged = adata.copy()
    if SETS[name].counts:
        sc.pp.normalize_total(logged, target_sum=1e4)
        sc.pp.log1p(logged)
    adata.layers[EXPRESSION] = logged.X
    n_genes = N_GENES if n_genes is None else n_genes
    if adata.n_vars > n_genes:
        sc.pp.highly_variable_genes(logged, n_top_genes=n_genes)
        adata = adata[:, logged.var["highly_variable"].to_numpy()].copy()
    return adata


def dense(values: NDArray | sparse.spmatrix) -> NDArray[np.float32]:
    """Values as a dense array."""
    return values.toarray() if sparse.issparse(values) else np.asarray(values)


def earliest(time: NDArray[np.floating]) -> NDArray[np.int64]:
    """Rows of the earliest 2 % of cells, more where many share a time: roots are their medoid."""
    return np.flatnonzero(time <= np.nanpercentile(time, 2))


def kept_for_training(n_cells: int, seed: int, share: float = 0.8) -> NDArray[np.bool_]:
    """Which cells a method is fitted on when the others are held out; the same for every method.

    Parameters
    ----------
    n_cells
        Number of cells.
    seed
        Seed of the draw.
    share
        Share of the cells that are kept.
    """
    kept = np.zeros(n_cells, dtype=bool)
    kept[np.random.default_rng(seed).permutation(n_cells)[: round(share * n_cells)]] = True
    return kept
