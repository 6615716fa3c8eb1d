"""HDTree as a user meets it: set up, train, ask, save, load, map new cells."""

import os
import signal
import subprocess
import sys
import textwrap
import threading

import numpy as np
import pandas as pd
import pytest
import scvi
import torch
from helpers import QUIET
from lightning.pytorch.callbacks import Callback
from sklearn.metrics import normalized_mutual_info_score
from sklearn.neighbors import KNeighborsClassifier

import hdtree_sc as ht
from hdtree_sc.graph._neighbors import nearest_neighbors

pytestmark = pytest.mark.slow  # trains models


def quick(adata, seed=0, max_epochs=2, setup=None, train=None, **kwargs):
    """A model after a few epochs."""
    scvi.settings.seed = seed
    ht.HDTree.setup_anndata(adata, **(setup or {}))
    model = ht.HDTree(adata, **kwargs)
    model.train(max_epochs=max_epochs, **QUIET, **(train or {}))
    return model


# -- what it learns ------------------------------------------------------------------------------------------


def test_leaves_are_cell_types_although_types_were_not_given(annotated):
    score = normalized_mutual_info_score(annotated.obs["cell_type"], annotated.obs["hdtree_leaf"])
    assert score > 0.5
    tree = ht.get.tree(annotated)
    purity = ht.metrics.dendrogram_purity(tree, annotated.obs["hdtree_leaf"], annotated.obs["cell_type"])
    chance = ht.metrics.dendrogram_purity(
        tree, annotated.obs["hdtree_leaf"], np.random.default_rng(0).permutation(annotated.obs["cell_type"])
    )
    assert purity > 2 * chance


def test_latent_keeps_cells_of_one_time_together_better_than_chance(annotated):
    ratio = ht.metrics.time_neighborhood_ratio(annotated.obsm["X_hdtree"], annotated.obs["embryo_time_bin"], k=15)
    assert ratio > 0.35, "chance is one in eight"


def test_a_known_tree_is_recovered():
    adata = ht.datasets.branching(800, difficulty="easy", seed=1)
    model = quick(adata, max_epochs=60)
    ht.tl.tree(adata, model)
    assert normalized_mutual_info_score(adata.obs["branch"], adata.obs["hdtree_leaf"]) > 0.5


# -- getters -------------------------------------------------------------------------------------------------


def test_paths_are_prefixes_and_probabilities_add_up(model, worm):
    paths, probabilities, tree = model.get_tree_paths(), model.get_node_probabilities(), model.get_tree()
    assert list(paths.index) == list(worm.obs_names)
    assert list(paths.columns) == [f"level_{i}" for i in range(1, 11)]
    for above, below in zip(paths.columns[:-1], paths.columns[1:], strict=True):
        there = paths[below].notna()
        assert paths.loc[there, above].notna().all()
        pairs = zip(paths.loc[there, above], paths.loc[there, below], strict=True)
        assert all(name.rsplit(".", 1)[0] == up for up, name in pairs)
    assert list(probabilities.columns) == list(tree.nodes)
    np.testing.assert_allclose(probabilities["root"], 1, atol=1e-5)
    for node in tree.nodes:
        if tree.children(node):
            np.testing.assert_allclose(probabilities[list(tree.children(node))].sum(1), probabilities[node], atol=1e-5)
    assert tree.n_cells[0] == len(model.train_indices)


def test_probabilities_answer_for_the_neighbours_leaves(model):
    """Where a cell is said to be in its leaf with 70 %, about 70 % of its neighbours are."""
    latent, tree = model.get_latent(), model.get_tree()
    leaf = model.get_tree_paths().astype(object).ffill(axis=1).iloc[:, -1].to_numpy()
    neighbors = nearest_neighbors(latent, 15)[0]
    same = (leaf[neighbors] == leaf[:, None]).mean(1)
    sure = model.get_node_probabilities()[list(tree.leaves)].max(axis=1).to_numpy()
    assert abs(sure.mean() - same.mean()) < 0.15
    assert np.corrcoef(sure, same)[0, 1] > 0.2


