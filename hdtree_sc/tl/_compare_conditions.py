"""Conditions on one tree: where cells are more or fewer, and which genes they express differently."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from itertools import starmap
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy import stats

from hdtree_sc._errors import listing, require_column, require_uns
from hdtree_sc.get import cells_of_group, text_groups
from hdtree_sc.stats import compare_shares
from hdtree_sc.tl._condition_genes import condition_genes
from hdtree_sc.tree import Tree, node_of_cells, subtree_sums

if TYPE_CHECKING:
    from anndata import AnnData
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Contrast:
    """Samples of a condition and of the reference."""

    condition: str
    reference: str
    unit: NDArray[np.int64]
    """Sample of each cell, (n_cells,); -1 for cells of other conditions."""
    treated: NDArray[np.bool_]
    """Whether each sample is of the condition, (n_samples,)."""
    block: NDArray[np.int64]
    """Individual that each sample is from, if some have samples of both; else 0, (n_samples,)."""


def compare_conditions(
    adata: AnnData,
    condition_key: str,
    sample_key: str | None = None,
    key: str = "hdtree",
    *,
    reference: str | None = None,
    min_cells: int = 10,
    expression: bool = False,
    layer: str | None = None,
    n_genes: int = 100,
) -> pd.DataFrame:
    """Compare conditions on one tree: the abundance of each node and, if wanted, the expression within it.

    A node that loses its cells changes the shares of all others. So the test is on the share of the node *within its
    parent*: only the split where a change happens shows it, and the sibling with the opposite sign. The share of the
    whole is tested as well, for what it is worth.

    With samples, these are the replicates: a quasi-binomial regression whose p-values include how much samples of one
    condition differ (see the guide). Without, cells are taken as independent, as they never are: Fisher's exact test
    then speaks of these cells and not of the conditions, and a warning says so.

    Parameters
    ----------
    adata
        Cells on a tree, see :func:`hdtree_sc.tl.tree`. All conditions are on the same tree.
    condition_key
        ``obs`` column of conditions; cells without a value are left out.
    sample_key
        ``obs`` column of samples or individuals. Where the same one has cells of both conditions, its two samples
        are compared as a pair. Two or more per condition are needed.
    key
        Key of the tree.
    reference
        Condition that others are compared with; the first category by default.
    min_cells
        Nodes with fewer cells in the two conditions are not tested; for expression, samples with fewer cells in a node
        are left out of it.
    expression
        Whether to compare expression as well.
    layer
        Layer with the expression: counts, or ``log(1 + x)``; ``X`` by default.
    n_genes
        Genes kept for each node, those with the smallest p-values. The FDR is over all genes tested in the node.

    Returns
    -------
    One row per node and condition other than the reference, in tree order: ``node``, ``condition``, ``reference``,
    ``n_cells`` and ``n_cells_reference``; ``share`` and ``share_reference`` within the parent (mean over samples),
    ``log2fc`` (of the shares, half a cell added), ``p``, ``fdr`` (Benjamini-Hochberg over the nodes); the same of the
    whole, ``share_whole`` to ``fdr_whole``. NaN where there is no parent, no cell or no test.

    Sets the following fields:

    ``adata.uns["<key>"]["conditions"]["abundance"]`` : DataFrame
        The same table.
    ``adata.uns["<key>"]["conditions"]["expression"]`` : DataFrame
        With ``expression=True``: ``node``, ``condition``, ``reference``, ``gene``, ``log2fc``, ``p``, ``fdr`` (over the
        genes of the node). With samples a moderated t-test on log counts per million of their sums (means of log
        values, if these are given), else scanpy's Wilcoxon test on cells.
    ``adata.uns["<key>"]["conditions"]["params"]`` : dict
        Arguments.

    Raises
    ------
    KeyError
        If the tree, a column or the layer is missing.
    ValueError
        If there are fewer than two conditions, the reference is none of them, a condition has fewer than two samples,
        or an argument is out of range.

    References
    ----------
    Williams, J. R. Stat. Soc. C 31, 144 (1982), for the weights of samples; Smyth, Stat. Appl. Genet. Mol. Biol. 3 (3)
    (2004), for the moderated variances; Lund et al., Stat. Appl. Genet. Mol. Biol. 11 (5) (2012), for the
    quasi-likelihood test.

    Examples
    --------
    >>> import hdtree_sc as ht
    >>> adata.obs["late"] = (adata.obs["time"] > 400).astype(str).astype("category")
    >>> table = ht.tl.compare_conditions(adata, "late", sample_key="batch")
    >>> changed = table.query("fdr < 0.05")
    >>> table["share"].dropna().between(0, 1).all().item()
    True
    """
    run = "hdtree_sc.tl.tree(adata, model)"
    require_uns(adata, key, run)
    for name, value in (("min_cells", min_cells), ("n_genes", n_genes)):
        if value < 1:
            msg = f"{name}: {value} given, at least 1 wanted."
            raise ValueError(msg)
    tree = Tree.from_adata(adata, key=key)
    contrasts = _contrasts(adata, condition_key, sample_key, reference)
    node = node_of_cells(adata, tree, key=key, missing=True)
    if sample_key is None:
        msg = (
            "sample_key: none given, so cells are taken as independent replicates, which they are not. The p-values "
            "ignore how much samples differ, and are too small."
        )
        warnings.warn(msg, UserWarning, stacklevel=2)

    abundance = pd.concat(
        [_abundance(tree, node, contrast, min_cells, replicates=sample_key is not None) for contrast in contrasts],
        ignore_index=True,
    )
    tables = {"abundance": abundance}
    if expression:
        tables["expression"] = condition_genes(
            adata, tree, node, contrasts, layer=layer, min_cells=min_cells, n_genes=n_genes,
            replicates=sample_key is not None,
        )  # fmt: skip
    params = {
        "condition_key": condition_key,
        "sample_key": sample_key or "",
        "reference": contrasts[0].reference,
        "min_cells": min_cells,
    }
    adata.uns[key]["conditions"] = {**tables, "params": params}
    return abundance.copy()


def _contrasts(adata: AnnData, condition_key: str, sample_key: str | None, reference: str | None) -> list[Contrast]:
    for argument, column in (("condition_key", condition_key), ("sample_key", sample_key)):
        if column is not None:
            require_column(adata, column, argument)
    condition = text_groups(adata.obs[condition_key])
    names = list(condition.categories)
    if len(names) < 2:
        msg = f"condition_key: adata.obs[{condition_key!r}] holds {listing(names)}; at least two conditions wanted."
        raise ValueError(msg)
    codes = condition.codes.astype(np.int64)
    base = 0
    if reference is not None:
        base = int(codes[cells_of_group(adata, condition_key, reference, argument="reference")[0]])
    if sample_key is None:
        sample = np.zeros(adata.n_obs, dtype=np.int64)
    else:
        sample = text_groups(adata.obs[sample_key]).codes.astype(np.int64)
    pairs = [(codes, number, base, sample, names) for number in range(len(names)) if number != base]
    out = list(starmap(_contrast, pairs))
    if sample_key is not None:
        for contrast in out:
            n_each = np.bincount(contrast.treated, minlength=2)
            if n_each.min() < 2:
                msg = (
                    f"sample_key: adata.obs[{sample_key!r}] has {n_each[1]} sample(s) of {contrast.condition!r} and "
                    f"{n_each[0]} of {contrast.reference!r}; a test needs two of each. Leave sample_key out to compare "
                    "cells, whose p-values ignore how much samples differ."
                )
                raise ValueError(msg)
    return out


def _contrast(
    condition: NDArray[np.int64], treated: int, base: int, sample: NDArray[np.int64], names: list[str]
) -> Contrast:
    used = np.isin(condition, [treated, base]) & (sample >= 0)
    pairs, which = np.unique(np.column_stack([sample, condition])[used], axis=0, return_inverse=True)
    unit = np.full(len(condition), -1, dtype=np.int64)
    unit[used] = which.ravel()
    individuals, n_samples = np.unique(pairs[:, 0], return_counts=True)
    paired = n_samples == 2
    # individuals with one condition only share a block: they are compared with each other
    block_of = np.where(paired, np.arange(len(individuals)) + 1, 0)
    block = block_of[np.searchsorted(individuals, pairs[:, 0])]
    return Contrast(names[treated], names[base], unit, pairs[:, 1] == treated, block)


def _abundance(
    tree: Tree, node: NDArray[np.int64], contrast: Contrast, min_cells: int, *, replicates: bool
) -> pd.DataFrame:
    n_units = len(contrast.treated)
    used = (node >= 0) & (contrast.unit >= 0)
    flat = np.bincount(node[used] * n_units + contrast.unit[used], minlength=len(tree) * n_units)
    counts = subtree_sums(tree, flat.reshape(len(tree), n_units)).T
    table = pd.DataFrame(
        {
            "node": list(tree.nodes),
            "condition": contrast.condition,
            "reference": contrast.reference,
            "n_cells": counts[contrast.treated].sum(0).astype(np.int64),
            "n_cells_reference": counts[~contrast.treated].sum(0).astype(np.int64),
        }
    )
    testable = (np.arange(len(tree)) > 0) & (counts.sum(0) >= min_cells)
    for after, totals in (("", counts[:, tree.parents]), ("_whole", np.repeat(counts[:, :1], len(tree), axis=1))):
        share, log2fc = _effects(counts, totals, contrast.treated)
        share[:, 0] = log2fc[0] = np.nan
        p = np.full(len(tree), np.nan)
        if replicates:
            p[testable] = compare_shares(counts[:, testable], totals[:, testable], contrast.treated, contrast.block)
        else:
            p[testable] = _fisher(counts[:, testable], totals[:, testable], contrast.treated)
        table[f"share{after}"], table[f"share{after}_reference"] = share[1], share[0]
        table[f"log2fc{after}"], table[f"p{after}"], table[f"fdr{after}"] = log2fc, p, adjust(p)
    return table.rename(columns={"share_whole_reference": "share_reference_whole"})


def _effects(
    counts: NDArray[np.float64], totals: NDArray[np.float64], treated: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean share of reference and condition (2, m), and log2 of their ratio with half a cell added."""
    share = np.full((2, counts.shape[1]), np.nan)
    padded = share.copy()
    for row, chosen in enumerate((~treated, treated)):
        k, n = counts[chosen], totals[chosen]
        seen = (n > 0).sum(0)
        total = np.divide(k, n, out=np.zeros_like(k), where=n > 0).sum(0)
        np.divide(total, seen, out=share[row], where=seen > 0)
        np.divide(0.5, n.sum(0), out=padded[row], where=seen > 0)
    return share, np.log2((share[1] + padded[1]) / (share[0] + padded[0]))


def _fisher(
    counts: NDArray[np.float64], totals: NDArray[np.float64], treated: NDArray[np.bool_]
) -> NDArray[np.float64]:
    inside = np.stack([counts[treated].sum(0), counts[~treated].sum(0)])
    beside = np.stack([totals[treated].sum(0), totals[~treated].sum(0)]) - inside
    tables = np.stack([inside, beside], axis=1).astype(np.int64)
    found = np.array([stats.fisher_exact(tables[..., i]).pvalue for i in range(tables.shape[-1])], dtype=float)
    # a condition without a cell in the parent says nothing about it
    return np.where((tables.sum(1) > 0).all(0), found, np.nan)


def adjust(p: NDArray[np.float64]) -> NDArray[np.float64]:
    """Benjamini-Hochberg false discovery rates; NaN stays NaN and does not count."""
    out = np.full(len(p), np.nan)
    tested = np.isfinite(p)
    if tested.any():
        out[tested] = stats.false_discovery_control(p[tested])
    return out
