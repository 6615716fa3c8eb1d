"""Generation: new cells anywhere in the tree, and cells carried from one place to another."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pytest
import scvi
import torch
from helpers import QUIET
from lightning.pytorch.callbacks import Callback
from sklearn.linear_model import LogisticRegression

import hdtree_sc as ht
from hdtree_sc.generate import Route, Sampling

SMALL = {"n_hidden": 32, "n_blocks": 1}
"""A denoiser that is not asked for good cells."""


@pytest.fixture(scope="module")
def maker(fitted):
    """The shared model with a generator, on cells of its own, so that other tests see the model without one."""
    _, adata = fitted
    cells = adata.copy()
    scvi.settings.seed = 0
    ht.HDTree.setup_anndata(cells, batch_key="batch", labels_key="cell_type")
    model = ht.HDTree(cells)
    model.train(**QUIET)
    model.train_diffusion(max_epochs=30, n_hidden=128, n_blocks=2, **QUIET)
    return model


@pytest.fixture(scope="module")
def types(maker):
    """The two most frequent types, and a classifier of types on logged expression that no model has seen."""
    cells = maker.adata
    return list(cells.obs["cell_type"].value_counts().index[:2]), LogisticRegression(max_iter=300).fit(
        logged(cells.X), cells.obs["cell_type"]
    )


def logged(counts) -> np.ndarray:
    """Log-normalised counts."""
    dense = np.asarray(counts.todense())
    return np.log1p(1e4 * dense / dense.sum(1, keepdims=True))


class TestGenerate:
    def test_new_cells_are_counts_of_the_models_genes(self, maker):
        new = maker.generate(30, seed=0)
        assert new.shape == (30, maker.adata.n_vars)
        assert list(new.var_names) == list(maker.adata.var_names)
        assert new.X.format == "csr"
        assert (new.X.data == np.round(new.X.data)).all()
        assert new.X.min() == 0
        assert new.layers["mean"].shape == new.shape
        assert set(new.obs["hdtree_leaf"]) <= set(maker.get_tree().leaves)
        assert new.obsm["X_hdtree"].shape == (30, 24)
        assert set(new.obs["batch"]) <= set(maker.adata.obs["batch"])
        assert new.uns["hdtree"]["function"] == "generate"

    def test_a_seed_is_kept_and_the_global_random_numbers_are_left_alone(self, maker):
        torch.manual_seed(7)
        expected = torch.rand(3)
        torch.manual_seed(7)
        a, b, c = (maker.generate(20, seed=seed) for seed in (1, 1, 0))
        assert (a.X != b.X).nnz == 0
        assert (a.X != c.X).nnz > 0
        assert torch.equal(torch.rand(3), expected)

    def test_cells_of_a_node_are_placed_in_it(self, maker):
        tree, hits = maker.get_tree(), []
        for node in tree.children(tree.root):
            paths = ht.HDTree.load_query_data(maker.generate(100, node=node, seed=0), maker).get_tree_paths()
            hits.append((paths["level_1"].astype(str) == node).mean())
        assert np.mean(hits) > 0.8

    def test_cells_of_a_label_are_told_as_such_by_a_classifier_of_real_cells(self, maker, types):
        names, classifier = types
        for name in names:
            new = maker.generate(60, label=name, seed=0)
            assert (classifier.predict(logged(new.X)) == name).mean() > 0.6
            assert (new.obs["cell_type"] == name).all()

    def test_new_cells_are_as_diverse_as_real_ones(self, maker):
        table = ht.metrics.compare_cells(maker.adata.X, maker.generate(maker.adata.n_obs, seed=0).X)
        assert table.loc["frechet_distance", "value"] < 6 * table.loc["frechet_distance", "floor"]
        assert table.loc["classifier_auc", "value"] < 0.85

    def test_no_cell_is_a_copy(self, maker):
        real = {row.tobytes() for row in maker.adata.X.toarray().astype(np.int32)}
        assert not any(row.tobytes() in real for row in maker.generate(50, seed=0).X.toarray().astype(np.int32))

    def test_batch_and_library_size_may_be_chosen(self, maker):
        name = str(maker.adata.obs["batch"].iloc[0])
        new = maker.generate(40, batch=name, library=500, seed=0)
        assert (new.obs["batch"].astype(str) == name).all()
        np.testing.assert_allclose(new.layers["mean"].sum(1), 500, rtol=1e-3)

    @pytest.mark.parametrize("method", ["ancestral", "ddim", "dpm"])
    def test_all_samplers_give_cells_of_the_same_kind(self, maker, method):
        new = maker.generate(200, seed=0, method=method, n_steps=30)
        share = new.obs["hdtree_leaf"].value_counts(normalize=True, sort=False)
        own = maker.get_tree_paths()
        leaf = own.apply(lambda row: row.dropna().iloc[-1], axis=1).value_counts(normalize=True)
        assert 0.5 * np.abs(share - leaf.reindex(share.index).fillna(0)).sum() < 0.45

    def test_cells_at_a_time_do_not_matter_for_what_is_there(self, maker):
        assert maker.generate(25, seed=0, batch_size=10).n_obs == 25

    @pytest.mark.parametrize(
        ("arguments", "word"),
        [
            ({"n_cells": 0}, "n_cells"),
            ({"n_cells": 5, "node": "9.9"}, "9.9"),
            ({"n_cells": 5, "label": "no such"}, "label"),
            ({"n_cells": 5, "batch": "no such"}, "batch"),
            ({"n_cells": 5, "n_steps": 0}, "n_steps"),
            ({"n_cells": 5, "library": -1}, "library"),
            ({"n_cells": 5, "method": "euler"}, "method"),
        ],
    )
    def test_what_makes_no_sense_is_refused(self, maker, arguments, word):
        with pytest.raises(ValueError, match=word):
            maker.generate(**arguments)

    def test_before_the_second_stage_it_is_said_what_to_do(self, fitted):
        model, _ = fitted
        for call in (
            lambda: model.generate(5),
            model.reconstruct,
            lambda: model.transmute(target="AWC"),
            lambda: model.hybrids("0", "1", 5),
        ):
            with pytest.raises(RuntimeError, match="train_diffusion"):
                call()


class TestReconstruct:
    def test_names_and_places_are_kept(self, maker):
        again = maker.reconstruct(seed=0)
        assert list(again.obs_names) == list(maker.adata.obs_names)
        assert (again.obs["cell_type"] == maker.adata.obs["cell_type"]).all()
        before = maker.get_tree_paths()["level_1"].astype(str).to_numpy()
        after = ht.HDTree.load_query_data(again, maker).get_tree_paths()["level_1"].astype(str).to_numpy()
        assert (before == after).mean() > 0.85

    def test_little_noise_keeps_the_cell_and_nothing_is_averaged_with_the_input(self, maker):
        latent = maker.get_latent()
        near, far = (maker.reconstruct(seed=0, noise_level=level).obsm["X_hdtree"] for level in (-6.0, 8.0))
        spread = np.square(latent - latent.mean(0)).mean()
        assert np.square(near - latent).mean() < 0.1 * spread
        # of pure noise only the leaf is left: half a cell mixed in would show
        assert np.square(far - latent).mean() > 2 * np.square(near - latent).mean()


class TestTransmute:
    @pytest.mark.parametrize("mode", ["ode", "sde"])
    def test_cells_reach_the_target_and_keep_their_names(self, maker, types, mode):
        (source, target), classifier = types
        out = maker.transmute(target=target, source=source, mode=mode, seed=0)
        assert list(out.obs_names) == list(maker.adata.obs_names[maker.adata.obs["cell_type"] == source])
        assert (classifier.predict(logged(out.X)) == target).mean() > 0.6
        assert (out.obs["source_label"] == source).all()
        assert (out.obs["target_label"] == target).all()
        assert out.obs["target_probability"].between(0, 1).all()
        assert np.isfinite(out.obs["branch_noise"]).all()

    def test_aligned_cells_keep_the_time_that_they_had(self, maker, types):
        (source, target), classifier = types
        kept = {}
        for align in (True, False):
            out = maker.transmute(target=target, source=source, align=align, seed=0)
            assert (classifier.predict(logged(out.X)) == target).mean() > 0.6
            kept[align] = ht.tl.retained_signal(maker.adata, out, ["time"]).loc["time", "retained"]
        assert kept[True] > kept[False] + 0.2

    def test_less_noise_keeps_more_of_the_cell(self, maker, types):
        (source, target), _ = types
        rows = np.flatnonzero(maker.adata.obs["cell_type"] == source)
        out = [maker.transmute(target=target, indices=rows, noise_level=level, seed=0) for level in (-5.0, 3.0)]
        shape = [made.obsm["X_hdtree"] - made.obsm["X_hdtree"].mean(0) for made in out]
        before = out[0].obsm["X_hdtree_source"] - out[0].obsm["X_hdtree_source"].mean(0)
        near, far = (np.square(one - before).mean() for one in shape)
        assert near < 0.5 * far
        assert (out[0].obs["branch_noise"] == -5.0).all()

    @pytest.mark.parametrize("align", [True, False])
    def test_there_and_back_leads_home(self, maker, types, align):
        (source, target), _ = types
        rows = np.flatnonzero(maker.adata.obs["cell_type"] == source)
        there = maker.transmute(target=target, indices=rows, align=align, seed=0)
        generator = maker._generator()
        cells = maker._encoded(generator, None, rows)
        moved = generator.diffusion.whiten(torch.from_numpy(there.obsm["X_hdtree"]))
        labels = [generator.places.labels.index(name) + 1 for name in (source, target)]
        here, away = (
            type(cells.where)(torch.zeros_like(cells.where.node), torch.full_like(cells.where.label, label))
            for label in labels
        )
        with torch.inference_mode():
            cells.whitened, before = moved, cells.whitened
            levels = torch.from_numpy(there.obs["branch_noise"].to_numpy())
            back = generator.transport(cells, Route(away, here, levels), Sampling(), mode="ode", align=align)
        assert np.corrcoef(back.flatten(), before.flatten())[0, 1] > 0.95

    def test_a_node_is_a_target_too_and_cells_that_are_there_stay(self, maker):
        tree = maker.get_tree()
        node = tree.children(tree.root)[0]
        out = maker.transmute(target=node, seed=0)
        inside = maker.get_tree_paths()["level_1"].astype(str).to_numpy() == node
        np.testing.assert_allclose(
            out.obsm["X_hdtree"][inside], out.obsm["X_hdtree_source"][inside], rtol=1e-2, atol=1e-2
        )
        assert np.isneginf(out.obs["branch_noise"][inside]).all()
        arrived = np.array([node in tree.path(leaf) for leaf in out.obs["hdtree_leaf"]])
        assert arrived[~inside].mean() > 0.8

    def test_draws_of_a_stochastic_way_differ(self, maker, types):
        (source, target), _ = types
        rows = np.flatnonzero(maker.adata.obs["cell_type"] == source)[:10]
        out = maker.transmute(target=target, indices=rows, mode="sde", n_draws=3, seed=0)
        assert out.n_obs == 30
        assert out.obs_names.is_unique
        assert out.obs.groupby("source_cell").size().eq(3).all()
        assert not np.allclose(out.obsm["X_hdtree"][:10], out.obsm["X_hdtree"][10:20])

    def test_it_can_be_written(self, maker, types, tmp_path):
        (source, target), _ = types
        out = maker.transmute(target=target, source=source, seed=0)
        out.write_h5ad(tmp_path / "out.h5ad")
        assert ad.read_h5ad(tmp_path / "out.h5ad").uns["hdtree"]["target"] == target

    def test_what_does_not_exist_is_listed(self, maker):
        with pytest.raises(ValueError, match="AWC"):
            maker.transmute(target="no such")
        with pytest.raises(ValueError, match="target"):
            maker.transmute()
        with pytest.raises(ValueError, match="source"):
            maker.transmute(target="AWC", source="no such")
        with pytest.raises(ValueError, match="mode"):
            maker.transmute(target="AWC", mode="walk")
        with pytest.raises(ValueError, match="noise_level"):
            maker.transmute(target="AWC", noise_level=30.0)


class TestHybrids:
    def test_a_hybrid_and_its_two_completions_share_what_they_come_from(self, maker, types):
        (a, b), classifier = types
        out = maker.hybrids(a, b, 20, seed=0)
        assert out.n_obs == 60
        np.testing.assert_allclose(*(out[out.obs["role"] == role].layers["mean"].sum(1) for role in (a, b)), rtol=1e-3)
        told = classifier.predict_proba(logged(out.X))[:, list(classifier.classes_).index(a)]
        share = {role: told[out.obs["role"] == role].mean() for role in (a, "hybrid", b)}
        assert share[a] > share["hybrid"] > share[b]

    def test_a_hybrid_lies_halfway_or_where_the_shared_condition_leads(self, maker, types):
        (a, b), _ = types
        halfway, led = (maker.hybrids(a, b, 20, seed=0, between=how) for how in ("midpoint", "condition"))
        latent = {role: halfway.obsm["X_hdtree"][halfway.obs["role"] == role] for role in ("hybrid", a, b)}
        np.testing.assert_allclose(latent["hybrid"], (latent[a] + latent[b]) / 2, atol=1e-4)
        assert not np.allclose(led.obsm["X_hdtree"][:20], latent["hybrid"])
        np.testing.assert_allclose(led.obsm["X_hdtree"][20:], halfway.obsm["X_hdtree"][20:], atol=1e-4)
        with pytest.raises(ValueError, match="between"):
            maker.hybrids(a, b, 20, between="nothing")

    def test_nodes_that_do_not_part_are_refused(self, maker):
        tree = maker.get_tree()
        with pytest.raises(ValueError, match="part"):
            maker.hybrids(tree.root, tree.leaves[0], 5)
        with pytest.raises(ValueError, match="one of each"):
            maker.hybrids("AWC", tree.leaves[0], 5)


class TestSecondStage:
    def test_a_saved_model_generates_the_same_cells(self, maker, tmp_path):
        maker.save(tmp_path / "model")
        again = ht.HDTree.load(tmp_path / "model", adata=maker.adata)
        assert (again.generate(20, seed=3).X != maker.generate(20, seed=3).X).nnz == 0
        alone = ht.HDTree.load(tmp_path / "model", adata=False)
        assert (alone.generate(20, seed=3).X != maker.generate(20, seed=3).X).nnz == 0

    def test_encoder_and_tree_stay_as_they_are(self, fitted):
        import copy

        model, _ = fitted
        twin = copy.copy(model)
        twin.module = copy.deepcopy(model.module)
        latent, nodes = twin.get_latent(), twin.get_tree()
        scvi.settings.seed = 0
        twin.train_diffusion(max_epochs=1, **QUIET)
        np.testing.assert_array_equal(twin.get_latent(), latent)
        assert twin.get_tree() == nodes
        assert sum(p.numel() for p in twin.module.diffusion.parameters()) < 10_000_000
        twin.build_tree()
        with pytest.raises(RuntimeError, match="train_diffusion"):
            twin.generate(5)

    def test_the_history_holds_both_losses(self, maker):
        for name in ("diffusion_train_loss", "diffusion_validation_loss"):
            assert len(maker.history[name]) == 30
        loss = maker.history["diffusion_validation_loss"].iloc[:, 0].astype(float)
        assert loss.iloc[-1] < loss.iloc[0]

    def test_training_goes_on_from_a_checkpoint(self, maker, tmp_path):
        import copy

        twin = copy.copy(maker)
        twin.module = copy.deepcopy(maker.module)

        class Crash(Callback):
            def on_train_epoch_start(self, trainer, pl_module):
                if trainer.current_epoch == 10:
                    msg = "the lights went out"
                    raise OSError(msg)

        with pytest.raises(OSError, match="lights"):
            twin.train_diffusion(max_epochs=11, **SMALL, checkpoint_dir=tmp_path, callbacks=[Crash()], **QUIET)
        twin.train_diffusion(max_epochs=11, **SMALL, ckpt_path=str(tmp_path / "last.ckpt"), **QUIET)
        assert twin.trainer.global_step == 11 * 50

    def test_expression_space_is_an_option(self, maker):
        import copy

        twin = copy.copy(maker)
        twin.module = copy.deepcopy(maker.module)
        twin.train_diffusion(max_epochs=3, space="expression", gate="none", **QUIET)
        new = twin.generate(20, seed=0)
        assert (new.X.data == np.round(new.X.data)).all()
        assert new.obsm["X_hdtree"].shape == (20, 24)

    def test_unknown_options_are_refused(self, maker):
        for options in ({"space": "pixels"}, {"gate": "open"}, {"target": "score"}, {"batch_size": 0}):
            with pytest.raises(ValueError, match=next(iter(options))):
                maker.train_diffusion(**options)


@pytest.mark.slow
@pytest.mark.parametrize("likelihood", ["zinb", "normal", "bernoulli"])
def test_other_likelihoods_generate_what_they_were_trained_on(cells, likelihood):
    if likelihood != "zinb":
        cells.X = logged(cells.X)
    if likelihood == "bernoulli":
        cells.X = cells.X / cells.X.max()
    ht.HDTree.setup_anndata(cells)
    model = ht.HDTree(cells, gene_likelihood=likelihood)
    model.train(max_epochs=3, **QUIET)
    model.train_diffusion(max_epochs=1, **QUIET)
    new = model.generate(10, seed=0)
    assert new.X.dtype == np.float32
    if likelihood == "bernoulli":
        assert 0 <= new.X.min() <= new.X.max() <= 1
    moved = model.transmute(target=model.get_tree().leaves[0], indices=range(10), seed=0)
    assert moved.shape == (10, cells.n_vars)
