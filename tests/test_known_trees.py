"""Trees against known ones: cophenetic correlation, trees from tables of parents, and the benchmark's own steps."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from scipy.cluster.hierarchy import cophenet, linkage
from scipy.spatial.distance import pdist, squareform
from scipy.stats import pearsonr

import hdtree_sc as ht
from tests.helpers import DATA

sys.path.append(str(Path(__file__).parents[1]))  # the benchmarks are not installed with the package


@pytest.fixture(scope="module")
def known_trees():
    pytest.importorskip("benchmarks", reason="the benchmarks are in the repository only")
    from benchmarks import known_trees

    return known_trees


# -- cophenetic correlation ----------------------------------------------------------------------------------


def test_pearson_is_the_classic_coefficient_of_a_linkage_with_its_distances(known_trees):
    points = np.random.default_rng(0).normal(size=(40, 3))
    names = [f"p{i}" for i in range(40)]
    merges, distances = linkage(points, "average"), pdist(points)
    tree = known_trees.of_linkage(merges, names)
    table = pd.DataFrame(squareform(distances), names, names)
    said = ht.metrics.cophenetic_correlation(tree, table, method="pearson")
    assert said == pytest.approx(pearsonr(cophenet(merges), distances)[0])
    assert said == pytest.approx(cophenet(merges, distances)[0])
    shuffled = table.sample(frac=1, random_state=0).sample(frac=1, axis=1, random_state=1)
    assert ht.metrics.cophenetic_correlation(tree, shuffled, method="pearson") == pytest.approx(said)


def test_one_is_the_same_order_of_heights_and_zero_is_chance():
    tree = ht.Tree.from_newick("(((a:1,b:1):1,(c:1,d:1):1):3,((e:2,f:2):1,g:3):2)root;")
    stretched = ht.Tree(tree.nodes, tree.parents, heights=tree.heights**3)
    assert ht.metrics.cophenetic_correlation(tree, stretched) == pytest.approx(1)
    assert ht.metrics.cophenetic_correlation(tree, stretched, method="pearson") < 1
    rng, scores = np.random.default_rng(0), []
    for _ in range(300):
        to = dict(zip(tree.leaves, rng.permutation(tree.leaves), strict=True))
        renamed = ht.Tree([to.get(name, name) for name in tree.nodes], tree.parents, heights=tree.heights)
        scores.append(ht.metrics.cophenetic_correlation(tree, renamed))
    assert abs(np.mean(scores)) < 0.06


def test_a_tree_without_any_split_correlates_with_nothing():
    assert np.isnan(
        ht.metrics.cophenetic_correlation(ht.Tree.from_newick("((a,b),c);"), ht.Tree.from_newick("(a,b,c);"))
    )


def test_pairs_are_drawn_where_there_are_many():
    rng = np.random.default_rng(0)
    parents = [-1, *(int(rng.integers(0, i)) for i in range(1, 400))]
    tree = ht.Tree([f"n{i}" for i in range(400)], parents)
    noisy = ht.Tree(tree.nodes, tree.parents, heights=tree.heights + 0.5 * rng.random(400))
    whole = ht.metrics.cophenetic_correlation(tree, noisy)
    drawn = [ht.metrics.cophenetic_correlation(tree, noisy, n_pairs=5000, seed=seed) for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]
    np.testing.assert_allclose(drawn, whole, atol=0.05)


def test_distances_that_are_none_are_refused():
    tree = ht.Tree.from_newick("((a,b),c);")
    table = pd.DataFrame(np.arange(9.0).reshape(3, 3), list("abc"), list("abc"))
    with pytest.raises(ValueError, match="finite and symmetric"):
        ht.metrics.cophenetic_correlation(tree, table)
    with pytest.raises(ValueError, match="same unique names wanted as index and columns"):
        ht.metrics.cophenetic_correlation(tree, table.iloc[:2])
    with pytest.raises(ValueError, match="a Tree or a DataFrame of distances wanted, got ndarray"):
        ht.metrics.cophenetic_correlation(tree, table.to_numpy())
    with pytest.raises(ValueError, match="share 2 leaf names"):
        ht.metrics.cophenetic_correlation(tree, ht.Tree.from_newick("((a,b),z);"))
    with pytest.raises(ValueError, match="method: 'kendall' is unknown"):
        ht.metrics.cophenetic_correlation(tree, tree, method="kendall")


# -- trees from parents --------------------------------------------------------------------------------------


def test_types_of_the_worm_are_a_tree():
    parents = json.loads(ht.datasets.celegans().uns["cell_type_parent"])
    tree = ht.Tree.from_parents(parents)
    assert tree.root == "root"
    assert set(tree.children("root")) == {"ADL_parent", "Neuroblast_ASG_AWA"}
    assert tree.lca("ASG", "AWA") == "ASG_AWA"
    assert not tree.is_leaf("ADL_parent")


def test_mother_cells_can_be_leaves_beside_their_daughters():
    tree = ht.Tree.from_parents({"ADL": "ADL_parent", "ASG": "N", "AWA": "N"}, own_leaf=True)
    assert set(tree.leaves) == {"ADL", "ADL_parent", "ASG", "AWA", "N"}
    assert tree.lca("ADL", "ADL_parent") == "ADL_parent clade"
    assert tree.lca("N", "AWA") == "N clade"


def test_a_series_and_one_root_are_taken_as_they_are():
    tree = ht.Tree.from_parents(pd.Series({"b": "a", "c": "a", "a": None}))
    assert (tree.root, set(tree.leaves)) == ("a", {"b", "c"})
    with pytest.raises(ValueError, match="'b' have more than one parent"):
        ht.Tree.from_parents(pd.Series(["a", "c"], index=["b", "b"]))
    with pytest.raises(ValueError, match="cycle"):
        ht.Tree.from_parents({"a": "b", "b": "a"})


# -- the benchmark's steps -----------------------------------------------------------------------------------


def cell_parents():
    """All cells four and five divisions from AB."""
    cells = {"AB": "P0"}
    level = ["AB"]
    for daughters in ("ap", "lr", "ap", "ap", "ap"):
        level = [cell + side for cell in level for side in daughters]
        cells |= {cell: cell[:-1] for cell in level}
    return cells | {"EMS": "P1", "P1": "P0"}


def test_ambiguous_names_are_read_on_both_sides(known_trees):
    assert known_trees.readings("ABpxaapapaa") == ("ABplaapapaa", "ABpraapapaa")
    assert known_trees.readings("ABalppppaa/ABpraaapaa") == ("ABalppppaa", "ABpraaapaa")
    assert known_trees.readings("ABpla") == ("ABpla", "ABpla")


def test_what_both_readings_say_is_kept_and_the_rest_left_open(known_trees):
    names = ["ABpxpa", "ABpxpaa", "ABpxpap", "ABalpp/ABprap", "ABpxaa"]
    sides = [known_trees.lineage_of(names, cell_parents(), side) for side in (0, 1)]
    assert all(set(tree.leaves) == set(names) for tree in sides)
    # on the right the last two are sisters, on the left one of them is on the other side of the embryo
    assert len(sides[1].subtree_leaves(sides[1].lca(*names[3:]))) == 2
    assert len(sides[0].subtree_leaves(sides[0].lca(*names[3:]))) == 5
    both = known_trees.agreed(*sides)
    assert set(both.leaves) == set(names)
    clades = {frozenset(both.subtree_leaves(node)) for node in both.nodes if not both.is_leaf(node)}
    assert clades == {frozenset(names[:3]), frozenset(names)}


def test_the_lineage_of_the_worm_is_resolved(known_trees):
    table = DATA / "celegans_lineage_tree.csv"
    if not table.exists():
        pytest.skip("needs the lineage table")
    parents = dict(pd.read_csv(table).dropna(subset="parent")[["cell", "parent"]].astype(str).to_numpy().tolist())
    names = sorted(ht.datasets.celegans().obs["lineage"].dropna().astype(str).unique())
    tree = known_trees.agreed(*(known_trees.lineage_of(names, parents, side) for side in (0, 1)))
    meet = tree.lca("ABalppppaa/ABpraaapaa", "ABalppppaad/ABpraaapaad")
    assert len(tree.subtree_leaves(meet)) == 2, "ADL and its mother"
    assert len(tree.subtree_leaves(tree.lca("ABpxaapapaa", "ABpxaapapap"))) == 3, "ASG, AWA and their mother"


def test_distances_of_groups_come_from_where_their_cells_meet(known_trees):
    tree = ht.Tree.from_newick("((a:1,b:1)ab:2,c:3)root;")
    leaf = tree.leaf_index(["a", "a", "b", "b", "c", "c"])
    groups = np.array(["x", "x", "y", "", "z", "z"], dtype=object)
    said = known_trees.between(leaf, known_trees.leaf_heights(tree), groups, ["x", "y", "z"])
    meets = said.lca("x", "y")
    assert said.heights[said.index(meets)] == 1
    assert said.heights[0] == 3


def test_ties_and_names_do_not_favour_paga(known_trees):
    """Trees by connectivity alone: the strongest pair first, whatever the order of names."""
    names = ["u", "v", "w", "x"]
    connectivity = np.array([[0, 0.9, 0.1, 0], [0.9, 0, 0.2, 0], [0.1, 0.2, 0, 0.5], [0, 0, 0.5, 0]])
    for order in (list(range(4)), [3, 1, 0, 2]):
        tree = known_trees.joined(1 - connectivity[np.ix_(order, order)], [names[i] for i in order], "single")
        assert set(tree.subtree_leaves(tree.lca("u", "v"))) == {"u", "v"}
        assert set(tree.subtree_leaves(tree.lca("w", "x"))) == {"w", "x"}


def test_cells_hang_below_the_leaves_and_are_not_told_apart_there(known_trees):
    tree = ht.Tree.from_newick("((a:1,b:1)ab:2,c:3)root;")
    hung = known_trees.hung(tree, ["a", "a", "a", "b", "c"], ["a", "t2", "t3", "t4", "t5"])  # a cell called as a leaf
    assert set(hung.leaves) == {"a", "t2", "t3", "t4", "t5"}
    assert hung.heights[hung.index(hung.lca("a", "t4"))] == 1
    # of ten triplets nine are right, and the three cells of leaf a count as guessed
    truth = ht.Tree.from_newick("((((a,t2),t3),t4),t5);")
    assert ht.metrics.triplet_accuracy(truth, hung) == pytest.approx((9 + 1 / 3) / 10)


def test_a_mother_is_a_leaf_beside_her_daughters_and_meets_them_at_her_depth(known_trees):
    lineage = ht.Tree.from_newick("((ASG:.1,AWA:.2)N:.3,ADL:.4)ADL_parent;")
    tree = known_trees.with_own_leaves(lineage)
    assert set(tree.leaves) == {"ADL", "ADL_parent", "ASG", "AWA", "N"}
    height = {pair: tree.heights[tree.index(tree.lca(*pair))] for pair in [("ASG", "AWA"), ("N", "AWA"), ("ADL", "N")]}
    assert height["ASG", "AWA"] == height["N", "AWA"] < height["ADL", "N"]
    assert (tree.heights[tree.index(list(tree.leaves))] == 0).all()


@pytest.mark.parametrize("told", [False, True])
def test_groups_stand_on_the_lineage_of_the_worm(known_trees, annotated, monkeypatch, told):
    monkeypatch.setattr(known_trees._hdtree, "annotated", lambda cells: annotated)
    time = annotated.obs["time"].to_numpy(float)
    cells = SimpleNamespace(time=time, data=SimpleNamespace(name="fletcher17_olfactory_latent"))
    types = annotated.obs["cell_type"].astype(str).to_numpy(object)
    names = ["ADL", "ADL_parent", "AWB", "Neuroblast_ASG_AWA"]
    groups = np.where(np.isin(types, names), types, "")
    tree = known_trees.lineage_tree(told=told)(cells, groups, names)
    assert set(names) <= set(tree.leaves)
    with pytest.raises(known_trees.NotApplicable, match="no group that all others come from"):
        known_trees.lineage_tree(told=told, told_root=True)(cells, groups, names)
    monkeypatch.setitem(known_trees.FOUNDER, "fletcher17_olfactory_latent", "ADL_parent")
    rooted = known_trees.lineage_tree(told=told, told_root=True)(cells, groups, names)
    assert len(rooted.path("ADL_parent")) <= min(len(rooted.path(name)) for name in names)
