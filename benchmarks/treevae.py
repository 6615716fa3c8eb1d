"""TreeVAE beside HDTree and plain clusterings: its trees, what it generates with and without diffusion, and MNIST.

``python -m benchmarks.treevae --data DIR --seeds 5`` writes ``treevae.csv``, ``treevae.md`` and ``treevae.png``. Labels
and their number never enter the training of cells; on MNIST the tree is grown to ten leaves, as published.
"""

from __future__ import annotations

import shutil
from copy import copy
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt
import numpy as np

import hdtree_sc as ht
from benchmarks import _data, _hdtree, _measures, _report, _run, mnist, trees
from benchmarks._cells import QUIET, NotApplicable
from benchmarks._generators import floor
from benchmarks._halves import APART, REALISM, halves
from benchmarks._run import Method

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from anndata import AnnData

    from benchmarks._cells import Cells

KEY = "treevae"
GENERATED, IMAGES = "generated cells", "MNIST"
PICTURE = "treevae_digits.png"
LIKELIHOOD_IMAGES, LIKELIHOOD_SAMPLES = 500, 200
"""Test images and samples of each for the importance-weighted likelihood."""
HALVED_IMAGES = 20_000
"""Random images of which halves are taken."""
TREES = ("DP", "NMI", "LP", "ACC", "leaves", "CPU seconds", "peak MB")
DIGITS = ("leaves", "ACC", "NMI", "DP", "LP", "LL", "RL", "CPU seconds", "peak MB")
HEAD = """# TreeVAE

Made by `python -m benchmarks.treevae --data DIR`. Mean ± sd over seeds; the best peer of each column is in bold.
*Trees*: all cells, cut at K leaves, K being the number of labels, which no training knows; the measures are those of
[trees](trees.md). *Generated cells*: fitted on a random half, compared with the other half in 30 components of the
fitted half, and in components of other cells; see [generation](generation.md). Of MNIST 20,000 images are halved.
*As published*: the root's latent is standard normal, the leaf drawn by the routers, the counts from the leaf's decoder.
*From the cells' roots*: the root's latent is drawn from where the cells of a leaf have theirs. *Path* and
*reconstruction*: with the second stage.
*MNIST*: fitted on 60,000 training images, grown to ten leaves or to 20, scored on the 10,000 official test images; LL
by 200 importance samples for 500 test images, RL the expected negative log likelihood, both in nats. TreeVAE reads
images by convolutions, unless it is said to have plain features. Published numbers are those of TreeVAE's paper, for
ten leaves but DP and LP (up to 20).
"""
SHOWN = (
    "*Images that every leaf (a column) makes of the same sample of the root (a row), fitted on some 10,000 images.*"
)
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


def only(run: Callable[[Cells], Any], *, images: bool) -> Callable[[Cells], Any]:
    """A row of MNIST alone, or of the sets of cells alone."""

    def checked(cells: Cells) -> Any:
        if (cells.data.name == "mnist") != images:
            msg = "a row of MNIST." if images else "MNIST has a table of its own."
            raise NotApplicable(msg)
        return run(cells)

    return checked


of_cells, of_mnist = partial(only, images=False), partial(only, images=True)


@lru_cache(maxsize=1)
def to_halve(cells: Cells) -> Cells:
    """The cells, of images some."""
    if cells.data.name != "mnist":
        return cells
    rows = np.random.default_rng(cells.seed).permutation(cells.adata.n_obs)[:HALVED_IMAGES]
    some = copy(cells)
    some.adata, some.labels = cells.adata[rows].copy(), cells.labels[rows]
    return some


@lru_cache(maxsize=1)
def on_half(cells: Cells) -> tuple[ht.TreeVAE, dict[str, float]]:
    """A model of the fitted half, and what it cost."""
    fitted = halves(to_halve(cells)).fit.copy()
    with _measures.Step() as step:
        model = trained(fitted, cells)
    return model, step.cost


def generated(condition: str | None, root: str = "cells") -> Callable[[Cells], dict[str, float]]:
    """Cells of the second stage under a condition, or of the leaves' decoders without one."""

    def run(cells: Cells) -> dict[str, float]:
        model, cost = on_half(cells)
        half = halves(to_halve(cells))
        with _measures.Step() as step:
            if condition is not None or model.module.diffusion is None:
                model.train_diffusion(condition=condition or "path", **QUIET)
            new = model.generate(half.n, seed=cells.seed, refine=condition is not None, root=root)
        if condition == "path" and cells.data.name == "mnist" and not cells.seed:
            draw_leaves(model, cells.cache / PICTURE)
        return half.scores(_data.dense(new.X)) | _measures.total_cost(cost, step.cost)

    return run


