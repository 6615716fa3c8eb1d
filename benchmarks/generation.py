"""New cells against real ones: HDTree's generator, scVI and plain ways to make cells of cells.

``python -m benchmarks.generation --data DIR --seeds 5`` writes ``generation.csv``, ``generation.md``,
``generation.png`` and, of every pair of types, ``generation_pairs.csv``.
"""

from __future__ import annotations

import argparse
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from benchmarks import _data, _generators, _kept, _measures, _report, _run, _transmutation, _withheld
from benchmarks._cells import N_PCS
from benchmarks._halves import APART, MOST, NEARER, REALISM, halves
from benchmarks._run import Method
from hdtree_sc import metrics

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from benchmarks._cells import Cells
    from benchmarks._halves import Halves
    from hdtree_sc.diffusion import Method as Sampler

SETS = ("celegans_amphid_embryo", "mouse_bladder_2100", "pbmc68k_reduced", "letters")
ALL_SETS = tuple(dict.fromkeys([*SETS, *_withheld.CASES]))
STEPS, TRANSMUTATION, WITHHELD = "steps", "transmutation", "withheld"
LEAST_TIMED = 2000
"""Fewest cells that are timed."""
HEAD = f"""# New cells

Made by `python -m benchmarks.generation --data DIR`. Mean ± sd over seeds.

Everything is fitted on a random half of the cells (drawn by the seed) with the 2,000 most variable genes, chosen once
over all cells, and compared with the other half, as many cells of each, at most {MOST:,}. No best is marked: a
generator is as good as its row is near that of *real cells*, which are those of the fitted half.

Frechet distance, MMD² and the area under the curve of a random forest that tells real from generated cells (.5 if it
cannot) are taken in {N_PCS} components of log-normalised values, or of the values as they are where these are no
counts. *The first three columns* are in components of the fitted half. These hold its noise: its own cells stand out in
them, so that even real cells are far from 0 and .5, and cells that repeat fitted ones are misjudged. *Other PCs*:
components of fitted cells that are not compared (`metrics.compare_cells`), with half as many cells, which makes
distances larger; compare within a column only. *Correlation error*: of the 200 most variable genes. *Zero error*: mean
difference of the genes' shares of zeros, counts only. *{NEARER}*: share of cells whose nearest fitted cell is nearer
than their nearest held-out cell, of as many of both, in components of both; .5 if nothing is copied. CPU seconds hold
training.

HDTree is trained with its defaults, is told labels when the generator is trained, and draws 50 steps. scVI is trained
as it comes, on its first seeds only. *Two cells of a label*: each gene is that of one of two random cells of one label.
*Two neighbours*: the counts of a cell and one of its 15 nearest together, halved binomially (without counts: gene by
gene). *Genes shuffled*: each gene permuted among the cells of a label. *Genes by moments*: each gene of each label by
itself, negative binomial (normal without counts) with its mean and variance. All but *two neighbours* read labels.
"""
TABLES = {
    "all": ("## New cells", (*REALISM, *APART, "correlation error", "zero error", NEARER, "CPU seconds")),
    STEPS: (
        "## Steps\n\nThe same generator with other samplers and numbers of steps. *Latent Frechet*: in the "
        "model's latent; "
        "*real cells* were seen in training there too. Seconds: CPU, of 10,000 cells, from the time of "
        f"{LEAST_TIMED:,} or as many as are compared.",
        ("Frechet", "latent Frechet", "seconds per 10,000"),
    ),
    TRANSMUTATION: (
        f"## Transmutation\n\nFitted cells carried between the {_transmutation.N_TYPES} largest types, mean "
        "over ordered "
        "pairs; CPU seconds of all. *Hit*: share of drawn cells that a random forest fitted on the held-out half takes "
        "for the target; *real target*: what it says of real fitted cells of the target; *untouched*: of the "
        "source cells "
        "as they were. *Target probability*: the model's own. *Cycle r*: latents there and back, Pearson's r "
        "across cells "
        "of a type, mean over dimensions; *re-encoded*: the drawn cells are encoded before they go back. *Time kept*, "
        "*neighbours kept*, *expression kept*: `tl.retained_signal`; the *ceiling* of the last two is 1. *Not "
        "aligned*: up to the branch point of the types and down, as published. *Means moved*: latent arithmetic, next "
        "to no diffusion.",
        _transmutation.MEASURES,
    ),
    WITHHELD: (
        "## A stage that was withheld\n\nASG_AWA of C. elegans, CDP of the dendritic cells, the 16-cell stage of the "
        "blastocyst: no generator sees them. Two thirds of the other cells are fitted; a random forest on "
        "the last third "
        f"and half of the stage says which cells are of the stage (*hit*); *Frechet* in {_withheld.N_PCS} components, "
        f"samples as large as half of the stage, mean of {_withheld.REPEATS}. *Real cells* are the other half "
        "of the stage. "
        "*Interpolation*: halfway between a random cell before and one after.",
        _withheld.MEASURES,
    ),
}


