"""The lineage tree on simulated trees whose truth is known, beside PAGA's tree and DPT."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import anndata as ad
import numpy as np

import hdtree_sc as ht
from benchmarks import _data, _hdtree, topology
from hdtree_sc.graph._neighbors import medoid

if TYPE_CHECKING:
    from numpy.typing import NDArray

SETS = (
    "simulated_tree_e3", "simulated_tree_b5", "vitae_tree", "vitae_linear", "branching_4", "branching_7",
    "branching_13",
)  # fmt: skip
HEAD = """# The lineage tree

Made by `python -m benchmarks.lineage_tree --data DIR`. Mean ± sd over seeds.

Four files of simulated trees (PROSSTT: e3 with 4 and b5 with 6 tips; dyngen, as in VITAE: a tree of 3 tips, and a line
on which no branch may be called; seeds of the methods), and the package's own simulator
(`ht.datasets.branching(2000, n_tips=n)`; a new tree for each seed). Methods see 30 principal components of normalised
counts (HDTree: counts) and a root, the medoid of the earliest 2 % of cells there, nothing else. *rho*: Spearman
correlation with true pseudotime. *Recall, precision*: an end is the true branch that most of its {called} latest cells
are on; recall is the share of tips that were called, precision the share of calls on a tip. *F1*: branches matched with
true ones by Jaccard index, harmonic mean of both sides (Saelens et al., Nature Biotechnology 2019). Seconds are those
of one process, without training.

Where it falls short: branches of b5 and of `vitae_tree` (.85 was wanted everywhere), and an end too many on
`vitae_tree`, where hundreds of cells rest at the second fork and stand out as a group of their own.
"""


def lineage_tree(adata: ad.AnnData, points: NDArray, root: int, seed: int) -> dict[str, Any]:
    """Order, ends and branches of `tl.lineage_tree`."""
    del points
    cells = ad.AnnData(adata.X.copy(), obs=adata.obs[["branch"]].copy())
    ht.tl.tree(cells, _hdtree.train(cells, "nb", seed))
    start = time.perf_counter()
    ht.tl.lineage_tree(cells, f"cell:{cells.obs_names[root]}")
    seconds = time.perf_counter() - start
    obs, stones = cells.obs, cells.uns["hdtree"]["lineage"]["milestones"]
    order, branch = obs["hdtree_pseudotime"].to_numpy(), obs["hdtree_branch"].to_numpy()
    calls = []
    for name in stones.loc[stones["is_terminal"], "branch"]:
        rows = np.flatnonzero(branch == name)
        calls.append(rows[np.argsort(-order[rows])[: topology.CALLED]])
    return {"order": order, "calls": calls, "branches": obs["hdtree_branch"].cat.codes.to_numpy(), "seconds": seconds}


def early_medoid(adata: ad.AnnData, points: NDArray) -> int:
    """Row of the medoid of the earliest 2 % of cells."""
    return medoid(points, _data.earliest(adata.obs["pt"].to_numpy()))


METHODS = {"HDTree, lineage tree": lineage_tree, "PAGA tree": topology.paga, "DPT": topology.dpt}

if __name__ == "__main__":
    topology.run(__doc__, SETS, METHODS, stem="lineage_tree", head=HEAD, start=early_medoid)
