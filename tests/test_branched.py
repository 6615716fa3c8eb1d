"""BranchedDiffusion on real cells: a class tree in noise level, and what is made with it."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import QUIET
from hypothesis import given, settings
from hypothesis import strategies as st
from lightning.pytorch.callbacks import Callback

import hdtree_sc as ht
from hdtree_sc.tree._branch_points import mixing_levels
from hdtree_sc.tree._class_tree import ClassTree, clades, found_tree

NEW = "AWB"


@pytest.fixture(scope="module")
def branched(labelled):
    """A model of all types but one; treat as read-only."""
    import scvi

    adata = labelled[labelled.obs["cell_type"] != NEW].copy()
    scvi.settings.seed = 0
    ht.BranchedDiffusion.setup_anndata(adata, labels_key="cell_type")
    model = ht.BranchedDiffusion(adata)
    model.train(max_epochs=100, diffusion_kwargs={"max_epochs": 30, "n_hidden": 128, "n_blocks": 2}, **QUIET)
    return model


def test_branch_points_are_a_tree_over_the_types_with_less_noise_below(branched):
    points, tree = branched.get_branch_points(), branched.get_tree()
    types = set(branched.adata.obs["cell_type"])
    columns = branched.node_columns()
    assert set(columns.loc[list(tree.leaves), "label"]) == types
    assert len(points) <= len(types) - 1
    assert points["time"].between(0, 1).all()
    assert points["support"].between(0, 1).all()
    for node, parent in points["parent"].items():
        if parent:
            assert points.loc[node, "log_snr"] > points.loc[parent, "log_snr"]
            assert points.loc[node, "time"] < points.loc[parent, "time"]


def test_cells_made_of_a_type_are_of_it(branched):
    new = branched.generate(60, label="AWC", seed=0)
    assert (new.obs["cell_type"] == "AWC").all()
    assert np.array_equal(new.X.data, np.round(new.X.data))
    leaf = branched.node_columns().loc[new.obs["branched_leaf"].astype(str), "label"]
    assert (leaf == "AWC").mean() > 0.7
    again = branched.generate(60, label="AWC", seed=0)
    assert (new.X != again.X).nnz == 0


def test_types_share_the_noisy_part_of_the_way(branched):
    names = ["ADL", "AWC"]
    new = branched.generate(10, label=names, share_prefix=True, seed=0)
    assert new.obs["cell_type"].tolist() == ["ADL"] * 10 + ["AWC"] * 10
    assert new.obs["prefix"].tolist() == [*range(10)] * 2
    held = new.uns["branched"]
    assert held["network_calls"] <= held["network_calls_unshared"]
    apart = branched.generate(10, label=names, seed=0)
    assert apart.n_obs == 20
    assert "prefix" not in apart.obs


def test_cells_go_over_to_another_type_and_keep_their_names(branched):
    cells = np.flatnonzero(branched.adata.obs["cell_type"] == "ADL")[:20]
    there = branched.transmute(indices=cells, target="AWC", seed=0)
    assert list(there.obs_names) == list(branched.adata.obs_names[cells])
    assert (there.obs["source_label"] == "ADL").all()
    assert (there.obs["target_label"] == "AWC").all()
    assert (there.obs["cell_type"] == "AWC").all()
    target = branched.node_columns().query("label == 'AWC'").index[0]
    before = branched.get_node_probabilities(indices=cells)[target].mean()
    assert there.obs["target_probability"].mean() > before + 0.3
    with pytest.raises(ValueError, match="Martian"):
        branched.transmute(indices=cells, target="Martian")


def test_hybrids_come_in_threes(branched):
    out = branched.hybrids("ADL", "AWC", 5, seed=0)
    assert out.obs["role"].tolist() == ["hybrid"] * 5 + ["ADL"] * 5 + ["AWC"] * 5
    assert np.isfinite(out.obs["branch_noise"]).all()


def test_denoising_tells_types(branched):
    rows = np.arange(0, branched.adata.n_obs, 5)
    found = branched.classify(indices=rows, n_noise=16)
    assert np.allclose(found.sum(1), 1, atol=1e-5)
    right = found.idxmax(axis=1).to_numpy() == branched.adata.obs["cell_type"].to_numpy()[rows]
    assert right.mean() > 0.6


def test_the_shared_tools_work_on_the_class_tree(branched):
    adata = branched.adata.copy()
    ht.tl.tree(adata, branched)
    assert set(adata.uns["branched"]["nodes"].columns) >= {"label", "log_snr", "support", "parent", "n_cells"}
    assert np.allclose(branched.get_node_probabilities()["root"], 1)
    own = adata.uns["branched"]["nodes"].loc[adata.obs["branched_leaf"].astype(str), "label"].to_numpy()
    assert (own == adata.obs["cell_type"].to_numpy()).mean() > 0.8
    ht.tl.lineage_graph(adata, key="branched")
    ax = ht.pl.branch_points(branched, show=False)
    assert {text.get_text() for text in ax.get_yticklabels()} == set(adata.obs["cell_type"])
    with pytest.raises(ValueError, match="axis"):
        ht.pl.branch_points(branched, axis="space", show=False)


def test_a_class_is_added_without_a_change_to_the_others(branched, labelled, tmp_path):
    branched.save(str(tmp_path / "before"), overwrite=True)
    model = ht.BranchedDiffusion.load(str(tmp_path / "before"), adata=branched.adata)
    before = model.generate(30, label="AWC", seed=5)
    assert (before.X != branched.generate(30, label="AWC", seed=5).X).nnz == 0
    cells = labelled[labelled.obs["cell_type"] == NEW].copy()
    columns = cells.obs.columns.tolist()
    model.add_class(cells, NEW, max_epochs=10, **QUIET)
    assert cells.obs.columns.tolist() == columns
    assert (before.X != model.generate(30, label="AWC", seed=5).X).nnz == 0
    new = model.generate(30, label=NEW, seed=0)
    own = labelled[labelled.obs["cell_type"] == NEW]
    other = labelled[labelled.obs["cell_type"] != NEW]
    mean = np.log1p(np.asarray(new.X.mean(0))).ravel()
    to_own, to_other = (np.corrcoef(mean, np.log1p(np.asarray(x.X.mean(0))).ravel())[0, 1] for x in (own, other))
    assert to_own > to_other
    assert set(branched.get_tree().nodes) < set(model.get_tree().nodes), "no node has changed its name"
    model.save(str(tmp_path / "after"), overwrite=True)
    again = ht.BranchedDiffusion.load(str(tmp_path / "after"), adata=branched.adata)
    assert (again.generate(30, label=NEW, seed=0).X != new.X).nnz == 0
    for bad, label, said in ((cells, "AWC", "already"), (cells[:3], "x", "3 cells"), (cells[:, 5:], "x", "genes")):
        with pytest.raises(ValueError, match=said):
            model.add_class(bad.copy(), label)


def test_one_class_after_the_other_is_added(branched, labelled, tmp_path):
    branched.save(str(tmp_path / "before"), overwrite=True)
    model = ht.BranchedDiffusion.load(str(tmp_path / "before"), adata=branched.adata)
    cells = labelled[labelled.obs["cell_type"] == NEW]
    is_young = (cells.obs["time"] < cells.obs["time"].median()).to_numpy()
    old_type = model.generate(20, label="ADL", seed=1)
    model.add_class(cells[is_young].copy(), "young AWB", max_epochs=3, **QUIET)
    young = model.generate(20, label="young AWB", seed=1)
    model.add_class(cells[~is_young].copy(), "old AWB", max_epochs=3, **QUIET)
    for label, before in (("ADL", old_type), ("young AWB", young)):
        assert (model.generate(20, label=label, seed=1).X != before.X).nnz == 0
    old = model.generate(20, label="old AWB", seed=1)
    assert (old.X != young.X).nnz > 0
    model.save(str(tmp_path / "after"), overwrite=True)
    again = ht.BranchedDiffusion.load(str(tmp_path / "after"), adata=branched.adata)
    assert (again.generate(20, label="old AWB", seed=1).X != old.X).nnz == 0


@pytest.mark.slow
def test_a_training_that_crashed_goes_on(labelled, tmp_path):
    import scvi

    class Crash(Callback):
        def on_train_epoch_start(self, trainer, *_):
            if trainer.current_epoch == 10:
                msg = "power cut"
                raise OSError(msg)

    adata = labelled.copy()
    ht.BranchedDiffusion.setup_anndata(adata, labels_key="cell_type")
    scvi.settings.seed = 0
    with pytest.raises(OSError, match="power cut"):
        ht.BranchedDiffusion(adata).train(
            max_epochs=3,
            checkpoint_dir=tmp_path,
            diffusion_kwargs={"max_epochs": 12, "n_hidden": 32, "n_blocks": 1, "callbacks": [Crash()]},
            **QUIET,
        )
    model = ht.BranchedDiffusion.load(str(tmp_path / "autoencoder"), adata=adata)
    model.train_diffusion(max_epochs=12, n_hidden=32, n_blocks=1, ckpt_path=str(tmp_path / "last.ckpt"), **QUIET)
    assert model.trainer.global_step == 12 * 50
    assert model.generate(20, label="AWC", seed=0).n_obs == 20


@pytest.mark.slow
def test_a_tree_that_is_given_keeps_its_topology_and_gets_heights(labelled):
    names = sorted(labelled.obs["cell_type"].unique())
    text = f"(({names[0]},{names[1]})low,({','.join(names[2:])})rest)top;"
    ht.BranchedDiffusion.setup_anndata(labelled, labels_key="cell_type")
    model = ht.BranchedDiffusion(labelled, tree=text)
    model.train(max_epochs=5, diffusion_kwargs={"max_epochs": 1}, **QUIET)
    held = ClassTree.from_dict(model.class_tree_)
    assert frozenset(names[:2]) in clades(held)
    assert model.get_branch_points()["support"].isna().all()


def test_labels_are_needed(labelled):
    adata = labelled.copy()
    ht.BranchedDiffusion.setup_anndata(adata)
    with pytest.raises(ValueError, match="labels_key"):
        ht.BranchedDiffusion(adata)


def test_an_hdtree_lends_its_latent(fitted):
    reference, _ = fitted
    adata = reference.adata.copy()
    ht.BranchedDiffusion.setup_anndata(adata, batch_key="batch", labels_key="cell_type")
    model = ht.BranchedDiffusion(adata, latent_model=reference)
    model.train(diffusion_kwargs={"max_epochs": 1}, **QUIET)
    assert np.allclose(model.get_latent(), reference.get_latent(), atol=1e-5)


@given(st.integers(2, 9), st.integers(0, 10_000), st.sampled_from(["complete", "average", "single"]))
@settings(max_examples=40, deadline=None)
def test_heights_rise_to_the_root_and_complete_linkage_mixes_all_below(n, seed, method):
    rng = np.random.default_rng(seed)
    levels = mixing_levels(rng.normal(size=(n, 3)) * 3, np.eye(3)).clip(-5, 9)
    np.fill_diagonal(levels, -np.inf)
    names = [f"c{i}" for i in range(n)]
    tree = found_tree(levels, names, rng.integers(2, 50, n).tolist(), method=method)
    assert sorted(tree.classes) == names
    for node, parent in enumerate(tree.parents):
        assert parent < node
        if parent >= 0:
            assert tree.levels[node] < tree.levels[parent]
    if method == "complete":
        numbers = [tree.number_of(name) for name in names]
        below = tree.below()
        for node in range(len(tree)):
            inside = [i for i in range(n) if below[numbers[i], node]]
            if len(inside) > 1:
                # slivers are merged upwards, never down
                assert levels[np.ix_(inside, inside)].max() <= tree.levels[node] + 1e-9
