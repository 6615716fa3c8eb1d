"""Neighbours and pairs."""

import numpy as np
import pytest
from anndata import AnnData
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist

import hdtree_sc as ht
from hdtree_sc.data._splitter import PairSampler, PairSplitter
from hdtree_sc.graph import _neighbors
from hdtree_sc.graph._neighbors import nearest_neighbors, without_self


def test_neighbours_are_the_nearest_others():
    points = np.random.default_rng(0).normal(size=(60, 4))
    indices, distances = nearest_neighbors(points, 5)
    apart = cdist(points, points)
    np.fill_diagonal(apart, np.inf)
    np.testing.assert_array_equal(np.sort(indices, 1), np.sort(np.argsort(apart, 1)[:, :5], 1))
    np.testing.assert_allclose(distances, np.sort(apart, 1)[:, :5], rtol=1e-4)


def test_there_are_never_more_neighbours_than_other_cells():
    assert nearest_neighbors(np.eye(3), 15)[0].shape == (3, 2)


@pytest.mark.parametrize("most", [100_000, pytest.param(100, marks=pytest.mark.slow)])
def test_neighbours_of_other_points_are_the_nearest_and_may_be_all(monkeypatch, most):
    """Exact for few points, approximate for many; a query that is one of the points finds itself first."""
    monkeypatch.setattr(_neighbors, "MAX_EXACT", most)
    rng = np.random.default_rng(0)
    points, queries = rng.normal(size=(400, 3)), rng.normal(size=(30, 3))
    indices, distances = nearest_neighbors(points, 5, queries=queries)
    assert (indices.shape, distances.shape) == ((30, 5), (30, 5))
    assert (indices.dtype, distances.dtype) == (np.int32, np.float32)
    apart = cdist(queries, points)
    wanted = np.argsort(apart, 1)[:, :5]
    assert np.mean([len(set(a) & set(b)) / 5 for a, b in zip(indices, wanted, strict=True)]) > 0.85
    np.testing.assert_allclose(distances, np.take_along_axis(apart, indices.astype(int), 1), rtol=1e-3)
    assert (np.diff(distances, axis=1) >= 0).all()
    own, nothing = nearest_neighbors(points, 1, queries=points[:20])
    assert own.ravel().tolist() == list(range(20))
    np.testing.assert_allclose(nothing, 0, atol=1e-3)


def test_a_query_may_have_every_point_as_its_neighbour():
    indices, _ = nearest_neighbors(np.eye(3), 15, queries=np.zeros((1, 3)))
    assert sorted(indices.ravel()) == [0, 1, 2]


def test_own_index_is_dropped_wherever_it_stands():
    indices = np.array([[1, 0, 2], [1, 2, 0], [0, 1, 3]])  # the last row does not list itself
    distances = np.array([[0.0, 0.0, 1.0], [0.0, 1.0, 2.0], [0.5, 0.6, 0.7]])
    kept, apart = without_self(indices, distances, 2)
    assert kept.tolist() == [[1, 2], [2, 0], [0, 1]]
    np.testing.assert_allclose(apart, [[0, 1], [1, 2], [0.5, 0.6]], rtol=1e-6)


@pytest.mark.slow  # pynndescent compiles
def test_approximate_neighbours_are_nearly_the_exact_ones(monkeypatch):
    points = np.random.default_rng(0).normal(size=(2000, 5))
    exact, _ = nearest_neighbors(points, 10)
    monkeypatch.setattr(_neighbors, "MAX_EXACT", 100)
    found, _ = nearest_neighbors(points, 10)
    recall = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(exact, found, strict=True)])
    assert recall > 0.9


def test_no_graph_of_more_than_8192_cells_depends_on_scanpys_neighbours(monkeypatch):
    """scanpy 1.11 with pynndescent 0.7 fails from 8,192 cells on; nothing of ours may go that way."""
    import pynndescent
    import scanpy as sc

    def refuse(*_, **__):
        pytest.fail("a path that breaks at 8,192 cells was taken")

    monkeypatch.setattr(sc.pp, "neighbors", refuse)
    monkeypatch.setattr(pynndescent.PyNNDescentTransformer, "fit", refuse)
    rng = np.random.default_rng(0)
    n = 9000
    position = rng.random(n)
    adata = AnnData(np.zeros((n, 1), np.float32))
    adata.obsm["X_hdtree"] = np.c_[position, 0.01 * rng.normal(size=n)].astype(np.float32)
    tree = ht.Tree.from_newick("((a:1,b:1)ab:1,(c:1,d:1)cd:1)root;")
    adata.uns["hdtree"] = {"nodes": tree.to_frame(), "codebook": np.zeros((len(tree), 2), np.float32)}
    adata.obs["hdtree_leaf"] = np.array(["a", "b", "c", "d"])[(4 * position).astype(int)]
    ht.tl.lineage_graph(adata)
    ht.tl.pseudotime(adata, root=adata.obs_names[int(position.argmin())])
    assert np.corrcoef(adata.obs["hdtree_pseudotime"], position)[0, 1] > 0.99


@given(n=st.integers(2, 60), batch_size=st.integers(2, 20), seed=st.integers(0, 100))
@settings(max_examples=40, deadline=None)
def test_each_cell_is_an_anchor_once_and_its_positive_is_its_neighbour(n, batch_size, seed):
    rows = np.random.default_rng(seed).permutation(200)[:n]
    neighbors = (np.arange(n)[:, None] + np.arange(1, 4)) % n
    sampler = PairSampler(rows, neighbors, batch_size=batch_size, shuffle=True, seed=seed)
    allowed = {row: set(rows[neighbors[i]]) for i, row in enumerate(rows)}
    anchors = []
    for batch in sampler:
        half = len(batch) // 2
        assert half <= batch_size
        assert all(positive in allowed[anchor] for anchor, positive in zip(batch[:half], batch[half:], strict=True))
        anchors.extend(batch[:half])
    assert sorted(anchors) == sorted(rows)
    assert len(list(sampler)) == len(sampler)


def test_epochs_differ_and_seeds_repeat_without_touching_the_global_generator():
    def epochs(seed):
        sampler = PairSampler(
            np.arange(50), np.arange(50)[:, None] - np.arange(3), batch_size=10, shuffle=True, seed=seed
        )
        return [np.concatenate(list(sampler)) for _ in range(2)]

    before = np.random.get_state()[1].copy()  # noqa: NPY002
    first, second = epochs(3)
    assert not np.array_equal(first, second)
    np.testing.assert_array_equal(epochs(3), [first, second])
    np.testing.assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002


def test_positives_never_cross_the_split(cells):
    ht.HDTree.setup_anndata(cells)
    model = ht.HDTree(cells)
    points = np.random.default_rng(0).normal(size=(cells.n_obs, 5)).astype(np.float32)
    splitter = PairSplitter(model.adata_manager, represent=lambda _: points, train_size=0.7, batch_size=64)
    splitter.setup()
    train, validation = set(splitter.train_idx), set(splitter.val_idx)
    for loader, allowed, other in (
        (splitter.train_dataloader(), train, validation),
        (splitter.val_dataloader(), validation, train),
    ):
        seen = np.concatenate(list(loader.sampler))
        assert set(seen) <= allowed
        assert not set(seen) & other
    batch = next(iter(splitter.train_dataloader()))
    parted = splitter.on_after_batch_transfer(batch, 0)
    assert parted["X"].shape == parted["positive_X"].shape
    assert len(parted["X"]) == len(batch["X"]) // 2
