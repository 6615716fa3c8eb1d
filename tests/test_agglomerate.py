"""Bottom-up tree builders against SciPy and on shapes with a known answer."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.cluster.hierarchy import fcluster, is_monotonic, is_valid_linkage, linkage
from sklearn.cluster import KMeans

from hdtree_sc.graph._agglomerate import (
    group_means,
    heap_layout,
    information_linkage,
    link_counts,
    link_linkage,
    ward_linkage,
)
from hdtree_sc.graph._neighbors import nearest_neighbors


@given(seed=st.integers(0, 1000), m=st.integers(2, 30))
@settings(max_examples=25, deadline=None)
def test_ward_of_single_cells_is_scipys(seed, m):
    points = np.random.default_rng(seed).normal(size=(m, 3))
    np.testing.assert_allclose(ward_linkage(points, np.ones(m)), linkage(points, "ward"), atol=1e-8)


def test_ward_weighs_groups_by_their_cells():
    """Two cells at 0, fifty at 1, fifty at 2.2: few cells are cheaper to move, though 1 and 2.2 are not the nearest."""
    sizes = np.array([50, 2, 50])
    first = ward_linkage(np.array([[1.0], [0.0], [2.2]]), sizes)[0]
    assert set(first[:2]) == {0, 1}


def two_moons(n=600, seed=0):
    rng = np.random.default_rng(seed)
    angle, moon = np.pi * rng.random(n), np.arange(n) % 2
    points = np.c_[np.cos(angle), np.sin(angle)] * np.where(moon, -1, 1)[:, None] + np.c_[moon, 0.4 * moon]
    return points + 0.05 * rng.normal(size=points.shape), moon


def test_links_follow_shapes_that_variance_cuts_across():
    points, moon = two_moons()
    group = np.digitize(points[:, 0], np.linspace(-1, 2, 12)) + 20 * moon
    group = np.unique(group, return_inverse=True)[1]
    m = group.max() + 1
    centroids = np.stack([points[group == g].mean(0) for g in range(m)])
    links = link_counts(nearest_neighbors(points, 10)[0], group, m)
    tree = link_linkage(links, centroids)
    assert is_valid_linkage(tree)
    assert is_monotonic(tree)
    assert tree[-1, 3] == m
    found = fcluster(tree, 2, "maxclust")[group]
    assert max((found == 1 + moon).mean(), (found == 2 - moon).mean()) > 0.99


def test_groups_without_links_are_still_joined_nearest_first():
    links = np.diag([30.0, 30.0, 30.0])
    tree = link_linkage(links, np.array([[0.0], [1.0], [9.0]]))
    assert set(tree[0, :2]) == {0, 1}
    assert np.isfinite(tree).all()


def micro_codes(points, m):
    """Groups of a few cells each, the links between them, where they are and how large."""
    group = KMeans(m, n_init=1, random_state=0).fit(points).labels_
    return (
        group,
        link_counts(nearest_neighbors(points, 10)[0], group, m),
        group_means(points, group),
        np.bincount(group),
    )


@given(seed=st.integers(0, 1000), m=st.integers(2, 30), share=st.floats(0, 1))
@settings(max_examples=40, deadline=None)
def test_information_linkage_is_a_linkage_with_growing_heights(seed, m, share):
    """Whatever the links are: many, few or none, to groups of any size, on top of each other or far apart."""
    rng = np.random.default_rng(seed)
    links = rng.poisson(4, (m, m)) * (rng.random((m, m)) < share)
    links = (links + links.T).astype(float)
    sizes, centroids = rng.integers(1, 500, m), 10 ** rng.uniform(-3, 3) * rng.normal(size=(m, 3)).round(1)
    before = links.copy(), centroids.copy()
    own, tree = information_linkage(links, centroids, sizes)
    assert own.tolist() == list(range(m))
    assert tree.shape == (m - 1, 4)
    assert is_valid_linkage(tree)
    assert is_monotonic(tree)
    assert np.isfinite(tree).all()
    assert (tree[:, 2] >= -1e-12).all()
    assert tree[-1, 3] == m
    np.testing.assert_array_equal(links, before[0])
    np.testing.assert_array_equal(centroids, before[1])


@pytest.mark.parametrize("n_groups", [2, 3, 5])
def test_information_linkage_finds_separated_groups(n_groups):
    """The groups are of quite different sizes: the largest is not cut in two before the smallest is found."""
    rng = np.random.default_rng(n_groups)
    sizes = (600 / 2 ** np.arange(n_groups)).astype(int)
    kind = np.repeat(np.arange(n_groups), sizes)
    corners = 8.0 * np.eye(n_groups)
    points = corners[kind] + rng.normal(size=(len(kind), n_groups))
    group, links, centroids, held = micro_codes(points, 40)
    found = fcluster(information_linkage(links, centroids, held)[1], n_groups, "maxclust")[group]
    assert len(set(zip(found, kind, strict=True))) == n_groups


@given(seed=st.integers(0, 1000), m=st.integers(2, 30), least=st.integers(1, 200))
@settings(max_examples=40, deadline=None)
def test_small_groups_are_joined_first_and_count_as_one(seed, m, least):
    rng = np.random.default_rng(seed)
    links = rng.poisson(2, (m, m)).astype(float)
    sizes, centroids = rng.integers(1, 50, m), rng.normal(size=(m, 3))
    whole, tree = information_linkage(links + links.T, centroids, sizes, least=least)
    held = np.bincount(whole, weights=sizes)
    assert len(tree) == len(held) - 1
    assert held.min() >= min(least, sizes.sum()), "unless all are one"
    if len(tree):
        assert is_valid_linkage(tree)
        assert is_monotonic(tree)
    if sizes.min() >= least:
        assert whole.tolist() == list(range(m)), "none is small"


def test_a_small_group_goes_to_its_neighbours():
    """Ten cells beside the left of two blobs: they are part of it, not of the other, nor a group of their own."""
    rng = np.random.default_rng(0)
    blob = np.repeat([0, 1, 2], [200, 200, 10])
    points = np.c_[np.array([0.0, 9.0, -2.5])[blob], np.zeros(410)] + 0.5 * rng.normal(size=(410, 2))
    links = link_counts(nearest_neighbors(points, 10)[0], blob, 3)
    centroids = np.stack([points[blob == b].mean(0) for b in range(3)])
    whole, tree = information_linkage(links, centroids, np.bincount(blob), least=20)
    assert whole[2] == whole[0] != whole[1]
    assert tree.shape == (1, 4)


def test_parts_without_a_link_are_joined_by_their_distance():
    """Three islands at 0, 3 and 30: no link tells which two are close, positions do."""
    rng = np.random.default_rng(0)
    island = np.repeat([0, 1, 2], 200)
    points = np.c_[np.array([0.0, 3.0, 30.0])[island], np.zeros(600)] + 0.1 * rng.normal(size=(600, 2))
    group, links, centroids, sizes = micro_codes(points, 24)
    home = np.array([island[group == g][0] for g in range(len(sizes))])
    assert links[home[:, None] != home[None]].sum() == 0
    _, tree = information_linkage(links, centroids, sizes)
    assert len(set(zip(fcluster(tree, 3, "maxclust"), home, strict=True))) == 3
    pairs = fcluster(tree, 2, "maxclust")
    assert len(set(pairs[home < 2])) == 1
    assert set(pairs[home == 2]).isdisjoint(pairs[home < 2])


def test_links_are_counted_in_both_directions():
    neighbors = np.array([[1], [0], [1]])
    links = link_counts(neighbors, np.array([0, 0, 1]), 2)
    np.testing.assert_array_equal(links, [[4, 1], [1, 0]])


@given(seed=st.integers(0, 1000), m=st.integers(2, 40), depth=st.integers(1, 8))
@settings(max_examples=40, deadline=None)
def test_heap_layout_keeps_the_tree_as_far_as_it_is_deep(seed, m, depth):
    points = np.random.default_rng(seed).normal(size=(m, 2))
    tree = linkage(points, "average")
    leaf, heights = heap_layout(tree, depth, np.ones(m))
    assert leaf.max() < len(heights)
    if depth >= m:
        assert len(set(leaf)) == m
    occupied = set(leaf)
    for node in list(occupied):
        while node:
            node = (node - 1) // 2
            occupied.add(node)
    # a leaf is nobody's ancestor, and inner nodes have two children
    for node in occupied - set(leaf):
        assert {2 * node + 1, 2 * node + 2} <= occupied
    # cells that share a heap node were merged below its height
    cophenetic = fcluster(tree, tree[-2, 2] + 1e-9, "distance") if m > 2 else np.arange(m)
    top = np.array([int(bin(k + 1)[3]) if k else 0 for k in leaf])
    if m > 2 and depth > 1 and len(set(cophenetic)) == 2:
        assert len(set(zip(cophenetic, top, strict=True))) == 2