# -- HDTree --------------------------------------------------------------------------------------------------------


def of_model(make: Callable[[Any, Halves], NDArray], variant: str = "latent") -> Callable[[Cells], Mapping[str, float]]:
    """Measures of cells that HDTree makes.

    Parameters
    ----------
    make
        From the model and the halves to cells.
    variant
        Key of `benchmarks._kept.VARIANTS`.
    """

    def measured(cells: Cells) -> dict[str, float]:
        half = halves(cells)
        model, cost = _kept.of_half(half, variant)
        with _measures.Step() as step:
            values = make(model, half)
        return half.scores(values) | _measures.total_cost(cost, step.cost)

    return measured


def generated(model: Any, half: Halves) -> NDArray:
    """As many cells as are compared, of no node and no label."""
    return _data.dense(model.generate(half.n, seed=half.seed, keep_mean=False).X)


def by_label(model: Any, half: Halves) -> NDArray:
    """As many cells of each label as real ones; labels of a single cell, which the model was not told, of no label."""
    wanted, known = pd.Series(half.fit_labels[half.of_fit]).value_counts(), model._places().labels
    made = [
        model.generate(n, label=label if label in known else None, seed=half.seed + i, keep_mean=False).X
        for i, (label, n) in enumerate(wanted.items())
    ]
    return np.vstack([_data.dense(values) for values in made])


def steps(method: Sampler, n_steps: int) -> Callable[[Cells], Mapping[str, float]]:
    """Distances and time of a sampler.

    Parameters
    ----------
    method
        Of ``generate``.
    n_steps
        Network calls.
    """

    def measured(cells: Cells) -> dict[str, float]:
        half = halves(cells)
        model, _ = _kept.of_half(half)
        with _measures.Step() as step:
            n_cells = max(half.n, LEAST_TIMED)
            made = model.generate(n_cells, method=method, n_steps=n_steps, seed=half.seed, keep_mean=False)
        some = made[: half.n]
        real = model.get_latent_representation(half.held[half.of_held].copy())
        return {
            "Frechet": half.frechet(_data.dense(some.X)),
            "latent Frechet": metrics.frechet_distance(real, some.obsm["X_hdtree"]),
            "seconds per 10,000": step.cpu_seconds * 10_000 / n_cells,
        }

    return measured


def steps_floor(cells: Cells) -> Mapping[str, float]:
    """Distances of real cells."""
    half = halves(cells)
    model, _ = _kept.of_half(half)
    fit, held = (
        model.get_latent_representation(cells_[rows].copy())
        for cells_, rows in ((half.fit, half.of_fit), (half.held, half.of_held))
    )
    return {
        "Frechet": half.frechet(half.fit_values[half.of_fit]),
        "latent Frechet": metrics.frechet_distance(held, fit),
    }


