"""TreeVAE as a user meets it: set up, train, ask, measure, save, load, map new cells."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import scvi
import torch
from helpers import QUIET
from lightning.pytorch.callbacks import Callback
from sklearn.metrics import normalized_mutual_info_score

import hdtree_sc as ht
from hdtree_sc.growth import _map_fit
from hdtree_sc.nn import ImageEncoder, ImageHead

pytestmark = pytest.mark.slow  # trains models


def quick(adata, seed=0, max_epochs=2, setup=None, train=None, **kwargs):
    """A small model after a few epochs."""
    scvi.settings.seed = seed
    ht.TreeVAE.setup_anndata(adata, **(setup or {}))
    model = ht.TreeVAE(adata, **({"n_hidden": 32, "max_leaves": 4} | kwargs))
    model.train(max_epochs=max_epochs, **QUIET, **(train or {}))
    return model


@pytest.fixture(scope="module", autouse=True)
def _no_map():
    """The map for plots is hardly taught: it takes longer than all else of a short training."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_map_fit, "STEPS", 5)
        yield


@pytest.fixture(scope="module")
def treevae(worm):
    """A trained model; treat as read-only."""
    scvi.settings.seed = 0
    adata = worm.copy()
    ht.TreeVAE.setup_anndata(adata, batch_key="batch", labels_key="cell_type")
    model = ht.TreeVAE(adata, n_hidden=128)
    model.train(max_epochs=40, **QUIET)
    return model


@pytest.fixture(scope="module")
def on_tree(treevae):
    """The cells with the model's tree; copy before you change it."""
    adata = treevae.adata.copy()
    ht.tl.tree(adata, treevae)
    ht.tl.lineage_graph(adata, key="treevae")
    return adata


# -- what it learns and tells --------------------------------------------------------------------------------


def test_leaves_are_cell_types_although_types_were_not_given(on_tree):
    assert normalized_mutual_info_score(on_tree.obs["cell_type"], on_tree.obs["treevae_leaf"]) > 0.4
    tree = ht.get.tree(on_tree, key="treevae")
    types = on_tree.obs["cell_type"]
    purity = ht.metrics.dendrogram_purity(tree, on_tree.obs["treevae_leaf"], types)
    by_chance = np.random.default_rng(0).permutation(types)
    assert purity > 1.5 * ht.metrics.dendrogram_purity(tree, on_tree.obs["treevae_leaf"], by_chance)


def test_probabilities_add_up_and_paths_lead_to_the_likeliest_leaf(treevae, worm):
    tree, rows = treevae.get_tree(), [5, 0, 100]
    leaves, nodes = treevae.get_leaf_probabilities(), treevae.get_node_probabilities()
    assert list(leaves.columns) == list(tree.leaves)
    assert list(nodes.columns) == list(tree.nodes)
    assert list(leaves.index) == list(worm.obs_names)
    np.testing.assert_allclose(leaves.sum(1), 1, atol=1e-5)
    np.testing.assert_allclose(nodes["root"], 1, atol=1e-6)
    for node in tree.nodes:
        if children := list(tree.children(node)):
            np.testing.assert_allclose(nodes[children].sum(1), nodes[node], atol=1e-5)
    paths = treevae.get_tree_paths()
    assert list(paths.columns) == [f"level_{i}" for i in range(1, tree.depth + 1)]
    assert paths.astype(object).ffill(axis=1).iloc[:, -1].tolist() == leaves.idxmax(axis=1).tolist()
    pd.testing.assert_frame_equal(treevae.get_leaf_probabilities(indices=rows), leaves.iloc[rows], atol=1e-5)


def test_training_cells_make_the_counts_of_the_tree(treevae):
    tree = treevae.get_tree()
    assert tree.n_cells[0] == len(treevae.train_indices)
    assert tree.n_cells[tree.is_leaf_mask].sum() == len(treevae.train_indices)
    own = treevae.get_latent(indices=treevae.train_indices).mean(0)
    np.testing.assert_allclose(tree.codebook[0], own, atol=1e-4)
    assert treevae.growth["n_leaves"].iloc[-1] == len(tree.leaves)
    assert len(treevae.history["n_leaves"]) == 40


def test_loadings_tell_genes_apart(treevae, worm):
    leaf = treevae.get_tree().leaves[0]
    loadings = treevae.get_leaf_loadings(leaf)
    assert loadings.shape == (worm.n_vars, 10)
    assert list(loadings.index) == list(worm.var_names)
    assert (loadings.std() > 0).all()
    with pytest.raises(ValueError, match=f"'root' is no leaf.*{leaf}"):
        treevae.get_leaf_loadings("root")


