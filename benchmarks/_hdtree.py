"""HDTree as the benchmarks use it: trained with its defaults, annotated, cut; kept on disk until its code changes."""

from __future__ import annotations

import ast
import hashlib
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anndata as ad
import numpy as np

import hdtree_sc as ht
from benchmarks import _measures
from benchmarks._cells import QUIET

if TYPE_CHECKING:
    from anndata import AnnData
    from numpy.typing import NDArray

    from benchmarks._cells import Cells
    from benchmarks._clusters import Clustered

CODE = (
    *(f"{folder}/*.py" for folder in ("data", "graph", "model", "module", "nn", "train", "tree")),
    *(f"tl/_{tool}.py" for tool in ("tree", "cut*", "lineage_graph", "lineage_tree", "ends", "pseudotime", "root")),
)
"""Files of the package that decide what a trained model, its tree and its order are."""


@cache
def fingerprint() -> str:
    """A short name of the package's code without comments and docstrings: another one, other results."""
    source = Path(ht.__file__).parent
    files = sorted(file for pattern in CODE for file in source.glob(pattern))
    text = "\n".join(ast.dump(_Bare().visit(ast.parse(file.read_text()))) for file in files)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


class _Bare(ast.NodeTransformer):
    """Takes texts out that stand by themselves."""

    def visit_Expr(self, node: ast.Expr) -> ast.Expr | None:
        return None if isinstance(node.value, ast.Constant) else node


def train(adata: AnnData, likelihood: str, seed: int, **model_kwargs: Any) -> ht.HDTree:
    """A model trained as a user would: no labels, no number of classes, no options.

    Parameters
    ----------
    adata
        Cells.
    likelihood
        ``gene_likelihood``.
    seed
        Seed.
    **model_kwargs
        Options of the model, for measurements of options.
    """
    import scvi

    scvi.settings.seed = seed
    ht.HDTree.setup_anndata(adata)
    model = ht.HDTree(adata, gene_likelihood=likelihood, **model_kwargs)
    model.train(**QUIET)
    return model


def at_k_leaves(adata: AnnData, n_leaves: int, key: str = "hdtree") -> Clustered:
    """The tree that `ht.tl.tree` wrote, and the node of each cell at a number of leaves.

    The one place that knows how a model's tree is cut. The tree comes whole: what lies below the cut holds no cell, so
    no measure sees it.

    Parameters
    ----------
    adata
        Cells on a tree.
    n_leaves
        Leaves wanted; less if the tree has less.
    key
        Key of the tree.
    """
    tree = ht.Tree.from_adata(adata, key)
    n_leaves = min(n_leaves, len(tree.leaves))
    ht.tl.cut_tree(adata, n_leaves=n_leaves, key=key)
    return tree, adata.obs[f"{key}_cut"].astype(str).to_numpy(object)


def annotated(cells: Cells) -> AnnData:
    """All cells on the tree of a model that was trained on all; ``uns["cost"]`` is what it took."""

    def fit() -> AnnData:
        adata = cells.adata.copy()
        with _measures.Step() as step:
            ht.tl.tree(adata, train(adata, cells.data.likelihood, cells.seed))
        return _light(adata, step.cost)

    return _kept(cells, "all", fit)


def held_out(cells: Cells) -> AnnData:
    """All cells on the tree of a model that was trained on the kept cells; the others are placed as a query.

    ``obs["cut"]`` is the node of each cell at as many leaves as there are labels.
    """

    def fit() -> AnnData:
        adata, known = cells.adata.copy(), cells.kept
        fitted, query = adata[known].copy(), adata[~known].copy()
        with _measures.Step() as step:
            model = train(fitted, cells.data.likelihood, cells.seed)
            ht.tl.tree(fitted, model)
            ht.tl.tree(query, ht.HDTree.load_query_data(query, model))
        # the tree and its cut are those of the kept cells
        tree, cut = at_k_leaves(fitted, cells.n_labels)
        fitted.obs["cut"] = cut
        query.obs["cut"] = follow(tree, set(cut), query.obs["hdtree_leaf"].astype(str).to_numpy())
        both = ad.concat([fitted, query])[adata.obs_names].copy()
        both.uns["hdtree"] = fitted.uns["hdtree"]
        return _light(both, step.cost)

    return _kept(cells, "held_out", fit)


def follow(tree: ht.Tree, cut: set[str], leaf: NDArray[np.object_]) -> NDArray[np.object_]:
    """Node of a cut that is at or above each leaf; a leaf that no node of the cut holds stays itself.

    Parameters
    ----------
    tree
        The tree.
    cut
        Names of the nodes of the cut.
    leaf
        ``(n,)`` names of leaves.
    """
    holder = {name: next((node for node in (*tree.path(name), tree.root) if node in cut), name) for name in set(leaf)}
    return np.array([holder[name] for name in leaf], dtype=object)


def _light(adata: AnnData, cost: dict[str, float]) -> AnnData:
    """What the annotation wrote, without the values."""
    return ad.AnnData(obs=adata.obs, obsm=dict(adata.obsm), uns={**adata.uns, "cost": cost})


def _kept(cells: Cells, what: str, fit: Any) -> AnnData:
    """Read a result that is there, or make and write it."""
    file = cells.cache / "hdtree" / f"{cells.data.name}-{cells.seed}-{what}-{fingerprint()}.h5ad"
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        fit().write_h5ad(file)
    return ad.read_h5ad(file)
