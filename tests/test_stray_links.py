"""Links that only noise made, and what has to stay joined."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from scipy.sparse.csgraph import connected_components

import hdtree_sc as ht
from hdtree_sc.graph._spurious_edges import without_spurious_edges


def chain(n_groups: int = 4, size: int = 30):
    """Groups in a row, well joined to the next, and one stray link from the first to the last."""
    n = n_groups * size
    rows = np.arange(n)
    near = [(i, j) for i in rows for j in range(i + 1, min(i + 6, n))]
    edges = np.array([*near, (0, n - 1)])
    half = sparse.coo_matrix((np.ones(len(edges), bool), tuple(edges.T)), shape=(n, n)).tocsr()
    return half + half.T, np.repeat(np.arange(n_groups), size)


def test_the_short_cut_goes_and_all_other_links_stay():
    joined, group = chain()
    kept = without_spurious_edges(joined, group, 0.2)
    assert not kept[0, len(group) - 1]
    assert kept.nnz == joined.nnz - 2


def test_nothing_goes_where_nothing_is_asked_for():
    joined, group = chain()
    assert without_spurious_edges(joined, group, 0.0).nnz == joined.nnz
    assert without_spurious_edges(joined, np.zeros_like(group), 0.2).nnz == joined.nnz


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 6), st.floats(0.0, 1.0))
def test_what_was_joined_stays_joined_and_no_link_is_new(seed, m, least):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(max(m, 2), 60))
    half = sparse.csr_matrix(rng.random((n, n)) < 3 / n)
    joined = ((half + half.T) > 0).astype(bool).tocsr()
    group = np.unique(rng.integers(0, m, n), return_inverse=True)[1]
    kept = without_spurious_edges(joined, group, least)
    assert (kept.astype(int) - joined.astype(int)).max() <= 0
    assert abs(kept.astype(int) - kept.T.astype(int)).max() == 0
    before = connected_components(joined, directed=False)[1]
    after = connected_components(kept, directed=False)[1]
    np.testing.assert_array_equal(pd.crosstab(before, after).astype(bool).sum(1), 1)


def test_a_share_is_wanted(annotated):
    with pytest.raises(ValueError, match="min_connectivity"):
        ht.tl.lineage_graph(annotated, min_connectivity=20)
