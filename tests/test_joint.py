"""HDTree as its paper has it: the diffusion trained with the rest, and a codebook that is the tree."""

from __future__ import annotations

import numpy as np
import pytest
import scvi
import torch
from helpers import QUIET

import hdtree_sc as ht
from hdtree_sc.module._joint_diffusion import JointDiffusion, path_codes
from hdtree_sc.module._latent_diffusion import Condition
from hdtree_sc.nn import TreeCodebook

FEW = {"n_steps": 8, "seed": 0}


@pytest.fixture(scope="module")
def joint(worm):
    """A model trained jointly, with labels; treat as read-only."""
    scvi.settings.seed = 0
    adata = worm.copy()
    ht.HDTree.setup_anndata(adata, labels_key="cell_type")
    model = ht.HDTree(adata, joint_diffusion=True)
    model.train(max_epochs=30, **QUIET)
    return model


def with_noise_for_codes(model, folder):
    """A copy of a model whose codes are random, with its tree built from them."""
    model.save(str(folder / "model"), overwrite=True)
    out = ht.HDTree.load(str(folder / "model"), adata=model.adata.copy())
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for values in (out.module.codebook.codes, out.module.codebook.sums):
            values.normal_(generator=generator)
    out.build_tree()
    return out


@pytest.mark.slow
class TestJointTraining:
    def test_the_denoising_loss_is_one_of_the_losses_and_falls(self, joint):
        loss = joint.history["diffusion_train"].dropna()["diffusion_train"].astype(float)
        assert loss.iloc[-1] < 0.97 * loss.iloc[0]
        # it begins when the codebook does
        assert loss.index[0] == int(0.3 * 30)

    def test_cells_are_generated_without_a_second_training(self, joint):
        labels = joint.adata.obs["cell_type"].value_counts()
        cells = joint.generate(40, **FEW)
        assert cells.n_obs == 40
        assert (np.asarray(cells.X.sum(1)) > 0).all()
        node = joint.get_tree().leaves[0]
        assert joint.generate(5, node=node, **FEW).obs["hdtree_leaf"].isin(joint.get_tree().leaves).all()
        assert joint.generate(5, label=labels.index[0], **FEW).n_obs == 5

    def test_cells_of_a_leaf_fall_into_it_more_often_than_by_chance(self, joint):
        tree = joint.get_tree()
        share = tree.to_frame().loc[list(tree.leaves), "n_cells"].astype(int).nlargest(4) / tree.n_cells[0]
        found = [joint.generate(50, node=leaf, n_steps=20, seed=0).obs["hdtree_leaf"] == leaf for leaf in share.index]
        assert np.mean(found) > 2 * share.mean()

    def test_held_out_cells_are_likelier_than_others_of_the_same_components(self, joint):
        """Components that are dealt out among cells keep all that is known of each and nothing of how they go along."""
        rows = joint.validation_indices
        bound = joint.get_diffusion_bound(indices=rows, n_steps=20)
        assert bound.shape == (len(rows),)
        np.testing.assert_array_equal(bound, joint.get_diffusion_bound(indices=rows, n_steps=20))
        generator, rng = joint._generator(), np.random.default_rng(0)
        with torch.inference_mode():
            cells = joint._encoded(generator, None, rows)
            cells.whitened = torch.from_numpy(rng.permuted(cells.whitened.numpy(), axis=0))
            assert bound.mean() < generator.bound(cells, 20, 0, 256).mean()

    def test_saved_and_loaded_it_generates_the_same(self, joint, tmp_path):
        joint.save(str(tmp_path / "model"))
        again = ht.HDTree.load(str(tmp_path / "model"), adata=joint.adata.copy())
        first, second = joint.generate(10, **FEW), again.generate(10, **FEW)
        np.testing.assert_array_equal(first.X.toarray(), second.X.toarray())
        # a tree that is built again has its generator at once
        again.build_tree(max_leaves=4)
        assert len(again.get_tree().leaves) <= 4
        assert again.generate(5, node=again.get_tree().leaves[0], **FEW).n_obs == 5

    def test_the_codes_are_the_tree(self, joint, tmp_path):
        assert with_noise_for_codes(joint, tmp_path).get_tree().to_newick() != joint.get_tree().to_newick()

    def test_without_a_change_the_tree_that_is_built_again_is_the_same(self, joint, tmp_path):
        joint.save(str(tmp_path / "model"))
        again = ht.HDTree.load(str(tmp_path / "model"), adata=joint.adata.copy())
        again.build_tree()
        assert again.get_tree().to_newick() == joint.get_tree().to_newick()

    def test_the_generator_answers_as_what_was_trained(self, joint):
        module, generator = joint.module, torch.Generator().manual_seed(0)
        tree, diffusion = joint.get_tree(), module.diffusion
        z = torch.from_numpy(joint.get_latent(indices=slice(0, 20)))
        leaf = module.codebook.assign(z)
        held = (module.codebook.paths(leaf) >= 0).unsqueeze(2)
        signal = (path_codes(module.codebook, z, leaf) * held).sum(1)
        node = torch.from_numpy(tree.index(list(joint.get_tree_paths(indices=slice(0, 20)).ffill(axis=1).iloc[:, -1])))
        label = torch.zeros_like(node)
        level = torch.zeros(20, 1)
        x = torch.randn(20, module.n_input_pcs, generator=generator)
        with torch.inference_mode():
            trained = module.joint.answer(x, level, Condition(node, label, signal))
            torch.testing.assert_close(
                diffusion.answer(x, level, Condition(node, label)), trained, rtol=1e-3, atol=1e-4
            )


def test_the_denoising_loss_trains_the_encoder():
    """Straight-through: the gradient of what is conditioned on codes arrives at the latents."""
    generator = torch.Generator().manual_seed(0)
    codebook, diffusion = TreeCodebook(3, 4), JointDiffusion(5, 3)
    for weights in diffusion.denoiser.parameters():  # at first it answers nothing
        torch.nn.init.normal_(weights, std=0.1, generator=generator)
    z = torch.randn(200, 3, generator=generator)
    codebook.initialise(z, max_leaves=8, generator=generator)
    z.requires_grad_()
    leaf = codebook.assign(z.detach())
    points = torch.randn(200, 5, generator=generator)
    diffusion.path_loss(codebook, points, z, leaf, torch.zeros_like(leaf), generator).mean().backward()
    moved = (z.grad.abs().sum(1) > 0).float().mean()
    # a quarter of the paths is left out, and a few of the others are cut to nothing
    assert 0.5 < moved < 0.8


def test_a_weight_below_zero_is_refused(worm):
    adata = worm.copy()
    ht.HDTree.setup_anndata(adata)
    with pytest.raises(ValueError, match="lambda_ddp: -1"):
        ht.HDTree(adata, joint_diffusion=True, lambda_ddp=-1)


def test_error_of_held_out_cells_is_their_mean_negative_log_likelihood(fitted):
    model, _ = fitted
    rows = model.validation_indices
    each = model.get_reconstruction_error(indices=rows, return_mean=False)["reconstruction_loss"]
    assert each.shape == (len(rows),)
    counts = np.asarray(model.adata.X[rows].sum(1)).ravel()
    # more counts, more nats
    assert np.corrcoef(counts, np.asarray(each))[0, 1] > 0.8
    mean = model.get_reconstruction_error(indices=rows)["reconstruction_loss"]
    assert float(mean) == pytest.approx(float(np.mean(np.asarray(each))), rel=1e-4)