def test_the_tools_work_on_its_tree(on_tree, treevae):
    nodes, tree = on_tree.uns["treevae"]["nodes"], treevae.get_tree()
    assert list(nodes.columns[:5]) == ["parent", "level", "n_cells", "is_leaf", "height"]
    assert nodes.loc["root", "n_cells"] == on_tree.n_obs
    codes = on_tree.obsm["treevae_codes"]
    assert [".".join(str(c) for c in row if c >= 0) for row in codes] == list(on_tree.obs["treevae_leaf"].astype(str))
    probabilities = on_tree.obsm["treevae_path_probs"]
    assert (probabilities[codes < 0] == 0).all()
    np.testing.assert_allclose(
        on_tree.obs["treevae_leaf_prob"], treevae.get_leaf_probabilities().max(axis=1), atol=1e-5
    )
    adata = on_tree.copy()
    root = adata.obs_names[int(adata.obs["time"].to_numpy().argmin())]
    ht.tl.pseudotime(adata, root, key="treevae")
    assert np.isfinite(adata.obs["treevae_pseudotime"]).any()
    ht.tl.cut_tree(adata, n_leaves=2, key="treevae")
    assert list(adata.obs["treevae_cut"].cat.categories) == ["0", "1"]
    top = treevae.get_tree_paths()["level_1"]
    assert (adata.obs["treevae_cut"].astype(str) == top.astype(str)).all()
    assert ht.get.tree(adata, key="treevae").leaves == tree.leaves
    ht.pl.tree(adata, color="cell_type", key="treevae", show=False)
    plt.close("all")


# -- how well it tells cells ---------------------------------------------------------------------------------


def test_the_bound_is_below_the_likelihood_which_rises_with_the_samples(treevae):
    rows = np.arange(0, treevae.adata.n_obs, 5)
    bound = float(treevae.get_elbo(indices=rows))
    assert np.isfinite(bound)
    assert bound < 0
    few, more = (treevae.get_marginal_ll(indices=rows, n_mc_samples=n) for n in (2, 40))
    assert bound - 0.5 < few < more
    each = treevae.get_marginal_ll(indices=rows, n_mc_samples=2, return_mean=False)
    assert len(each) == len(rows)
    assert float(each.mean()) == pytest.approx(few, abs=1e-3)
    error = treevae.get_reconstruction_error(indices=rows)["reconstruction_loss"]
    assert 0 < float(error) < -bound, "the rest of the bound is divergence, which is positive"


def test_one_sample_makes_the_bound_on_average(treevae):
    """With one sample the estimate differs from the bound by what the mean over leaves, and nothing else, gives."""
    rows = np.arange(0, treevae.adata.n_obs, 5)
    bounds = [float(treevae.get_elbo(indices=rows, seed=seed)) for seed in range(8)]
    single = [treevae.get_marginal_ll(indices=rows, n_mc_samples=1, seed=seed) for seed in range(8)]
    assert np.std(bounds) > 0, "another seed draws other latents"
    noise = 3 * np.hypot(np.std(bounds), np.std(single)) / np.sqrt(8)
    assert np.mean(single) > np.mean(bounds) - noise


def test_measuring_leaves_global_random_numbers_as_they_are(treevae):
    before = torch.get_rng_state()
    first, again = (
        (
            float(treevae.get_elbo()),
            treevae.get_marginal_ll(indices=[0, 1], n_mc_samples=3),
            float(treevae.get_reconstruction_error()["reconstruction_loss"]),
        )
        for _ in range(2)
    )
    assert torch.equal(torch.get_rng_state(), before)
    assert first == again


def test_expected_expression_is_that_of_the_cells(treevae, worm):
    shares = treevae.get_normalized_expression()
    assert shares.shape == worm.shape
    np.testing.assert_allclose(shares.sum(1), 1, atol=1e-4)
    told = treevae.get_normalized_expression(library_size="latent", return_numpy=True)
    counts = worm.X.toarray()
    np.testing.assert_allclose(told.sum(1), counts.sum(1), rtol=1e-3)
    library = counts.sum(1, keepdims=True)
    flat = library * (counts.sum(0) / counts.sum())
    assert np.square(told - counts).mean() < np.square(flat - counts).mean(), "better than one mean for all cells"
    own = worm.obs["batch"].iloc[0]
    (other,) = worm.obs["batch"][worm.obs["batch"] != own].unique()[:1]
    same, elsewhere = (treevae.get_normalized_expression(indices=[0], transform_batch=b) for b in (own, other))
    np.testing.assert_allclose(same, shares.iloc[[0]], atol=1e-6)
    assert not np.allclose(same, elsewhere, atol=1e-6)


