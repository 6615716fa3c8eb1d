"""Simulated cells on a known tree."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd
from scipy import sparse

from hdtree_sc.datasets._difficulty import PRESETS, Difficulty
from hdtree_sc.datasets._programmes import (
    Branches,
    Genes,
    Programmes,
    random_branches,
    random_genes,
    random_programmes,
)
from hdtree_sc.tree import Tree

if TYPE_CHECKING:
    from anndata import AnnData
    from numpy.typing import NDArray

CHUNK = 2_000_000
"""Entries of the count matrix that are dense at one time."""

BATCH_SHARE = 0.3
"""Share of genes that a batch touches."""


def branching(
    n_cells: int = 2000,
    n_genes: int | None = None,
    difficulty: Literal["easy", "medium", "hard"] = "medium",
    *,
    n_tips: int | None = None,
    tree: Tree | str | None = None,
    n_batches: int = 1,
    batch_strength: float = 0.3,
    density: Literal["uniform", "tips"] = "uniform",
    n_time_points: int = 5,
    time_jitter: float = 0.05,
    n_modules: int | None = None,
    divergence: float | None = None,
    persistence: float | None = None,
    alpha: float | None = None,
    beta: float | None = None,
    library_size: float | None = None,
    library_sd: float | None = None,
    return_means: bool = False,
    seed: int | np.random.Generator | None = 0,
) -> AnnData:
    """Simulate counts of cells that differentiate along a random tree, which is known.

    A method that finds trees, pseudotime or fates can be measured here against the truth, with noise and batches of
    one's choosing. Expression programmes walk smoothly and at random along each branch and are continuous at branch
    points; a gene follows a few of them. Cells lie at random places of the tree, and their counts are negative
    binomial. The same `seed` gives the same tree, programmes and cells whatever the batches.

    Parameters
    ----------
    n_cells
        Cells.
    n_genes
        Genes; by default as `difficulty` says (1,000, 1,000, 500).
    difficulty
        ``"easy"``: 4 tips, 7 branches, low noise. ``"medium"``: 7 tips, 13 branches, low noise. ``"hard"``: 6 tips, 11
        branches, few genes and counts, much noise. The arguments that are None by default override one setting each.
    n_tips
        Tips of the random binary tree, at least 1; it has ``2 * n_tips - 1`` branches.
    tree
        A tree to use instead of a random one (:class:`~hdtree_sc.Tree` or newick text). Its nodes are the branches,
        and a node's edge length is its branch's length, where it has one; the others are of average length.
    n_batches
        Batches, to which cells are assigned at random.
    batch_strength
        Standard deviation of the log-normal effects of a batch on 30 % of the genes, and of its log library size.
        0 gives batches without effect.
    density
        ``"uniform"``: cells in proportion to branch length. ``"tips"``: three times as many on tip branches, and there
        more towards the end, as when most cells have matured.
    n_time_points
        Times at which cells were collected, evenly spaced over pseudotime.
    time_jitter
        Standard deviation, in pseudotime, of how far a cell is ahead of or behind its collection time.
    n_modules
        Expression programmes.
    divergence
        Root mean square, over genes, of the change of log expression along a branch of average length.
    persistence
        Correlation, from 0 to below 1, of the state that a branch tends to with the state at its start; the higher, the
        longer the distance from the root keeps growing along the tree.
    alpha, beta
        Medians over genes of the noise: a gene of mean mu has variance ``mu + alpha * mu + beta * mu**2``.
    library_size
        Median counts per cell.
    library_sd
        Standard deviation of the log library size.
    return_means
        Keep the expected counts in ``.layers["mean"]`` (float32, dense: n_cells x n_genes).
    seed
        Seed or generator; None draws a new one. The global random state is never touched.

    Returns
    -------
    AnnData with counts (float32, CSR) in `X` and the truth in the fields below.

    `.obs["branch"]`, `.obs["tip"]`
        Branch of the cell, in tree order; the same for cells on a tip branch, NaN for others.
    `.obs["pt"]`
        True pseudotime in [0, 1]: distance from the start of the root branch.
    `.obs["time"]`
        Collection time 0, 1, ..., ``n_time_points - 1`` of the cell (float).
    `.obs["batch"]`, `.obs["library_size"]`
        Batch; expected counts of the cell.
    `.var["alpha"]`, `.var["beta"]`, `.var["n_modules"]`
        Noise of the gene and the number of programmes it follows.
    `.uns["tree_newick"]`, `.uns["edges"]`
        The tree of branches as newick text, and as an array with a row (parent branch, child branch) for each edge.
    `.uns["branches"]`
        DataFrame indexed by branch: `parent` ("" for the root), `start` and `end` in pseudotime, `is_tip`.

    Raises
    ------
    ValueError
        If an argument is out of its range or unknown, or if both `tree` and `n_tips` are given.

    Notes
    -----
    The design follows the idea of PROSSTT (Papadopoulos et al., Bioinformatics 2019), which this is not a copy of.

    Examples
    --------
    >>> import hdtree_sc as ht
    >>> adata = ht.datasets.branching(500, 100, "easy")
    >>> adata.shape, adata.obs["branch"].nunique()
    ((500, 100), 7)
    """
    from anndata import AnnData

    settings = _settings(
        difficulty,
        n_genes=n_genes,
        n_tips=n_tips,
        n_modules=n_modules,
        divergence=divergence,
        persistence=persistence,
        alpha=alpha,
        beta=beta,
        library_size=library_size,
        library_sd=library_sd,
    )
    _check_counts(n_cells=n_cells, n_batches=n_batches, n_time_points=n_time_points)
    _check_sizes(batch_strength=batch_strength, time_jitter=time_jitter)
    if density not in ("uniform", "tips"):
        msg = f"density={density!r} is unknown; choose 'uniform' or 'tips'."
        raise ValueError(msg)
    if tree is not None and n_tips is not None:
        msg = "Both tree and n_tips were given; a tree has its own tips, so leave n_tips out."
        raise ValueError(msg)

    # One generator per concern: changing the batches, say, leaves the tree and the programmes as they were.
    tree_rng, walk_rng, gene_rng, cell_rng, time_rng, batch_rng, count_rng = np.random.default_rng(seed).spawn(7)
    branches = random_branches(settings.n_tips, tree_rng) if tree is None else _branches_of(tree)
    programmes = random_programmes(branches, settings.n_modules, settings.persistence, walk_rng)
    genes = random_genes(
        settings.n_genes,
        settings.n_modules,
        divergence=settings.divergence,
        alpha=settings.alpha,
        beta=settings.beta,
        rng=gene_rng,
    )

    branch, fraction = _place_cells(n_cells, branches, density, cell_rng)
    library = settings.library_size * np.exp(settings.library_sd * cell_rng.standard_normal(n_cells))
    batch = batch_rng.integers(n_batches, size=n_cells) if n_batches > 1 else np.zeros(n_cells, dtype=np.int64)
    touched = batch_rng.random((n_batches, settings.n_genes)) < BATCH_SHARE
    effects = touched * batch_rng.normal(0.0, batch_strength, (n_batches, settings.n_genes))
    shifts = batch_rng.normal(0.0, batch_strength, n_batches)
    if n_batches == 1:  # one batch has nothing to differ from
        effects, shifts = np.zeros_like(effects), np.zeros_like(shifts)
    library *= np.exp(shifts[batch])

    means = np.empty((n_cells, settings.n_genes), dtype=np.float32) if return_means else None
    counts = _draw_counts(programmes, genes, branch, fraction, library, batch, effects, means, count_rng)

    depth = np.max(branches.starts + branches.lengths)
    pt = (branches.starts[branch] + fraction * branches.lengths[branch]) / depth
    clock = np.clip(pt + time_rng.normal(0.0, time_jitter, n_cells), 0.0, 1.0)
    names = np.array(branches.names, dtype=object)
    tip_code = np.where(branches.is_tip, np.cumsum(branches.is_tip) - 1, -1)
    obs = pd.DataFrame(
        {
            "branch": pd.Categorical.from_codes(branch, names),
            "pt": pt,
            "time": np.minimum(np.floor(clock * n_time_points), n_time_points - 1),
            "batch": pd.Categorical.from_codes(batch, [f"batch_{i}" for i in range(n_batches)]),
            "tip": pd.Categorical.from_codes(tip_code[branch], names[branches.is_tip]),
            "library_size": library,
        },
        index=[f"cell_{i}" for i in range(n_cells)],
    )
    var = pd.DataFrame(
        {"alpha": genes.alpha, "beta": genes.beta, "n_modules": np.count_nonzero(genes.loadings, axis=0)},
        index=[f"gene_{i}" for i in range(settings.n_genes)],
    )
    adata = AnnData(counts, obs=obs, var=var, uns=_tree_fields(branches, depth))
    if means is not None:
        adata.layers["mean"] = means
    return adata


def _settings(difficulty: str, **overrides: float | None) -> Difficulty:
    """Return the preset with the given settings in place of its own."""
    if difficulty not in PRESETS:
        msg = f"difficulty={difficulty!r} is unknown; choose one of {list(PRESETS)}."
        raise ValueError(msg)
    given = {name: value for name, value in overrides.items() if value is not None}
    settings = replace(PRESETS[difficulty], **given)  # type: ignore[arg-type]
    _check_counts(n_genes=settings.n_genes, n_tips=settings.n_tips, n_modules=settings.n_modules)
    _check_sizes(
        divergence=settings.divergence, alpha=settings.alpha, beta=settings.beta, library_sd=settings.library_sd
    )
    if not 0 <= settings.persistence < 1:
        msg = f"persistence={settings.persistence} must be at least 0 and below 1."
        raise ValueError(msg)
    if not (np.isfinite(settings.library_size) and settings.library_size > 0):
        msg = f"library_size={settings.library_size} is not a positive number of counts."
        raise ValueError(msg)
    return settings


def _check_counts(**counts: int) -> None:
    """Raise unless all are whole numbers of at least 1."""
    for name, value in counts.items():
        if int(value) != value or value < 1:
            msg = f"{name}={value} must be a whole number of at least 1."
            raise ValueError(msg)


def _check_sizes(**sizes: float) -> None:
    """Raise unless all are finite and not negative."""
    for name, value in sizes.items():
        if not (np.isfinite(value) and value >= 0):
            msg = f"{name}={value} must be a finite number of at least 0."
            raise ValueError(msg)


def _branches_of(tree: Tree | str) -> Branches:
    """Read a user's tree: nodes are branches, edge lengths (scaled to mean 1) their lengths."""
    tree = Tree.from_newick(tree) if isinstance(tree, str) else tree
    lengths = np.full(len(tree), np.nan) if tree.lengths is None else np.array(tree.lengths, dtype=float)
    parents = np.array(tree.parents, dtype=np.int64)
    known = np.isfinite(lengths) & (lengths > 0)
    average = lengths[known].mean() if known.any() else 1.0
    return Branches(tuple(tree.nodes), parents, np.where(known, lengths, average) / average)


