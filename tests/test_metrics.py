"""Metrics against hand counts, brute force, scikit-learn and closed forms."""

from __future__ import annotations

from itertools import combinations, combinations_with_replacement

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import sqrtm
from scipy.optimize import linear_sum_assignment
from sklearn.metrics.cluster import contingency_matrix

import hdtree_sc as ht
from hdtree_sc import Tree

#        root
#       /    \
#      0      1
#     / \    / \
#   0.0 0.1 1.0 1.1
SEVEN = Tree(["root", "0", "1", "0.0", "0.1", "1.0", "1.1"], [-1, 0, 0, 1, 1, 2, 2])


@st.composite
def trees_with_cells(draw, max_nodes=12, max_cells=15):
    """A random tree of any shape, and cells with labels at any of its nodes."""
    n = draw(st.integers(1, max_nodes))
    parents = [-1, *(draw(st.integers(0, i - 1)) for i in range(1, n))]
    tree = Tree([f"n{i}" for i in range(n)], parents)
    n_cells = draw(st.integers(1, max_cells))
    nodes = draw(st.lists(st.sampled_from(tree.nodes), min_size=n_cells, max_size=n_cells))
    labels = draw(st.lists(st.sampled_from("xyz"), min_size=n_cells, max_size=n_cells))
    return tree, nodes, labels


class TestDendrogramPurity:
    def test_hand_count(self):
        # one cell a leaf; the only pair of two cells is a-a, which meets at the root, where a is 2 of 4
        leaf, labels = ["0.0", "0.1", "1.0", "1.1"], ["a", "b", "a", "c"]
        assert ht.metrics.dendrogram_purity(SEVEN, leaf, labels) == pytest.approx((4 * 1 + 2 / 4) / 5)

    def test_pure_subtrees_are_one_whatever_is_below(self):
        assert ht.metrics.dendrogram_purity(SEVEN, ["0.0", "0.1", "0", "1.0"], ["a", "a", "a", "b"]) == 1

    def test_all_cells_in_one_node_is_the_chance_of_two_draws(self):
        purity = ht.metrics.dendrogram_purity(SEVEN, ["1"] * 4, [0, 0, 0, 1])
        assert purity == pytest.approx((6 * 3 / 4 + 1 * 1 / 4) / 7)

    @given(trees_with_cells())
    @settings(max_examples=60, deadline=None)
    def test_equals_the_mean_over_all_pairs(self, case):
        tree, nodes, labels = case
        below = {n: [m for m in tree.nodes if n in ("n0", *tree.path(m))] for n in tree.nodes}
        shares = []
        for i, j in combinations_with_replacement(range(len(nodes)), 2):
            if labels[i] == labels[j]:
                members = [k for k, node in enumerate(nodes) if node in below[tree.lca(nodes[i], nodes[j])]]
                shares.append(np.mean([labels[k] == labels[i] for k in members]))
        assert ht.metrics.dendrogram_purity(tree, nodes, labels) == pytest.approx(np.mean(shares))

    def test_leaves_may_be_categorical(self):
        leaf = pd.Categorical(["0.1", "1.0", "0.1"], categories=list(SEVEN.leaves))
        assert ht.metrics.dendrogram_purity(SEVEN, pd.Series(leaf), ["a", "b", "a"]) == 1

    def test_a_node_that_is_not_there(self):
        with pytest.raises(KeyError, match=r"no such node: '2'.*'0.0'"):
            ht.metrics.dendrogram_purity(SEVEN, ["0", "2"], ["a", "b"])


class TestClusters:
    def test_leaf_purity_weighs_leaves_by_cells(self):
        assert ht.metrics.leaf_purity(["p"] * 4 + ["q"], ["a", "a", "a", "b", "b"]) == pytest.approx(4 / 5)

    def test_accuracy_names_each_cluster_once(self):
        # both clusters are mostly "a"; only one of them may be called so
        labels, clusters = list("aaaaab"), [0, 0, 0, 1, 1, 1]
        assert ht.metrics.clustering_accuracy(labels, clusters) == pytest.approx(4 / 6)

    def test_accuracy_does_not_see_the_names(self):
        labels = np.random.default_rng(0).integers(5, size=100)
        assert ht.metrics.clustering_accuracy(labels, np.array(list("vwxyz"))[labels]) == 1

    @given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 4)), min_size=1, max_size=30))
    @settings(max_examples=50, deadline=None)
    def test_against_scikit_learn(self, pairs):
        labels, clusters = np.array(pairs).T
        table = contingency_matrix(labels, clusters)
        assert ht.metrics.clustering_accuracy(labels, clusters) == pytest.approx(
            table[linear_sum_assignment(-table)].sum() / len(labels)
        )
        assert ht.metrics.leaf_purity(clusters, labels) == pytest.approx(table.max(0).sum() / len(labels))


