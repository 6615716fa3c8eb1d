"""HDTree with one thing changed at a time: what its defaults are worth.

``python -m benchmarks.ablation --data DIR --seeds 3`` writes ``ablation.csv``, ``ablation.md`` and ``ablation.png``.
Labels and their number never enter training; trees are cut afterwards.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from sklearn.neighbors import KNeighborsClassifier

import hdtree_sc as ht
from benchmarks import _hdtree, _measures, _report, _run, _variants
from benchmarks._cells import QUIET, NotApplicable
from benchmarks._run import Method

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from benchmarks._cells import Cells

SETS = (
    "celegans_amphid_embryo", "mouse_bladder_2100", "pbmc68k_reduced", "olsson16_myeloid", "guo10_blastocyst",
    "simulated_tree_e3", "mnist",
)  # fmt: skip
MOST_CELLS = 20_000
"""A larger set is cut down to so many cells, drawn once."""
MEASURES = ("DP", "NMI", "type accuracy", "rho", "rho within", "TNR", "CPU seconds")
HEAD = f"""# One change at a time

Made by `python -m benchmarks.ablation --data DIR`. Mean ± sd over seeds. The first row is HDTree as it comes, every
other row differs in what it says and in nothing else.
DP, NMI: dendrogram purity and normalised mutual information at as many leaves as there are labels. *Type accuracy*:
labels of the 10 % of cells that were left out of training for validation, told by their 15 nearest training cells in
the latent. *rho*, *rho within*: pseudotime from the medoid of the earliest cells with real time, overall and within
labels. TNR: share of a cell's 30 nearest neighbours that are of its time bin. CPU seconds are those of training and
tree; rows that only build the tree anew hold no training. MNIST is {MOST_CELLS:,} images.

