"""Training that is stopped, resumed, refused, or disturbed from outside: right values, or an error that says why."""

from __future__ import annotations

import logging
import os
import resource
import signal
import subprocess
import sys
import textwrap
from contextlib import contextmanager

import numpy as np
import pytest
import scvi
import torch
from helpers import QUIET
from lightning.pytorch.callbacks import Callback

import hdtree_sc as ht
from hdtree_sc.generate import _fit
from hdtree_sc.growth import _map_fit

pytestmark = pytest.mark.slow  # trains models

MODELS = ("HDTree", "TreeVAE", "BranchedDiffusion")
SMALL = {"n_hidden": 16, "n_layers": 1, "n_latent": 4}
LITTLE = {"n_hidden": 16, "n_blocks": 1, **QUIET}
"""Arguments of a quick ``train_diffusion``."""


@pytest.fixture(scope="module", autouse=True)
def _few_steps():
    """Few steps of the map for plots and in an epoch of the diffusion, which take longer than all else here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_map_fit, "STEPS", 5)
        patch.setattr(_fit, "STEPS", 5)
        yield


@pytest.fixture
def ctrl_c():
    """Ctrl-C as in a terminal: what runs in the background of a shell ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler, "Ctrl-C works after training as before it"
    signal.signal(signal.SIGINT, before)


class At(Callback):
    """Does something when a step of some epoch begins."""

    def __init__(self, epoch, what):
        self.epoch, self.what = epoch, what

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.current_epoch == self.epoch:
            self.what()


def crash():
    msg = "power cut"
    raise OSError(msg)


def press():
    signal.raise_signal(signal.SIGINT)


def untrained(kind, seed=0, n_cells=150, **kwargs):
    adata = ht.datasets.branching(n_cells, 40, "easy")
    if seed is not None:
        scvi.settings.seed = seed
    cls = getattr(ht, kind)
    cls.setup_anndata(adata, labels_key="branch")
    return cls(adata, **(SMALL | {"dropout_rate": 0.1} | kwargs))


def trained(kind, **kwargs):
    """A model with a generator after one epoch of each."""
    model = untrained(kind)
    second = {"diffusion_kwargs": {"n_hidden": 16, "n_blocks": 1}} if kind == "BranchedDiffusion" else {}
    model.train(max_epochs=1, **second, **QUIET, **kwargs)
    if not second:
        model.train_diffusion(max_epochs=1, **LITTLE)
    return model


@pytest.fixture(scope="module")
def models():
    """One of each kind; treat as read-only."""
    return {kind: trained(kind) for kind in MODELS}


def assert_same(one, other):
    """Weights, buffers, tree and history are equal to the bit."""
    mine, theirs = one.module.state_dict(), other.module.state_dict()
    assert mine.keys() == theirs.keys()
    assert [name for name in mine if not torch.equal(mine[name], theirs[name])] == []
    assert one.get_tree().to_newick() == other.get_tree().to_newick()
    assert one.history.keys() == other.history.keys()
    assert [name for name in one.history if not one.history[name].equals(other.history[name])] == []


# -- resuming ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "options"),
    [("HDTree", {"check_val_every_n_epoch": 3}), ("TreeVAE", {"plan_kwargs": {"grow_at": (0.4,), "prune_at": 0.9}})],
)
def test_a_resumed_training_equals_one_that_was_not_stopped(kind, options, tmp_path):
    whole, stopped, resumed = (untrained(kind) for _ in range(3))
    options = options | QUIET
    scvi.settings.seed = 0
    whole.train(max_epochs=13, **options)
    scvi.settings.seed = 0
    with pytest.raises(OSError, match="power cut"):
        stopped.train(max_epochs=13, checkpoint_dir=tmp_path, callbacks=[At(11, crash)], **options)
    assert not stopped.is_trained
    assert [file.name for file in tmp_path.iterdir()] == ["last.ckpt"]
    torch.rand(3), np.random.rand(3)  # noqa: NPY002 - what was drawn before does not matter
    for model in (resumed, stopped):
        model.train(ckpt_path=tmp_path / "last.ckpt", **options)
        assert_same(model, whole)
        assert len(model.history["train_loss"]) == 13
    if kind == "TreeVAE":
        assert resumed.growth.equals(whole.growth)


