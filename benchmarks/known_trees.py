"""Trees of cell types and lineages against known ones: the worm's cell lineage and published trees of types.

``python -m benchmarks.known_trees --data DIR --seeds 3`` writes ``known_trees.csv``, ``known_trees.md`` and
``known_trees.png``.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import anndata as ad
import numpy as np
import pandas as pd
import scanpy as sc
from scipy.cluster.hierarchy import linkage
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import dijkstra
from scipy.spatial.distance import squareform

import hdtree_sc as ht
from benchmarks import _clusters, _data, _hdtree, _report, _run
from benchmarks._cells import NotApplicable
from benchmarks._run import Method
from hdtree_sc import Tree
from hdtree_sc.graph._agglomerate import group_means
from hdtree_sc.graph._neighbors import medoid
from hdtree_sc.metrics._ancestors import Meetings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from numpy.typing import NDArray

    from benchmarks._cells import Cells

    Said = Callable[[Cells, NDArray, list[str]], Tree]

_data.SETS.setdefault(
    "fletcher17_olfactory_latent",
    _data.DataSet("fletcher17_olfactory_latent", "cell_type", "time", likelihood="normal"),
)
_data.SETS.setdefault("tedsim_1024", _data.DataSet("tedsim_1024", "state"))
SETS = ("celegans_amphid_embryo", "fletcher17_olfactory_latent", "tedsim_1024")
TYPES, LINEAGE, DIVISIONS = "types", "lineage", "division tree"
MIN_CELLS = 10
"""Types and lineage names with fewer cells are left out."""
UNRESOLVED = ("ASG_AWA", "unassigned")
"""Annotations that are no type: one of two, or none."""
FOUNDER = {"fletcher17_olfactory_latent": "HBC"}
"""Type that all others come from where it is among the cells, as everybody who works on them knows."""
TOP = 64
"""Leaves that stay of a tree of all cells."""
PERMUTATIONS = 500
HEAD = """# Known trees

Made by `python -m benchmarks.known_trees --data DIR`. Mean ± sd over seeds; the best peer of each column is in bold.

*Triplets*: share of the triplets of types, resolved in the known tree, of which both trees say the same pair is
closest; 1/3 is chance. *Cophenetic*: Spearman correlation of the heights at which pairs of types meet; 0 is chance.
The known trees are small, so a figure moves in steps of one over the number of triplets, and no method is told apart
from another by a few of them.

