"""Bottom-up tree builders against SciPy and on shapes with a known answer."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.cluster.hierarchy import fcluster, is_monotonic, is_valid_linkage, linkage

from hdtree_sc.data._neighbors import nearest_neighbors
from hdtree_sc.tree._agglomerate import heap_layout, link_counts, link_linkage, ward_linkage


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