@pytest.mark.parametrize("kind", MODELS)
def test_a_resumed_generator_equals_one_that_was_not_stopped(kind, tmp_path):
    whole = trained(kind)
    whole.save(tmp_path / "model")
    resumed = getattr(ht, kind).load(tmp_path / "model", adata=whole.adata)
    scvi.settings.seed = 0
    whole.train_diffusion(max_epochs=12, **LITTLE)
    scvi.settings.seed = 0
    with pytest.raises(OSError, match="power cut"):
        resumed.train_diffusion(max_epochs=12, checkpoint_dir=tmp_path, callbacks=[At(11, crash)], **LITTLE)
    resumed.train_diffusion(ckpt_path=tmp_path / "last.ckpt", **LITTLE)
    assert_same(resumed, whole)


def test_without_a_seed_a_resumed_training_keeps_the_split(tmp_path, monkeypatch):
    monkeypatch.setattr(scvi.settings, "_seed", None)
    first, again = untrained("HDTree", seed=None), untrained("HDTree", seed=None)
    first.train(max_epochs=2, checkpoint_dir=tmp_path, **QUIET)
    again.train(ckpt_path=tmp_path / "last.ckpt", **QUIET)
    assert_same(again, first)
    assert np.array_equal(again.train_indices, first.train_indices)
    assert np.array_equal(again.validation_indices, first.validation_indices)


def test_a_checkpoint_that_does_not_fit_is_refused_by_name(tmp_path, models):
    last = tmp_path / "last.ckpt"
    untrained("HDTree").train(max_epochs=1, checkpoint_dir=tmp_path, **QUIET)
    held = torch.load(last, weights_only=True)

    def refused(model, match, path=last, **options):
        with pytest.raises(ValueError, match=f"(?s)ckpt_path: .*{match}"):
            model.train(ckpt_path=path, **QUIET, **options)
        assert not model.is_trained

    refused(untrained("HDTree"), "no file", tmp_path / "lost.ckpt")
    refused(untrained("HDTree", n_latent=5), "n_latent=4, this one n_latent=5")
    refused(untrained("HDTree"), "n_neighbors=15, this one n_neighbors=3", n_neighbors=3)
    refused(untrained("HDTree", seed=1), "seed=0, this one scvi.settings.seed=1")
    refused(untrained("HDTree", n_cells=140), "other cells")
    refused(untrained("TreeVAE"), r"HDTree.train\(\), not of TreeVAE.train\(\)")
    refused(untrained("BranchedDiffusion"), "train_diffusion")
    with pytest.raises(ValueError, match=r"ckpt_path: .*HDTree.train_diffusion\(\)"):
        models["HDTree"].train_diffusion(ckpt_path=last, **LITTLE)
    for name, change in (
        ("older", lambda: held.pop("hdtree_sc")),
        ("version 0.0", lambda: held.update(hdtree_sc={"facts": {"version": "0.0"}})),
    ):
        change()
        torch.save(held, tmp_path / "other.ckpt")
        refused(untrained("HDTree"), name, tmp_path / "other.ckpt")
    last.write_bytes(last.read_bytes()[:5000])
    refused(untrained("HDTree"), "damaged")


def test_a_generator_does_not_go_on_from_that_of_another_training(tmp_path, models):
    models["HDTree"].train_diffusion(max_epochs=1, checkpoint_dir=tmp_path, **LITTLE)
    other = untrained("HDTree")
    other.train(max_epochs=2, **QUIET)
    with pytest.raises(ValueError, match=r"ckpt_path: .*another training of the model"):
        other.train_diffusion(ckpt_path=tmp_path / "last.ckpt", **LITTLE)


# -- disks ---------------------------------------------------------------------------------------------------


