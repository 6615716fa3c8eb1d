"""Order, ends and fates on simulated trees whose truth is known, beside PAGA, DPT, Palantir and scFates."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import anndata as ad
import numpy as np
import pandas as pd
from scipy.stats import spearmanr

import hdtree_sc as ht
from benchmarks import _clusters, _hdtree, _orders, _run, _topology_measures

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable
    from pathlib import Path

    from numpy.typing import NDArray

SETS = ("simulated_tree_e3", "simulated_tree_b5", "branching_4", "branching_7", "branching_13")
CALLED = 40
"""Cells by which an end that was found is named: those that are latest and surest of it."""
MEASURES = {
    "rho": "rank correlation with true pseudotime",
    "recall": "tips found",
    "precision": "ends that are tips",
    "calls": "ends found",
    "fate": "fate accuracy, ends found",
    "told": "fate accuracy, ends told",
    "F1": "F1 of branches",
    "cor_dist": "correlation of geodesic distances",
    "HIM": "likeness of the milestone networks",
    "seconds": "seconds",
}
HEAD = """# Topology

Made by `python -m benchmarks.topology --data DIR`. Mean ± sd over seeds.

Two files of simulated trees (PROSSTT; 4 and 6 tips; seeds of the methods) and the package's own simulator
(`ht.datasets.branching(2000, n_tips=n)` for 4, 7 and 13 tips; a new tree for each seed). Methods see 30 principal
components of normalised counts (HDTree: counts) and the first cell, nothing else; *told* names one late cell of each
tip (Palantir) or {called} of them (HDTree). PAGA tree: the strongest spanning tree over Leiden clusters, its ends but
for the first cell's. scFates: principal tree of 200 nodes, width by its own search.

