"""BranchedDiffusion in a latent of scVI, on an obsm entry, and with one head for each branch."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from helpers import QUIET
from hypothesis import given, settings
from hypothesis import strategies as st

import hdtree_sc as ht
from hdtree_sc.nn._branch_heads import BranchHeads

NEW = "AWB"


@pytest.fixture(scope="module")
def scvi_model(labelled):
    """scVI, trained shortly; treat as read-only."""
    import scvi

    scvi.settings.seed = 0
    adata = labelled.copy()
    adata.obs["plate"] = pd.Categorical(np.where(np.arange(adata.n_obs) % 2, "a", "b"))
    scvi.model.SCVI.setup_anndata(adata, batch_key="plate")
    model = scvi.model.SCVI(adata, n_latent=10, gene_likelihood="nb")
    model.train(max_epochs=10, **QUIET)
    return model


class TestLatentOfScvi:
    def test_it_is_taken_over_as_it_is(self, scvi_model, tmp_path):
        adata = scvi_model.adata.copy()
        ht.BranchedDiffusion.setup_anndata(adata, labels_key="cell_type", batch_key="plate")
        model = ht.BranchedDiffusion(adata, latent_model=scvi_model)
        model.train(diffusion_kwargs={"max_epochs": 2}, **QUIET)
        used = model.module.kept.numpy() > 0
        assert np.allclose(model.get_latent()[:, used], scvi_model.get_latent_representation()[:, used], atol=1e-4)
        mine = model.get_normalized_expression(indices=np.arange(20), n_samples=1).to_numpy()
        theirs = scvi_model.get_normalized_expression(indices=np.arange(20), n_samples=20).to_numpy()
        assert np.corrcoef(np.log(mine + 1e-6).ravel(), np.log(theirs + 1e-6).ravel())[0, 1] > 0.9
        new = model.generate(40, label="AWC", batch="a", seed=0)
        assert set(new.obs["plate"]) == {"a"}
        model.save(str(tmp_path / "model"), overwrite=True)
        again = ht.BranchedDiffusion.load(str(tmp_path / "model"), adata=adata)
        assert (again.generate(40, label="AWC", batch="a", seed=0).X != new.X).nnz == 0

    def test_what_cannot_be_taken_over_is_said(self, scvi_model, labelled):
        import scvi

        adata = labelled.copy()
        ht.BranchedDiffusion.setup_anndata(adata, labels_key="cell_type")
        with pytest.raises(ValueError, match="other batches"):
            ht.BranchedDiffusion(adata, latent_model=scvi_model)
        with pytest.raises(TypeError, match="SCVI"):
            ht.BranchedDiffusion(adata, latent_model="scvi")
        scvi.model.SCVI.setup_anndata(adata)
        with pytest.raises(ValueError, match="not trained"):
            ht.BranchedDiffusion(adata, latent_model=scvi.model.SCVI(adata))


class TestObsm:
    @pytest.fixture(scope="class")
    def components(self, labelled):
        adata = labelled.copy()
        values = np.log1p(adata.X.toarray() / adata.X.sum(1) * 1e4)
        left, sizes, _ = np.linalg.svd(np.asarray(values - values.mean(0)), full_matrices=False)
        adata.obsm["X_pca"] = (left[:, :12] * sizes[:12]).astype(np.float32)
        ht.BranchedDiffusion.setup_anndata(adata, labels_key="cell_type", obsm_key="X_pca")
        model = ht.BranchedDiffusion(adata, gene_likelihood="normal")
        model.train(diffusion_kwargs={"max_epochs": 20, "n_hidden": 128, "n_blocks": 2}, **QUIET)
        return model

    def test_components_are_made_where_they_were_read(self, components):
        real = components.adata
        new = components.generate(200, label="AWC", seed=0)
        assert list(new.var_names[:2]) == ["X_pca_1", "X_pca_2"]
        assert np.array_equal(new.obsm["X_pca"], new.X)
        own = real.obsm["X_pca"][(real.obs["cell_type"] == "AWC").to_numpy()]
        others = real.obsm["X_pca"][(real.obs["cell_type"] == "ADL").to_numpy()]
        mean = new.X.mean(0)
        assert np.linalg.norm(mean - own.mean(0)) < 0.5 * np.linalg.norm(mean - others.mean(0))

    def test_made_cells_and_frames_are_read_like_real_ones(self, components):
        new = components.generate(50, label="AWC", seed=0)
        assert components.get_latent(new).shape == (50, 12)
        cells = components.adata[:30].copy()
        cells.obsm["X_pca"] = pd.DataFrame(
            cells.obsm["X_pca"], index=cells.obs_names, columns=list(components.get_var_names())
        )
        assert np.allclose(components.get_latent(cells), components.get_latent(indices=np.arange(30)), atol=1e-5)
        ht.tl.tree(cells, components)
        assert "X_branched" in cells.obsm

    def test_mistakes_are_answered(self, labelled):
        adata = labelled.copy()
        with pytest.raises(KeyError, match="X_umap"):
            ht.BranchedDiffusion.setup_anndata(adata, labels_key="cell_type", obsm_key="X_umap")
        adata.layers["counts"] = adata.X
        adata.obsm["X_pca"] = np.zeros((adata.n_obs, 3))
        with pytest.raises(ValueError, match="obsm_key"):
            ht.BranchedDiffusion.setup_anndata(adata, layer="counts", labels_key="cell_type", obsm_key="X_pca")


class TestHeads:
    @settings(max_examples=30, deadline=None)
    @given(st.lists(st.integers(0, 6), min_size=1, max_size=60))
    def test_stacked_heads_answer_as_each_would_alone(self, numbers):
        head = torch.tensor(numbers)
        generator = torch.Generator().manual_seed(0)
        with torch.random.fork_rng():
            torch.manual_seed(0)
            heads = BranchHeads(7, 16, 3, width=8)
            for part in heads.parameters():
                torch.nn.init.normal_(part, std=0.3)
        hidden, told = torch.randn(len(head), 16, generator=generator), torch.randn(len(head), 64, generator=generator)
        together = heads(hidden, told, head)
        for i in range(len(head)):
            alone = heads(hidden[i : i + 1], told[i : i + 1], head[i : i + 1])
            assert torch.allclose(together[i], alone[0], atol=1e-5)

    @pytest.mark.slow
    def test_a_head_for_each_branch(self, labelled, tmp_path):
        import scvi

        scvi.settings.seed = 0
        adata = labelled[labelled.obs["cell_type"] != NEW].copy()
        ht.BranchedDiffusion.setup_anndata(adata, labels_key="cell_type")
        model = ht.BranchedDiffusion(adata, conditioning="multi_head")
        model.train(max_epochs=60, diffusion_kwargs={"max_epochs": 15, "n_hidden": 128, "n_blocks": 1}, **QUIET)
        new = model.generate(60, label="AWC", seed=0)
        leaf = model.node_columns().loc[new.obs["branched_leaf"].astype(str), "label"]
        assert (leaf == "AWC").mean() > 0.7
        # what one branch learns is of no other's concern
        diffusion = model.module.diffusion
        own = model._classes.number_of("AWC")
        before = model.generate(20, label="ADL", guidance=1.0, seed=0)
        with torch.no_grad():
            diffusion.denoiser.heads.answer.bias[own] += 1.0
        assert (model.generate(20, label="ADL", guidance=1.0, seed=0).X != before.X).nnz == 0
        assert (model.generate(60, label="AWC", seed=0).X != new.X).nnz > 0
        model.add_class(labelled[labelled.obs["cell_type"] == NEW].copy(), NEW, max_epochs=3, **QUIET)
        assert (model.generate(20, label="ADL", guidance=1.0, seed=0).X != before.X).nnz == 0
        model.save(str(tmp_path / "model"), overwrite=True)
        again = ht.BranchedDiffusion.load(str(tmp_path / "model"), adata=adata)
        assert (again.generate(20, label=NEW, seed=0).X != model.generate(20, label=NEW, seed=0).X).nnz == 0
        with pytest.raises(ValueError, match="conditioning"):
            ht.BranchedDiffusion(adata, conditioning="heads")