def draw_leaves(model: ht.TreeVAE, file: Path, n_samples: int = 6) -> None:
    """Draw images that every leaf makes of the same samples of the root, without and with the second stage."""
    height, width = model.module.image_shape
    leaves = model.get_tree().leaves
    # as high as two sheets of square images are on nine inches, and room for names
    tall = 2 * (9.0 * n_samples / len(leaves) + 1.9)
    figure, axes = plt.subplots(2, 1, figsize=(10, tall), layout="constrained")
    for axis, refine in zip(axes, (False, True), strict=True):
        made = model.generate(n_samples, per_leaf=True, seed=0, refine=refine)
        sheet = _data.dense(made.X).reshape(n_samples, len(leaves), height, width).swapaxes(1, 2)
        axis.imshow(sheet.reshape(n_samples * height, -1), cmap="gray_r", vmin=0, vmax=1)
        axis.set_xticks((np.arange(len(leaves)) + 0.5) * width, leaves, rotation=90, fontsize=8)
        axis.set_yticks((np.arange(n_samples) + 0.5) * height, np.arange(1, n_samples + 1), fontsize=8)
        axis.set(xlabel="leaf", ylabel="sample of the root", title="with diffusion" if refine else "without")
        axis.tick_params(length=0)
        axis.spines[:].set_visible(False)
    figure.savefig(file, dpi=130)
    plt.close(figure)


def half_itself(cells: Cells) -> dict[str, float]:
    """Real cells of the fitted half."""
    return floor(to_halve(cells))


def digits(cells: Cells, max_leaves: int = 10, **model_kwargs: Any) -> dict[str, float]:
    """TreeVAE on the official split of MNIST, grown to some leaves."""
    train, test = mnist.parts(cells)
    fitted, query = cells.adata[train].copy(), cells.adata[test].copy()
    with _measures.Step() as step:
        model = trained(fitted, cells, max_leaves=max_leaves, **model_kwargs)
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
    "published-root": Method("TreeVAE, as published", generated(None, "normal"), "ours", GENERATED),
    "cell-root": Method("TreeVAE, from the cells' roots", generated(None), "ours", GENERATED),
    "path": Method("with diffusion, path", generated("path"), "ours", GENERATED),
    "reconstruction": Method("with diffusion, reconstruction", generated("reconstruction"), "ours", GENERATED),
    "floor": Method("real cells of the fitted half", half_itself, "reference", GENERATED),
    "mnist": Method("TreeVAE", of_mnist(digits), "ours", IMAGES),
    "mnist-20": Method("TreeVAE, 20 leaves", of_mnist(partial(digits, max_leaves=20)), "ours", IMAGES),
    "mnist-plain": Method("TreeVAE, plain features", of_mnist(partial(digits, image_shape=None)), "ours", IMAGES),
    "mnist-hdtree": Method("HDTree", of_mnist(mnist.hdtree), "ours", IMAGES),
    "mnist-published": Method("TreeVAE's paper", published, "published", IMAGES),
}
"""Rows by their names on the command line."""
SETS = ("celegans_amphid_embryo", "mouse_bladder_2100", "pbmc68k_reduced", "mnist")


def main() -> None:
    """Run what is missing and write the tables."""
    arguments = _run.parser(__doc__.splitlines()[0], SETS, METHODS).parse_args()
    rows = _run.run("treevae", METHODS, arguments)
    tables = dict(TABLES)
    if (drawn := arguments.cache / PICTURE).exists():
        arguments.out.mkdir(parents=True, exist_ok=True)
        shutil.copy(drawn, arguments.out / PICTURE)
        text, measures = TABLES[IMAGES]
        tables[IMAGES] = (f"{text}\n\n![digits]({PICTURE})\n\n{SHOWN}", measures)
    _report.write("treevae", rows, METHODS, arguments.out, head=HEAD, tables=tables, figure=("all", ("DP", "NMI")))


if __name__ == "__main__":
    main()
