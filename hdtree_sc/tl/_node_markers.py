"""Genes that distinguish the nodes of a tree from their siblings."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from hdtree_sc._errors import listing, require_column, require_obs, require_uns
from hdtree_sc._keys import Keys
from hdtree_sc.get import Expression
from hdtree_sc.tl._ranking import rank_groups, ranked
from hdtree_sc.tree import Tree

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData
    from numpy.typing import NDArray

    from hdtree_sc.get import DataType
    from hdtree_sc.tl._ranking import Method

COLUMNS = (
    "node", "sibling", "gene", "score", "log2fc", "pval", "pval_adj", "fraction", "fraction_sibling", "n_cells",
    "n_batches",
)  # fmt: skip


def node_markers(
    adata: AnnData,
    node: str | Sequence[str] | None = None,
    key: str = "hdtree",
    *,
    layer: str | None = None,
    data_type: DataType = "auto",
    size_factor_key: str | None = None,
    batch_key: str | None = None,
    method: Method = "wilcoxon",
    n_genes: int | None = None,
    min_cells: int = 10,
) -> pd.DataFrame:
    """Rank the genes that distinguish each node of the tree from its sibling.

    At a split of the tree the question is what one branch has and the other has not; a comparison with all other cells
    would answer it with the genes of the whole upper branch. The cells below a node are compared with those below the
    other children of its parent, by :func:`scanpy.tl.rank_genes_groups`.

    With `batch_key` cells are compared within batches only, and the scores of the batches are added up, each by the
    size of its comparison: a node that happens to come from one donor is then not marked by the genes of that donor.

    Parameters
    ----------
    adata
        Cells with :func:`hdtree_sc.tl.tree`.
    node
        One or several nodes; by default all but the root.
    key
        Key of the tree.
    layer
        Layer with expression; ``adata.X`` by default.
    data_type
        ``"counts"``, which are normalised to 10,000 a cell and logarithmised; ``"log"``: log(1 + normalised counts);
        or ``"auto"``: counts where all values are integers or some are above 30.
    size_factor_key
        ``obs`` column with the library size of each cell; by default the sum of its counts over the genes that are
        there. Give it where only some genes were kept.
    batch_key
        ``obs`` column of batches or individuals.
    method
        ``"wilcoxon"`` (with correction for ties, of which sparse counts are full) or ``"t-test"`` (Welch).
    n_genes
        Genes kept for each node, the highest scores first; by default all that were tested.
    min_cells
        Nodes with fewer cells, or whose sibling has fewer, are left out, and so are batches; a gene has to be found in
        as many cells of the two together.

    Returns
    -------
    One row per node and gene, nodes in the order of the tree, genes by falling score:

    ``node``, ``sibling``
        The node, and what it was compared with; several siblings are joined by commas.
    ``gene``
        One of ``var_names``.
    ``score``
        z value of the test (t value with ``method="t-test"``), positive where the node has more.
    ``log2fc``
        Log2 fold change of the means; with `batch_key` the weighted mean of those within batches.
    ``pval``, ``pval_adj``
        p-value, and false discovery rate over the genes of the node (Benjamini and Hochberg).
    ``fraction``, ``fraction_sibling``
        Share of the cells that express the gene.
    ``n_cells``, ``n_batches``
        Cells of the node, and batches in which it was compared.

    Raises
    ------
    KeyError
        If the tree, a node, the layer or a column is missing.
    ValueError
        If a node is the root, values are neither counts nor logarithms, or a number is out of range.

    Warns
    -----
    UserWarning
        If nodes that were asked for cannot be compared, for want of cells or because no batch has both sides.

    Notes
    -----
    The tree was found from the same expression, so p-values are too small where a split is none: rank by them, and ask
    :func:`hdtree_sc.tl.tree_support` which splits to believe. The sum over batches is Stouffer's, with weights that are
    the best for equal effects, as in the test of van Elteren (1960).

    Examples
    --------
    >>> import hdtree_sc as ht
    >>> markers = ht.tl.node_markers(adata, ["0", "1"], batch_key="batch", n_genes=20)
    >>> markers.groupby("node").size().to_dict()
    {'0': 20, '1': 20}
    >>> strong = markers.query("pval_adj < 0.05 and log2fc > 1")
    """
    keys = Keys(key)
    require_uns(adata, key, "hdtree_sc.tl.tree(adata, model)")
    names = require_obs(adata, keys.leaf, "hdtree_sc.tl.tree(adata, model)")
    tree = Tree.from_adata(adata, key=key)
    wanted = _wanted(tree, node, key)
    if method not in ("wilcoxon", "t-test"):
        msg = f"method: {method!r} is unknown; choose 'wilcoxon' or 't-test'."
        raise ValueError(msg)
    if min_cells < 2 or (n_genes is not None and n_genes < 1):
        which = (
            f"min_cells: {min_cells} given, at least 2" if min_cells < 2 else f"n_genes: {n_genes} given, at least 1"
        )
        msg = f"{which} wanted."
        raise ValueError(msg)
    batch = _batches(adata, batch_key)
    expression = Expression(adata, layer, data_type=data_type, size_factor_key=size_factor_key)
    expression.refuse_values(layer)

    leaf = pd.Categorical(names)
    place = np.append(tree.index([str(name) for name in leaf.categories]), -1)[leaf.codes]
    # pre-order: the cells below a node are one slice of the cells sorted by leaf
    order = np.argsort(place, kind="stable")
    first = np.searchsorted(place[order], np.arange(len(tree)))
    last = np.searchsorted(place[order], np.arange(len(tree)) + tree.sizes)
    genes = adata.var_names.astype(str).to_numpy(dtype=object)
    tables: dict[int, pd.DataFrame] = {}
    for parent in np.unique(tree.parents[wanted]).tolist():
        children = np.flatnonzero(tree.parents == parent)
        cells = [order[first[child] : last[child]] for child in children]
        tables |= _compare(expression, tree, children, cells, batch, genes, set(wanted), method, min_cells, n_genes)
    missing = [tree.nodes[i] for i in wanted if i not in tables]
    if missing:
        within = "" if batch_key is None else f" within one batch of {batch_key!r}"
        msg = (
            f"{len(missing)} of {len(wanted)} nodes are left out: they or their siblings have fewer than {min_cells} "
            f"cells{within} (min_cells): {listing(missing)}."
        )
        warnings.warn(msg, UserWarning, stacklevel=2)
    if not tables:
        return pd.DataFrame({name: pd.Series(dtype=object if i < 3 else float) for i, name in enumerate(COLUMNS)})
    return pd.concat([tables[i] for i in sorted(tables)], ignore_index=True)


def _wanted(tree: Tree, node: str | Sequence[str] | None, key: str) -> list[int]:
    """Positions of the nodes asked for, in tree order."""
    if node is None:
        if len(tree) == 1:
            msg = f"adata.uns[{key!r}] is a tree of one leaf: it has no siblings to compare."
            raise ValueError(msg)
        return list(range(1, len(tree)))
    given = [node] if isinstance(node, str) else [str(name) for name in node]
    unknown = [name for name in given if name not in tree]
    if unknown:
        msg = f"node: {listing(unknown)} are not nodes of adata.uns[{key!r}], which has {listing(tree.nodes, 20)}."
        raise KeyError(msg)
    if tree.root in given:
        below = listing(tree.children(tree.root))
        msg = f"node: {tree.root!r} is the root, which has no sibling. Its children are {below}."
        raise ValueError(msg)
    return sorted({tree.index(name) for name in given})


def _batches(adata: AnnData, batch_key: str | None) -> NDArray[np.int64]:
    """Number of the batch of each cell; -1 for cells without one."""
    if batch_key is None:
        return np.zeros(adata.n_obs, dtype=np.int64)
    return pd.factorize(require_column(adata, batch_key, "batch_key"))[0].astype(np.int64)


def _compare(
    expression: Expression,
    tree: Tree,
    children: NDArray[np.int64],
    cells: list[NDArray[np.int64]],
    batch: NDArray[np.int64],
    genes: NDArray[np.object_],
    wanted: set[int],
    method: Method,
    min_cells: int,
    n_genes: int | None,
) -> dict[int, pd.DataFrame]:
    """Tables of the children of one node that are wanted and can be compared."""
    from scipy.stats import false_discovery_control, norm  # slow to import

    rows = np.concatenate(cells)
    child = np.repeat(np.arange(len(children)), [len(part) for part in cells])
    counted = [expression.expressed(part) for part in cells]
    total = np.sum(counted, axis=0)
    tested = np.flatnonzero(total >= min_cells)
    size = np.array([len(part) for part in cells])
    out: dict[int, pd.DataFrame] = {}
    if len(tested) == 0:
        return out
    weights = np.zeros(len(children))
    n_batches = np.zeros(len(children), dtype=np.int64)
    z, change, pval = np.zeros((3, len(children), len(tested)))
    for number in np.unique(batch[rows][batch[rows] >= 0]):
        here = batch[rows] == number
        held = np.bincount(child[here], minlength=len(children))
        able = (held >= min_cells) & (held.sum() - held >= min_cells)
        # scanpy wants two cells in each group
        here &= (held >= 2)[child]
        if not able.any():
            continue
        groups = pd.Categorical(child[here].astype(str), categories=[str(i) for i in np.flatnonzero(held >= 2)])
        part = rank_groups(expression, rows[here], groups, genes=tested, method=method)
        for i in np.flatnonzero(able):
            score, log2fc, p = ranked(part, str(i))
            weight = held[i] * (held.sum() - held[i]) / held.sum()
            z[i] += np.sqrt(weight) * score
            change[i] += weight * log2fc
            pval[i] = p
            weights[i] += weight
            n_batches[i] += 1
    for i in np.flatnonzero(n_batches > 0):
        if int(children[i]) not in wanted:
            continue
        score = z[i] / np.sqrt(weights[i])
        p = pval[i] if n_batches[i] == 1 else 2.0 * norm.sf(np.abs(score))
        best = np.argsort(-score, kind="stable")[:n_genes]
        table = {
            "node": tree.nodes[children[i]],
            "sibling": ", ".join(tree.nodes[other] for other in np.delete(children, i)),
            "gene": genes[tested[best]],
            "score": score[best],
            "log2fc": (change[i] / weights[i])[best],
            "pval": p[best],
            "pval_adj": false_discovery_control(p)[best],
            "fraction": counted[i][tested[best]] / size[i],
            "fraction_sibling": (total - counted[i])[tested[best]] / (size.sum() - size[i]),
            "n_cells": size[i],
            "n_batches": n_batches[i],
        }
        out[int(children[i])] = pd.DataFrame(table, columns=list(COLUMNS))
    return out
