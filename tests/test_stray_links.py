"""Links that only noise made, and what has to stay joined."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from scipy.sparse.csgraph import connected_components
from scipy.stats import spearmanr

import hdtree_sc as ht
from hdtree_sc.tl._stray_links import without_stray_links


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
    kept = without_stray_links(joined, group, 0.2)
    assert not kept[0, len(group) - 1]
    assert kept.nnz == joined.nnz - 2


def test_nothing_goes_where_nothing_is_asked_for():
    joined, group = chain()
    assert without_stray_links(joined, group, 0.0).nnz == joined.nnz
    assert without_stray_links(joined, np.zeros_like(group), 0.2).nnz == joined.nnz


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 6), st.floats(0.0, 1.0))
def test_what_was_joined_stays_joined_and_no_link_is_new(seed, m, least):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(max(m, 2), 60))
    half = sparse.csr_matrix(rng.random((n, n)) < 3 / n)
    joined = ((half + half.T) > 0).astype(bool).tocsr()
    group = np.unique(rng.integers(0, m, n), return_inverse=True)[1]
    kept = without_stray_links(joined, group, least)
    assert (kept.astype(int) - joined.astype(int)).max() <= 0
    assert abs(kept.astype(int) - kept.T.astype(int)).max() == 0
    before = connected_components(joined, directed=False)[1]
    after = connected_components(kept, directed=False)[1]
    np.testing.assert_array_equal(pd.crosstab(before, after).astype(bool).sum(1), 1)


def test_links_between_the_branches_of_a_fork_become_fewer_and_the_order_stays():
    """Two branches of a fork whose tips one pair of cells joins by mistake."""
    rng = np.random.default_rng(0)
    n = 600
    time, side = rng.random(n), np.where(rng.random(n) < 0.5, 1.0, -1.0)
    points = np.column_stack([time * 20, side * np.maximum(time - 0.3, 0) * 20]) + rng.normal(0, 0.25, (n, 2))
    # noise puts some late cells of one branch beside the early ones of the other
    lost = rng.choice(np.flatnonzero((side > 0) & (time > 0.9)), 3, replace=False)
    points[lost] = points[(side < 0) & (time < 0.6) & (time > 0.5)][:3] + 0.1
    leaf = np.where(
        time < 0.3, "a", np.where(side > 0, np.where(time < 0.65, "b", "c"), np.where(time < 0.65, "d", "e"))
    )
    cells = ad.AnnData(np.zeros((n, 1), dtype=np.float32), obsm={"X_hand": points.astype(np.float32)})
    tree = ht.Tree.from_newick("(a,((b,c)bc,(d,e)de)late)root;")
    cells.uns["hand"] = {"nodes": tree.to_frame(), "params": {}}
    cells.obs["hand_leaf"] = pd.Categorical(leaf, categories=list(tree.leaves))
    wrong = {}
    for least in (0.0, 0.8):
        ht.tl.lineage_graph(cells, key="hand", min_connectivity=least)
        group = np.where(time < 0.3, "stem", np.where(side > 0, "up", "down"))
        links = cells.obsp["hand_connectivities"].tocoo()
        wrong[least] = int(((group[links.row] == "up") & (group[links.col] == "down")).sum())
    ht.tl.pseudotime(cells, root=cells.obs_names[int(time.argmin())], key="hand")
    seen = np.setdiff1d(np.arange(n), lost)
    assert spearmanr(cells.obs["hand_pseudotime"].iloc[seen], time[seen]).statistic > 0.95
    assert wrong[0.8] < wrong[0.0]


def test_a_share_is_wanted(annotated):
    with pytest.raises(ValueError, match="min_connectivity"):
        ht.tl.lineage_graph(annotated, min_connectivity=20)