*rho*: Spearman correlation with true pseudotime. *Recall, precision*: an end is the branch that most of its {called}
latest and surest cells are on; recall is the share of tips that were called, precision the share of calls on a tip.
*Fate*: share of the cells on tip branches whose most likely end is their own tip, of ends found and of ends told. *F1*:
branches are sets of ends that a cell can come to (half as likely as the likeliest or more), matched with true branches
by Jaccard index, harmonic mean of both sides (Saelens et al., Nature Biotechnology 2019). *cor_dist, HIM*, of what is
a tree: see [](lineage_tree.md). Seconds are those of one process, HDTree's without its training; other programs ran on
the machine.
"""


def truth(name: str, folder: Path, seed: int) -> ad.AnnData:
    """Counts with ``branch`` and ``pt``, and whether branches are tips in ``uns["tips"]``."""
    if name.startswith("branching"):
        adata = ht.datasets.branching(2000, n_tips=int(name.split("_")[1]), seed=seed)
    else:
        adata = ad.read_h5ad(folder / f"{name}.h5ad")
        adata.X = adata.X.astype(np.float32)
    edges = np.asarray(adata.uns["edges"]).astype(str).reshape(-1, 2)
    adata.obs["branch"] = adata.obs["branch"].astype(str)
    ends = set(edges[:, 1]) - set(edges[:, 0])
    # a branch is called by the milestone it leads to, or by both of its ends
    adata.uns["tips"] = sorted(name for name in set(adata.obs["branch"]) if name.split("->")[-1] in ends)
    return adata


def points_of(adata: ad.AnnData) -> NDArray[np.float32]:
    """30 principal components of log-normalised counts."""
    import scanpy as sc

    cells = ad.AnnData(adata.X.copy())
    sc.pp.normalize_total(cells, target_sum=1e4)
    sc.pp.log1p(cells)
    sc.pp.pca(cells, n_comps=30, random_state=0)
    return np.asarray(cells.obsm["X_pca"], dtype=np.float32)


def first_cell(adata: ad.AnnData, points: NDArray) -> int:
    """Row of the earliest cell."""
    del points
    return int(np.argmin(adata.obs["pt"].to_numpy()))


# -- methods: pseudotime, cells of each end called, fates found, fates told ----------------------------------------


def hdtree(adata: ad.AnnData, points: NDArray, root: int, seed: int) -> dict[str, Any]:
    """Tree, graph, pseudotime and fates of this package."""
    del points
    cells = ad.AnnData(adata.X.copy(), obs=adata.obs[["branch"]].copy())
    ht.tl.tree(cells, _hdtree.train(cells, "nb", seed))
    start = time.perf_counter()
    ht.tl.lineage_graph(cells)
    ht.tl.pseudotime(cells, root=cells.obs_names[root])
    ht.tl.fate_probabilities(cells)
    seconds = time.perf_counter() - start
    order = cells.obs["hdtree_pseudotime"].to_numpy()
    fates = cells.obsm["hdtree_fates"]
    late = {tip: latest(adata, tip, CALLED) for tip in adata.uns["tips"]}
    ht.tl.fate_probabilities(cells, {tip: list(cells.obs_names[rows]) for tip, rows in late.items()})
    return {"order": order, "fates": fates, "told": cells.obsm["hdtree_fates"], "seconds": seconds}


def palantir(adata: ad.AnnData, points: NDArray, root: int, seed: int) -> dict[str, Any]:
    """Palantir with 10 components and 500 waypoints."""
    import palantir as package

    def ran(states: pd.Series | None) -> tuple[NDArray, pd.DataFrame]:
        cells = _clusters.neighbors(points)
        package.utils.run_diffusion_maps(cells, n_components=10, pca_key=_clusters.SPACE, seed=seed)
        package.utils.determine_multiscale_space(cells)
        found = package.core.run_palantir(
            cells, cells.obs_names[root], num_waypoints=500, use_early_cell_as_start=True, n_jobs=1, seed=seed,
            terminal_states=states,
        )  # fmt: skip
        return np.asarray(found.pseudotime), found.branch_probs

    start = time.perf_counter()
    order, fates = ran(None)
    seconds = time.perf_counter() - start
    names = _clusters.neighbors(points).obs_names
    told = {names[latest(adata, tip, 1)[0]]: tip for tip in adata.uns["tips"]}
    given = ran(pd.Series(told))[1]
    given.columns = [told.get(str(name), str(name)) for name in given.columns]
    return {"order": order, "fates": fates, "told": given, "seconds": seconds}


def dpt(adata: ad.AnnData, points: NDArray, root: int, seed: int) -> dict[str, Any]:
    """scanpy's diffusion pseudotime: an order, no ends."""
    del adata
    start = time.perf_counter()
    order = _orders.dpt(points, SimpleNamespace(root=root, seed=seed))
    return {"order": order, "seconds": time.perf_counter() - start}


def paga(adata: ad.AnnData, points: NDArray, root: int, seed: int) -> dict[str, Any]:
    """Leiden clusters and the tree of PAGA: the clusters at its ends, and the distance of clusters from the first."""
    import scanpy as sc
    from scipy.sparse.csgraph import dijkstra

    del adata
    start = time.perf_counter()
    cells = _clusters.neighbors(points)
    sc.tl.leiden(cells, random_state=seed, flavor="igraph", n_iterations=2)
    sc.tl.paga(cells, groups="leiden")
    tree = cells.uns["paga"]["connectivities_tree"]
    tree = tree + tree.T
    cluster = cells.obs["leiden"].cat.codes.to_numpy()
    links, first = (tree > 0).astype(float), int(cluster[root])
    steps, before = dijkstra(links, indices=first, unweighted=True, return_predecessors=True)
    ends = [end for end in np.flatnonzero((tree > 0).sum(1).A1 == 1) if end != first]
    calls = [np.flatnonzero(cluster == end) for end in ends]
    seconds = time.perf_counter() - start
    # cells stand at the ends of edges of length one; what is out of reach hangs at the root, behind all else
    end = np.nan_to_num(steps, posinf=steps[np.isfinite(steps)].max() + 1)
    trajectory = _topology_measures.Trajectory(np.maximum(before, -1), end, cluster, end[cluster])
    return {"order": steps[cluster], "calls": calls, "trajectory": trajectory, "seconds": seconds}


