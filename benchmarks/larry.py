"""Clonal fate: which way cells of a clone went, told from the expression of their early sisters."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anndata as ad
import numpy as np
import pandas as pd
from scipy.spatial.distance import cdist
from sklearn.metrics import roc_auc_score

import hdtree_sc as ht
from benchmarks import _hdtree, _run
from benchmarks.topology import points_of, spread

if TYPE_CHECKING:
    from numpy.typing import NDArray

SETS = ("larry_invitro_781",)
EARLY = "undiff"
FATES = ("Neutrophil", "Monocyte", "Baso", "Mast")
DRAWS = 2_000
HEAD = """# Clonal fate

Made by `python -m benchmarks.larry --data DIR`. Mean ± sd over seeds.

Cells of haematopoiesis in vitro with clonal barcodes (Weinreb et al., Science 2020; the subset of CoSpar's tests). Each
undifferentiated cell of day 2 or 4 has sisters of day 6; its true fate is the most frequent of {fates} among them.
Methods are told which cells of day 6 are of which type, and no clone. *AUROC*: neutrophil against monocyte, by the
difference of the two scores; *macro*: each of the four against the others. *Less than centroid*: share of {draws:,}
draws of clones with replacement in which AUROC is not above that of the nearest centroid; a method is better where
this is below .025. {n} cells of {clones} clones are in it, {pair} of them neutrophil or monocyte.
"""


def fate_of_sisters(adata: ad.AnnData) -> pd.Series:
    """Fate of each early cell by its sisters of day 6, missing for all other cells."""
    late = adata.obs[(adata.obs["time"] == 6) & adata.obs["cell_type"].isin(FATES)]
    counts = pd.crosstab(late["clone"].astype(str), late["cell_type"].astype(str))
    best = counts.idxmax(axis=1)[counts.eq(counts.max(axis=1), axis=0).sum(axis=1) == 1]
    early = (adata.obs["time"] < 6) & (adata.obs["cell_type"].astype(str) == EARLY)
    return adata.obs["clone"].astype(str).map(best).where(early)


def centroid(adata: ad.AnnData, points: NDArray, seed: int) -> pd.DataFrame:
    """Minus the distance to the mean of each type on day 6."""
    del seed
    late = (adata.obs["time"] == 6).to_numpy()
    types = adata.obs["cell_type"].to_numpy(object)
    means = np.stack([points[late & (types == fate)].mean(0) for fate in FATES])
    return pd.DataFrame(-cdist(points, means), index=adata.obs_names, columns=list(FATES))


def hdtree(adata: ad.AnnData, points: NDArray, seed: int) -> pd.DataFrame:
    """Fates of this package towards the types of day 6, time being the direction."""
    del points
    cells = ad.AnnData(adata.X.copy(), obs=adata.obs[["cell_type", "time"]].copy())
    ht.tl.tree(cells, _hdtree.train(cells, "nb", seed))
    ht.tl.lineage_graph(cells)
    late = (cells.obs["time"] == 6).to_numpy()
    types = cells.obs["cell_type"].to_numpy(object)
    ends = {fate: list(cells.obs_names[late & (types == fate)]) for fate in FATES}
    ht.tl.fate_probabilities(cells, ends, time_key="time")
    return cells.obsm["hdtree_fates"][list(FATES)]


METHODS = {"HDTree fates": hdtree, "nearest centroid": centroid}


def auroc(truth: NDArray, scores: pd.DataFrame) -> float:
    """Neutrophil against monocyte."""
    pair = np.isin(truth, FATES[:2])
    return float(roc_auc_score(truth[pair] == FATES[0], (scores[FATES[0]] - scores[FATES[1]]).to_numpy()[pair]))


def macro(truth: NDArray, scores: pd.DataFrame) -> float:
    """Each fate against the others."""
    return float(np.mean([roc_auc_score(truth == fate, scores[fate]) for fate in FATES if (truth == fate).any()]))


def below(truth: NDArray, clone: NDArray, mine: pd.DataFrame, other: pd.DataFrame) -> float:
    """Share of draws of clones in which one AUROC is not above another."""
    rng = np.random.default_rng(0)
    names = np.unique(clone)
    rows = {name: np.flatnonzero(clone == name) for name in names}
    worse, used = 0, 0
    for _ in range(DRAWS):
        drawn = np.concatenate([rows[name] for name in rng.choice(names, len(names))])
        if len(set(truth[drawn]) & set(FATES[:2])) < 2:
            continue
        used += 1
        worse += auroc(truth[drawn], mine.iloc[drawn]) <= auroc(truth[drawn], other.iloc[drawn])
    return worse / max(used, 1)


def main() -> None:
    """Run all and write the table."""
    parser = _run.parser(__doc__.splitlines()[0], SETS)
    arguments = parser.parse_args()
    _run.quiet()
    adata = ad.read_h5ad(arguments.data / f"{SETS[0]}.h5ad")
    adata.X = adata.X.astype(np.float32)
    fate = fate_of_sisters(adata)
    known = fate.notna().to_numpy()
    truth = fate[known].to_numpy(object)
    clone = adata.obs["clone"].astype(str).to_numpy(object)[known]
    points = points_of(adata)
    base = centroid(adata, points, 0)[known]
    rows: list[dict[str, Any]] = []
    for seed in range(arguments.seeds):
        for name, method in METHODS.items():
            scores = method(adata, points, seed)[known]
            row = {"AUROC": auroc(truth, scores), "macro": macro(truth, scores)}
            row["less than centroid"] = below(truth, clone, scores, base) if name != "nearest centroid" else np.nan
            rows.append({"method": name, "seed": seed, **row})
            print(seed, name, row, flush=True)
    frame = pd.DataFrame(rows)
    frame.to_csv(arguments.out / "larry.csv", index=False)
    told = _run.circumstances()
    text = [
        HEAD.format(
            fates=", ".join(FATES),
            draws=DRAWS,
            n=len(truth),
            clones=len(set(clone)),
            pair=int(np.isin(truth, FATES[:2]).sum()),
        ),
        f"Measured {told['date']} on {told['machine']}; "
        + ", ".join(f"{name} {version}" for name, version in told["versions"].items())
        + ".\n",
        "| method | AUROC | macro | less than centroid | seeds |",
        "|---|---|---|---|---|",
    ]
    for name in METHODS:
        mine = frame[frame["method"] == name]
        shown = [spread(mine[column].dropna(), 3) for column in ("AUROC", "macro", "less than centroid")]
        text.append(f"| {name} | " + " | ".join(shown) + f" | {len(mine)} |")
    (arguments.out / "larry.md").write_text("\n".join(text) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
