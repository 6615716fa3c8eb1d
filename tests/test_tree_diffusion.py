"""The second stage of TreeVAE: cells from the root, the same cell as each of the kinds, and ways through the tree."""

from __future__ import annotations

import numpy as np
import pytest
import scvi
import torch
from helpers import QUIET
from scipy import sparse

import hdtree_sc as ht
from hdtree_sc.growth import _map_fit
from hdtree_sc.module._latent_diffusion import Condition
from hdtree_sc.module._tree_diffusion import TreeLatentDiffusion, paths_to

FEW = {"n_steps": 8, "seed": 0}


@pytest.fixture(scope="module")
def stage_one(worm):
    """A model without a second stage, in two batches; treat as read-only."""
    scvi.settings.seed = 0
    adata = worm.copy()
    adata.obs["machine"] = adata.obs["batch"].astype(str).str.split("_").str[0].to_numpy()
    ht.TreeVAE.setup_anndata(adata, batch_key="machine", labels_key="cell_type")
    model = ht.TreeVAE(adata, n_hidden=64, max_leaves=4)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_map_fit, "STEPS", 5)
        model.train(max_epochs=20, split_rule="largest", **QUIET)
    return model


def with_second_stage(model, folder, condition: str, **kwargs):
    """A copy of a model with a second stage."""
    model.save(str(folder / condition), overwrite=True)
    out = ht.TreeVAE.load(str(folder / condition), adata=model.adata.copy())
    scvi.settings.seed = 0
    out.train_diffusion(max_epochs=2, condition=condition, **QUIET, **kwargs)
    return out


@pytest.fixture(scope="module")
def on_paths(stage_one, tmp_path_factory):
    """A second stage that is told the latents of the path."""
    return with_second_stage(stage_one, tmp_path_factory.mktemp("models"), "path")


@pytest.fixture(scope="module", params=["path", "reconstruction"])
def model(request, stage_one, tmp_path_factory):
    """A second stage of either kind; treat as read-only."""
    if request.param == "path":
        return request.getfixturevalue("on_paths")
    return with_second_stage(stage_one, tmp_path_factory.mktemp("models"), "reconstruction")


def with_counts(adata):
    """Cells and genes that have any."""
    adata = adata[np.asarray(adata.X.sum(1)).ravel() > 0]
    return adata[:, np.asarray(adata.X.sum(0)).ravel() > 0].copy()


def sizes(adata) -> np.ndarray:
    return np.asarray(adata.layers["mean"].sum(1)).ravel()


# -- cells from the root -------------------------------------------------------------------------------------


def test_new_cells_are_counts_of_the_models_genes(model, worm):
    new = model.generate(30, **FEW)
    assert new.shape == (30, worm.n_vars)
    assert list(new.var_names) == list(worm.var_names)
    assert sparse.isspmatrix_csr(new.X)
    assert np.array_equal(new.X.data, np.round(new.X.data))
    assert (new.X.data > 0).all()
    assert set(new.obs.columns) >= {"asked_leaf", "treevae_leaf", "machine"}
    assert set(new.obs["asked_leaf"]) <= set(model.get_tree().leaves)
    assert new.obsm["X_treevae"].shape == (30, 24)
    assert np.isfinite(new.layers["mean"]).all()
    assert np.isin(sizes(new).round(2), np.asarray(worm.X.sum(1)).ravel()).mean() > 0.9, "as large as real cells are"


def test_the_same_seed_gives_the_same_cells(model):
    before = torch.get_rng_state()
    first, again, other = (model.generate(20, n_steps=8, seed=seed) for seed in (3, 3, 4))
    assert (first.X != again.X).nnz == 0
    assert np.array_equal(first.obsm["X_treevae"], again.obsm["X_treevae"])
    assert (first.X != other.X).nnz > 0
    assert torch.equal(torch.get_rng_state(), before)


def test_leaves_are_drawn_as_often_as_training_cells_are_in_them(on_paths):
    tree = on_paths.get_tree()
    new = on_paths.generate(2000, refine=False, keep_mean=False, seed=0)
    share = new.obs["asked_leaf"].value_counts(normalize=True)
    for leaf in tree.leaves:
        assert share[leaf] == pytest.approx(tree.n_cells[tree.index(leaf)] / tree.n_cells[0], abs=0.05)


def test_cells_of_a_node_are_asked_of_its_leaves(model):
    tree = model.get_tree()
    node = max(tree.children(tree.root), key=lambda name: len(tree.subtree_leaves(name)))
    inside = model.generate(40, node=node, **FEW)
    assert set(inside.obs["asked_leaf"]) == set(tree.subtree_leaves(node))
    assert set(model.generate(5, node=tree.leaves[-1], **FEW).obs["asked_leaf"]) == {tree.leaves[-1]}