def test_expected_expression_at_a_leaf_is_that_of_its_kind(treevae, worm):
    own = treevae.get_leaf_probabilities().idxmax(axis=1)
    one, other = own.value_counts().index[:2]
    rows = np.flatnonzero((own == one).to_numpy())
    as_they_are, here, there = (
        treevae.get_normalized_expression(indices=rows, leaf=leaf) for leaf in (None, one, other)
    )
    pd.testing.assert_frame_equal(as_they_are, here)
    kind = treevae.get_normalized_expression(indices=np.flatnonzero((own == other).to_numpy())).mean()
    assert np.abs(there.mean() - kind).sum() < np.abs(here.mean() - kind).sum()
    with pytest.raises(ValueError, match=f"leaf: 'nerve' is no leaf.*{one}"):
        treevae.get_normalized_expression(leaf="nerve")
    pd.testing.assert_frame_equal(treevae.get_normalized_expression(indices=rows), as_they_are)


# -- saving, loading, new cells ------------------------------------------------------------------------------


def test_saving_and_loading_gives_the_same_answers(treevae, worm, tmp_path):
    treevae.save(tmp_path / "m")
    again = ht.TreeVAE.load(tmp_path / "m", adata=worm.copy())
    pd.testing.assert_frame_equal(again.get_leaf_probabilities(), treevae.get_leaf_probabilities())
    assert again.get_tree() == treevae.get_tree()
    assert float(again.get_elbo()) == float(treevae.get_elbo())
    pd.testing.assert_frame_equal(again.growth, treevae.growth)
    alone = ht.TreeVAE.load(tmp_path / "m", adata=False)
    np.testing.assert_allclose(alone.get_latent(worm), treevae.get_latent(), atol=1e-5)


def test_new_cells_without_some_genes_are_placed(treevae, worm, caplog):
    query = worm[:60, ::-1][:, 20:].copy()
    query.obs["batch"] = "a new machine"
    mapped = ht.TreeVAE.load_query_data(query, treevae)
    assert f"20 of the model's {worm.n_vars} genes" in caplog.text
    ht.tl.tree(query, mapped)
    own = treevae.get_leaf_probabilities(indices=np.arange(60)).idxmax(axis=1).to_numpy()
    assert (query.obs["treevae_leaf"].astype(str).to_numpy() == own).mean() > 0.6
    assert mapped.get_tree() == treevae.get_tree()
    for method in (mapped.train, mapped.train_diffusion):
        with pytest.raises(RuntimeError, match="reference model"):
            method()
    assert len(treevae.get_latent()) == worm.n_obs