def scfates(adata: ad.AnnData, points: NDArray, root: int, seed: int) -> dict[str, Any]:
    """The principal tree of scFates: its order and its ends."""
    import scFates as package

    del adata
    start = time.perf_counter()
    cells = _clusters.neighbors(points)
    options = {"Nodes": 200, "use_rep": _clusters.SPACE, "seed": seed}
    package.tl.tree(cells, method="ppt", ppt_sigma=package.tl.explore_sigma(cells, **options), **options)
    near = np.asarray(cells.obsm["X_R"])
    first = int(near[root].argmax())
    package.tl.root(cells, first)
    package.tl.pseudotime(cells, n_jobs=1, n_map=1, seed=seed)
    calls = [np.argsort(-near[:, tip])[:CALLED] for tip in cells.uns["graph"]["tips"] if tip != first]
    return {"order": cells.obs["t"].to_numpy(float), "calls": calls, "seconds": time.perf_counter() - start}


METHODS = {"HDTree": hdtree, "Palantir": palantir, "scFates": scfates, "PAGA tree": paga, "DPT": dpt}


# -- measures ------------------------------------------------------------------------------------------------------


def latest(adata: ad.AnnData, tip: str, n: int) -> NDArray[np.int64]:
    """The last cells of a branch."""
    rows = np.flatnonzero((adata.obs["branch"] == tip).to_numpy())
    return rows[np.argsort(-adata.obs["pt"].to_numpy()[rows])[:n]]


def measured(adata: ad.AnnData, found: dict[str, Any]) -> dict[str, float]:
    """All measures that a method gives the ground for."""
    branch = adata.obs["branch"].to_numpy(object)
    tips = set(adata.uns["tips"])
    order = np.nan_to_num(found["order"], posinf=np.nanmax(found["order"][np.isfinite(found["order"])]))
    out = {"rho": float(spearmanr(order, adata.obs["pt"]).statistic), "seconds": found["seconds"]}
    if "trajectory" in found:
        truth = _topology_measures.true_trajectory(adata)
        out |= {
            "cor_dist": _topology_measures.geodesic_correlation(truth, found["trajectory"]),
            "HIM": _topology_measures.him_similarity(truth.network(), found["trajectory"].network()),
        }
    fates: pd.DataFrame | None = found.get("fates")
    calls = found.get("calls")
    if fates is not None and calls is None:
        calls = [np.argsort(-(fates[end].to_numpy() * order))[:CALLED] for end in fates.columns]
    if calls is None:
        return out
    named = [str(pd.Series(branch[rows]).mode()[0]) for rows in calls]
    out |= {
        "recall": len(tips & set(named)) / len(tips),
        "precision": float(np.mean([name in tips for name in named])) if named else 0.0,
        "calls": float(len(named)),
    }
    if "branches" in found:
        out["F1"] = f1_branches(branch, found["branches"])
    if fates is None:
        return out
    on_tip = np.isin(branch, list(tips))
    told: pd.DataFrame = found["told"]
    said = told.columns.to_numpy(object)[told.to_numpy().argmax(1)].astype(str)
    out["told"] = float((said == branch)[on_tip].mean())
    if not named:
        return out | {"fate": 0.0, "F1": f1_branches(branch, np.zeros(len(branch), dtype=np.int64))}
    likeliest = np.array(named, dtype=object)[fates.to_numpy().argmax(1)]
    out["fate"] = float((likeliest == branch)[on_tip].mean())
    reach = fates.to_numpy() >= 0.5 * fates.to_numpy().max(1, keepdims=True)
    out["F1"] = f1_branches(branch, pd.factorize(pd.Series([row.tobytes() for row in reach]))[0])
    return out