def test_each_sample_of_the_root_gives_a_cell_of_every_leaf(model):
    leaves = list(model.get_tree().leaves)
    new = model.generate(6, per_leaf=True, **FEW)
    assert new.n_obs == 6 * len(leaves)
    assert new.obs["root_sample"].tolist() == np.repeat(np.arange(6), len(leaves)).tolist()
    assert new.obs["asked_leaf"].astype(str).tolist() == leaves * 6
    library = sizes(new).reshape(6, -1)
    np.testing.assert_allclose(library, library[:, :1].repeat(len(leaves), 1), rtol=1e-4)
    assert len(np.unique(library[:, 0].round(3))) > 1
    assert (new.obs["machine"].to_numpy().reshape(6, -1) == new.obs["machine"].to_numpy()[:: len(leaves), None]).all()
    node = next(name for name in model.get_tree().children("root") if model.get_tree().children(name))
    below = model.generate(2, node=node, per_leaf=True, **FEW)
    assert below.obs["asked_leaf"].astype(str).tolist() == list(model.get_tree().subtree_leaves(node)) * 2


def test_library_and_batch_can_be_asked_for(on_paths):
    new = on_paths.generate(10, batch="Murray", library=500.0, **FEW)
    assert set(new.obs["machine"]) == {"Murray"}
    np.testing.assert_allclose(sizes(new), 500.0, rtol=1e-3)
    with pytest.raises(ValueError, match="Mars"):
        on_paths.generate(10, batch="Mars", **FEW)


def test_the_trees_own_decoders_make_cells_without_the_second_stage(on_paths):
    """What a leaf is asked for, its decoder makes: the mean profile is nearest to that of the leaf's own cells."""
    own = on_paths.get_leaf_probabilities().idxmax(axis=1).to_numpy()
    counts = np.log1p(1e3 * on_paths.adata.X.toarray() / on_paths.adata.X.sum(1))
    leaves = list(on_paths.get_tree().leaves)
    real = np.stack([np.asarray(counts[own == leaf].mean(0)).ravel() for leaf in leaves])
    new = on_paths.generate(40, per_leaf=True, refine=False, seed=0)
    mean = np.log1p(1e3 * new.layers["mean"] / sizes(new)[:, None])
    made = np.stack([mean[(new.obs["asked_leaf"] == leaf).to_numpy()].mean(0) for leaf in leaves])
    centre = real.mean(0)
    alike = np.corrcoef(real - centre, made - centre)[: len(leaves), len(leaves) :]
    assert alike.argmax(0).tolist() == list(range(len(leaves)))


def test_a_standard_normal_root_gives_leaves_by_the_routers(on_paths):
    for refine in (True, False):
        new = on_paths.generate(25, root="normal", refine=refine, **FEW)
        assert new.n_obs == 25
        assert set(new.obs["asked_leaf"]) <= set(on_paths.get_tree().leaves)
        assert new.uns["treevae"]["root"] == "normal"
    other = on_paths.generate(25, **FEW)
    assert not np.array_equal(new.obsm["X_treevae"], other.obsm["X_treevae"])


def test_cells_of_a_label_are_asked_of_the_leaves_that_hold_it(on_paths):
    new = on_paths.generate(30, label="AWC", **FEW)
    assert (new.obs["cell_type"] == "AWC").all()
    own = on_paths.get_leaf_probabilities().idxmax(axis=1)
    train = np.asarray(on_paths.train_indices)
    of_type = own.iloc[train][(on_paths.adata.obs["cell_type"].iloc[train] == "AWC").to_numpy()]
    assert set(new.obs["asked_leaf"]) <= set(of_type)


@pytest.mark.parametrize("condition", ["path", "reconstruction"])
def test_diffusion_may_run_over_components_of_expression(stage_one, tmp_path, condition):
    model = with_second_stage(stage_one, tmp_path, condition, space="expression")
    new = model.generate(6, per_leaf=True, **FEW)
    assert new.n_obs == 6 * len(model.get_tree().leaves)
    assert (new.X.data == np.round(new.X.data)).all()
    assert new.obsm["X_treevae"].shape[1] == model.module.n_latent
    carried = model.transmute(target="AWC", indices=range(4), n_steps=2, seed=0)
    assert carried.n_obs == 4
    model.save(tmp_path / "again")
    again = ht.TreeVAE.load(tmp_path / "again", adata=model.adata)
    np.testing.assert_array_equal(again.generate(3, **FEW).X.toarray(), model.generate(3, **FEW).X.toarray())