@contextmanager
def full_disk():
    """No file grows beyond some kB, as on a disk that is full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("kind", MODELS)
def test_a_full_disk_costs_the_checkpoint_and_not_the_training(kind, tmp_path):
    model = untrained(kind)
    second = {"diffusion_kwargs": {"n_hidden": 16, "n_blocks": 1}} if kind == "BranchedDiffusion" else {}
    with full_disk(), pytest.warns(UserWarning, match=r"checkpoint_dir: .*last\.ckpt.* MB free"):
        model.train(max_epochs=1, checkpoint_dir=tmp_path, **second, **QUIET)
    assert np.isfinite(model.get_latent()).all()
    assert len(model.get_tree().leaves) > 0
    assert not list(tmp_path.glob("last*")), "nothing half written is left"


def test_a_folder_that_cannot_be_made_is_refused_before_training(tmp_path):
    (tmp_path / "file").write_text("")
    model = untrained("HDTree")
    with pytest.raises(ValueError, match="checkpoint_dir"):
        model.train(max_epochs=1, checkpoint_dir=tmp_path / "file", **QUIET)
    assert not model.is_trained


# -- Ctrl-C --------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("ctrl_c")
def test_ctrl_c_in_the_first_stage_leaves_a_tree_and_no_generator():
    model = untrained("BranchedDiffusion")
    with pytest.warns(UserWarning, match=r"interrupted in its first stage.*train_diffusion"):
        model.train(max_epochs=50, callbacks=[At(1, press)], **QUIET)
    assert len(model.history["train_loss"]) == 1
    assert len(model.get_tree().leaves) == model.adata.obs["branch"].nunique()
    assert np.isfinite(model.get_latent()).all()
    with pytest.raises(RuntimeError, match="train_diffusion"):
        model.generate(3)
    with pytest.warns(UserWarning, match="generator is what was learned so far"):
        model.train_diffusion(max_epochs=50, callbacks=[At(1, press)], **LITTLE)
    assert model.generate(3, n_steps=2, seed=0).n_obs == 3


@pytest.mark.usefixtures("ctrl_c")
@pytest.mark.parametrize("kind", MODELS)
def test_ctrl_c_before_the_first_step_ends_cleanly(kind):
    model = untrained(kind)
    with pytest.raises(KeyboardInterrupt, match="before its first step"):
        model.train(max_epochs=2, callbacks=[At(0, press)], **QUIET)
    assert not model.is_trained
    with pytest.raises(RuntimeError, match=r"train\(\)"):
        model.get_latent()


@pytest.mark.usefixtures("ctrl_c")
def test_ctrl_c_while_a_class_is_added_leaves_the_model_as_it_was(models):
    model, new = models["BranchedDiffusion"], ht.datasets.branching(20, 40, "easy", seed=3)
    before = {name: value.clone() for name, value in model.module.state_dict().items()}
    with pytest.raises(KeyboardInterrupt, match="as it was before"):
        model.add_class(new, "new", max_epochs=3, callbacks=[At(1, press)], **QUIET)
    after = model.module.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    assert after.keys() == before.keys()
    assert "new" not in set(model.node_columns()["label"])


def test_the_exit_of_a_callback_is_not_taken_for_ctrl_c():
    model = untrained("HDTree")
    with pytest.raises(SystemExit):
        model.train(max_epochs=2, callbacks=[At(1, lambda: sys.exit(1))], **QUIET)
    assert not model.is_trained


# -- numbers that make no sense ------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("value", [0, -1, 2.5, True, "3"])
def test_epochs_are_whole_numbers(kind, value, models):
    model = untrained(kind)
    with pytest.raises(ValueError, match="max_epochs"):
        model.train(max_epochs=value, **QUIET)
    assert not model.is_trained
    assert model.history is None
    held = models[kind].module.diffusion
    with pytest.raises(ValueError, match="max_epochs"):
        models[kind].train_diffusion(max_epochs=value, **QUIET)
    assert models[kind].module.diffusion is held
    if kind == "BranchedDiffusion":
        with pytest.raises(ValueError, match="max_epochs"):
            model.train(max_epochs=1, diffusion_kwargs={"max_epochs": value}, **QUIET)
        assert not model.is_trained
        with pytest.raises(ValueError, match="max_epochs"):
            models[kind].add_class(models[kind].adata, "new", max_epochs=value, **QUIET)


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("split", [{"train_size": 1.0}, {"train_size": 0.9, "validation_size": 0.0}])
def test_early_stopping_needs_validation_cells(kind, split):
    model = untrained(kind)
    with pytest.raises(ValueError, match="early_stopping.*validation"):
        model.train(max_epochs=2, early_stopping=True, **split, **QUIET)
    assert not model.is_trained
    if kind == "BranchedDiffusion":
        with pytest.raises(ValueError, match="early_stopping.*validation"):
            model.train(max_epochs=2, diffusion_kwargs={"early_stopping": True}, **split, **QUIET)
        assert not model.is_trained


def test_a_refused_second_training_leaves_the_generator(models):
    for kind, model in models.items():
        held = model.module.diffusion
        with pytest.raises(ValueError, match="batch_size"):
            model.train(batch_size=10**6, **QUIET)
        assert held is not None, kind
        assert model.module.diffusion is held, kind


def test_a_generator_that_stops_early_needs_validation_cells():
    model = untrained("HDTree")
    model.train(max_epochs=np.int64(1), train_size=1.0, **QUIET)
    with pytest.raises(ValueError, match="early_stopping.*validation"):
        model.train_diffusion(max_epochs=1, early_stopping=True, **LITTLE)


def test_max_epochs_is_that_of_both_stages(models):
    model = models["BranchedDiffusion"]
    assert len(model.history["train_loss"]) == 1
    assert len(model.history["diffusion_train_loss"]) == 1


# -- what others do to the process ---------------------------------------------------------------------------


@pytest.mark.parametrize("kind", MODELS)
def test_the_default_dtype_of_torch_changes_nothing(kind, models, tmp_path):
    def answers(model):
        model.save(tmp_path / "model", overwrite=True)
        loaded = type(model).load(tmp_path / "model", adata=model.adata)
        annotated = ht.tl.tree(model.adata, model, copy=True)
        return {
            "latent": model.get_latent(),
            "loaded": loaded.get_latent(),
            "map": annotated.obsm[f"X_{model._tree_key}_2d"],
            "probabilities": model.get_node_probabilities().to_numpy(),
            "generated": model.generate(5, n_steps=2, seed=0).X.toarray(),
            "new cells": model.get_latent(ht.datasets.branching(30, 40, "easy", seed=2)),
        }

    right = answers(models[kind])
    torch.set_default_dtype(torch.float64)
    try:
        got = answers(models[kind]), answers(trained(kind))
        assert torch.get_default_dtype() is torch.float64, "the setting is the other package's"
    finally:
        torch.set_default_dtype(torch.float32)
    for answer in got:
        for name, value in answer.items():
            assert value.dtype == right[name].dtype, name
            assert np.array_equal(value, right[name]), name


def test_numba_does_not_change_the_threads_of_torch():
    script = textwrap.dedent("""
        import numpy as np, scanpy as sc, scvi, torch, hdtree_sc as ht
        from lightning.pytorch.callbacks import Callback

        seen = []

        class Look(Callback):
            def on_train_batch_start(self, *args):
                seen.append(torch.get_num_threads())

        def fit():
            adata = ht.datasets.branching(300, 100, "easy")
            scvi.settings.seed = 0
            ht.HDTree.setup_anndata(adata)
            model = ht.HDTree(adata, n_hidden=64, n_layers=1)
            model.train(max_epochs=1, enable_progress_bar=False, callbacks=[Look()])
            return model

        def disturb():
            cells = ht.datasets.branching(300, 100, "easy")
            sc.pp.normalize_total(cells)
            sc.pp.log1p(cells)

        quiet = fit().get_latent()
        disturb()
        assert torch.get_num_threads() == 2, "numba shares the runtime of torch, or this shows nothing"
        model = fit()
        assert set(seen) == {1}, set(seen)
        disturb()
        torch.set_num_threads(1)
        assert np.array_equal(model.get_latent(), quiet)
        torch.set_num_threads(3)
        disturb()
        model.get_latent()
        assert torch.get_num_threads() == 3, "what the user sets stays"
    """)
    environment = os.environ | {"OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "2"}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("kind", MODELS)
def test_training_says_nothing_but_its_progress(kind, capfd, recwarn):
    model = untrained(kind)
    said, listener = [], logging.Handler()
    listener.emit = lambda record: said.append(record.getMessage())
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric", "scvi")]
    levels = [logger.level for logger in loggers]
    capfd.readouterr()
    try:
        for logger in loggers:
            logger.setLevel(logging.INFO)
            logger.addHandler(listener)
        second = {"diffusion_kwargs": {"n_hidden": 16, "n_blocks": 1}} if kind == "BranchedDiffusion" else {}
        model.train(max_epochs=1, **second, **QUIET)
        if not second:
            model.train_diffusion(max_epochs=1, **LITTLE)
        assert [logger.level for logger in loggers] == [logging.INFO] * 3, "the user's logging is as before"
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.removeHandler(listener)
            logger.setLevel(level)
    assert said == []
    assert [str(warning.message) for warning in recwarn.list] == []
    assert capfd.readouterr() == ("", "")