class TestTimeNeighborhoodRatio:
    def test_two_islands_of_one_time_each(self):
        points = np.array([[0.0], [1], [2], [100], [101], [102]])
        assert ht.metrics.time_neighborhood_ratio(points, [1, 1, 1, 2, 2, 2], k=2) == 1
        assert ht.metrics.time_neighborhood_ratio(points, [1, 2, 3, 1, 2, 3], k=2) == 0

    def test_bins_count_alike_however_small(self):
        # the 8 cells at 0 have neighbours of their time; the 2 late ones lie among them, 1 of 9 neighbours is late
        ratio = ht.metrics.time_neighborhood_ratio(np.arange(10.0)[:, None], [0] * 8 + [1] * 2, k=9)
        assert ratio == pytest.approx((7 / 9 + 1 / 9) / 2)

    def test_a_cell_is_not_its_own_neighbour_even_with_duplicates(self):
        ratio = ht.metrics.time_neighborhood_ratio(np.zeros((4, 2)), [0, 1, 2, 3], k=3)
        assert ratio == 0

    def test_against_all_distances(self):
        rng = np.random.default_rng(1)
        points, time = rng.normal(size=(80, 3)), rng.integers(4, size=80)
        distances = ((points[:, None] - points[None]) ** 2).sum(-1) + np.diag(np.full(80, np.inf))
        same = (time[np.argsort(distances, 1)[:, :10]] == time[:, None]).mean(1)
        expected = np.mean([same[time == t].mean() for t in range(4)])
        assert ht.metrics.time_neighborhood_ratio(points, time, k=10) == pytest.approx(expected)

    def test_more_neighbours_than_cells(self):
        with pytest.raises(ValueError, match="k=30 neighbours of each of 5 cells: k must be 1 to 4"):
            ht.metrics.time_neighborhood_ratio(np.zeros((5, 2)), [0] * 5)


class TestTriplets:
    def test_a_tree_agrees_with_itself_in_any_order_of_children(self):
        turned = Tree.from_newick("((d,c),(b,a));")
        assert ht.metrics.triplet_accuracy(Tree.from_newick("((a,b),(c,d));"), turned) == 1

    def test_hand_count(self):
        # abc: ab | c in both; abd: ab in both; acd: cd against ac; bcd: cd against bc
        truth, said = Tree.from_newick("((a,b),(c,d));"), Tree.from_newick("(((a,b),c),d);")
        assert ht.metrics.triplet_accuracy(truth, said) == pytest.approx(2 / 4)

    def test_a_star_is_chance_as_a_guess_and_no_truth(self):
        star, truth = Tree.from_newick("(a,b,c,d);"), Tree.from_newick("((a,b),(c,d));")
        assert ht.metrics.triplet_accuracy(truth, star) == pytest.approx(1 / 3)
        with pytest.raises(ValueError, match="resolves none"):
            ht.metrics.triplet_accuracy(star, truth)

    def test_only_shared_leaves_count(self):
        truth, said = Tree.from_newick("((a,b),(c,x));"), Tree.from_newick("((a,b),(c,(y,z)));")
        assert ht.metrics.triplet_accuracy(truth, said) == 1
        with pytest.raises(ValueError, match="share 2 leaf names"):
            ht.metrics.triplet_accuracy(truth, Tree.from_newick("(a,(b,q));"))

    @given(st.lists(st.integers(0, 10**6), min_size=4, max_size=25), st.lists(st.integers(0, 10**6), min_size=25))
    @settings(max_examples=30, deadline=None)
    def test_equals_lowest_common_ancestors_of_all_triplets(self, a, b):
        first, second = (
            Tree([f"n{i}" for i in range(len(x) + 1)], [-1, *(v % (i + 1) for i, v in enumerate(x))]) for x in (a, b)
        )
        shared = [n for n in first.leaves if n in second.leaves]

        def closest(tree, names):
            level = {pair: len(tree.path(tree.lca(*pair))) for pair in combinations(names, 2)}
            best = max(level.values())
            return [p for p in level if level[p] == best] if len(set(level.values())) > 1 else []

        scores = []
        for names in combinations(shared, 3):
            if truth := closest(first, names):
                said = closest(second, names)
                scores.append(1 / 3 if not said else float(said == truth))
        if scores:
            assert ht.metrics.triplet_accuracy(first, second) == pytest.approx(np.mean(scores))

    def test_drawn_triplets_come_close_to_all_and_repeat_with_their_seed(self):
        rng = np.random.default_rng(3)
        size = 400
        names = [f"n{i}" for i in range(size)]
        a, b = (Tree(names, [-1, *(int(rng.integers(i)) for i in range(1, size))]) for _ in "ab")
        exact = ht.metrics.triplet_accuracy(a, b, max_exact=size)
        drawn = [ht.metrics.triplet_accuracy(a, b, max_exact=3, n_triplets=40_000, seed=s) for s in (0, 0, 1)]
        assert drawn[0] == drawn[1] != drawn[2]
        assert drawn == pytest.approx([exact] * 3, abs=0.02)

    def test_every_set_of_three_is_drawn_alike(self):
        # 4 leaves, 4 triplets of which this guess has exactly one wrong
        truth, said = Tree.from_newick("(((a,b),c),d);"), Tree.from_newick("(((a,c),b),d);")
        assert ht.metrics.triplet_accuracy(truth, said) == pytest.approx(3 / 4)
        assert ht.metrics.triplet_accuracy(truth, said, max_exact=3) == pytest.approx(3 / 4, abs=0.01)


