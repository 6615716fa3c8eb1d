"""Branched diffusion against label-conditioned diffusion and plain ways: new cells, ways between types, a type more.

``python -m benchmarks.branched --data DIR`` writes ``branched.csv``, ``branched.md`` and ``branched.png``.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.stats import ttest_1samp

from benchmarks import _branched, _report, _run, _transmutation
from benchmarks._run import REASON, Method

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd

SETS = ("celegans_amphid_embryo", "mouse_bladder_2100", "pbmc68k_reduced", "letters", "mnist")
EXTENDED = ("celegans_amphid_embryo", "mouse_bladder_2100", "letters")
PREFIX, TRANSMUTATION, EXTENSION = "prefix", "transmutation", "extension"
SCORES = ("hit", "worst hit", "Frechet", "MMD2 x 1000", "CPU seconds")
HEAD = f"""# Branched diffusion

Made by `python -m benchmarks.branched --data DIR`. Mean ± sd over seeds.

Everything is fitted on a random half of the cells (drawn by the seed; 2,000 most variable genes, at most
{_branched.MOST_FITTED:,} cells) and compared with the other half, class by class, for classes with at least
{_branched.LEAST} cells in both. *Hit*: share of the cells made of a class that a random forest fitted on the held-out
half takes for it, mean over classes. *Frechet* and *MMD²* of each class in {_branched.N_AXES} principal components,
mean over classes. A maker is as good as its row is near that of *real cells*, which are fitted ones.

*Label-conditioned* has the autoencoder, network, training and sampler of branched diffusion; it is told the label at
every noise level and nothing of a tree. *Unconditional and classifier*: of three unconditional cells for each wanted
one, those of which a random forest fitted on fitted cells is most certain. *Genes by moments*: each gene by itself,
negative binomial (normal without counts) with the mean and variance it has in the class. *scVI*: a normal distribution
in its latent with the moments of the class, decoded. No best is marked: a hit rate above that of real cells is that of
cells that are too typical.
"""
TABLES: dict[str, tuple[str, Sequence[str]]] = {
    "all": ("## New cells of known types", SCORES),
    PREFIX: (
        "## Several types at once\n\n*Network calls* for one cell of each class, with and without the shared noisy "
        "part of the way, at 50 steps and guidance 1.5.",
        ("network calls", *SCORES),
    ),
    TRANSMUTATION: (
        "## From type to type\n\nFitted cells between the four largest classes, mean over ordered pairs; measures as "
        "in [new cells](generation.md). *SDEdit*: up to the same noise as the branched model, and down under the "
        "label.",
        _transmutation.MEASURES,
    ),
    EXTENSION: (
        "## A type more\n\nA class is left out of training and comes later; *near* parts last from another class, "
        "*far* first. *Trained with it*: it was there from the beginning. *Replay*: a new model of cells that the old "
        "one made and of the new ones. *Change of others*: largest difference in 50 cells made of another class before "
        "and after.",
        (
            *(f"{which}: {measure}" for which in ("near", "far")
              for measure in ("hit", "Frechet", "MMD2 x 1000", "change of others")),
            "CPU seconds",
        ),
    ),
}  # fmt: skip
METHODS = {
    "floor": Method("real cells", _branched.plain(_branched.real), "reference"),
    "branched": Method("branched, guidance 1.5", _branched.by_model("branched", 1.5), "ours"),
    "branched-1": Method("branched, no guidance", _branched.by_model("branched", 1.0), "ours"),
    "heads": Method("branched, one head each, guidance 1.5", _branched.by_model("heads", 1.5), "ours"),
    "label": Method("label-conditioned, guidance 1.5", _branched.by_model("label", 1.5)),
    "label-1": Method("label-conditioned, no guidance", _branched.by_model("label", 1.0)),
    "classifier": Method("unconditional and classifier", _branched.by_classifier),
    "moments": Method("genes by moments", _branched.plain(_branched.moments)),
    "scvi": Method("scVI, class by class", _branched.scvi_by_class),
    "shared": Method("shared", _branched.prefixes(shared=True), "ours", PREFIX),
    "unshared": Method("each by itself", _branched.prefixes(shared=False), "ours", PREFIX),
    "ode": Method("branched, ode", _branched.transmuted("branched", mode="ode"), "ours", TRANSMUTATION),
    "sde": Method("branched, sde", _branched.transmuted("branched", mode="sde"), "ours", TRANSMUTATION),
    "sde-plain": Method(
        "branched, sde, not aligned", _branched.transmuted("branched", mode="sde", align=False), "ours", TRANSMUTATION
    ),
    "sdedit": Method(
        "label-conditioned, SDEdit", _branched.transmuted("label", mode="sde", align=False), table=TRANSMUTATION
    ),
    "class-floor": Method("real cells", _branched.extended("real"), "reference", EXTENSION),
    "added": Method("add_class", _branched.extended("added"), "ours", EXTENSION),
    "joint": Method("trained with it", _branched.extended("joint"), "ours", EXTENSION),
    "replay": Method("replay", _branched.extended("replay"), "ours", EXTENSION),
}
"""Rows by their names on the command line."""
LEAST_PAIRED = 3
"""Fewest seeds of which a difference is tested."""


def run(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Rows of all tables, each on its data sets."""
    rows = []
    for table in TABLES:
        sets = [name for name in arguments.sets if table != EXTENSION or name in EXTENDED]
        methods = [key for key in arguments.methods if METHODS[key].table == table]
        if sets and methods:
            given = {**vars(arguments), "sets": sets, "methods": methods}
            rows += _run.run("branched", METHODS, argparse.Namespace(**given))
    return rows