@pytest.mark.parametrize("steps", [1, 2, 3, 5])
def test_short_trainings_have_a_schedule(cells, steps):
    few = cells[:100].copy()
    model = quick(few, max_epochs=steps, train={"batch_size": 45})
    assert np.isfinite(model.history["train_loss"].to_numpy(float)).all()


def test_the_most_probable_leaf_is_the_chosen_one(model):
    tree, paths = model.get_tree(), model.get_tree_paths()
    deepest = paths.astype(object).ffill(axis=1).iloc[:, -1]
    likely = model.get_node_probabilities()[list(tree.leaves)].idxmax(axis=1)
    assert (deepest == likely).mean() > 0.999


def test_getters_take_rows_batches_and_loaders(model, worm):
    latent = model.get_latent()
    assert latent.dtype == np.float32
    assert np.array_equal(latent, model.get_latent_representation())
    np.testing.assert_allclose(model.get_latent(indices=[5, 2], batch_size=1), latent[[5, 2]], atol=1e-5)
    loader = model._make_data_loader(adata=model.adata, indices=np.arange(7))
    np.testing.assert_allclose(model.get_latent(dataloader=loader), latent[:7], atol=1e-5)
    loader = model._make_data_loader(adata=model.adata, indices=np.arange(7))
    assert list(model.get_tree_paths(dataloader=loader).index) == list(range(7))
    assert list(model.get_tree_paths(indices=[3]).index) == [worm.obs_names[3]]
    assert model.get_map().shape == (worm.n_obs, 2)


def test_scvi_tools_methods_work_on_counts(model, worm):
    expression = model.get_normalized_expression(
        indices=np.arange(20),
        n_samples=3,
        transform_batch="Waterston_300_minutes" if "Waterston_300_minutes" in set(worm.obs["batch"]) else None,
    )
    assert expression.shape == (20, worm.n_vars)
    np.testing.assert_allclose(expression.sum(1), 1, rtol=1e-3)
    table = model.differential_expression(groupby="cell_type", group1="ASG", group2="AWA", silent=True)
    assert set(table.index) == set(worm.var_names)
    drawn = model.posterior_predictive_sample(indices=np.arange(4))
    assert drawn.shape == (4, worm.n_vars)


def test_nothing_of_the_users_data_is_changed_by_getters(model, cells):
    before = cells.copy()
    model.get_latent(cells)
    model.get_tree_paths(cells)
    pd.testing.assert_frame_equal(cells.obs, before.obs)
    assert set(cells.uns) == set(before.uns)
    assert (cells.X != before.X).nnz == 0


# -- likelihoods and covariates ------------------------------------------------------------------------------


@pytest.mark.parametrize("likelihood", ["zinb", "normal", "bernoulli"])
def test_other_likelihoods(cells, likelihood):
    if likelihood != "zinb":
        cells.X = cells.X.toarray() / cells.X.max()
    model = quick(cells, gene_likelihood=likelihood)
    assert np.isfinite(model.get_latent()).all()
    assert model.get_normalized_expression(indices=[0, 1]).shape == (2, cells.n_vars)


def test_covariates_times_and_size_factors_are_taken(cells):
    rng = np.random.default_rng(0)
    cells.layers["raw"] = cells.X.copy()
    cells.obs["sex"] = rng.choice(["m", "f"], cells.n_obs)
    cells.obs["score"] = rng.normal(size=cells.n_obs)
    cells.obs["library"] = np.asarray(cells.X.sum(1)).ravel()
    cells.obs["known_time"] = cells.obs["time"].where(rng.random(cells.n_obs) < 0.5)
    setup = {
        "layer": "raw",
        "batch_key": "batch",
        "time_key": "known_time",
        "size_factor_key": "library",
        "categorical_covariate_keys": ["sex"],
        "continuous_covariate_keys": ["score"],
    }
    model = quick(cells, setup=setup)
    assert model.module.covariates.width == cells.obs["batch"].nunique() + 3
    assert np.isfinite(model.history["time_train"].to_numpy(float)).all()
    assert np.isfinite(model.get_latent()).all()