def test_what_cannot_be_asked_for_is_said(on_paths):
    leaf = on_paths.get_tree().leaves[0]
    for kwargs, said in (
        ({"root": "normal", "node": leaf}, "root"),
        ({"root": "normal", "label": "AWC"}, "root"),
        ({"root": "normal", "per_leaf": True}, "root"),
        ({"root": "Mars"}, "root.*Mars"),
        ({"per_leaf": True, "label": "AWC"}, "label"),
        ({"node": "7.7"}, f"node.*7.7.*{leaf}"),
        ({"label": "Martian"}, "Martian.*AWC"),
    ):
        with pytest.raises(ValueError, match=said):
            on_paths.generate(5, **kwargs)
    with pytest.raises(ValueError, match="condition: 'leaf' is none of.*path.*reconstruction"):
        on_paths.train_diffusion(condition="leaf")
    with pytest.raises(ValueError, match="space: 'pixels' is none of"):
        on_paths.train_diffusion(space="pixels")
    assert on_paths.generate(2, **FEW).n_obs == 2, "a refused training leaves the generator as it is"


def test_labels_need_a_column_of_labels_and_cells_a_second_stage(stage_one, worm, monkeypatch):
    with pytest.raises(RuntimeError, match="train_diffusion"):
        stage_one.generate(5)
    monkeypatch.setattr(_map_fit, "STEPS", 5)
    adata = with_counts(worm[::2, :60])
    ht.TreeVAE.setup_anndata(adata)
    model = ht.TreeVAE(adata, n_hidden=16, max_leaves=2)
    model.train(max_epochs=2, split_rule="largest", **QUIET)
    model.train_diffusion(max_epochs=1, n_hidden=16, n_blocks=1, **QUIET)
    with pytest.raises(ValueError, match="labels_key"):
        model.generate(5, label="AWC")
    assert model.generate(5, **FEW).n_obs == 5


@pytest.mark.slow
@pytest.mark.parametrize("condition", ["path", "reconstruction"])
def test_a_tree_that_is_its_root_alone_makes_cells_too(worm, monkeypatch, condition):
    monkeypatch.setattr(_map_fit, "STEPS", 5)
    adata = with_counts(worm[::2, :60])
    ht.TreeVAE.setup_anndata(adata)
    model = ht.TreeVAE(adata, n_hidden=16)
    model.train(max_epochs=2, plan_kwargs={"grow_at": ()}, **QUIET)
    model.train_diffusion(max_epochs=1, condition=condition, n_hidden=16, n_blocks=1, **QUIET)
    new = model.generate(5, **FEW)
    assert (new.obs["asked_leaf"] == "root").all()
    assert new.n_obs == 5
    assert new.X.sum() > 0


# -- cells that are there ------------------------------------------------------------------------------------


def test_cells_made_anew_keep_their_names_and_sizes(model, worm):
    rows = np.arange(0, worm.n_obs, 40)
    again = model.reconstruct(indices=rows, **FEW)
    assert list(again.obs_names) == list(worm.obs_names[rows])
    assert again.obs["cell_type"].tolist() == worm.obs["cell_type"].iloc[rows].tolist()
    np.testing.assert_allclose(sizes(again), np.asarray(worm.X[rows].sum(1)).ravel(), rtol=1e-3)


def test_cells_go_over_to_another_node(model):
    one, other = model.get_tree().children("root")
    own = model.get_node_probabilities()[one].to_numpy()
    rows = np.flatnonzero(own > 0.9)[:15]
    there = model.transmute(indices=rows, target=other, source=one, **FEW)
    assert list(there.obs_names) == list(model.adata.obs_names[rows])
    assert (there.obs["target_label"] == other).all()
    before = model.get_node_probabilities(indices=rows)[other].mean()
    assert there.obs["target_probability"].mean() > before + 0.3


def test_hybrids_of_two_leaves_come_in_threes(model):
    a, b = model.get_tree().leaves[0], model.get_tree().leaves[-1]
    out = model.hybrids(a, b, 5, **FEW)
    assert out.obs["role"].astype(str).tolist() == ["hybrid"] * 5 + [a] * 5 + [b] * 5
    np.testing.assert_allclose(sizes(out)[:5], sizes(out)[5:10], rtol=1e-3)
    assert np.isfinite(out.obs["branch_noise"]).all()


