"""How far order and ends change with the seed, the cells and the genes: the lineage tree, PAGA's tree and DPT.

``python -m benchmarks.steadiness --data DIR`` writes ``steadiness.csv`` and ``steadiness.md``. A row of seed 0 holds
the first seed, the first draw of cells and the first number of genes.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

import anndata as ad
import numpy as np

import hdtree_sc as ht
from benchmarks import _data, _hdtree, _measures, _orders, _report, _run, topology
from benchmarks._cells import Cells
from benchmarks._run import Method
from hdtree_sc.graph._neighbors import medoid

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    import pandas as pd
    from numpy.typing import NDArray

    Found = Callable[[Cells], tuple[NDArray[np.floating], float]]

SETS = ("celegans_amphid_embryo", "guo10_blastocyst", "schlitzer15_dendritic", "simulated_tree_b5")
GENES = (1000, 2000, 4000)
"""Numbers of most variable genes."""
BY_SEED, BY_CELLS, BY_GENES = KINDS = ("seeds", "cells", "genes")
"""What is varied."""
HEAD = """# Steadiness

Made by `python -m benchmarks.steadiness --data DIR`.

One thing is varied at a time: the seed of training, components and clusters on all cells (*seeds*); the cells, three
draws of 80 % with genes chosen among these (*cells*; seed 0); and the number of most variable genes, 1,000, 2,000 and
4,000 where a set has so many (*genes*; seed 0, all cells). Elsewhere genes are the 2,000 most variable. *rho*: Spearman
correlation of the order with real time (b5: true pseudotime). Every method starts from the medoid of the earliest 2 %
of cells in its own space (HDTree: latent; others: 30 principal components), and sees no other time. HDTree is trained
with its defaults. PAGA's tree orders cells by hops over Leiden's clusters, and its ends are those of the tree but for
the root's; DPT calls no ends. *Ends*: fewest to most; how many there are is known of b5 alone, six. *All sets*: means
over sets of mean, sd and range, and the least rho of all; genes can be varied in two sets.

**Who is steadier** (three runs of each kind, so that sds are rough). *Order*: over seeds **DPT is the steadiest** (mean
sd .003, as only its components are drawn), HDTree's lineage tree (.032) and PAGA's tree (.033) are alike; over cells
HDTree (.012) is before DPT (.021) and PAGA (.045); over genes HDTree (.030) is before DPT (.058) and PAGA (.107).
**HDTree loses** on the blastocyst over seeds (sd .068, one seed of three .725; PAGA .004) and on b5 over cells (.024,
worst .873; PAGA .005, worst .924, and better in the mean). Its least rho of all runs is .725; PAGA's is .427, DPT's
.568, but DPT is as steady on b5 as it is wrong. *Ends*: **PAGA's tree is steadier** (mean range .2 to .5 against 1.2 to
1.5); on b5 HDTree calls 5 to 6 over seeds and 6 to 8 over cells, PAGA 5 to 6 in both.
"""


class Varied(Cells):
    """The cells of a data set with one thing varied.

    Parameters
    ----------
    cells
        The data set; its seed is the number of the variation.
    kind
        Which of `KINDS` is varied.
    """

    def __init__(self, cells: Cells, kind: str) -> None:
        # what is kept on disk goes by set and seed: variations need a folder each
        folder = cells.cache if kind == BY_SEED else cells.cache / f"{kind}-{cells.seed}"
        super().__init__(cells._folder, cells.data.name, cells.seed if kind == BY_SEED else 0, folder)
        self._options: dict[str, int] = {}
        if kind == BY_CELLS:
            self._options = {"kept_by": cells.seed}
        elif kind == BY_GENES:
            self._options = {"n_genes": GENES[cells.seed]}

    @cached_property
    def adata(self) -> ad.AnnData:
        """The cells; nobody may change them."""
        return _data.read(self._folder, self.data.name, **self._options)


def exists(cells: Cells, kind: str) -> bool:
    """Whether a data set can be varied so; genes cannot where it has fewer than asked for."""
    if kind != BY_GENES:
        return True
    held = ad.read_h5ad(cells._folder / f"{cells.data.name}.h5ad", backed="r").n_vars
    return cells.seed < len(GENES) and held >= GENES[cells.seed]


def hdtree(cells: Cells) -> tuple[NDArray[np.floating], float]:
    """The order and the number of ends of the lineage tree."""
    adata = _hdtree.annotated(cells)
    root = medoid(adata.obsm["X_hdtree"], _data.earliest(cells.time))
    ht.tl.lineage_tree(adata, f"cell:{adata.obs_names[root]}")
    ends = adata.uns["hdtree"]["lineage"]["milestones"]["is_terminal"].sum()
    return adata.obs["hdtree_pseudotime"].to_numpy(float), float(ends)


def paga(cells: Cells) -> tuple[NDArray[np.floating], float]:
    """Hops over PAGA's tree, and its ends."""
    found = topology.paga(cells.adata, cells.space("PCA").points, cells.root, cells.seed)
    return found["order"], float(len(found["calls"]))


