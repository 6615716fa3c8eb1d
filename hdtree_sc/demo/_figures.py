"""The figures of the demo, each with its caption."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import hdtree_sc as ht
from hdtree_sc.pl import training_curves

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from anndata import AnnData

    from hdtree_sc.model import HDTree

DPI = 130
MAX_LEAVES = 30
"""The tree is cut to so many leaves where its labels are to be read at the width of a page."""


@dataclass(frozen=True)
class Figure:
    """One figure of the report.

    Parameters
    ----------
    name
        Name of its file, without suffix.
    alt
        What it shows, for those who cannot see it.
    caption
        How to read it.
    draw
        Draws it; returns Axes.
    """

    name: str
    alt: str
    caption: str
    draw: Callable[[AnnData, HDTree], Any]


FIGURES = (
    Figure(
        "lineage_tree",
        "The lineage, from progenitors on the left to neurons on the right",
        "The lineage. Cells stand at their pseudotime, beside the branch that they are on; branches are as wide as "
        "they have cells. Root, forks and ends are pies of the annotated types there, and ends are named by the most "
        "frequent one. Numbers say in how many of 100 bootstrap replicates a branch comes from where it is drawn.",
        lambda adata, _: ht.pl.lineage_tree(adata, title="Lineage", show=False),
    ),
    Figure(
        "tree_cell_type",
        "The tree with pies of cell types at its nodes",
        "The tree. A node is as large as it has cells, and its pie shows their annotated types; a leaf is named by its "
        "most frequent type and that type's share. Training saw neither types nor times. The axis is the dissimilarity "
        "at which the children of a node part, with its lower end drawn out (square root). "
        f"Cut to {MAX_LEAVES} leaves where there are more; the whole tree is at the end of this page.",
        lambda adata, _: ht.pl.tree(
            adata, color="cell_type", max_leaves=MAX_LEAVES, title="Annotated cell types", show=False
        ),
    ),
    Figure(
        "tree_time",
        "The same tree coloured by mean embryo time",
        "The same tree, coloured by the mean embryo time of the cells of each node (minutes).",
        lambda adata, _: ht.pl.tree(
            adata, color="time", groupby="cell_type", max_leaves=MAX_LEAVES, title="Embryo time", show=False
        ),
    ),
    Figure(
        "embedding_cell_type",
        "Map of the cells coloured by cell type with the tree on it",
        "The model's own two-dimensional map of the cells, by annotated type, with the tree on it. The map serves the "
        "eye only: the tree is learned in the latent, which has more dimensions.",
        lambda adata, _: ht.pl.tree_on_embedding(adata, color="cell_type", title="Annotated cell types", show=False),
    ),
    Figure(
        "embedding_pseudotime",
        "Map of the cells coloured by pseudotime with the lineage graph on it",
        "The map by pseudotime, with the lineage graph: leaves of the tree, joined where their cells are neighbours; "
        "the nearer two leaves are, the stronger is the line.",
        lambda adata, _: ht.pl.tree_on_embedding(
            adata, color="hdtree_pseudotime", edges="graph", title="Pseudotime", show=False
        ),
    ),
    Figure(
        "pseudotime_cell_type",
        "Distribution of pseudotime in each cell type, cells coloured by embryo time",
        "Pseudotime in each type, types ordered by their median; a dot is a cell, coloured by embryo time (minutes).",
        lambda adata, _: ht.pl.pseudotime(adata, groupby="cell_type", time_key="time", show=False),
    ),
    Figure(
        "pseudotime_time",
        "Pseudotime against embryo time",
        "Pseudotime against embryo time, over all cells.",
        lambda adata, _: ht.pl.pseudotime(adata, time_key="time", show=False),
    ),
    Figure(
        "lineage_path",
        "The lineage path on the map, and the cell types of its steps",
        "The way on the map, its steps numbered, and the types in each step. Cells away from it are grey.",
        lambda adata, _: ht.pl.lineage_path(adata, show=False),
    ),
    Figure(
        "training",
        "Loss curves of training and held-out cells",
        "The loss and its components per epoch, on training cells and, every tenth epoch, on held-out cells.",
        lambda _, model: ht.pl.training(model, keys=components(model), show=False),
    ),
    Figure(
        "tree_all_leaves",
        "The whole tree with pies of cell types at its nodes",
        "The whole tree, root at the left.",
        lambda adata, _: ht.pl.tree(adata, color="cell_type", orientation="left", title="", show=False),
    ),
)


def components(model: HDTree) -> list[str]:
    """Components of the loss that say something: scvi-tools also logs terms of variational models, zero here."""
    curves = training_curves(model.history)
    moved = [name for name, splits in curves.items() if any((values != 0).any() for values in splits.values())]
    return [name for name in moved if name != "elbo"]


def save_figures(adata: AnnData, model: HDTree, folder: Path) -> list[Path]:
    """Draw all figures into a folder as PNG files.

    Parameters
    ----------
    adata
        Cells with tree, graph, pseudotime and path.
    model
        The trained model.
    folder
        Where to; it exists.
    """
    import matplotlib.pyplot as plt

    paths = []
    for figure in FIGURES:
        before = set(plt.get_fignums())
        figure.draw(adata, model)
        (number,) = set(plt.get_fignums()) - before
        paths.append(folder / f"{figure.name}.png")
        drawn = plt.figure(number)
        drawn.savefig(paths[-1], dpi=DPI, bbox_inches="tight", facecolor="white")
        plt.close(drawn)
    return paths