def _place_cells(
    n_cells: int, branches: Branches, density: str, rng: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Draw each cell's branch and the fraction of it that the cell has gone."""
    weight = branches.lengths * np.where(branches.is_tip & (density == "tips"), 3.0, 1.0)
    branch = rng.choice(len(weight), size=n_cells, p=weight / weight.sum())
    fraction = rng.random(n_cells)
    if density == "tips":  # the square root of a uniform number has a density that rises to the end of the branch
        fraction = np.where(branches.is_tip[branch], np.sqrt(fraction), fraction)
    return branch, fraction


def _draw_counts(
    programmes: Programmes,
    genes: Genes,
    branch: NDArray[np.int64],
    fraction: NDArray[np.float64],
    library: NDArray[np.float64],
    batch: NDArray[np.int64],
    effects: NDArray[np.float64],
    means: NDArray[np.float32] | None,
    rng: np.random.Generator,
) -> sparse.csr_matrix:
    """Draw negative binomial counts a few rows at a time; fills `means` with the expected counts if it is given."""
    # float32 throughout: three times the speed of float64 for gamma numbers, and counts do not need more.
    loadings, log_base, alpha, beta, log_effects = (
        np.asarray(array, dtype=np.float32)
        for array in (genes.loadings, genes.log_base, genes.alpha, genes.beta, effects)
    )
    n_cells, n_genes = len(branch), len(log_base)
    n_rows = max(1, CHUNK // n_genes)
    values, columns, row_sizes = [], [], []
    for first in range(0, n_cells, n_rows):
        rows = slice(first, first + n_rows)
        mu = programmes.at(branch[rows], fraction[rows]).astype(np.float32) @ loadings
        mu += log_base
        if log_effects.any():
            mu += log_effects[batch[rows]]
        mu -= mu.max(axis=1, keepdims=True)
        np.exp(mu, out=mu)
        mu *= (library[rows] / mu.sum(axis=1))[:, None].astype(np.float32)
        np.maximum(mu, 1e-12, out=mu)
        if means is not None:
            means[rows] = mu
        # Gamma-Poisson: a rate of mean mu and variance mu * scale gives counts of variance mu + mu * scale.
        scale = np.maximum(alpha + beta * mu, np.float32(1e-6))
        counts = rng.poisson(rng.standard_gamma(mu / scale, dtype=np.float32) * scale)
        full = np.flatnonzero(counts)
        values.append(counts.ravel()[full].astype(np.float32))
        columns.append((full % n_genes).astype(np.int32))
        row_sizes.append(np.count_nonzero(counts, axis=1))
    indptr = np.concatenate([[0], *row_sizes]).cumsum()
    return sparse.csr_matrix((np.concatenate(values), np.concatenate(columns), indptr), shape=(n_cells, n_genes))


def _tree_fields(branches: Branches, depth: float) -> dict[str, object]:
    """Return the tree as it is kept in ``.uns``: newick text, edges, and a table of branches."""
    names = np.array(branches.names, dtype=object)
    parent = np.array(["" if p < 0 else names[p] for p in branches.parents], dtype=object)
    table = pd.DataFrame(
        {
            "parent": parent,
            "start": branches.starts / depth,
            "end": (branches.starts + branches.lengths) / depth,
            "is_tip": branches.is_tip,
        },
        index=names,
    )
    tree = Tree(branches.names, branches.parents.tolist(), lengths=(branches.lengths / depth).tolist())
    return {
        "tree_newick": tree.to_newick(),
        "edges": np.stack([parent[1:], names[1:]], axis=1),
        "branches": table,
    }