def f1_branches(branch: NDArray[np.object_], group: NDArray[np.int64]) -> float:
    """Harmonic mean of how well each true branch is matched by a group, and each group by a branch."""
    both = pd.crosstab(branch, group).to_numpy().astype(float)
    jaccard = both / (both.sum(1, keepdims=True) + both.sum(0, keepdims=True) - both)
    recovery, relevance = jaccard.max(1).mean(), jaccard.max(0).mean()
    return float(2 * recovery * relevance / (recovery + relevance))


# -- report --------------------------------------------------------------------------------------------------------


def report(
    rows: pd.DataFrame,
    out: Path,
    *,
    stem: str = "topology",
    head: str = HEAD,
    methods: Iterable[str] = METHODS,
    worst: Collection[str] = (),
) -> None:
    """CSV, and a table for each set.

    Parameters
    ----------
    rows
        Measures of each set, seed and method.
    out
        Folder.
    stem
        Name of the files.
    head
        Text above the tables.
    methods
        Methods in the order of the tables.
    worst
        Measures whose worst seed stands in brackets.
    """
    rows.to_csv(out / f"{stem}.csv", index=False)
    told = _run.circumstances()
    versions = ", ".join(f"{name} {version}" for name, version in told["versions"].items())
    text = [head.format(called=CALLED), f"Measured {told['date']} on {told['machine']}; {versions}.\n"]
    for name in rows["set"].unique():
        part = rows[rows["set"] == name]
        shown = [measure for measure in MEASURES if measure in part]
        text += [f"## {name}\n", "| method | " + " | ".join(shown) + " | seeds |", "|---" * (len(shown) + 2) + "|"]
        for method in methods:
            mine = part[part["method"] == method]
            if len(mine) == 0:
                continue
            cells = [
                spread(mine[measure].dropna(), 1 if measure in ("seconds", "calls") else 3, worst=measure in worst)
                for measure in shown
            ]
            text.append(f"| {method} | " + " | ".join(cells) + f" | {len(mine)} |")
        text.append("")
    (out / f"{stem}.md").write_text("\n".join(text), encoding="utf-8")


def spread(values: pd.Series, digits: int, *, worst: bool = False) -> str:
    """``mean ± sd``, and the least value in brackets if asked for."""
    if len(values) == 0:
        return ""
    least = f" ({values.min():.{digits}f})" if worst else ""
    return f"{values.mean():.{digits}f}" + (f" ± {values.std():.{digits}f}{least}" if len(values) > 1 else "")


def main() -> None:
    """Run all, and write the tables after each seed."""
    run(__doc__, SETS, METHODS)


def run(
    about: str | None,
    sets: tuple[str, ...],
    methods: dict[str, Callable[..., dict[str, Any]]],
    *,
    start: Callable[[ad.AnnData, NDArray], int] = first_cell,
    **report_kwargs: Any,
) -> None:
    """Measure some methods on some sets.

    Parameters
    ----------
    about
        Docstring of the benchmark.
    sets
        Names of the sets.
    methods
        Methods by name.
    start
        Row of the cell that methods start from, of the cells and their components.
    **report_kwargs
        Keyword arguments of `report`.
    """
    arguments = _run.parser(str(about).splitlines()[0], sets).parse_args()
    _run.quiet()
    _run.warm_up()
    rows: list[dict[str, Any]] = []
    for seed in range(arguments.seeds):
        for name in arguments.sets:
            adata = truth(name, arguments.data, seed)
            points = points_of(adata)
            root = start(adata, points)
            for method, order in methods.items():
                try:
                    found = measured(adata, order(adata, points, root, seed))
                except Exception as error:  # noqa: BLE001 - a peer that fails gets a row that says so
                    found = {"reason": f"{type(error).__name__}: {str(error)[:120]}"}
                rows.append({"set": name, "seed": seed, "method": method, **found})
                print(
                    name,
                    seed,
                    method,
                    {k: v if isinstance(v, str) else round(v, 3) for k, v in found.items()},
                    flush=True,
                )
        report(pd.DataFrame(rows), arguments.out, methods=methods, **report_kwargs)


if __name__ == "__main__":
    main()
