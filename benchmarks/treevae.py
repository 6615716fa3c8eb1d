"""TreeVAE beside HDTree and plain clusterings: its trees, what it generates with and without diffusion, and MNIST.

``python -m benchmarks.treevae --data DIR --seeds 5`` writes ``treevae.csv``, ``treevae.md`` and ``treevae.png``. Labels
and their number never enter the training of cells; on MNIST the tree is grown to ten leaves, as published.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

import hdtree_sc as ht
from benchmarks import _data, _hdtree, _measures, _report, _run, mnist, trees
from benchmarks._cells import QUIET, NotApplicable
from benchmarks._generators import floor
from benchmarks._halves import APART, REALISM, halves
from benchmarks._run import Method

if TYPE_CHECKING:
    from collections.abc import Callable

    from anndata import AnnData

    from benchmarks._cells import Cells

KEY = "treevae"
GENERATED, IMAGES = "generated cells", "MNIST"
LIKELIHOOD_IMAGES, LIKELIHOOD_SAMPLES = 500, 200
"""Test images and samples of each for the importance-weighted likelihood."""
TREES = ("DP", "NMI", "LP", "ACC", "leaves", "CPU seconds", "peak MB")
DIGITS = ("ACC", "NMI", "DP", "LP", "LL", "RL", "seconds", "peak MB")
HEAD = """# TreeVAE

Made by `python -m benchmarks.treevae --data DIR`. Mean ± sd over seeds; the best peer of each column is in bold.
*Trees*: all cells, cut at K leaves, K being the number of labels, which no training knows; the measures are those of
[trees](trees.md). *Generated cells*: fitted on a random half, compared with the other half in 30 components of the
fitted half, and in components of other cells; see [generation](generation.md). *As published*: the root's latent is
standard normal, the leaf drawn by the routers, the counts from the leaf's decoder. *From the cells' roots*: the root's
latent is drawn from where the cells of a leaf have theirs. *Path* and *reconstruction*: with the second stage.
*MNIST*: fitted on 60,000 training images, grown to ten leaves, scored on the 10,000 official test images; LL by 200
importance samples for 500 test images, RL the expected negative log likelihood, both in nats. Published numbers are
those of TreeVAE's paper, for ten leaves but DP and LP (up to 20).
"""
TABLES = {
    "all": ("## Trees", TREES),
    GENERATED: ("## Generated cells", (*REALISM, *APART, "CPU seconds", "peak MB")),
    IMAGES: ("## MNIST", DIGITS),
}


def trained(adata: AnnData, cells: Cells, **model_kwargs: Any) -> ht.TreeVAE:
    """TreeVAE as it comes."""
    import scvi

    scvi.settings.seed = cells.seed
    ht.TreeVAE.setup_anndata(adata)
    model = ht.TreeVAE(adata, gene_likelihood=cells.data.likelihood, **model_kwargs)
    model.train(**QUIET)
    return model


def treevae(cells: Cells) -> dict[str, float]:
    """TreeVAE's tree, at K leaves."""
    adata = cells.adata.copy()
    with _measures.Step() as step:
        ht.tl.tree(adata, trained(adata, cells))
    tree, leaf = _hdtree.at_k_leaves(adata, cells.n_labels, KEY)
    return _measures.tree_measures(tree, leaf, cells.labels) | step.cost


def of_cells(run: Callable[[Cells], Any]) -> Callable[[Cells], Any]:
    """A row of the sets of cells alone."""

    def checked(cells: Cells) -> Any:
        if cells.data.name == "mnist":
            msg = "MNIST has a table of its own."
            raise NotApplicable(msg)
        return run(cells)

    return checked


@lru_cache(maxsize=1)
def on_half(cells: Cells) -> tuple[ht.TreeVAE, dict[str, float]]:
    """A model of the fitted half, and what it cost."""
    fitted = halves(cells).fit.copy()
    with _measures.Step() as step:
        model = trained(fitted, cells)
    return model, step.cost