SAMPLERS: dict[Sampler, tuple[int, ...]] = {"dpm": (10, 20, 50), "ddim": (10, 20, 50), "ancestral": (50, 250, 1000)}
"""Samplers and their numbers of steps."""
METHODS = {
    "floor": Method("real cells", _generators.floor, "reference"),
    "hdtree": Method("HDTree", of_model(generated), "ours"),
    "hdtree-label": Method("HDTree, label by label", of_model(by_label), "ours"),
    "hdtree-expression": Method("HDTree, diffusion of expression", of_model(generated, "expression"), "ours"),
    "hdtree-no-gate": Method("HDTree, without gates", of_model(generated, "no gate"), "ours"),
    "scvi-prior": Method("scVI, prior", _generators.scvi_cells(_generators.prior)),
    "scvi-posterior": Method("scVI, fitted cells decoded", _generators.scvi_cells(_generators.posterior)),
    "mix-label": Method("two cells of a label", _generators.measured(_generators.of_a_label)),
    "mix-neighbours": Method("two neighbours", _generators.measured(_generators.of_neighbours)),
    "shuffled": Method("genes shuffled", _generators.measured(_generators.shuffled_genes)),
    "moments": Method("genes by moments", _generators.measured(_generators.by_moments)),
    "steps-floor": Method("real cells", steps_floor, "reference", STEPS),
    **{
        f"{name}{n}": Method(f"{name}, {n} steps", steps(name, n), "ours", STEPS)
        for name, numbers in SAMPLERS.items()
        for n in numbers
    },
    **{
        way.replace(", ", "-").replace(" ", "-"): Method(
            f"HDTree, {way}", _transmutation.transmuted(way), "ours", TRANSMUTATION
        )
        for way in _transmutation.WAYS
    },
    "stage-floor": Method("real cells", _withheld.judged(_withheld.floor), "reference", WITHHELD),
    "path": Method("HDTree, nodes on the path", _withheld.judged(_withheld.along_path), "ours", WITHHELD),
    "hybrids": Method("HDTree, hybrids", _withheld.judged(_withheld.hybrids), "ours", WITHHELD),
    "hybrids-condition": Method(
        "HDTree, hybrids under both conditions",
        _withheld.judged(partial(_withheld.hybrids, between="condition")),
        "ours",
        WITHHELD,
    ),
    "midpoints": Method(
        "HDTree's latent, halfway, no diffusion", _withheld.judged(_withheld.latent_midpoints), "ours", WITHHELD
    ),
    "interpolated": Method("interpolation, logs", _withheld.judged(_withheld.interpolated), table=WITHHELD),
    "interpolated-counts": Method("interpolation, counts", _withheld.judged(_withheld.mixed), table=WITHHELD),
    "ends": Method("cells before and after", _withheld.judged(_withheld.ends), "reference", WITHHELD),
}  # fmt: skip
"""Rows by their names on the command line."""
NEEDS_MODEL = tuple(key for key, method in METHODS.items() if method.kind == "ours" or key == "steps-floor")


# -- running and writing -------------------------------------------------------------------------------------------


