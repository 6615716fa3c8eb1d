"""Labels and times that some cells lack: they are learned from the others and told to the rest."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import scvi
import torch
from anndata import AnnData
from helpers import QUIET
from scipy.stats import spearmanr
from sklearn.neighbors import KNeighborsClassifier

import hdtree_sc as ht
from hdtree_sc.tl._lineage_graph import TIME_AXIS, with_time


@pytest.fixture(scope="module")
def partial(worm):
    """A model that was told two fifths of the types and of the times, its cells, and which were not told."""
    adata = worm.copy()
    hidden = np.random.default_rng(0).random(adata.n_obs) < 0.6
    adata.obs["known_type"] = adata.obs["cell_type"].where(~hidden)
    adata.obs["known_time"] = adata.obs["time"].where(~hidden)
    scvi.settings.seed = 0
    ht.HDTree.setup_anndata(adata, batch_key="batch", labels_key="known_type", time_key="known_time")
    model = ht.HDTree(adata, use_labels=True)
    model.train(max_epochs=40, **QUIET)
    ht.tl.tree(adata, model)
    ht.tl.lineage_graph(adata)
    return model, adata, hidden


def told_types(latent, adata, hidden):
    """Share of the cells without a label whose type their neighbours with one tell."""
    types = adata.obs["cell_type"].astype(str).to_numpy()
    return (
        KNeighborsClassifier(15).fit(latent[~hidden], types[~hidden]).predict(latent[hidden]) == types[hidden]
    ).mean()


# -- labels --------------------------------------------------------------------------------------------------


def test_labels_of_some_cells_help_to_tell_those_of_the_others(partial, fitted):
    model, adata, hidden = partial
    without = told_types(fitted[0].get_latent(), adata, hidden)
    assert told_types(model.get_latent(), adata, hidden) > max(without - 0.01, 0.7)


def test_the_label_head_tells_the_types_it_was_told(partial):
    model, adata, hidden = partial
    names = list(model.adata_manager.get_state_registry("labels").categorical_mapping)
    with torch.inference_mode():
        told = model.module.label_head(torch.from_numpy(model.get_latent())).argmax(1).numpy()
    told = np.array(names)[told]
    right = told == adata.obs["cell_type"].astype(str).to_numpy()
    assert right[~hidden].mean() > 0.9
    assert right[hidden].mean() > 0.7
    assert "unknown" in names
    assert "unknown" not in told
    assert np.isfinite(model.history["label_train"].to_numpy(float)).all()


def test_only_known_labels_are_learned(partial):
    module, names = partial[0].module, partial[0].adata_manager.get_state_registry("labels").categorical_mapping
    z = torch.randn(20, module.n_latent, generator=torch.Generator().manual_seed(0)).requires_grad_()
    unknown = list(names).index("unknown")
    label = torch.full((20,), unknown)
    (nothing,) = torch.autograd.grad(module._label_loss(z, label), z)
    assert (nothing == 0).all(), "a minibatch without any label"
    label[:5] = (unknown + 1) % len(names)
    (gradient,) = torch.autograd.grad(module._label_loss(z, label), z)
    assert (gradient[:5] != 0).any(1).all()
    assert (gradient[5:] == 0).all()


def columns(types: pd.Series) -> dict[str, pd.Series]:
    """Labels of several kinds, a third of them missing."""
    gone = np.arange(len(types)) % 3 == 0
    text = types.astype(str)
    return {
        "category": text.astype("category").where(~gone),
        "object": text.astype(object).where(~gone, None),
        "string": text.astype("string").where(~gone),
        "number": text.astype("category").cat.codes.astype(float).where(~gone),
        "ordered": pd.Series(pd.Categorical(text.where(~gone), ordered=True), index=types.index),
    }


@pytest.mark.parametrize("kind", ["category", "object", "string", "number", "ordered"])
def test_missing_labels_are_unknown_and_the_users_column_stays(cells, kind):
    cells.obs["label"] = columns(cells.obs["cell_type"])[kind]
    before = cells.obs.copy()
    ht.HDTree.setup_anndata(cells, labels_key="label")
    pd.testing.assert_frame_equal(cells.obs[before.columns], before)
    model = ht.HDTree(cells, use_labels=True)
    mapping = model.adata_manager.get_state_registry("labels").categorical_mapping
    assert len(mapping) == cells.obs["cell_type"].nunique() + 1
    assert model.module.predicted_labels.sum() == len(mapping) - 1
    assert model.module.label_head.out_features == len(mapping)
    number = model.adata_manager.get_from_registry("labels").ravel()
    assert ((np.asarray(mapping)[number] == "unknown") == before["label"].isna()).all()


def test_labels_without_gaps_have_no_unknown_one(cells):
    ht.HDTree.setup_anndata(cells, labels_key="cell_type")
    model = ht.HDTree(cells, use_labels=True)
    assert model.module.predicted_labels.all()
    assert ht.HDTree(cells).module.label_head is None, "labels are not learned unless asked for"


@pytest.mark.parametrize("n_known", [None, 0, 1])
def test_labels_to_learn_from_are_needed(cells, n_known):
    if n_known is None:
        ht.HDTree.setup_anndata(cells)
    else:
        types = cells.obs["cell_type"].astype(str)
        cells.obs["label"] = types.where(types.isin(sorted(set(types))[:n_known])).astype("category")
        ht.HDTree.setup_anndata(cells, labels_key="label")
    with pytest.raises(ValueError, match=r"use_labels.*labels_key"):
        ht.HDTree(cells, use_labels=True)


def test_models_with_unknown_labels_are_saved_loaded_and_queried(partial, worm, tmp_path):
    model, adata, _ = partial
    model.save(tmp_path / "m")
    cells = adata.copy()
    again = ht.HDTree.load(tmp_path / "m", adata=cells)
    assert np.array_equal(again.get_latent(), model.get_latent())
    assert np.array_equal(again.get_time(), model.get_time())
    torch.testing.assert_close(again.module.label_head.weight, model.module.label_head.weight)
    assert torch.equal(again.module.predicted_labels, model.module.predicted_labels)
    pd.testing.assert_series_equal(cells.obs["known_type"], adata.obs["known_type"])
    bare = ht.HDTree.load(tmp_path / "m", adata=False)
    query = worm[:40].copy()
    np.testing.assert_allclose(bare.get_latent(query), model.get_latent(indices=np.arange(40)), atol=1e-5)
    query.obs["known_type"] = pd.Categorical([None, "a type that is new"] * 20)
    before = query.obs.copy()
    np.testing.assert_allclose(bare.get_time(query), model.get_time(indices=np.arange(40)), atol=1e-3)
    pd.testing.assert_frame_equal(query.obs, before)


# -- times ---------------------------------------------------------------------------------------------------


def test_times_of_some_cells_tell_those_of_the_others(partial):
    model, adata, hidden = partial
    told, true = model.get_time(), adata.obs["time"].to_numpy(float)
    assert told.shape == (adata.n_obs,)
    assert told.dtype == np.float32
    assert np.corrcoef(told[hidden], true[hidden])[0, 1] > 0.8
    chance = np.abs(true[hidden] - np.median(true[~hidden])).mean()
    assert np.abs(told[hidden] - true[hidden]).mean() < 0.6 * chance, "in minutes, not in standard deviations"
    np.testing.assert_allclose(model.get_time(indices=[5, 2], batch_size=1), told[[5, 2]], rtol=1e-4)


def test_tree_writes_the_time_and_a_model_without_takes_it_back(partial, model):
    timed, adata, _ = partial
    np.testing.assert_array_equal(adata.obs["hdtree_time"], timed.get_time())
    again = ht.tl.tree(adata, model, copy=True)
    assert "hdtree_time" not in again.obs
    assert "hdtree_time" in adata.obs
    assert "mine_time" in ht.tl.tree(adata, timed, key_added="mine", copy=True).obs


def test_time_is_told_only_by_models_that_learned_it(model):
    with pytest.raises(RuntimeError, match="time_key="):
        model.get_time()


def test_pseudotime_of_cells_without_a_time_follows_it(partial):
    adata, hidden = partial[1].copy(), partial[2]
    ht.tl.pseudotime(adata, root=adata.obs_names[int(adata.obs["hdtree_time"].argmin())])
    assert spearmanr(adata.obs["hdtree_pseudotime"][hidden], adata.obs["time"][hidden])[0] > 0.85


def test_time_is_the_longest_axis_of_expression():
    rng = np.random.default_rng(0)
    expression, time = rng.normal(size=(200, 3)) * [3, 2, 1], rng.uniform(100, 900, 200)
    ordered = with_time(expression, time)
    assert ordered.shape == (200, 4)
    np.testing.assert_allclose(ordered[:, :3], expression, rtol=1e-5)
    assert ordered[:, 3].std() == pytest.approx(TIME_AXIS * expression.std(0).max(), rel=1e-4)
    assert np.corrcoef(ordered[:, 3], time)[0, 1] == pytest.approx(1)
    assert (with_time(expression, np.full(200, 7.0))[:, 3] == 0).all(), "one time orders nothing"


def on_a_ring(n=300, seed=0):
    """Cells that come back to where they began, as in a cell cycle."""
    rng = np.random.default_rng(seed)
    time = rng.random(n)
    points = np.c_[np.cos(2 * np.pi * time), np.sin(2 * np.pi * time)] + 0.02 * rng.normal(size=(n, 2))
    adata = AnnData(np.zeros((n, 1), np.float32), obs=pd.DataFrame({"true": time}, index=[f"c{i}" for i in range(n)]))
    adata.obsm["X_hdtree"] = points.astype(np.float32)
    tree = ht.Tree.from_newick("((a:1,b:1)ab:1,(c:1,d:1)cd:1)root;")
    adata.uns["hdtree"] = {"nodes": tree.to_frame(), "codebook": np.zeros((len(tree), 2), np.float32)}
    adata.obs["hdtree_leaf"] = np.array(["a", "b", "c", "d"])[(4 * time).astype(int)]
    return adata


@pytest.mark.parametrize("timed", [False, True])
def test_time_opens_a_ring_that_expression_closes(timed):
    adata = on_a_ring()
    if timed:
        adata.obs["hdtree_time"] = (100 * adata.obs["true"]).astype(np.float32)
    ht.tl.lineage_graph(adata)
    ht.tl.pseudotime(adata, root=adata.obs_names[int(adata.obs["true"].argmin())])
    found = spearmanr(adata.obs["hdtree_pseudotime"], adata.obs["true"])[0]
    if timed:
        # cells at the seam are still neighbours in the latent, over which pseudotime is smoothed
        assert found > 0.85
    else:
        assert found < 0.3