def generated(condition: str | None, root: str = "cells") -> Callable[[Cells], dict[str, float]]:
    """Cells of the second stage under a condition, or of the leaves' decoders without one."""

    def run(cells: Cells) -> dict[str, float]:
        model, cost = on_half(cells)
        with _measures.Step() as step:
            if condition is not None or model.module.diffusion is None:
                model.train_diffusion(condition=condition or "path", **QUIET)
            new = model.generate(halves(cells).n, seed=cells.seed, refine=condition is not None, root=root)
        return halves(cells).scores(_data.dense(new.X)) | _measures.total_cost(cost, step.cost)

    return run


def digits(cells: Cells) -> dict[str, float]:
    """TreeVAE on the official split of MNIST, grown to ten leaves."""
    if cells.data.name != "mnist":
        msg = "a row of MNIST."
        raise NotApplicable(msg)
    train, test = mnist.parts(cells)
    fitted, query = cells.adata[train].copy(), cells.adata[test].copy()
    with _measures.Step() as step:
        model = trained(fitted, cells, max_leaves=10)
    placed = ht.TreeVAE.load_query_data(query, model)
    ht.tl.tree(query, placed)
    leaf = query.obs[f"{KEY}_leaf"].astype(str).to_numpy(object)
    some = np.random.default_rng(cells.seed).choice(len(test), LIKELIHOOD_IMAGES, replace=False)
    told = {
        "LL": placed.get_marginal_ll(indices=some, n_mc_samples=LIKELIHOOD_SAMPLES),
        "RL": float(placed.get_reconstruction_error()["reconstruction_loss"]),
    }
    return _measures.tree_measures(ht.Tree.from_adata(query, KEY), leaf, cells.labels[test]) | step.cost | told


def published(cells: Cells) -> dict[str, float]:
    """What TreeVAE's paper has."""
    if cells.data.name != "mnist" or cells.seed:
        msg = "published for MNIST."
        raise NotApplicable(msg)
    return {"ACC": 0.902, "NMI": 0.900, "DP": 0.879, "LP": 0.960, "LL": -92.9, "RL": 80.3}


METHODS = {
    "treevae": Method("TreeVAE", of_cells(treevae), "ours"),
    "hdtree": Method("HDTree", of_cells(trees.hdtree), "ours"),
    "scvi-ward": Method("scVI + Ward", of_cells(trees.METHODS["scvi-ward"].run)),
    "pca-ward": Method("PCA + Ward", of_cells(trees.METHODS["pca-ward"].run)),
    "published-root": Method("TreeVAE, as published", of_cells(generated(None, "normal")), "ours", GENERATED),
    "cell-root": Method("TreeVAE, from the cells' roots", of_cells(generated(None)), "ours", GENERATED),
    "path": Method("with diffusion, path", of_cells(generated("path")), "ours", GENERATED),
    "reconstruction": Method(
        "with diffusion, reconstruction", of_cells(generated("reconstruction")), "ours", GENERATED
    ),
    "floor": Method("real cells of the fitted half", of_cells(floor), "reference", GENERATED),
    "mnist": Method("TreeVAE", digits, "ours", IMAGES),
    "mnist-published": Method("TreeVAE's paper", published, "published", IMAGES),
}
"""Rows by their names on the command line."""
SETS = ("celegans_amphid_embryo", "mouse_bladder_2100", "pbmc68k_reduced", "mnist")


def main() -> None:
    """Run what is missing and write the tables."""
    arguments = _run.parser(__doc__.splitlines()[0], SETS, METHODS).parse_args()
    rows = _run.run("treevae", METHODS, arguments)
    _report.write("treevae", rows, METHODS, arguments.out, head=HEAD, tables=TABLES, figure=("all", ("DP", "NMI")))


if __name__ == "__main__":
    main()