class TestDistributions:
    def test_frechet_of_normals_with_one_axis_each(self):
        # diagonal covariances: sum of squared differences of means and of standard deviations
        corners = np.array([[-1.0, -1], [-1, 1], [1, -1], [1, 1]]) * np.sqrt(3 / 4)  # covariance: the unit matrix
        moved = corners * [2, 3] + [5, 0]
        assert ht.metrics.frechet_distance(corners, moved) == pytest.approx(25 + 1 + 4)

    def test_frechet_against_the_matrix_root(self):
        rng = np.random.default_rng(0)
        x, y = rng.normal(size=(60, 4)), rng.normal(size=(50, 4)) @ rng.normal(size=(4, 4)) + 1
        cx, cy = np.cov(x.T), np.cov(y.T)
        expected = ((x.mean(0) - y.mean(0)) ** 2).sum() + np.trace(cx + cy - 2 * np.real(sqrtm(cx @ cy)))
        assert ht.metrics.frechet_distance(x, y) == pytest.approx(expected)

    def test_frechet_of_fewer_cells_than_axes_is_finite_and_zero_to_itself(self):
        x = np.random.default_rng(0).normal(size=(5, 20))
        assert ht.metrics.frechet_distance(x, x) == pytest.approx(0, abs=1e-5)

    def test_mmd_by_hand(self):
        # squared distances: 0 within each sample, 4 between, and their median is 4
        x, y = np.zeros((2, 1)), np.full((2, 1), 2.0)
        assert ht.metrics.mmd2(x, y, scales=[1.0]) == pytest.approx(1 + 1 - 2 * np.exp(-1))

    def test_mmd_is_zero_on_average_for_one_distribution_and_grows_with_the_shift(self):
        rng = np.random.default_rng(0)
        same = [ht.metrics.mmd2(rng.normal(size=(60, 3)), rng.normal(size=(60, 3))) for _ in range(40)]
        assert abs(np.mean(same)) < 3 * np.std(same) / np.sqrt(40)
        x, y = rng.normal(size=(60, 3)), rng.normal(size=(60, 3))
        assert max(same) < ht.metrics.mmd2(x, y + 1) < ht.metrics.mmd2(x, y + 2)

    def test_spaces_must_agree(self):
        for metric in (ht.metrics.frechet_distance, ht.metrics.mmd2):
            with pytest.raises(ValueError, match="X has 3 coordinates and Y has 4"):
                metric(np.zeros((5, 3)), np.zeros((5, 4)))
            with pytest.raises(ValueError, match="two or more cells"):
                metric(np.zeros((5, 3)), np.zeros((1, 3)))


CALLS = {
    "dendrogram_purity": lambda labels: ht.metrics.dendrogram_purity(SEVEN, ["0", "1", "1"], labels),
    "leaf_purity": lambda labels: ht.metrics.leaf_purity(["0", "1", "1"], labels),
    "clustering_accuracy": lambda labels: ht.metrics.clustering_accuracy(labels, ["0", "1", "1"]),
    "time_neighborhood_ratio": lambda labels: ht.metrics.time_neighborhood_ratio(np.eye(3), labels, k=1),
}


@pytest.mark.parametrize("name", CALLS)
def test_missing_labels_and_lengths_are_refused(name):
    for missing in (["a", None, "b"], [1.0, np.nan, 2.0], pd.Series(pd.Categorical(["a", None, "b"]))):
        with pytest.raises(ValueError, match=r"1 of 3 cells have none \(NaN\)"):
            CALLS[name](missing)
    with pytest.raises(ValueError, match=r"one entry a cell wanted, got .*\b2 in"):
        CALLS[name](["a", "b"])


def test_no_cells():
    with pytest.raises(ValueError, match="no cells"):
        ht.metrics.leaf_purity([], [])