def test_a_saved_model_makes_the_same_cells(model, worm, tmp_path):
    model.save(str(tmp_path / "m"))
    again = ht.TreeVAE.load(str(tmp_path / "m"), adata=model.adata.copy())
    alone = ht.TreeVAE.load(str(tmp_path / "m"), adata=False)
    made = model.generate(15, **FEW)
    for other in (again, alone):
        assert (other.generate(15, **FEW).X != made.X).nnz == 0
    refined = [m.reconstruct(indices=[0, 1, 2], **FEW) for m in (model, again)]
    assert (refined[0].X != refined[1].X).nnz == 0


# -- what the diffusion is told ------------------------------------------------------------------------------

PARENTS = [-1, 0, 0, 1, 1]


def told(condition: str = "path") -> TreeLatentDiffusion:
    torch.manual_seed(0)
    return TreeLatentDiffusion(4, parents=PARENTS, n_code=2, condition=condition, n_node_latent=3, n_hidden=16)


def places(condition: str, n: int = 5) -> Condition:
    generator = torch.Generator().manual_seed(0)
    width = 9 if condition == "path" else 4
    return Condition(torch.arange(n), torch.zeros(n, dtype=torch.long), torch.randn(n, width, generator=generator))


def test_paths_go_from_the_root_to_each_node():
    assert paths_to(PARENTS) == [[0, -1, -1], [0, 1, -1], [0, 2, -1], [0, 1, 3], [0, 1, 4]]
    assert paths_to([-1]) == [[0]]


@pytest.mark.parametrize("condition", ["path", "reconstruction"])
def test_rows_that_are_told_nothing_are_as_without_a_signal(condition):
    diffusion, where, level = told(condition), places(condition), torch.zeros(5, 1)
    where.signal[1::2] = torch.nan
    out = diffusion.condition(where, level)
    plain = diffusion.condition(Condition(where.node, where.label), level)
    torch.testing.assert_close(out[1::2], plain[1::2], rtol=0, atol=0)
    assert (out[::2] - plain[::2]).abs().amax(1).min() > 1e-3
    assert torch.isfinite(out).all()


def test_latents_of_nodes_off_the_path_do_not_matter_and_those_on_it_do():
    diffusion, where, level = told(), places("path"), torch.zeros(5, 1)
    before = diffusion.condition(where, level)
    for position in range(3):
        signal = where.signal.clone()
        signal[:, 3 * position : 3 * position + 3] += 1.0
        change = (diffusion.condition(Condition(where.node, where.label, signal), level) - before).abs().amax(1)
        on_it = torch.tensor([path[position] >= 0 for path in paths_to(PARENTS)])
        assert torch.equal(change > 0, on_it), position


def test_signals_are_forgotten_in_half_of_the_rows_and_wherever_the_path_is():
    diffusion = told()
    n = 4000
    where = Condition(torch.full((n,), 3), torch.zeros(n, dtype=torch.long), torch.ones(n, 9))
    out = diffusion.drop_condition(where, torch.Generator().manual_seed(0))
    is_gone = out.signal.isnan()
    assert (is_gone.all(1) == is_gone.any(1)).all()
    gone = is_gone.any(1)
    assert gone[out.node == 0].all()
    assert gone[out.node != 0].float().mean() == pytest.approx(0.5, abs=0.04)
    assert torch.equal(where.signal, torch.ones(n, 9)), "what was given stays"


def test_roots_are_drawn_from_where_those_of_the_leafs_cells_lie():
    diffusion = told()
    generator = torch.Generator().manual_seed(0)
    factor = torch.tensor([[0.5, 0.0, 0.0], [0.4, 0.3, 0.0], [0.0, 0.0, 2.0]])
    node = torch.arange(8000) % 2 + 3
    root = torch.randn(8000, 3, generator=generator) @ factor.T + 5.0 * (node == 4).unsqueeze(1)
    diffusion.fit_roots(root, node, torch.full((8000, 9), 2.0))
    assert float(diffusion.spread_of_signal) == pytest.approx(2.0)
    torch.manual_seed(0)
    drawn = diffusion.draw_roots(node)
    for leaf in (3, 4):
        torch.testing.assert_close(drawn[node == leaf].mean(0), root[node == leaf].mean(0), atol=0.12, rtol=0)
        torch.testing.assert_close(drawn[node == leaf].T.cov(), factor @ factor.T, atol=0.25, rtol=0)
    torch.manual_seed(0)
    elsewhere = diffusion.draw_roots(torch.full((8000,), 2))
    torch.testing.assert_close(elsewhere.std(0), torch.ones(3), atol=0.05, rtol=0)