def test_one_time_only_is_refused(cells):
    cells.obs["known_time"] = 3.0
    ht.HDTree.setup_anndata(cells, time_key="known_time")
    model = ht.HDTree(cells)
    with pytest.raises(ValueError, match="known_time.*two different times"):
        model.train(max_epochs=1, **QUIET)
    cells.obs["known_time"] = cells.obs["time"]
    model.train(max_epochs=1, **QUIET)
    assert model.module.time_moments[0] == pytest.approx(cells.obs["time"].mean(), rel=0.1), (
        "learned once times are there"
    )


# -- training ------------------------------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_model(worm):
    first, again, other = (quick(worm.copy(), seed=seed).get_latent() for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.allclose(first, other)


class Modes(Callback):
    """Notes whether the module trains in train mode."""

    def __init__(self):
        self.seen = []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.seen.append(pl_module.module.training)


def test_a_second_training_trains_in_train_mode_and_keeps_the_history(cells):
    model = quick(cells)
    modes = Modes()
    model.history_["of_an_earlier_stage"] = model.history_["train_loss"]
    model.train(max_epochs=2, callbacks=[modes], check_val_every_n_epoch=1, **QUIET)
    assert modes.seen
    assert all(modes.seen)
    assert {"of_an_earlier_stage", "train_loss", "validation_loss", "contrastive_train"} <= set(model.history)


def test_early_stopping_follows_the_validation_loss(cells):
    model = quick(
        cells, max_epochs=40, train={"early_stopping": True, "early_stopping_patience": 1, "plan_kwargs": {"lr": 0.2}}
    )
    assert len(model.history["validation_loss"]) < 40


def test_after_kill_9_training_goes_on_as_if_nothing_had_happened(worm, tmp_path):
    worm.write_h5ad(tmp_path / "cells.h5ad")
    script = textwrap.dedent(f"""
        import anndata, os, scvi, signal, hdtree_sc as ht
        from lightning.pytorch.callbacks import Callback

        class Kill(Callback):
            def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
                if trainer.current_epoch == 10 and batch_idx == 1:
                    os.kill(os.getpid(), signal.SIGKILL)

        adata = anndata.read_h5ad({str(tmp_path / "cells.h5ad")!r})
        scvi.settings.seed = 0
        ht.HDTree.setup_anndata(adata)
        model = ht.HDTree(adata)
        model.train(max_epochs=12, checkpoint_dir={str(tmp_path)!r}, callbacks=[Kill()], enable_progress_bar=False)
    """)
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == -signal.SIGKILL
    whole = quick(worm.copy(), max_epochs=12)
    resumed = quick(worm.copy(), max_epochs=None, train={"ckpt_path": str(tmp_path / "last.ckpt")})
    assert resumed.trainer.global_step == whole.trainer.global_step
    theirs = whole.module.state_dict()
    assert all(torch.equal(value, theirs[name]) for name, value in resumed.module.state_dict().items())
    assert resumed.get_tree().to_newick() == whole.get_tree().to_newick()
    assert len(resumed.history["train_loss"]) == 12
    assert all(resumed.history[name].equals(values) for name, values in whole.history.items())


class PressCtrlC(Callback):
    """Presses Ctrl-C in the third epoch."""

    def on_train_epoch_start(self, trainer, pl_module):
        if trainer.current_epoch == 3:
            signal.raise_signal(signal.SIGINT)


@pytest.fixture
def ctrl_c():
    """Ctrl-C as in a terminal: what runs in the background of a shell ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("ctrl_c")
def test_ctrl_c_leaves_a_usable_model_and_a_working_ctrl_c(cells):
    assert threading.current_thread() is threading.main_thread()
    with pytest.warns(UserWarning, match="interrupted"):
        model = quick(cells, max_epochs=200, train={"callbacks": [PressCtrlC()]})
    assert len(model.get_tree().leaves) > 1
    assert model.get_tree_paths().shape[0] == cells.n_obs
    assert len(model.history["train_loss"]) == 3
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


class Fail(Callback):
    def on_train_start(self, trainer, pl_module):
        msg = "disk full"
        raise OSError(msg)


def test_other_errors_in_training_are_not_swallowed(cells):
    with pytest.raises(OSError, match="disk full"):
        quick(cells, train={"callbacks": [Fail()]})


@pytest.mark.parametrize("builder", ["information", "links", "ward", "bisecting"])
def test_the_tree_can_be_built_anew_without_training(worm, builder):
    model = quick(worm.copy(), max_epochs=20)
    latent = model.get_latent()
    model.build_tree(builder, max_leaves=8, min_cells=5)
    tree = model.get_tree()
    assert 2 <= len(tree.leaves) <= 8
    assert np.array_equal(model.get_latent(), latent)
    heights = dict(zip(tree.nodes, tree.heights, strict=True))
    assert all(heights[tree.parent(node)] >= heights[node] - 1e-6 for node in tree.nodes if tree.parent(node))
    with pytest.raises(ValueError, match="nonsense.*links"):
        model.build_tree("nonsense")


# -- saving and loading --------------------------------------------------------------------------------------


def test_saving_and_loading_gives_equal_output_and_small_files(model, worm, tmp_path):
    model.save(tmp_path / "m")
    again = ht.HDTree.load(tmp_path / "m", adata=worm.copy())
    assert np.array_equal(again.get_latent(), model.get_latent())
    assert again.get_tree_paths().equals(model.get_tree_paths())
    assert again.get_tree() == model.get_tree()
    assert set(again.history) == set(model.history)
    weights = sum(value.numel() * value.element_size() for value in model.module.state_dict().values())
    assert os.path.getsize(tmp_path / "m" / "model.pt") < weights + 1e6
    again.train(max_epochs=1, **QUIET)
    assert len(again.get_tree().leaves) > 1


def test_a_model_loads_without_data_and_takes_cells_by_name(model, worm, tmp_path):
    model.save(tmp_path / "m")
    again = ht.HDTree.load(tmp_path / "m", adata=False)
    np.testing.assert_allclose(again.get_latent(worm), model.get_latent(), atol=1e-5)
    with pytest.raises(ValueError, match="adata="):
        again.get_latent()
    with pytest.raises(ValueError, match="adata="):
        again.train()


def test_files_that_are_broken_or_of_another_class_are_refused(model, tmp_path):
    model.save(tmp_path / "m")
    whole = (tmp_path / "m" / "model.pt").read_bytes()
    (tmp_path / "m" / "model.pt").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="truncated|not a complete"):
        ht.HDTree.load(tmp_path / "m", adata=False)
    other = scvi.model.SCVI
    cells = scvi.data.synthetic_iid()
    other.setup_anndata(cells)
    other(cells).save(tmp_path / "scvi")
    with pytest.raises(ValueError, match="trust"):
        ht.HDTree.load(tmp_path / "scvi", adata=False)
    with pytest.raises(ValueError, match="SCVI"):
        ht.HDTree.load(tmp_path / "scvi", adata=False, trust=True)
    with pytest.raises(ValueError, match="nowhere"):
        ht.HDTree.load(tmp_path / "nowhere", adata=False)


def test_files_of_a_newer_version_are_refused(model, tmp_path, monkeypatch):
    monkeypatch.setattr(model, "package_version_", "99.0.0")
    model.save(tmp_path / "m")
    with pytest.raises(ValueError, match=r"99\.0\.0"):
        ht.HDTree.load(tmp_path / "m", adata=False)


# -- new cells -----------------------------------------------------------------------------------------------


def test_unseen_cells_go_where_their_type_is(worm):
    held = np.random.default_rng(0).random(worm.n_obs) < 0.25
    fit, new = worm[~held].copy(), worm[held].copy()
    model = quick(fit, max_epochs=40)
    latent = ht.HDTree.load_query_data(new, model).get_latent()
    guess = KNeighborsClassifier(15).fit(model.get_latent(), fit.obs["cell_type"]).predict(latent)
    assert (guess == new.obs["cell_type"].to_numpy()).mean() > 0.75


def test_query_genes_are_matched_by_name_and_unknown_columns_are_unknown(model, worm, caplog):
    query = worm[:, ::-1][:, 20:].copy()
    del query.obs["cell_type"]
    before, leaf = query.copy(), mapped_leaf(model, worm)
    mapped = ht.HDTree.load_query_data(query, model)
    assert f"20 of the model's {worm.n_vars} genes" in caplog.text
    # of all cells: those of a small batch hang on it (over four seeds .5 % of all cells moved)
    assert (mapped_leaf(mapped, query) == leaf).mean() > 0.9
    query.obs["batch"] = "a new machine"
    before.obs["batch"] = query.obs["batch"]
    mapped = ht.HDTree.load_query_data(query, model)
    ht.tl.tree(query, mapped)
    pd.testing.assert_frame_equal(query.obs[before.obs.columns], before.obs)
    assert not [column for column in query.obs if column.startswith("_scvi")]
    # over four seeds 12 % of all cells moved where the batch was unknown, with the 20 genes and without
    assert (query.obs["hdtree_leaf"].astype(str).to_numpy() == leaf).mean() > 0.75
    assert model.get_latent().shape[0] == worm.n_obs, "the reference stays what it was"


def mapped_leaf(model, cells):
    paths = model.get_tree_paths(cells).astype(object)
    return paths.ffill(axis=1).iloc[:, -1].to_numpy()


def test_a_query_model_can_be_made_from_a_folder(model, worm, tmp_path):
    model.save(tmp_path / "m")
    query = worm[:30].copy()
    mapped = ht.HDTree.load_query_data(query, str(tmp_path / "m"))
    np.testing.assert_allclose(mapped.get_latent(query), model.get_latent(indices=np.arange(30)), atol=1e-5)


def test_a_query_without_shared_genes_is_refused(model, cells):
    cells.var_names = [f"other_{i}" for i in range(cells.n_vars)]
    with pytest.raises(ValueError, match=f"none of the model's {cells.n_vars} genes"):
        ht.HDTree.load_query_data(cells, model)
    ht.HDTree.setup_anndata(cells)
    untrained = ht.HDTree(cells)
    with pytest.raises(RuntimeError, match="train"):
        ht.HDTree.load_query_data(cells, untrained)


def test_a_query_model_is_neither_trained_nor_given_another_tree(model, worm):
    mapped = ht.HDTree.load_query_data(worm[:50].copy(), model)
    for method in (mapped.train, mapped.build_tree):
        with pytest.raises(RuntimeError, match="reference model"):
            method()


def test_one_cell_can_be_placed_and_values_are_checked(model, worm):
    one = worm[:1].copy()
    assert model.get_latent(one).shape == (1, 24)
    empty = worm[:2].copy()
    empty.X = empty.X * 0
    with pytest.raises(ValueError, match="no counts at all"):
        ht.HDTree.load_query_data(empty, model)


def test_batches_that_are_numbers_are_known_again(worm):
    adata = worm.copy()
    adata.obs["batch"] = adata.obs["batch"].cat.codes.to_numpy()
    model = quick(adata, setup={"batch_key": "batch"})
    query = worm[:20].copy()
    query.obs["batch"] = adata.obs["batch"][:20]
    np.testing.assert_allclose(ht.HDTree.load_query_data(query, model).get_latent(), model.get_latent()[:20], atol=1e-5)
