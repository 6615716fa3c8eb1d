"""At which noise classes become one, and how high in noise the nodes of a tree stand."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.cluster.hierarchy import cophenet, linkage
from scipy.spatial.distance import squareform
from scipy.stats import norm

from hdtree_sc import Tree
from hdtree_sc.stats._class_moments import class_moments
from hdtree_sc.tree._branch_points import mixing_levels, node_heights

QUICK = settings(max_examples=40, deadline=None)


def apart(distance: float, covariance=1.0, mixed: float = 0.5) -> float:
    """Noise level that mixes two classes in one dimension."""
    return mixing_levels(np.array([[0.0], [distance]]), np.array([[covariance]]), mixed)[0, 1]


class TestMixingLevels:
    @pytest.mark.parametrize("distance", [0.6, 1.0, 4.0, 30.0])
    def test_two_classes_of_unit_variance_mix_at_the_snr_of_the_formula(self, distance):
        # d'^2 = snr * distance^2 / (snr + 1) = 1/4
        snr = 0.25 / (distance**2 - 0.25)
        assert apart(distance) == pytest.approx(-np.log(snr))

    def test_at_that_noise_the_best_classifier_is_right_for_60_percent_of_the_cells(self):
        rng = np.random.default_rng(0)
        means = rng.normal(size=(2, 3))
        root = rng.normal(size=(3, 3))
        covariance = root @ root.T
        level = mixing_levels(means, covariance)[0, 1]
        alpha2, sigma2 = 1 / (1 + np.exp(level)), 1 / (1 + np.exp(-level))
        noised = [
            np.sqrt(alpha2) * rng.multivariate_normal(mean, covariance, 40_000)
            + np.sqrt(sigma2) * rng.normal(size=(40_000, 3))
            for mean in means
        ]
        difference = np.sqrt(alpha2) * (means[1] - means[0])
        direction = np.linalg.solve(alpha2 * covariance + sigma2 * np.eye(3), difference)
        middle = np.sqrt(alpha2) * means.mean(0) @ direction
        right = np.mean([(noised[0] @ direction < middle).mean(), (noised[1] @ direction > middle).mean()])
        assert right == pytest.approx(norm.cdf(0.5 / 2), abs=0.005)

    @QUICK
    @given(st.integers(2, 6), st.integers(1, 4), st.integers(0, 999))
    def test_pairs_are_symmetric_and_the_frame_does_not_matter(self, n, d, seed):
        rng = np.random.default_rng(seed)
        means, root = 3 * rng.normal(size=(n, d)), rng.normal(size=(d, d))
        covariance = root @ root.T + 0.1 * np.eye(d)
        levels = mixing_levels(means, covariance)
        assert np.array_equal(levels, levels.T)
        assert np.isneginf(levels.diagonal()).all()
        turn, _ = np.linalg.qr(rng.normal(size=(d, d)))
        np.testing.assert_allclose(mixing_levels(means @ turn + 7, turn.T @ covariance @ turn), levels, atol=1e-6)

    @QUICK
    @given(st.floats(0.6, 50), st.floats(1.01, 3), st.floats(0.1, 4))
    def test_classes_further_apart_or_tighter_need_more_noise(self, distance, factor, variance):
        assert apart(factor * distance) > apart(distance)
        if distance**2 / variance > 0.3:
            assert apart(distance, variance / factor) > apart(distance, variance)
            assert apart(distance, variance, mixed=0.4) > apart(distance, variance)

    def test_classes_that_are_one_without_noise_need_none(self):
        assert apart(0.49) == apart(0.0) == -np.inf

    def test_a_class_without_data_parts_from_none(self):
        levels = mixing_levels(np.array([[0.0], [np.nan], [4.0]]), np.eye(1))
        assert np.isneginf(levels[1]).all()
        assert levels[0, 2] == pytest.approx(apart(4.0))

    def test_classes_without_width_are_answered_with_a_number(self):
        assert np.isfinite(apart(1.0, covariance=0.0))


@st.composite
def trees_with_levels(draw):
    n = draw(st.integers(1, 15))
    tree = Tree([f"n{i}" for i in range(n)], [-1, *(draw(st.integers(0, i - 1)) for i in range(1, n))])
    rng = np.random.default_rng(draw(st.integers(0, 999)))
    levels = np.full((len(tree.leaves),) * 2, -np.inf)
    above = np.triu_indices_from(levels, 1)
    levels[above] = levels.T[above] = rng.normal(size=len(above[0]))
    return tree, levels


class TestNodeHeights:
    @QUICK
    @given(trees_with_levels())
    def test_a_node_stands_where_the_last_pair_of_leaves_below_it_is_mixed(self, case):
        tree, levels = case
        heights = node_heights(tree, levels)
        for name, height in zip(tree.nodes, heights, strict=True):
            below = [tree.leaves.index(leaf) for leaf in tree.subtree_leaves(name)]
            assert height == max((levels[pair] for pair in combinations(below, 2)), default=-np.inf)

    @QUICK
    @given(trees_with_levels())
    def test_heights_never_fall_on_the_way_up(self, case):
        tree, levels = case
        heights = node_heights(tree, levels)
        assert (heights[tree.parents[1:]] >= heights[1:]).all()
        assert np.isneginf(heights[tree.is_leaf_mask]).all()

    def test_on_the_tree_of_complete_linkage_they_are_its_heights(self):
        # classes on a line, whose noise levels grow with their distances
        means = np.array([[0.0], [1.0], [5.0], [7.0]])
        levels = mixing_levels(means, np.eye(1))
        tree = Tree(["root", "l", "0", "1", "r", "2", "3"], [-1, 0, 1, 1, 0, 4, 4])
        heights = node_heights(tree, levels)
        pairs = levels[np.triu_indices(4, 1)]
        expected = squareform(cophenet(linkage(pairs - pairs.min() + 1, "complete"))) + pairs.min() - 1
        at = {(a, b): heights[tree.index(tree.lca(str(a), str(b)))] for a, b in combinations(range(4), 2)}
        assert at == pytest.approx({pair: expected[pair] for pair in at})


class TestClassMoments:
    def test_means_and_covariance_within_classes_are_recovered(self):
        rng = np.random.default_rng(0)
        means = np.array([[0.0, 9.0], [9.0, 0.0], [0.0, -9.0]])
        covariance = np.array([[1.0, 0.6], [0.6, 2.0]])
        classes = rng.integers(0, 3, 20_000)
        points = means[classes] + rng.multivariate_normal([0, 0], covariance, len(classes))
        found_means, found_covariance = class_moments(points, classes, 3)
        np.testing.assert_allclose(found_means, means, atol=0.06)
        np.testing.assert_allclose(found_covariance, covariance, atol=0.06)

    def test_a_class_without_cells_has_no_mean(self):
        means, covariance = class_moments([[0.0], [2.0], [5.0]], [0, 0, 2], 3)
        np.testing.assert_array_equal(means[:, 0], [1, np.nan, 5])
        assert np.isfinite(covariance).all()

    def test_fewer_cells_than_dimensions_give_a_covariance_that_can_be_inverted(self):
        points = np.random.default_rng(0).normal(size=(8, 20))
        _, covariance = class_moments(points, [0, 1] * 4, 2)
        assert np.linalg.eigvalsh(covariance).min() > 1e-3

    def test_the_branch_point_of_drawn_classes_is_that_of_the_formula(self):
        rng = np.random.default_rng(1)
        classes = np.repeat([0, 1], 5000)
        points = rng.normal(size=(10_000, 4)) + 3 * classes[:, None]
        levels = mixing_levels(*class_moments(points, classes, 2))
        assert levels[0, 1] == pytest.approx(np.log(9 * 4 / 0.25 - 1), abs=0.1)
