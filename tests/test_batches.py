"""Neighbours over batches: partners are of the same kind, and what one batch holds alone keeps to itself."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.decomposition import PCA

import hdtree_sc as ht
from hdtree_sc.data._batches import align, neighbors_in_batches, partners_across, within_batches
from hdtree_sc.graph._neighbors import nearest_neighbors


def components(adata, n=10):
    """Principal components of log-normalised counts."""
    counts = adata.X.toarray()
    return PCA(n, random_state=0).fit_transform(np.log1p(1e4 * counts / counts.sum(1, keepdims=True))).astype("f4")


@pytest.fixture(scope="module")
def simulated():
    """Cells of two strong batches; one tip is in the first batch only.

    Components, batch, branch, and which cells are at that tip.
    """
    adata = ht.datasets.branching(900, 200, "easy", n_batches=2, batch_strength=0.5, density="tips", seed=3)
    lone = adata.obs["tip"].value_counts().index[0]
    adata = adata[(adata.obs["tip"] != lone).to_numpy() | (adata.obs["batch"] == "batch_0").to_numpy()]
    branch, batch = adata.obs["branch"].astype(str).to_numpy(), adata.obs["batch"].cat.codes.to_numpy()
    start, end = adata.uns["branches"].loc[lone, ["start", "end"]]
    # a cell that has just left the stem has kin there, in both batches
    return (
        components(adata),
        batch,
        branch,
        (branch == lone) & (adata.obs["pt"].to_numpy() > start + 0.7 * (end - start)),
    )


def two_types(n=200, seed=0):
    """Types at 0 and 50; the second batch is moved sideways by 5 and holds the first type only."""
    rng = np.random.default_rng(seed)
    batch, kind = np.arange(n) % 2, np.arange(n) % 4 == 0
    points = rng.normal(size=(n, 3))
    points[:, 0] += 50.0 * kind
    points[:, 1] += 5.0 * batch
    return points.astype(np.float32), batch, kind


def test_partners_are_in_other_batches_and_every_row_is_full_or_empty(simulated):
    points, batch, _, _ = simulated
    partners = partners_across(points, batch, within_batches(points, batch, 10), 10)
    assert partners.shape == (len(points), 10)
    paired = partners[:, 0] >= 0
    assert paired.mean() > 0.5
    assert (batch[partners[paired]] != batch[paired][:, None]).all()
    assert (partners[~paired] == -1).all()
    assert (partners[paired] >= 0).all()


def test_a_type_that_one_batch_holds_alone_has_no_partners():
    points, batch, kind = two_types()
    partners = partners_across(points, batch, within_batches(points, batch, 10), 10)
    assert (partners[kind] == -1).all()
    assert (partners[~kind] >= 0).mean() > 0.6, "the far sides of the two batches have no one"


def test_partners_repeat_where_there_are_few():
    points = np.array([[0.0], [0.1], [5.0], [5.1]], dtype=np.float32)
    batch = np.array([0, 1, 0, 1])
    partners = partners_across(points, batch, within_batches(points, batch, 1), 1)
    assert partners.ravel().tolist() == [1, 0, 3, 2]
    filled = partners_across(points, batch, np.arange(4)[:, None], 3)
    assert filled.shape == (4, 3)
    assert (batch[filled] != batch[:, None]).all(), "two cells to choose from, three places"


def test_aligned_batches_mix_and_a_type_of_its_own_stays_away():
    points, batch, kind = two_types()
    before = points.copy()
    aligned = align(points, batch, 10)
    np.testing.assert_array_equal(points, before)
    apart = np.linalg.norm(aligned[(batch == 0) & ~kind].mean(0) - aligned[batch == 1].mean(0))
    assert apart < 1, "5 before"
    assert np.linalg.norm(aligned[kind].mean(0) - aligned[~kind].mean(0)) > 40


def test_neighbours_are_of_the_own_branch_and_of_both_batches(simulated):
    points, batch, branch, lone = simulated
    shared = branch != branch[lone][0]
    near, _ = nearest_neighbors(points, 20)
    assert (batch[near] != batch[:, None])[shared].mean() < 0.05, "the batches are apart"
    neighbors = neighbors_in_batches(points, batch, 10)
    across = batch[neighbors] != batch[:, None]
    assert 0.4 < across[shared].mean() <= 0.6
    assert (branch[neighbors] == branch[:, None]).mean() > 0.85
    assert across[lone].mean() < 0.15, "no cell of the other batch is of its kind"


@pytest.mark.parametrize("n_batches", [2, 3, 7])
def test_rows_are_full_whatever_the_batches(n_batches):
    rng = np.random.default_rng(0)
    points = rng.normal(size=(120, 4)).astype(np.float32)
    batch = rng.integers(0, n_batches, 120)
    batch[batch == 1] = 0
    batch[:2] = 1  # two cells only
    k = 9
    neighbors = neighbors_in_batches(points, batch, k)
    assert neighbors.shape[1] == n_batches * max(-(-2 * k // n_batches), 3)
    assert neighbors.min() >= 0
    assert neighbors.max() < 120
    assert (neighbors != np.arange(120)[:, None]).mean() > 0.99


def test_a_batch_of_one_cell_is_taken():
    points = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)
    batch = np.zeros(40, dtype=np.int64)
    batch[7] = 1
    neighbors = neighbors_in_batches(points, batch, 5)
    assert neighbors.min() >= 0
    assert within_batches(points, batch, 5)[7].tolist() == [7] * 5


def test_the_same_seed_gives_the_same_neighbours_without_touching_the_global_generator(simulated):
    points, batch, _, _ = simulated
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    first, again, other = (neighbors_in_batches(points, batch, 8, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert first.shape == other.shape
    np.testing.assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002