*Tree-aware negatives* are not in the package; they are in `benchmarks/_variants.py`. They weigh negatives by how early
their way down the codebook parts from the cell's ({_variants.NEAREST} in the own leaf). *Hyperbolic distance*:
`metric="hyperbolic"`, latents as the tangent space of a Poincaré ball, in the contrastive loss alone.
"""


@dataclass(frozen=True)
class Change:
    """What is changed, and where.

    Parameters
    ----------
    model
        Options of the model.
    train
        Arguments of ``train``.
    plan
        Entries of ``plan_kwargs``.
    splitter
        Entries of ``datasplitter_kwargs``.
    epochs
        Factor of the default number of epochs.
    module
        A module in place of HDTree's.
    builder
        Builder of the tree of the default model, which is not trained anew.
    counts_only
        Whether it needs raw counts.
    """

    model: Mapping[str, Any] = field(default_factory=dict)
    train: Mapping[str, Any] = field(default_factory=dict)
    plan: Mapping[str, Any] = field(default_factory=dict)
    splitter: Mapping[str, Any] = field(default_factory=dict)
    epochs: float | None = None
    module: type | None = None
    builder: str | None = None
    counts_only: bool = False


CHANGES: dict[str, tuple[str, Change]] = {
    "default": ("HDTree", Change()),
    "latent8": ("8 latents (default 24)", Change({"n_latent": 8})),
    "latent64": ("64 latents", Change({"n_latent": 64})),
    "nu0.5": ("nu .5 (default .2)", Change({"nu": 0.5})),
    "nu1": ("nu 1", Change({"nu": 1.0})),
    "exaggeration0.5": ("exaggeration .5 (default 2)", Change({"exaggeration": 0.5})),
    "neighbors5": ("5 neighbours (default 15)", Change(train={"n_neighbors": 5})),
    "neighbors30": ("30 neighbours", Change(train={"n_neighbors": 30})),
    "unmixed": ("no mixing", Change(module=_variants.Unmixed)),
    "all-genes": ("encoder reads all genes (default 50 or 100 components)", Change(module=_variants.AllGenes)),
    "pcs30": ("encoder reads 30 components", Change({"n_input_pcs": 30})),
    "pcs100": ("encoder reads 100 components", Change({"n_input_pcs": 100})),
    "dropout": ("dropout .1 (default 0)", Change({"dropout_rate": 0.1})),
    "reconstruction0": ("no reconstruction (default .3)", Change(plan={"reconstruction_weight": 0.0})),
    "reconstruction1": ("reconstruction 1", Change(plan={"reconstruction_weight": 1.0})),
    "decode-all": ("every cell of a minibatch is decoded", Change(splitter={"decoded_share": 1.0})),
    "commitment0": ("no commitment (default .5)", Change(plan={"commitment_weight": 0.0})),
    "commitment2": ("commitment 2", Change(plan={"commitment_weight": 2.0})),
    "no-codebook": ("no codebook in training", Change(plan={"warmup": 1.0})),
    "tree-negatives": ("tree-aware negatives", Change(module=_variants.TreeNegatives)),
    "hyperbolic": ("hyperbolic distance", Change({"metric": "hyperbolic"})),
    "information": ("builder: information", Change(builder="information")),
    "links": ("builder: links", Change(builder="links")),
    "ward": ("builder: ward", Change(builder="ward")),
    "bisecting": ("builder: bisecting", Change(builder="bisecting")),
    "epochs2": ("epochs x 2", Change(epochs=2.0)),
    "epochs0.5": ("epochs x 1/2", Change(epochs=0.5)),
    "zinb": ("likelihood: zinb", Change({"gene_likelihood": "zinb"}, counts_only=True)),
    "large": ("network 512 x 3", Change({"n_hidden": 512, "n_layers": 3})),
}
"""Rows by their names on the command line."""


def few(cells: Cells) -> Cells:
    """The cells, or 20,000 of them."""
    if cells.adata.n_obs > MOST_CELLS:
        rows = np.sort(np.random.default_rng(0).permutation(cells.adata.n_obs)[:MOST_CELLS])
        cells.__dict__["adata"] = cells.adata[rows].copy()
    return cells


def trained(cells: Cells, change: Change, **train: Any) -> ht.HDTree:
    """A model with one change.

    Parameters
    ----------
    cells
        Cells.
    change
        The change.
    **train
        Further arguments of ``train``.
    """
    import scvi

    scvi.settings.seed = cells.seed
    adata = cells.adata.copy()
    model_cls = _variants.model_of(change.module) if change.module else ht.HDTree
    model_cls.setup_anndata(adata)
    model = model_cls(adata, **{"gene_likelihood": cells.data.likelihood, **change.model})
    model.train(
        plan_kwargs=dict(change.plan), datasplitter_kwargs=dict(change.splitter), **change.train, **train, **QUIET
    )
    return model


@lru_cache(maxsize=1)
def default(cells: Cells) -> tuple[ht.HDTree, dict[str, float]]:
    """The model without a change, and what it took: trained once for a data set and seed."""
    with _measures.Step() as step:
        model = trained(cells, Change())
    return model, step.cost


def changed(change: Change) -> Callable[[Cells], dict[str, float]]:
    """Measures with one change."""

    def measured(cells: Cells) -> dict[str, float]:
        cells = few(cells)
        if change.counts_only and not cells.data.counts:
            msg = "needs raw counts"
            raise NotApplicable(msg)
        if change == Change():
            model, cost = default(cells)
            model.build_tree()
            return scores(model, cells) | cost
        if change.builder:
            model, _ = default(cells)
            with _measures.Step() as step:
                model.build_tree(change.builder)
            return scores(model, cells) | step.cost
        train = {}
        if change.epochs:
            train["max_epochs"] = max(1, round(change.epochs * default(cells)[0].trainer.max_epochs))
        with _measures.Step() as step:
            model = trained(cells, change, **train)
        return scores(model, cells) | step.cost

    return measured


def scores(model: ht.HDTree, cells: Cells) -> dict[str, float]:
    """All measures of a model.

    Parameters
    ----------
    model
        Trained.
    cells
        What it was trained on.
    """
    adata = model.adata
    ht.tl.tree(adata, model)
    tree, leaf = _hdtree.at_k_leaves(adata, cells.n_labels)
    found = _measures.tree_measures(tree, leaf, cells.labels)
    latent, fitted, held_out = adata.obsm["X_hdtree"], model.train_indices, model.validation_indices
    classifier = KNeighborsClassifier(_measures.K_NEIGHBORS).fit(latent[fitted], cells.labels[fitted])
    found["type accuracy"] = classifier.score(latent[held_out], cells.labels[held_out])
    if cells.data.time:
        ht.tl.lineage_graph(adata)
        ht.tl.pseudotime(adata, root=str(adata.obs_names[cells.root]))
        order = adata.obs["hdtree_pseudotime"].to_numpy(float)
        found |= _measures.order_measures(order, cells.time, cells.labels)
    if cells.data.bins:
        found["TNR"] = ht.metrics.time_neighborhood_ratio(latent, cells.bins)
    return found


def summary(rows: Sequence[dict[str, Any]]) -> str:
    """Differences from the default, averaged over data sets, as a markdown table."""
    shown = [measure for measure in MEASURES if measure != "CPU seconds"]
    frame = pd.DataFrame(rows).reindex(columns=["data", "method", *shown])
    means = frame.groupby(["data", "method"], sort=False)[shown].mean()
    if "default" not in means.index.get_level_values("method"):
        return ""
    apart = means - means.xs("default", level="method")
    lines = [f"| change | {' | '.join(shown)} | data sets |", f"|{'---|' * (len(shown) + 2)}"]
    for name, group in apart.groupby("method", sort=False):
        if name != "default":
            told = [f"{value:+.3f}" if np.isfinite(value) else "" for value in group[shown].mean()]
            lines.append(f"| {CHANGES[name][0]} | {' | '.join(told)} | {group['DP'].notna().sum()} |")
    return "## Difference from the defaults, mean over data sets\n\n" + "\n".join(lines)


METHODS = {key: Method(name, changed(change), "ours") for key, (name, change) in CHANGES.items()}


def main() -> None:
    """Run what is missing and write the tables."""
    parser = _run.parser(__doc__.splitlines()[0], SETS, METHODS)
    parser.set_defaults(seeds=3)
    arguments = parser.parse_args()
    rows = _run.run("ablation", METHODS, arguments)
    _report.write(
        "ablation", rows, METHODS, arguments.out, head=f"{HEAD}\n{summary(rows)}",
        tables={"all": ("## Each data set", MEASURES)}, figure=("all", ("DP", "NMI")),
    )  # fmt: skip


if __name__ == "__main__":
    main()