def run(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Rows of all parts: each on its data sets, HDTree's in a cache of their own that is named by the code.

    Parameters
    ----------
    arguments
        Of the command.
    """
    rows = []
    for table in TABLES:
        sets = [name for name in arguments.sets if name in (_withheld.CASES if table == WITHHELD else SETS)]
        here = [key for key in arguments.methods if METHODS[key].table == table]
        scvi = [key for key in here if key.startswith("scvi")]
        ours = [key for key in here if key in NEEDS_MODEL]
        others = [key for key in here if key not in (*scvi, *ours)]
        counted = [name for name in sets if _data.SETS[name].counts]
        found = []
        for methods, chosen, seeds, command in (
            (others, sets, arguments.seeds, "generation"),
            (scvi, counted, min(arguments.seeds, arguments.scvi_seeds), "generation"),
            (ours, sets, arguments.seeds, f"generation-{_kept.fingerprint()}"),
        ):  # fmt: skip
            if methods and chosen:
                given = {**vars(arguments), "methods": methods, "sets": chosen, "seeds": seeds}
                found += _run.run(command, METHODS, argparse.Namespace(**given))
        order = list(METHODS)
        rows += sorted(found, key=lambda row: (ALL_SETS.index(row["data"]), order.index(row["method"]), row["seed"]))
    return rows


def verdict(frame: pd.DataFrame) -> str:
    """Whether HDTree's ways to a withheld stage beat each interpolation, seed by seed.

    Parameters
    ----------
    frame
        Rows of the withheld stages.
    """
    lines = ["| data | HDTree | against | higher hit | lower Frechet | both |", "|---|---|---|---|---|---|"]
    for data, group in frame[frame[_run.REASON].isna()].groupby("data", sort=False):
        tables = {
            name: rows.set_index("seed")[["hit", "Frechet"]] for name, rows in group.groupby("method", sort=False)
        }
        kinds = group.groupby("method", sort=False)["kind"].first()
        for ours in kinds.index[kinds == "ours"]:
            for peer in kinds.index[kinds == "peer"]:
                one, other = tables[ours].align(tables[peer], join="inner")
                hit, near = one["hit"] > other["hit"], one["Frechet"] < other["Frechet"]
                counts = " | ".join(f"{int(won.sum())} of {len(won)}" for won in (hit, near, hit & near))
                lines.append(f"| {data} | {ours} | {peer} | {counts} |")
    return "Seeds in which HDTree is ahead:\n\n" + "\n".join(lines)


def hits(pairs: pd.DataFrame) -> str:
    """Hits and cycles of every pair, as a markdown table."""
    lines = ["| data | pair | ode: hit | cycle r | sde: hit |", "|---|---|---|---|---|"]
    for (data, source, target), group in pairs.groupby(["data", "source", "target"], sort=False):
        ode, sde = (group[group["way"] == way] for way in ("ode", "sde"))
        shown = (ode["hit"], ode.get("cycle r", pd.Series(dtype=float)), sde["hit"])
        lines.append(f"| {data} | {source} → {target} | {' | '.join(_report.spread(v, 3) for v in shown)} |")
    return "### Pairs\n\n" + "\n".join(lines)


def write(rows: Sequence[Mapping[str, Any]], pairs: pd.DataFrame, out: Path) -> None:
    """Write the tables and the figure.

    Parameters
    ----------
    rows
        Of `run`.
    pairs
        Of `benchmarks._transmutation.all_pairs`.
    out
        Folder.
    """
    if not rows:
        print("generation: nothing was measured, nothing is written")
        return
    frame = _report.table(rows, METHODS)
    out.mkdir(parents=True, exist_ok=True)
    frame.to_csv(out / "generation.csv", index=False, float_format="%.4f")
    parts = [HEAD.strip(), _report.circumstances(rows), "![generation](generation.png)"]
    for table, (text, measures) in TABLES.items():
        here = frame[frame["table"] == table]
        parts += [text] * (not here.empty)
        for data, group in here.groupby("data", sort=False):
            # nobody is a peer here, so that the highest is not marked: most of these measures are better when low
            parts += [f"### {data}", _report.markdown(group.assign(kind="reference"), measures)]
        if table == WITHHELD and not here.empty:
            parts.append(verdict(here))
        if table == TRANSMUTATION and not pairs.empty:
            pairs.to_csv(out / "generation_pairs.csv", index=False, float_format="%.4f")
            parts.append(hits(pairs))
    (out / "generation.md").write_text("\n\n".join(parts) + "\n")
    drawn = frame[frame["table"] == "all"]
    if not drawn.empty:
        _report.dots(drawn, (APART[-1], NEARER), out / "generation.png")


def main() -> None:
    """Run what is missing and write the tables."""
    parser = _run.parser(__doc__.splitlines()[0], ALL_SETS, METHODS)
    parser.add_argument("--scvi-seeds", type=int, default=1, help="seeds of scVI, which takes minutes (default: 1)")
    arguments = parser.parse_args()
    rows = run(arguments)
    write(rows, _transmutation.all_pairs(arguments.cache, arguments.sets, arguments.seeds), arguments.out)


if __name__ == "__main__":
    main()
