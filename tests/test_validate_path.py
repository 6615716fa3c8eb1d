"""Paths with generated cells beside real ones, and paths that jump."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from helpers import QUIET

import hdtree_sc as ht

ENDS = "Neuroblast_ASG_AWA", "ASG"
WITHHELD = "ASG_AWA"
FAST = {"n_cells": 30, "n_steps": 10, "n_null": 99}


@pytest.fixture(scope="module")
def trained(worm):
    """A model with a generator, its cells on the tree with a path, and cells of a stage that it has not seen."""
    import scvi

    unseen = (worm.obs["cell_type"] == WITHHELD).to_numpy()
    adata, withheld = worm[~unseen].copy(), worm[unseen].copy()
    scvi.settings.seed = 0
    ht.HDTree.setup_anndata(adata, labels_key="cell_type")
    model = ht.HDTree(adata)
    model.train(max_epochs=20, **QUIET)
    model.train_diffusion(max_epochs=4, n_hidden=64, n_blocks=1, **QUIET)
    ht.tl.tree(adata, model)
    ht.tl.lineage_graph(adata)
    ht.tl.lineage_path(adata, *ENDS, groupby="cell_type")
    return model, adata, withheld


@pytest.fixture
def model(trained):
    return trained[0]


@pytest.fixture
def adata(trained):
    return trained[1].copy()


@pytest.fixture
def withheld(trained):
    return trained[2].copy()


@pytest.fixture
def path(adata):
    return adata.uns["hdtree"]["paths"][adata.uns["hdtree"]["last_path"]]


@pytest.fixture
def instant(model, adata, monkeypatch):
    """The same model, but what it generates at a node are real cells of it, with replacement: a perfect generator."""

    def generate(n_cells, node, *, seed, **_):
        shape = ht.get.tree(adata)
        inside = adata.obs["hdtree_leaf"].isin(shape.subtree_leaves(node)).to_numpy()
        rows = np.random.default_rng(seed).choice(np.flatnonzero(inside), n_cells)
        made = ad.AnnData(adata.X[rows], var=adata.var[[]])
        made.obs_names = [f"generated_{i}" for i in range(n_cells)]
        return made

    monkeypatch.setattr(model, "generate", generate)
    return model


def random_paths(adata, n, length, seed=0):
    leaves = list(ht.get.tree(adata).leaves)
    rng = np.random.default_rng(seed)
    return [list(rng.choice(leaves, length, replace=False)) for _ in range(n)]


# -- what is told of a path ----------------------------------------------------------------------------------


def test_a_lineage_path_is_not_flagged_and_its_table_is_kept(model, adata, path, tmp_path):
    table = ht.tl.validate_path(adata, model, path, **FAST)
    name = " -> ".join(ENDS)
    assert list(table["node"]) == list(path["node"])
    assert list(table["n_cells"]) == list(path["n_cells"])
    assert not table["gap"].any()
    assert not table["is_null"].any()
    assert table.attrs == {
        "path_p": table["path_p"][0],
        "random_p": table["random_p"][0],
        "is_null": False,
        "name": name,
    }
    shares = table[["p", "null_p", "contrast", "far", "step_p", "neighbor_p", "gap_p", "path_p", "random_p"]]
    assert shares.iloc[1:].notna().all(axis=None)
    assert ((shares.fillna(0.5) >= 0) & (shares.fillna(0.5) <= 1)).all(axis=None)
    adata.write_h5ad(tmp_path / "a.h5ad")
    again = ad.read_h5ad(tmp_path / "a.h5ad").uns["hdtree"]["validation"][name]
    assert list(again.columns) == list(table.columns)
    assert list(again["node"]) == list(table["node"])
    np.testing.assert_allclose(again["distance"], table["distance"])
    assert list(again["gap"]) == list(table["gap"])


def test_the_same_path_by_its_name_or_nodes_gives_the_same_numbers(model, adata, path):
    tables = [
        ht.tl.validate_path(adata, model, given, **FAST) for given in (path, " -> ".join(ENDS), list(path["node"]))
    ]
    for other in tables[1:]:
        pd.testing.assert_frame_equal(other, tables[0])
    assert len(adata.uns["hdtree"]["validation"]) == 2, "a path that is no lineage path goes by its nodes"


def test_most_random_paths_are_flagged(instant, adata):
    tables = [ht.tl.validate_path(adata, instant, nodes, **FAST) for nodes in random_paths(adata, 20, 6)]
    assert np.mean([table["is_null"].any() for table in tables]) >= 0.8
    assert np.mean([table["gap"].any() for table in tables]) >= 0.8
    assert np.mean([table.attrs["random_p"] <= 0.01 for table in tables]) <= 0.1
    flagged = next(table for table in tables if table["is_null"].any())
    assert flagged.attrs["path_p"] < 0.01


def test_lineage_paths_between_types_are_not_flagged(instant, adata):
    types = [name for name, n in adata.obs["cell_type"].value_counts().items() if n >= 15]
    for other in types[1:]:
        path = ht.tl.lineage_path(adata, types[0], other, groupby="cell_type")
        table = ht.tl.validate_path(adata, instant, path, **FAST)
        assert not table["is_null"].any(), other


def test_cells_of_the_node_itself_are_not_told_from_it(instant, adata, path):
    """Also the other way: p is small where the generated cells are those of another node."""
    table = ht.tl.validate_path(adata, instant, path, n_cells=60)
    assert (table["p"] > 0.01).all()
    assert (table["contrast"] == 0).all()
    assert (table["null_p"] < 0.05).all()
    generate, wrong = instant.generate, dict(zip(path["node"], path["node"][::-1], strict=True))
    instant.generate = lambda n, node, **rest: generate(n, wrong[node], **rest)
    swapped = ht.tl.validate_path(adata, instant, path, n_cells=60)
    assert swapped["p"][0] < 0.01
    assert swapped["contrast"][0] > 0
    assert swapped["distance"][0] > 5 * table["null_distance"][0]


def test_nodes_whose_surroundings_are_missing_are_told_and_often_gaps(instant, adata, path):
    """Cells of a type that no longer has cells near it, the graph being of before. Of one node alone the flag hangs on
    the last digits of a short training, and with them on the machine.
    """
    size = adata.obs["hdtree_leaf"].value_counts()
    pca, rows, intact = adata.obsm["X_hdtree_pca"], [], []
    for far in size.index[size >= 20]:
        own = (adata.obs["hdtree_leaf"] == far).to_numpy()
        away = np.linalg.norm(pca - pca[own].mean(0), axis=1)
        left = adata[(away > np.median(away)) & ~own].copy()
        start = next(node for node in path["node"] if node != far and (left.obs["hdtree_leaf"] == node).any())
        rows.append(ht.tl.validate_path(left, instant, [start, far], **FAST).iloc[-1])
        intact.append(ht.tl.validate_path(adata, instant, [start, far], **FAST).iloc[-1])
    table, before = pd.DataFrame(rows), pd.DataFrame(intact)
    assert (table["n_cells"] == 0).all()
    assert (table["n_real"] == 10).all()
    assert (table["p"] <= 0.05).all()
    assert (before["p"] > 0.01).mean() > 0.8
    assert table["far"].mean() > 0.3 > 0.1 > before["far"].mean()
    assert table["gap"].mean() > 0.3


def test_one_node_is_a_path_without_steps(instant, adata, path):
    table = ht.tl.validate_path(adata, instant, [path["node"].iloc[0]], **FAST)
    assert table[["step", "gap_p", "path_p", "random_p"]].isna().all(axis=None)
    assert not table["is_null"].any()


def test_inner_nodes_hold_the_cells_below_them(instant, adata):
    shape = ht.get.tree(adata)
    inner = shape.children("root")[0]
    table = ht.tl.validate_path(adata, instant, [inner, shape.subtree_leaves(inner)[0]], **FAST)
    assert table["n_cells"][0] == shape.n_cells[shape.index(inner)]
    assert not table["gap"].any(), "a part of itself is not beyond a gap"


# -- statistics ----------------------------------------------------------------------------------------------


def test_the_permutation_test_is_calibrated_and_agrees_with_the_plain_distance():
    from hdtree_sc.stats._energy import all_distances, energy, energy_test, two_sample

    rng = np.random.default_rng(0)
    p = [energy_test(rng.normal(size=(20, 4)), rng.normal(size=(30, 4)), 99, rng)[1] for _ in range(200)]
    assert np.mean(np.array(p) <= 0.1) == pytest.approx(0.1, abs=0.06)
    assert energy_test(rng.normal(size=(20, 4)) + 2, rng.normal(size=(30, 4)), 99, rng)[1] == 0.01
    points = rng.normal(size=(3, 2))
    ways = [([0, 1], [2]), ([0, 2], [1]), ([1, 2], [0])]
    every = {round(energy(points[one], points[other]), 9) for one, other in ways}
    found = {round(value, 9) for value in two_sample(all_distances(points, points), 2, 50, rng)}
    assert found == every


# -- withheld cells ------------------------------------------------------------------------------------------


def test_withheld_cells_are_set_beside_generated_and_interpolated_ones(model, adata, path, withheld):
    table = ht.tl.validate_path(adata, model, path, withheld=withheld, **FAST)
    assert table["withheld_share"].sum() == pytest.approx(1)
    assert table.attrs["withheld_node"] == table["node"][table["withheld_share"].argmax()]
    told = table[["withheld_distance", "interpolation_distance", "withheld_null_distance", "withheld_p"]]
    assert np.isfinite(told.to_numpy()).all()
    assert (told["withheld_null_distance"] < told["interpolation_distance"]).all()
    assert told["withheld_p"].between(0, 1).all()


def test_withheld_cells_that_were_not_withheld_are_refused(model, adata, path):
    with pytest.raises(ValueError, match="withheld: 20 of its cells are in adata too"):
        ht.tl.validate_path(adata, model, path, withheld=adata[:20].copy(), **FAST)
    with pytest.raises(ValueError, match="withheld: 3 cells"):
        ht.tl.validate_path(adata, model, path, withheld=adata[:3].copy(), **FAST)


# -- errors --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"path": ["0", "9.9.9"]}, ValueError, r"path: '9.9.9' are no nodes.*Nodes: 'root'"),
        ({"path": "A -> B"}, KeyError, r"no 'A -> B'.*It has: 'Neuroblast_ASG_AWA -> ASG'"),
        ({"path": []}, ValueError, "path: it has no nodes"),
        ({"n_cells": 3}, ValueError, "n_cells: 3 given"),
        ({"n_null": 50}, ValueError, "n_null: 50 given"),
        ({"alpha": 1.5}, ValueError, "alpha: 1.5"),
        ({"basis": "umap"}, ValueError, "basis: 'umap' is none of 'pca', 'latent'"),
        ({"key": "mine"}, KeyError, "adata.uns has no 'mine'"),
    ],
)
def test_bad_input_is_named_and_nothing_is_written(model, adata, path, arguments, error, message):
    given = {"path": path} | FAST | arguments
    with pytest.raises(error, match=message):
        ht.tl.validate_path(adata, model, **given)
    assert "validation" not in adata.uns["hdtree"]


def test_a_table_without_nodes_is_refused(model, adata, path):
    with pytest.raises(ValueError, match="no column 'node'"):
        ht.tl.validate_path(adata, model, path.drop(columns="node"))


def test_without_a_graph_or_a_generator_the_message_says_what_to_run(model, adata, path):
    ht.tl.tree(adata, model)
    with pytest.raises(KeyError, match="lineage_graph"):
        ht.tl.validate_path(adata, model, path)


def test_without_a_generator_the_model_says_so(model, adata, path, monkeypatch):
    monkeypatch.setattr(model.module, "diffusion", None)
    with pytest.raises(RuntimeError, match="train_diffusion"):
        ht.tl.validate_path(adata, model, path)
    assert "validation" not in adata.uns["hdtree"]