def dpt(cells: Cells) -> tuple[NDArray[np.floating], float]:
    """Diffusion pseudotime, which has no ends."""
    return _orders.dpt(cells.space("PCA").points, cells), np.nan


def varied(found: Found) -> Callable[[Cells], dict[str, float]]:
    """Rho and ends of a method under each kind of variation.

    Parameters
    ----------
    found
        The method: order of the cells and number of ends.
    """

    def measured(cells: Cells) -> dict[str, float]:
        out = {}
        for kind in KINDS:
            if not exists(cells, kind):
                continue
            here = Varied(cells, kind)
            order, ends = found(here)
            out |= {
                f"rho, {kind}": _measures.order_measures(order, here.time, here.labels)["rho"],
                f"ends, {kind}": ends,
            }
        return out

    return measured


METHODS = {
    "hdtree": Method("HDTree, lineage tree", varied(hdtree), "ours"),
    "paga": Method("PAGA tree", varied(paga)),
    "dpt": Method("DPT", varied(dpt)),
}
"""Rows by their names on the command line."""


def spread(values: pd.Series) -> list[str]:
    """Mean, least and standard deviation as text; nothing of none."""
    values = values.dropna().astype(float)
    return [f"{v:.3f}" if np.isfinite(v) else "" for v in (values.mean(), values.min(), values.std())]


def range_of(values: pd.Series) -> str:
    """Least and largest of some counts."""
    values = values.dropna().astype(int)
    if values.empty:
        return ""
    low, high = values.min(), values.max()
    return f"{low}" if low == high else f"{low} to {high}"


def markdown(frame: pd.DataFrame) -> str:
    """One data set as a table: a line for each method and kind of variation.

    Parameters
    ----------
    frame
        Rows of one data set, as of `benchmarks._report.table`.
    """
    lines = ["| varied | method | rho, mean | least | sd | ends | runs |", f"|{'---|' * 7}"]
    for kind in KINDS:
        column = f"rho, {kind}"
        if column not in frame or frame[column].isna().all():
            continue
        for name, group in frame.groupby("method", sort=False):
            runs = str(int(group[column].notna().sum()))
            texts = [kind, str(name), *spread(group[column]), range_of(group[f"ends, {kind}"]), runs]
            lines.append(f"| {' | '.join(texts)} |")
    return "\n".join(lines)


def overall(frame: pd.DataFrame) -> str:
    """All sets together: mean over sets of the mean, the standard deviation and the range of ends, and the least rho.

    Parameters
    ----------
    frame
        Rows as of `benchmarks._report.table`.
    """
    lines = ["| varied | method | rho, mean | least | sd | range of ends |", f"|{'---|' * 6}"]
    for kind in KINDS:
        rho, ends = f"rho, {kind}", f"ends, {kind}"
        if rho not in frame:
            continue
        for name, group in frame.groupby("method", sort=False):
            by_set = group.groupby("data", sort=False)
            width = (by_set[ends].max() - by_set[ends].min()).mean()
            texts = [
                f"{v:.{digits}f}" if np.isfinite(v) else ""
                for v, digits in (
                    (by_set[rho].mean().mean(), 3), (group[rho].min(), 3), (by_set[rho].std().mean(), 3), (width, 1),
                )
            ]  # fmt: skip
            lines.append(f"| {kind} | {name} | {' | '.join(texts)} |")
    return "\n".join(lines)


def report(rows: Sequence[Mapping[str, Any]], out: Path) -> None:
    """CSV, a table over all sets, and one for each.

    Parameters
    ----------
    rows
        What `benchmarks._run.run` returns.
    out
        Folder.
    """
    frame = _report.table(rows, METHODS)
    out.mkdir(parents=True, exist_ok=True)
    frame.to_csv(out / "steadiness.csv", index=False, float_format="%.4f")
    parts = [HEAD.strip(), _report.circumstances(rows), "## All sets", overall(frame)]
    for name, group in frame.groupby("data", sort=False):
        parts += [f"## {name}", markdown(group)]
    (out / "steadiness.md").write_text("\n\n".join(parts) + "\n")


def main() -> None:
    """Run what is missing and write the tables."""
    parser = _run.parser(__doc__.splitlines()[0], SETS, METHODS)
    parser.set_defaults(seeds=3)
    arguments = parser.parse_args()
    rows = _run.run("steadiness", METHODS, arguments)
    if rows:
        report(rows, arguments.out)


if __name__ == "__main__":
    main()