HDTree and *PCA + Ward* are trees of cells that were made without the types. The distance of two types is then the
height at which their cells meet, averaged over pairs of cells, and average linkage joins types. *Graph*: the same with
the way over HDTree's graph of leaves for the height. *Type means*, scanpy's *dendrogram* and *PAGA* are told the types
and work on their cells in 30 principal components; the tree of PAGA joins types in the order of its connectivities
(single linkage, whose merges are PAGA's tree). *PAGA on HDTree's graph* is the same over our graph of cells.
*Chance*: the names of types dealt out at random, 500 times.

*HDTree, lineage tree*: `ht.tl.lineage_tree` on the cells that are in a group, from the medoid of the earliest 2 % of
them, and the groups where they stand on it (`ht.get.lineage_tree`); with *told types* the groups are its milestones,
and with *told types and root* it starts from horizontal basal cells, which the olfactory types are known to come from.
The worm's types have no such group: the two mothers among them have no common one. A mother is an inner node and a leaf
beside her daughters, and the longer two groups were one, the lower they meet.

**Against what was wanted** (worm types 1.0, Sulston's lineage .68 or more, olfactory types 1.0, divisions above .734):
the learned tree reaches the first three with every seed. **The lineage tree misses all three**: worm types .800 with
every seed, told the types or not, as one root is put above both mothers; Sulston's lineage
.333 (.387 when not told), which is near chance, as types whose mothers are not among the cells are put below another's
mother;
olfactory types .794 both ways, worst .381, as cells of all types are there at the earliest hours, and their medoid is
no stem cell with any seed (from sustentacular cells, two seeds, the tree is right nevertheless); told that root, 1.000
with every seed. **Divisions are missed too**: .711, worst .709, and no better than PCA + Ward (.716, best seed .731).
`olsson16_myeloid` is left out: its types have an order in the literature, but its file holds no table of parents.
"""
TABLES = {
    LINEAGE: (
        "## The cell lineage of the worm\n\nNames of cells in Packer et al. stand for a left and a right cell (`x`) or "
        "for either of two (`/`). Both readings are looked up in Sulston's lineage, all first and all second ones; "
        "triplets count where both trees agree, and distances (how many divisions from the zygote the common mother "
        "is, negative) are averaged. Mother cells are leaves beside their daughters: 7 leaves, 25 triplets.",
        ("triplets", "cophenetic"),
    ),
    TYPES: (
        "## Published trees of types\n\nMother types are leaves beside their daughters. `ASG_AWA` (annotated as one "
        "of the two) and unassigned cells are left out: 10 and 14 triplets.",
        ("triplets", "cophenetic"),
    ),
    DIVISIONS: (
        "## Divisions of simulated cells\n\nThe tree of 1,024 cells of TedSim against their true divisions; 100,000 "
        "triplets and all pairs of cells. Our tree has all its leaves, 24 to 34; triplets that it does not resolve, as "
        "those within a leaf, count 1/3, as guessing would. Ward's tree and *chance* (its cells dealt out at random) "
        "tell all cells apart.",
        ("triplets", "cophenetic"),
    ),
}


class Known:
    """A known tree and the group of each cell in it.

    Parameters
    ----------
    tree
        Tree over the groups; what is not known is not resolved.
    distances
        Distances of groups.
    groups
        Group of each cell; empty where the cell is in none.
    """

    def __init__(self, tree: Tree, distances: pd.DataFrame, groups: NDArray[np.object_]) -> None:
        names, count = np.unique(groups.astype(str), return_counts=True)
        enough = set(names[count >= MIN_CELLS]) & set(tree.leaves)
        self.tree, self.distances = tree, distances
        self.groups = np.array([name if name in enough else "" for name in groups], dtype=object)
        self.names = sorted(enough)

    def scores(self, said: Tree) -> dict[str, float]:
        """Agreement with a tree over the groups."""
        return {
            "triplets": ht.metrics.triplet_accuracy(self.tree, said),
            "cophenetic": ht.metrics.cophenetic_correlation(said, self.distances),
        }

    @property
    def asked(self) -> int:
        """Number of triplets that the known tree resolves."""
        meet = Meetings(self.tree, self.names)
        i, j, k = np.array([(a, b, c) for a in range(len(self.names)) for b in range(a) for c in range(b)]).T
        return int((meet.closest(i, j, k) >= 0).sum())


def depths(tree: Tree) -> pd.DataFrame:
    """How far up two leaves meet: the level of their common ancestor, negative."""
    names = list(tree.leaves)
    i, j = np.triu_indices(len(names), 1)
    out = pd.DataFrame(-float(tree.depth), index=names, columns=names)
    values = out.to_numpy(copy=True)
    values[i, j] = values[j, i] = -tree.levels[Meetings(tree, names).node(i, j)]
    return pd.DataFrame(values, index=names, columns=names)


def readings(name: str) -> tuple[str, str]:
    """The two cells that a name of Packer et al. may stand for; the same twice where there is one."""
    first, *second = name.split("/")
    return first.replace("x", "l"), (second or [first])[0].replace("x", "r")


def lineage_of(names: list[str], parents: dict[str, str], side: int) -> Tree:
    """The part of the cell lineage that leads to some cells, which are its leaves, mothers beside their daughters.

    Parameters
    ----------
    names
        Names as in Packer et al.
    parents
        Parent of each cell of the lineage.
    side
        Which reading of the names to take, 0 or 1.
    """
    cells = {readings(name)[side]: name for name in names}
    up: dict[str, str] = {}
    for cell in cells:
        here = cell
        while here in parents and here not in up:
            up[here] = parents[here]
            here = parents[here]
    mothers = set(up.values())
    # a cell's own node gets another name, so that the leaf beside its daughters can have it
    of_leaves = {name: cell if cell in mothers else up[cell] for cell, name in cells.items()}
    leaves = {cell for cell in cells if cell not in mothers}
    return Tree.from_parents({c: p for c, p in up.items() if c not in leaves} | of_leaves)


def agreed(a: Tree, b: Tree) -> Tree:
    """The clades that two trees of the same leaves have in common (strict consensus)."""
    clades = [{frozenset(tree.subtree_leaves(node)) for node in tree.nodes} for tree in (a, b)]
    kept = sorted(clades[0] & clades[1], key=lambda clade: (len(clade), sorted(clade)))
    name = {clade: next(iter(clade)) if len(clade) == 1 else f"clade {i}" for i, clade in enumerate(kept)}
    above = {clade: next((other for other in kept[i + 1 :] if clade < other), None) for i, clade in enumerate(kept)}
    return Tree.from_parents({name[c]: "" if up is None else name[up] for c, up in above.items()})


def lineage(cells: Cells) -> Known:
    """Sulston's lineage of the cells of the worm."""
    if "lineage" not in cells.adata.obs:
        msg = "no lineage names"
        raise NotApplicable(msg)
    table = pd.read_csv(cells._folder / "celegans_lineage_tree.csv")
    parents = dict(table.dropna(subset="parent")[["cell", "parent"]].astype(str).to_numpy().tolist())
    said = cells.adata.obs["lineage"].astype(object)
    groups = said.where(said.notna(), "").astype(str).to_numpy(object)
    count = pd.Series(groups[groups != ""]).value_counts()
    names = sorted(count.index[count >= MIN_CELLS])
    lost = [cell for name in names for cell in readings(name) if cell not in parents]
    if lost:
        msg = f"not in the lineage: {lost}"
        raise ValueError(msg)
    first, second = (lineage_of(names, parents, side) for side in (0, 1))
    distances = (depths(first).loc[names, names] + depths(second).loc[names, names]) / 2
    return Known(agreed(first, second), distances, groups)


def stored(cells: Cells, what: str) -> str:
    """Text in the ``uns`` of a data set's file."""
    held = ad.read_h5ad(cells._folder / f"{cells.data.name}.h5ad", backed="r").uns
    if what not in held:
        msg = f"no {what.replace('_', ' ')}"
        raise NotApplicable(msg)
    return str(held[what])


def types(cells: Cells) -> Known:
    """The published tree of the types of a data set."""
    tree = Tree.from_parents(json.loads(stored(cells, "cell_type_parent")), own_leaf=True)
    groups = np.where(np.isin(cells.labels, UNRESOLVED), "", cells.labels).astype(object)
    return Known(tree, depths(tree), groups)


def of_linkage(merges: NDArray[np.float64], names: list[str]) -> Tree:
    """SciPy's linkage of named things as a tree with heights."""
    m = len(names)
    labels = [*names, *(f"clade {i}" for i in range(len(merges)))]
    parents = np.full(len(labels), -1)
    for row, pair in enumerate(merges[:, :2].astype(int)):
        parents[pair] = m + row
    return Tree(labels, parents, heights=[*np.zeros(m), *np.maximum.accumulate(merges[:, 2])])


def joined(distances: NDArray[np.float64], names: list[str], method: str = "average") -> Tree:
    """A tree over groups from their distances."""
    even = (distances + distances.T) / 2
    np.fill_diagonal(even, 0.0)
    return of_linkage(linkage(squareform(even, checks=False), method), names)


def between(leaf: NDArray[np.integer], apart: NDArray[np.float64], groups: NDArray, names: list[str]) -> Tree:
    """A tree over groups of cells from distances of leaves, averaged over pairs of cells.

    Parameters
    ----------
    leaf
        Number of each cell's leaf, (n,).
    apart
        Distances of leaves.
    groups
        Group of each cell.
    names
        The groups.
    """
    counts = np.stack([np.bincount(leaf[groups == name], minlength=len(apart)) for name in names])
    share = counts / counts.sum(1, keepdims=True)
    return joined(share @ apart @ share.T, names)


def leaf_heights(tree: Tree) -> NDArray[np.float64]:
    """Height at which any two leaves meet, in the order of the leaves."""
    names = list(tree.leaves)
    i, j = np.triu_indices(len(names), 1)
    out = np.zeros((len(names), len(names)))
    out[i, j] = out[j, i] = tree.heights[Meetings(tree, names).node(i, j)]
    return out


def hdtree(cells: Cells, groups: NDArray, names: list[str]) -> Tree:
    """Where the cells of groups meet in our tree."""
    adata = _hdtree.annotated(cells)
    tree = Tree.from_adata(adata)
    return between(tree.leaf_index(adata.obs["hdtree_leaf"]), leaf_heights(tree), groups, names)


def hdtree_graph(cells: Cells, groups: NDArray, names: list[str]) -> Tree:
    """How long the way is between groups over our graph of leaves."""
    adata = _hdtree.annotated(cells)
    ht.tl.lineage_graph(adata)
    tree, graph = Tree.from_adata(adata), adata.uns["hdtree"]["graph"]
    graph = graph[graph["kind"] != "tree"]
    i, j = tree.leaf_index(graph["source"]), tree.leaf_index(graph["target"])
    m = len(tree.leaves)
    way = dijkstra(csr_matrix((graph["weight"], (i, j)), shape=(m, m)), directed=False)
    # leaves without cells are in no edge, and no group asks for them
    way[~np.isfinite(way)] = 0.0
    return between(tree.leaf_index(adata.obs["hdtree_leaf"]), way, groups, names)


def lineage_tree(*, told: bool, told_root: bool = False) -> Said:
    """The tree of descent over groups, from the medoid of the earliest 2 % of the cells that are in one.

    Parameters
    ----------
    told
        Whether the groups are the milestones; without, milestones are nodes of our tree, and groups are placed on them.
    told_root
        Whether the root is the medoid of the group that all others come from, in place of the earliest cells.
    """

    def said(cells: Cells, groups: NDArray, names: list[str]) -> Tree:
        founder = FOUNDER.get(cells.data.name)
        if told_root and founder not in names:
            msg = "no group that all others come from"
            raise NotApplicable(msg)
        chosen = groups != ""
        adata = _hdtree.annotated(cells)[chosen].copy()
        adata.obs["group"] = groups[chosen].astype(str)
        first = np.flatnonzero(adata.obs["group"] == founder) if told_root else _data.earliest(cells.time[chosen])
        root = adata.obs_names[medoid(adata.obsm["X_hdtree"], first)]
        ht.tl.lineage_tree(adata, f"cell:{root}", groupby="group", milestone_key="group" if told else None)
        return with_own_leaves(ht.get.lineage_tree(adata, "group"))

    return said


def with_own_leaves(tree: Tree) -> Tree:
    """A lineage whose inner nodes hold cells with a leaf for each, which meet the lower the longer they were one."""
    above = ["" if i < 0 else tree.nodes[i] for i in tree.parents]
    out = Tree.from_parents(dict(zip(tree.nodes, above, strict=True)), own_leaf=True)
    leaves = out.index(list(out.leaves))
    heights = (out.depth - out.levels).astype(float)
    heights[leaves] = 0.0
    return Tree(out.nodes, out.parents, heights=heights)


def ward(cells: Cells, groups: NDArray, names: list[str]) -> Tree:
    """Where the cells of groups meet in Ward's tree of all cells."""
    merges = linkage(cells.space("PCA").points, "ward")
    tree, leaf = _clusters.top_of_linkage(merges, min(TOP, len(merges)))
    n = len(merges) + 1
    heights = [merges[int(node) - n, 2] if tree.sizes[i] > 1 else 0.0 for i, node in enumerate(tree.nodes)]
    tree = Tree(tree.nodes, tree.parents, heights=heights)
    return between(tree.leaf_index(leaf), leaf_heights(tree), groups, names)


def cells_of_hdtree(cells: Cells) -> Tree:
    """Our tree with all its leaves, the cells of a leaf below it, which it does not tell apart."""
    adata = _hdtree.annotated(cells)
    return hung(Tree.from_adata(adata), adata.obs["hdtree_leaf"], list(adata.obs_names))


def hung(tree: Tree, leaf: Iterable[str], names: list[str]) -> Tree:
    """A tree with cells below its leaves.

    Parameters
    ----------
    tree
        The tree.
    leaf
        Leaf of each cell.
    names
        Names of the cells.
    """
    nodes = [f"node {name}" for name in tree.nodes]  # cells may be called as nodes are
    above = [*tree.parents, *tree.index([str(one) for one in leaf])]
    return Tree([*nodes, *names], above, heights=[*tree.heights, *np.zeros(len(names))])


def cells_of_ward(cells: Cells) -> Tree:
    """Ward's tree of all cells."""
    return of_linkage(linkage(cells.space("PCA").points, "ward"), list(cells.adata.obs_names))


def cells_of_chance(cells: Cells) -> Tree:
    """The same with the cells dealt out at random."""
    tree = cells_of_ward(cells)
    return relabelled(tree, list(cells.adata.obs_names), np.random.default_rng(cells.seed))


def relabelled(tree: Tree, names: list[str], rng: np.random.Generator) -> Tree:
    """A tree with some names dealt out at random."""
    other = dict(zip(names, rng.permutation(names), strict=True))
    return Tree([str(other.get(name, name)) for name in tree.nodes], tree.parents, heights=tree.heights)


def divided(said: Callable[[Cells], Tree]) -> Callable[[Cells], dict[str, float]]:
    """A tree of cells against the known divisions, by triplets and pairs that the seed draws."""

    def measured(cells: Cells) -> dict[str, float]:
        truth = Tree.from_newick(stored(cells, "division_tree"))
        found = said(cells)
        return {
            "triplets": ht.metrics.triplet_accuracy(truth, found, seed=cells.seed),
            "cophenetic": ht.metrics.cophenetic_correlation(found, truth, seed=cells.seed),
        }

    return measured


def of_named(cells: Cells, groups: NDArray, names: list[str]) -> ad.AnnData:
    """Cells that are in a group, with scanpy's neighbours in PCA."""
    chosen = groups != ""
    adata = _clusters.neighbors(cells.space("PCA").points[chosen])
    adata.obs["group"] = pd.Categorical(groups[chosen], categories=names)
    return adata


def means(cells: Cells, groups: NDArray, names: list[str]) -> Tree:
    """Average linkage of the groups' means."""
    chosen = groups != ""
    centres = group_means(cells.space("PCA").points[chosen], pd.Index(names).get_indexer(groups[chosen]))
    return joined(np.linalg.norm(centres[:, None] - centres[None], axis=-1), names)


def dendrogram(cells: Cells, groups: NDArray, names: list[str]) -> Tree:
    """``sc.tl.dendrogram``."""
    adata = of_named(cells, groups, names)
    sc.tl.dendrogram(adata, "group", use_rep=_clusters.SPACE)
    return of_linkage(np.asarray(adata.uns["dendrogram_group"]["linkage"]), names)


def paga(cells: Cells, groups: NDArray, names: list[str]) -> Tree:
    """PAGA's connectivities, strongest first."""
    adata = of_named(cells, groups, names)
    sc.tl.paga(adata, groups="group")
    return joined(1.0 - np.asarray(adata.uns["paga"]["connectivities"].todense()), names, "single")


def paga_on_ours(cells: Cells, groups: NDArray, names: list[str]) -> Tree:
    """The same with our cell graph in place of scanpy's."""
    adata = _hdtree.annotated(cells)
    ht.tl.lineage_graph(adata)
    chosen = groups != ""
    adata = adata[chosen].copy()
    adata.obs["group"] = pd.Categorical(groups[chosen], categories=names)
    sc.tl.paga(adata, groups="group", neighbors_key="hdtree_neighbors")
    return joined(1.0 - np.asarray(adata.uns["paga"]["connectivities"].todense()), names, "single")


def against(known: Callable[[Cells], Known], said: Said) -> Callable[[Cells], dict[str, float]]:
    """A method against a known tree.

    Parameters
    ----------
    known
        The known tree of a data set.
    said
        From cells and groups to a tree over the groups.
    """

    def measured(cells: Cells) -> dict[str, float]:
        truth = known(cells)
        return truth.scores(said(cells, truth.groups, truth.names)) | {"asked": truth.asked}

    return measured


def chance(known: Callable[[Cells], Known]) -> Callable[[Cells], dict[str, float]]:
    """Names dealt out at random over the tree of means, as many times as `PERMUTATIONS` says."""

    def measured(cells: Cells) -> dict[str, float]:
        truth, rng = known(cells), np.random.default_rng(cells.seed)
        tree = means(cells, truth.groups, truth.names)
        scores = [truth.scores(relabelled(tree, truth.names, rng)) for _ in range(PERMUTATIONS)]
        return dict(pd.DataFrame(scores).mean()) | {"asked": truth.asked}

    return measured


SAID: dict[str, tuple[str, str, Said]] = {
    "hdtree": ("HDTree", "ours", hdtree),
    "graph": ("HDTree, graph", "ours", hdtree_graph),
    "lineage-tree": ("HDTree, lineage tree", "ours", lineage_tree(told=False)),
    "lineage-tree-told": ("HDTree, lineage tree, told types", "ours", lineage_tree(told=True)),
    "lineage-tree-root": ("HDTree, lineage tree, told types and root", "ours", lineage_tree(told=True, told_root=True)),
    "graph-paga": ("PAGA on HDTree's graph, told types", "ours", paga_on_ours),
    "ward": ("PCA + Ward", "peer", ward),
    "means": ("type means, told types", "peer", means),
    "dendrogram": ("dendrogram, told types", "peer", dendrogram),
    "paga": ("PAGA, told types", "peer", paga),
}
METHODS = (
    {
        f"{table}-{key}": Method(name, against(known, said), kind, table)
        for table, known in ((LINEAGE, lineage), (TYPES, types))
        for key, (name, kind, said) in SAID.items()
    }
    | {
        f"{table}-chance": Method("chance", chance(known), "reference", table)
        for table, known in ((LINEAGE, lineage), (TYPES, types))
    }
    | {
        "divisions-hdtree": Method("HDTree", divided(cells_of_hdtree), "ours", DIVISIONS),
        "divisions-ward": Method("PCA + Ward", divided(cells_of_ward), "peer", DIVISIONS),
        "divisions-chance": Method("chance", divided(cells_of_chance), "reference", DIVISIONS),
    }
)
"""Rows by their names on the command line."""


def main() -> None:
    """Run what is missing and write the tables."""
    parser = _run.parser(__doc__.splitlines()[0], SETS, METHODS)
    parser.set_defaults(seeds=3)
    arguments = parser.parse_args()
    rows = _run.run("known_trees", METHODS, arguments)
    figure = (TYPES, ("triplets", "cophenetic"))
    _report.write("known_trees", rows, METHODS, arguments.out, head=HEAD, tables=TABLES, figure=figure)


if __name__ == "__main__":
    main()
