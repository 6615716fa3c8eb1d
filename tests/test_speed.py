"""What training reads, on which device and in which precision; and the measurements of speed."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import scvi
import torch
from helpers import QUIET
from scipy import sparse

import hdtree_sc as ht
from hdtree_sc._keys import ENCODER_INPUT
from hdtree_sc.data import _resident
from hdtree_sc.data._splitter import PairSplitter
from hdtree_sc.module import HDTreeModule


def brief(cells, **train):
    scvi.settings.seed = 0
    ht.HDTree.setup_anndata(cells, batch_key="batch")
    model = ht.HDTree(cells, n_hidden=32, tree_depth=5)
    train = {"max_epochs": 4, "plan_kwargs": {"warmup": 0.5}} | train
    model.train(check_val_every_n_epoch=1, **train, **QUIET)
    return model


def batches(model, **kwargs):
    """All training minibatches of one epoch, and the validation minibatches, as the module gets them."""
    scvi.settings.seed = 0  # the split's
    points = np.random.default_rng(0).normal(size=(model.adata.n_obs, 5)).astype(np.float32)
    splitter = PairSplitter(model.adata_manager, represent=lambda _: points, batch_size=64, seed=3, **kwargs)
    splitter.setup()
    loaders = (splitter.train_dataloader(), splitter.val_dataloader())
    return [splitter.on_after_batch_transfer(batch, 0) for loader in loaders for batch in loader]


@pytest.mark.parametrize("kind", ["csr", "csc", "dense", "repeated"])
@pytest.mark.parametrize("encoded", [False, True])
def test_resident_minibatches_are_those_of_the_ordinary_loader(cells, kind, encoded):
    if kind == "dense":
        cells.X = cells.X.toarray()
    elif kind == "csc":
        cells.X = sparse.csc_matrix(cells.X)
    elif kind == "repeated":
        x = sparse.csr_matrix(cells.X)
        # every entry is stored twice, and counts twice
        order = np.concatenate([np.r_[a:b, a:b] for a, b in zip(x.indptr, x.indptr[1:], strict=False)])
        cells.X = sparse.csr_matrix((x.data[order], x.indices[order], 2 * x.indptr), shape=x.shape)
    ht.HDTree.setup_anndata(cells, batch_key="batch")
    model = ht.HDTree(cells)
    given = {}
    if encoded:
        read = np.random.default_rng(1).normal(size=(cells.n_obs, 7)).astype(np.float32)
        given["encoder_input"] = lambda: (read, np.asarray(cells.X.sum(1), dtype=np.float32).reshape(-1, 1))
    ordinary, resident = batches(model, **given), batches(model, resident=True, **given)
    assert len(ordinary) == len(resident) > 2
    for one, other in zip(ordinary, resident, strict=True):
        assert set(one) == set(other)
        for key in one:
            assert one[key].dtype == other[key].dtype, key
            assert torch.equal(one[key], other[key]), key
    first = ordinary[0]
    assert (ENCODER_INPUT in first) == encoded
    assert ("positive_X" in first) != encoded, "without the encoder's input, it reads the neighbours' expression"


def test_expression_is_read_of_a_share_of_the_anchors_only(cells, monkeypatch):
    monkeypatch.setattr("hdtree_sc.data._splitter.MIN_DECODED", 8)
    ht.HDTree.setup_anndata(cells)
    model = ht.HDTree(cells)
    rows = np.arange(cells.n_obs, dtype=np.float32)[:, None]
    for batch in batches(model, encoder_input=lambda: (rows, rows), decoded_share=0.25):
        anchors = batch[ENCODER_INPUT][:, 0].long().numpy()
        x = batch["X"].numpy()
        assert len(x) == min(len(anchors), max(8, round(0.25 * len(anchors))))
        np.testing.assert_array_equal(x, cells.X[anchors[: len(x)]].toarray())
        assert len(batch["positive_" + ENCODER_INPUT]) == len(anchors)
    with pytest.raises(ValueError, match="decoded_share: 0 is outside"):
        PairSplitter(model.adata_manager, represent=lambda _: rows, decoded_share=0)


@pytest.mark.slow
def test_what_the_encoder_reads_is_the_same_whoever_works_it_out(cells):
    model = brief(cells, max_epochs=1)
    read, library = model._encoder_input()
    tensors = next(iter(model._make_data_loader(adata=cells, indices=np.arange(9))))
    told = model.module._get_inference_input(tensors)
    np.testing.assert_allclose(read[:9], told["x"], atol=1e-5)
    np.testing.assert_array_equal(library[:9], told["library"])
    known = tensors | {ENCODER_INPUT: torch.from_numpy(read[:9])}
    np.testing.assert_allclose(model.module.inference(**model.module._get_inference_input(known))["z"].detach(),
                               model.get_latent(indices=np.arange(9)), atol=1e-5)  # fmt: skip


@pytest.mark.slow
def test_training_frees_what_it_kept_on_the_device(cells):
    model = brief(cells, max_epochs=2, datasplitter_kwargs={"resident": True})
    held = model.trainer.train_dataloader.dataset
    assert held.held == {}
    assert held.values is None


def test_room_on_the_device(cells, monkeypatch):
    ht.HDTree.setup_anndata(cells)
    manager = ht.HDTree(cells).adata_manager
    assert not _resident.fits(manager, torch.device("cpu"))
    taken = _resident.needed(cells.X)
    assert taken == 8 * cells.X.nnz + 8 * (cells.n_obs + 1)
    for free, expected in ((2.1 * taken, True), (1.9 * taken, False)):
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device, free=free: (free, free))
        assert _resident.fits(manager, torch.device("cuda")) == expected
    assert _resident.needed(cells.X.toarray()) == 4 * cells.n_obs * cells.n_vars


@pytest.mark.slow
def test_history_holds_means_over_cells(cells):
    model = brief(cells, max_epochs=3)
    history = model.history
    names = {
        f"{name}_{mode}" for name in ("elbo", "reconstruction_loss", "contrastive") for mode in ("train", "validation")
    }
    assert names | {"train_loss", "validation_loss"} <= set(history)
    assert all(np.isfinite(values.to_numpy(float)).all() for values in history.values())
    assert len(history["train_loss"]) == len(history["elbo_validation"]) == 3
    assert history["elbo_train"].equals(
        history["reconstruction_loss_train"].rename(columns={"reconstruction_loss_train": "elbo_train"})
    )


@pytest.mark.slow
def test_bfloat16_leaves_distances_codes_and_likelihood_in_float32(cells, monkeypatch):
    from hdtree_sc.module import _hdtree as of_module

    seen = []
    contrast = of_module.soft_contrastive_loss

    def watched(anchors, positives, **kernel):
        seen.append(anchors.dtype)
        return contrast(anchors, positives, **kernel)

    monkeypatch.setattr(of_module, "soft_contrastive_loss", watched)
    linear = []
    hook = torch.nn.modules.module.register_module_forward_hook(
        lambda module, _, out: linear.append(out.dtype) if isinstance(module, torch.nn.Linear) else None
    )
    try:
        model = brief(cells, max_epochs=2, precision="bf16-mixed")
    finally:
        hook.remove()
    assert torch.bfloat16 in linear, "something runs in bfloat16"
    assert set(seen) == {torch.float32}
    codebook = model.module.codebook
    assert {buffer.dtype for buffer in codebook.buffers()} == {torch.float32, torch.bool}
    assert all(torch.isfinite(buffer.float()).all() for buffer in codebook.buffers())
    assert {parameter.dtype for parameter in model.module.parameters()} == {torch.float32}
    assert all(np.isfinite(values.to_numpy(float)).all() for values in model.history.values())
    assert np.isfinite(model.get_latent()).all()


@pytest.mark.parametrize("likelihood", ["nb", "zinb", "normal", "bernoulli"])
def test_likelihoods_take_float32_under_bfloat16(likelihood):
    module = HDTreeModule(9, gene_likelihood=likelihood, n_hidden=8, n_latent=3)
    x = torch.randint(0, 2, (5, 9)).float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        z = module.encoder(torch.randn(5, module.n_input_pcs))
        px = module.generative(z, torch.zeros(5, 0), x.sum(1, keepdim=True) + 1)["px"]
        assert z.dtype == torch.float32
        assert px.log_prob(x).dtype == torch.float32


@pytest.mark.slow
def test_training_can_be_compiled(cells):
    # torch's own tracing without its code generator, for which a compiler would be needed
    plan = {"compile": True, "compile_kwargs": {"backend": "eager"}, "warmup": 0.5}
    model = brief(cells, max_epochs=2, plan_kwargs=plan)
    assert np.isfinite(model.history["train_loss"].to_numpy(float)).all()
    assert not any("_orig_mod" in name for name in model.module.state_dict())
    assert len(model.get_tree().leaves) > 1


sys.path.append(str(Path(__file__).parents[1]))  # the benchmarks are not installed with the package


class TestBenchmarks:
    """The measurements of speed and of single changes, without the training that they measure."""

    @pytest.fixture(autouse=True)
    def _in_repository(self):
        pytest.importorskip("benchmarks", reason="the benchmarks are in the repository only")

    def test_every_change_differs_from_the_default(self):
        import inspect

        from benchmarks import ablation

        model = inspect.signature(ht.HDTree).parameters
        loss = inspect.signature(HDTreeModule.loss).parameters
        seen = set()
        for name, change in ablation.CHANGES.values():
            assert name not in seen
            seen.add(name)
            for key, value in change.model.items():
                assert model[key].default != value, name
            for key, value in change.plan.items():
                assert key not in loss or loss[key].default != value, name

    def test_the_ablations_loss_is_the_packages(self):
        from benchmarks import _variants
        from hdtree_sc.nn._contrastive import soft_contrastive_loss, squared_euclidean

        torch.manual_seed(0)
        a, p = torch.randn(12, 4), torch.randn(12, 4)
        kernel = {"nu": 0.2, "exaggeration": 2.0}
        found = _variants.contrast(squared_euclidean(a, p), **kernel)
        torch.testing.assert_close(found, soft_contrastive_loss(a, p, **kernel))

    @pytest.mark.slow
    @pytest.mark.parametrize("module", ["Unmixed", "AllGenes", "TreeNegatives"])
    def test_other_modules_train(self, cells, module):
        from benchmarks import _variants

        scvi.settings.seed = 0
        model_cls = _variants.model_of(getattr(_variants, module))
        model_cls.setup_anndata(cells)
        model = model_cls(cells, n_hidden=16, tree_depth=5)
        model.train(max_epochs=2, plan_kwargs={"warmup": 0.5}, **QUIET)
        assert np.isfinite(model.history["train_loss"].to_numpy(float)).all()
        assert np.isfinite(model.get_latent()).all()

    def test_summary_of_the_ablation_is_the_difference_from_the_default(self):
        from benchmarks import ablation

        rows = [
            {"data": data, "method": method, "seed": 0, "DP": score, "NMI": 0.5}
            for data, method, score in (
                ("a", "default", 0.5),
                ("a", "nu1", 0.6),
                ("b", "default", 0.7),
                ("b", "nu1", 0.9),
            )
        ]
        assert "| nu 1 | +0.150 | +0.000 |" in ablation.summary(rows)
        assert ablation.summary(rows[1:2]) == ""

    def test_table_of_costs(self, tmp_path):
        from benchmarks import scaling

        met = {"date": "2026-01-01", "machine": "m", "versions": {}}
        ours = {"fit s": 10.0, "fit CPU s": 9.0, "place s": 1.0, "order s": 2.0, "peak MB": 900.0, "rho": 0.9}
        rows = [
            {"data": str(n), "method": "HDTree", "seed": 0, "circumstances": met, **ours, "fit s": n / 500}
            for n in (5000, 10_000)
        ]
        told = {"epoch s": 2.0, "epochs": 400, "fit s": 800.0, "cells/s": 4500.0}
        rows.append({"data": "10000", "method": "scVI", "seed": 0, "circumstances": met, **told})
        scaling.write(rows, tmp_path)
        text = (tmp_path / "scaling.md").read_text()
        assert "fit 1.00" in text
        assert "takes 0.03 times as long" in text
        assert (tmp_path / "scaling.png").stat().st_size > 5000
        assert scaling.exponent([1, 10], [1, 100]) == pytest.approx(2)

    def test_images_are_scored_that_were_not_trained_on(self, tmp_path):
        import anndata as ad
        from sklearn.datasets import load_digits

        from benchmarks import mnist
        from benchmarks._cells import Cells

        points, labels = load_digits(n_class=4, return_X_y=True)
        images = ad.AnnData((points * 255 / 16).astype(np.uint8)[:400], obs={"label": labels[:400].astype(str)})
        images.obs["split"] = ["train"] * 300 + ["test"] * 100
        images.write_h5ad(tmp_path / "mnist.h5ad")
        cells = Cells(tmp_path, "mnist", 0, tmp_path)
        found = {"hdtree": mnist.hdtree(cells, max_epochs=5)}
        found |= {name: method.run(cells) for name, method in mnist.METHODS.items() if name != "hdtree"}
        assert found["supervised"]["ACC"] > found["k-means"]["ACC"] > found["chance"]["ACC"] + 0.2
        assert found["hdtree"]["ACC"] > found["chance"]["ACC"]
        assert {"DP", "LP", "seconds", "place s"} <= set(found["hdtree"])
        row = {"method": "hdtree", "seed": 0, **found["hdtree"]}
        assert f"| 0 | {found['hdtree']['ACC']:.3f} |" in mnist.each_seed([row])

    def test_more_cells_than_are_simulated_are_drawn_from_them(self, tmp_path, monkeypatch):
        import anndata as ad

        from benchmarks import _speed

        monkeypatch.setattr(_speed, "LARGEST", 60)
        monkeypatch.setattr(_speed, "N_GENES", 50)
        file = _speed.simulated(150, tmp_path)
        adata = ad.read_h5ad(file)
        assert adata.shape == (150, 50)
        assert adata.obs_names.is_unique
        assert sparse.issparse(adata.X)
        assert (adata.X.data == np.round(adata.X.data)).all()

    def test_without_a_gpu_the_table_says_so(self, tmp_path, monkeypatch):
        from benchmarks import gpu

        chosen = gpu.methods(100, tmp_path)
        met = {"date": "2026-01-01", "machine": "x, no GPU", "versions": {}}
        rows = [
            {"data": "mnist", "method": key, "seed": 0, "not run": "no GPU", "circumstances": met} for key in chosen
        ]
        gpu.write(rows, chosen, tmp_path)
        text = (tmp_path / "gpu.md").read_text()
        assert "Not run: no GPU was at hand" in text
        assert text.count("not run: no GPU") == len(chosen)