# -- training ------------------------------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_model(worm):
    first, again, other = (quick(worm.copy(), seed=seed, max_epochs=3).get_latent() for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.allclose(first, other)


class Stop(Callback):
    """A crash after some epochs."""

    def on_train_epoch_start(self, trainer, pl_module):
        if trainer.current_epoch == 11:
            msg = "power cut"
            raise OSError(msg)


def test_training_goes_on_from_a_checkpoint_with_the_tree_that_had_grown(worm, tmp_path):
    # grown in the fifth epoch, written in the tenth
    plan = {"split_rule": "largest", "plan_kwargs": {"grow_at": (0.4,), "prune_at": 2.0}}
    with pytest.raises(OSError, match="power cut"):
        quick(worm.copy(), max_epochs=12, train=plan | {"checkpoint_dir": tmp_path, "callbacks": [Stop()]})
    last = torch.load(tmp_path / "last.ckpt", weights_only=False)
    grown = last["state_dict"]["module.tree.child"]
    assert (grown >= 0).any()
    model = quick(worm.copy(), max_epochs=12, train=plan | {"ckpt_path": str(tmp_path / "last.ckpt")})
    assert len(model.history["train_loss"]) == 12, "with the epochs before the crash"
    assert torch.equal(model.module.tree.child, grown)
    assert len(model.get_tree().leaves) == len(model.module.tree.leaf_slots()) > 1
    assert model.growth["epoch"].tolist() == [5] * (len(model.get_tree().leaves) - 1), "the record went on, too"


def test_a_second_training_begins_with_the_tree_of_the_first(worm):
    model = quick(worm.copy(), max_epochs=4, train={"split_rule": "largest"})
    before = set(model.module.tree.active.nonzero().squeeze(1).tolist())
    assert len(before) > 1
    model.train(max_epochs=1, plan_kwargs={"grow_at": (), "prune_at": 2.0}, **QUIET)
    assert set(model.module.tree.active.nonzero().squeeze(1).tolist()) == before
    np.testing.assert_allclose(model.get_leaf_probabilities().sum(1), 1, atol=1e-5)


@pytest.mark.parametrize("likelihood", ["zinb", "normal", "bernoulli"])
def test_other_likelihoods(cells, likelihood):
    adata = cells[::2, :60].copy()
    adata = adata[np.asarray(adata.X.sum(1)).ravel() > 0].copy()
    if likelihood != "zinb":
        adata.X = adata.X.toarray() / adata.X.max()
    model = quick(adata, gene_likelihood=likelihood)
    assert np.isfinite(float(model.get_elbo()))
    assert model.get_normalized_expression(indices=[0, 1]).shape == (2, 60)
    np.testing.assert_allclose(model.get_leaf_probabilities().sum(1), 1, atol=1e-5)


def test_a_tree_may_stay_its_root_alone(cells):
    adata = cells[::4, :60].copy()
    adata = adata[np.asarray(adata.X.sum(1)).ravel() > 0].copy()
    model = quick(adata, train={"plan_kwargs": {"grow_at": ()}})
    assert model.get_tree().nodes == ("root",)
    np.testing.assert_allclose(model.get_leaf_probabilities(), np.ones((adata.n_obs, 1)))
    assert len(model.growth) == 0
    assert np.isfinite(float(model.get_elbo()))
    ht.tl.tree(adata, model)
    assert (adata.obs["treevae_leaf"] == "root").all()


def test_what_is_asked_before_training_is_refused(cells):
    ht.TreeVAE.setup_anndata(cells)
    model = ht.TreeVAE(cells, n_hidden=16)
    asked = (
        model.get_tree, model.get_leaf_probabilities, model.get_node_probabilities, model.get_tree_paths,
        model.get_latent, model.get_elbo, model.get_marginal_ll, model.train_diffusion,
    )  # fmt: skip
    for method in asked:
        with pytest.raises(RuntimeError, match="train"):
            method()
    with pytest.raises(RuntimeError, match="train"):
        ht.TreeVAE.load_query_data(cells, model)
    for name, value in (("n_node_latent", 0), ("max_leaves", 0), ("max_depth", 0), ("min_leaf_size", 1)):
        with pytest.raises(ValueError, match=name):
            ht.TreeVAE(cells, **{name: value})


def test_images_are_read_and_made_by_convolutions(tmp_path):
    """Handwritten digits of 8 x 8 pixels, whose shape the AnnData tells."""
    import scvi
    from anndata import AnnData
    from sklearn.datasets import load_digits

    images = load_digits().data[:200].astype(np.float32) / 16
    digits = AnnData(images, uns={"image_shape": np.array([8, 8])})
    scvi.settings.seed = 0
    ht.TreeVAE.setup_anndata(digits)
    model = ht.TreeVAE(digits, gene_likelihood="bernoulli", n_hidden=32)
    assert model.module.image_shape == (8, 8)
    model.train(max_epochs=20, **QUIET)
    told = model.get_reconstruction_error()["reconstruction_loss"]
    plain = images.mean(0).clip(1e-3, 1 - 1e-3)
    blank = -(images * np.log(plain) + (1 - images) * np.log(1 - plain)).sum(1).mean()
    assert told < blank, "images are told better than by the mean of all"
    with pytest.raises(TypeError, match="convolution"):
        model.get_leaf_loadings(model.get_tree().leaves[0])
    with pytest.raises(ValueError, match="image_shape"):
        ht.TreeVAE(digits, gene_likelihood="bernoulli", image_shape=(7, 8))
    with pytest.raises(ValueError, match="reads pixels"):
        model.train_diffusion(space="expression")
    model.train_diffusion(max_epochs=1, **QUIET)
    assert np.isfinite(model.generate(4, seed=0, n_steps=2).X).all()
    model.save(tmp_path / "m")
    again = ht.TreeVAE.load(tmp_path / "m", adata=AnnData(images))
    np.testing.assert_array_equal(again.get_latent(), model.get_latent())
    assert ht.TreeVAE(digits, gene_likelihood="bernoulli", image_shape=None).module.image_shape is None


@pytest.mark.parametrize("shape", [(4, 4), (5, 7), (9, 30)])
def test_images_of_any_shape_go_in_and_come_out(shape):
    n_pixels = shape[0] * shape[1]
    told = ImageEncoder(shape, 2, 6)(torch.rand(3, n_pixels + 2))
    assert told.shape == (3, 6)
    assert ImageHead(6, shape)(told).shape == (3, n_pixels)


def test_a_stored_image_shape_that_does_not_fit_is_told():
    from anndata import AnnData

    pixels = AnnData(np.random.default_rng(0).random((20, 30)).astype(np.float32), uns={"image_shape": [8, 8]})
    ht.TreeVAE.setup_anndata(pixels)
    with pytest.warns(UserWarning, match=r"image_shape.*no height and width of 30 pixels"):
        model = ht.TreeVAE(pixels, gene_likelihood="bernoulli")
    assert model.module.image_shape is None