def verdict(frame: pd.DataFrame) -> str:
    """Branched against label-conditioned at the same guidance, paired by seed: who is ahead, or a tie."""
    lines = [
        "| data | measure | branched | label-conditioned | difference | seeds | |",
        "|---|---|---|---|---|---|---|",
    ]
    for data, group in frame[frame[REASON].isna()].groupby("data", sort=False):
        for guidance in ("guidance 1.5", "no guidance"):
            ours, theirs = (
                group[group["method"] == f"{name}, {guidance}"].set_index("seed")
                for name in ("branched", "label-conditioned")
            )
            for measure, sign in (("hit", 1), ("Frechet", -1)):
                both = ours[[measure]].join(theirs[[measure]], lsuffix=" ours", how="inner").to_numpy()
                if not len(both):
                    continue
                gap = sign * (both[:, 0] - both[:, 1])
                said = "too few seeds"
                if len(gap) >= LEAST_PAIRED:
                    sure = ttest_1samp(gap, 0).pvalue < 0.05
                    said = ("branched" if gap.mean() > 0 else "label-conditioned") if sure else "tie"
                mean = both.mean(0)
                lines.append(
                    f"| {data}, {guidance} | {measure} | {mean[0]:.3f} | {mean[1]:.3f} | "
                    f"{np.mean(both[:, 0] - both[:, 1]):+.3f} | {len(gap)} | {said} |"
                )
    return (
        "### Does the tree help?\n\nPaired by seed; *tie* where a t-test of the differences gives p ≥ .05.\n\n"
        + "\n".join(lines)
    )


def write(rows: Sequence[Mapping[str, Any]], arguments: argparse.Namespace) -> None:
    """Write the tables and the figure."""
    tables = dict(TABLES)
    if rows:
        frame = _report.table(rows, METHODS)
        text, measures = tables[PREFIX]
        tables[PREFIX] = (f"{verdict(frame[frame['table'] == 'all'])}\n\n{text}", measures)
    _report.write(
        "branched",
        rows,
        METHODS,
        arguments.out,
        head=HEAD,
        tables=tables,
        figure=("all", ("hit", "worst hit")),
        mark_best=False,
    )


def main() -> None:
    """Run what is missing and write the tables."""
    arguments = _run.parser(__doc__.splitlines()[0], SETS, METHODS).parse_args()
    write(run(arguments), arguments)


if __name__ == "__main__":
    main()
