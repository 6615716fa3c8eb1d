"""Model files: nothing in them is run, damage is seen, an older save outlives what goes wrong."""

from __future__ import annotations

import errno
import os
from contextlib import contextmanager
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scvi
import torch
from helpers import QUIET

import hdtree_sc as ht
from hdtree_sc.model import _atomic_save

OLD = Path(__file__).parent / "data" / "version_0_1"
SMALL = {"n_latent": 4, "n_hidden": 8, "n_layers": 1, "n_pcs": 4, "n_input_pcs": 6}
KINDS = {
    "HDTree": (ht.HDTree, SMALL | {"tree_depth": 3}, {}),
    "TreeVAE": (ht.TreeVAE, SMALL | {"n_node_latent": 2, "n_detail": 2, "max_leaves": 3}, {}),
    "BranchedDiffusion": (ht.BranchedDiffusion, {}, {"diffusion_kwargs": {"n_hidden": 8}}),
}


def old_cells() -> ad.AnnData:
    held = np.load(OLD / "results.npz")
    obs = pd.DataFrame({"kind": held["kind"]}, index=held["obs_names"])
    return ad.AnnData(held["X"], obs=obs, var=pd.DataFrame(index=held["var_names"]))


def trained(kind: str):
    model_class, arguments, training = KINDS[kind]
    adata = old_cells()
    scvi.settings.seed = 0
    model_class.setup_anndata(adata, labels_key="kind")
    model = model_class(adata, **arguments)
    model.train(max_epochs=1, **training, **QUIET)
    return model


@contextmanager
def suppressed_if_it_names(file: Path):
    """Let a ValueError pass that names the file."""
    try:
        yield
    except ValueError as error:
        if file.name not in str(error):
            raise


@pytest.fixture(scope="module", params=sorted(KINDS))
def any_model(request):
    return trained(request.param)


@pytest.fixture(scope="module")
def tree_model():
    return trained("HDTree")


@pytest.mark.parametrize("name", ["hdtree", "treevae"])
def test_files_of_version_0_1_give_what_they_gave(name):
    model_class = {"hdtree": ht.HDTree, "treevae": ht.TreeVAE}[name]
    held = np.load(OLD / "results.npz")
    with pytest.raises(ValueError, match="trust"):
        model_class.load(OLD / name, adata=old_cells())
    model = model_class.load(OLD / name, adata=old_cells(), trust=True)
    np.testing.assert_allclose(model.get_latent(), held[name], atol=1e-5)
    assert model.get_tree().to_newick() == str(held[f"{name}_tree"])
    if name == "hdtree":
        means = model.generate(5, n_steps=3, seed=0).layers["mean"]
        np.testing.assert_allclose(means, held["generated"], rtol=1e-3, atol=1e-4)


def test_every_model_is_saved_as_plain_values_and_loaded_equal(any_model, tmp_path):
    any_model.save(tmp_path / "m", save_anndata=True)
    torch.load(tmp_path / "m" / "model.pt", weights_only=True)
    back = type(any_model).load(tmp_path / "m")
    np.testing.assert_array_equal(back.get_latent(), any_model.get_latent())
    assert back.get_tree().to_newick() == any_model.get_tree().to_newick()
    assert list(back.history) == list(any_model.history)
    again = type(any_model).load(tmp_path / "m", adata=False)
    np.testing.assert_array_equal(again.get_latent(old_cells()), any_model.get_latent())


def test_a_changed_byte_is_seen_wherever_it_is(tree_model, tmp_path):
    tree_model.save(tmp_path / "m")
    file, right = tmp_path / "m" / "model.pt", tree_model.get_latent()
    whole = file.read_bytes()
    rng = np.random.default_rng(0)
    for at in [0, 1, len(whole) - 1, *rng.integers(0, len(whole), 25)]:
        file.write_bytes(whole[:at] + bytes([whole[at] ^ 0x40]) + whole[at + 1 :])
        # the same latents, or an error that names the file
        with suppressed_if_it_names(file):
            latent = ht.HDTree.load(tmp_path / "m", adata=old_cells()).get_latent()
            np.testing.assert_allclose(latent, right, atol=1e-6)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"no archive at all", None])
def test_what_is_no_model_file_is_refused_by_its_name(content, tree_model, tmp_path):
    tree_model.save(tmp_path / "m")
    file = tmp_path / "m" / "model.pt"
    file.write_bytes(file.read_bytes()[:-500] if content is None else content)
    for trust in (False, True):
        with pytest.raises(ValueError, match="model.pt"):
            ht.HDTree.load(tmp_path / "m", adata=old_cells(), trust=trust)


def test_another_class_and_an_odd_version_are_refused(any_model, tree_model, tmp_path, monkeypatch):
    any_model.save(tmp_path / "m")
    other = ht.TreeVAE if type(any_model) is ht.HDTree else ht.HDTree
    with pytest.raises(ValueError, match=type(any_model).__name__):
        other.load(tmp_path / "m", adata=old_cells())
    for version, words in (("99.0.0", "newer"), ("banana", "version")):
        monkeypatch.setattr(tree_model, "package_version_", version)
        tree_model.save(tmp_path / "v", overwrite=True)
        with pytest.raises(ValueError, match=words):
            ht.HDTree.load(tmp_path / "v", adata=old_cells())


class Stranger:
    """Runs code where it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self):
        return os.makedirs, (str(self.folder), 0o777, True)


def test_nothing_in_a_file_is_run_unless_it_is_trusted(tree_model, tmp_path):
    tree_model.save(tmp_path / "m")
    held = torch.load(tmp_path / "m" / "model.pt", weights_only=True)
    mark = tmp_path / "ran"
    (tmp_path / "s").mkdir()
    for content in (Stranger(mark), {**held, "attr_dict": {**held["attr_dict"], "note": Stranger(mark)}}):
        torch.save(content, tmp_path / "s" / "model.pt")
        for load in (
            lambda: ht.HDTree.load(tmp_path / "s", adata=old_cells()),
            lambda: ht.HDTree.load_query_data(old_cells(), str(tmp_path / "s")),
            lambda: ht.HDTree.load_registry(tmp_path / "s"),
        ):
            with pytest.raises(ValueError, match="trust"):
                load()
    assert not mark.exists()


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_a_save_that_fails_leaves_the_one_before(error, tree_model, tmp_path, monkeypatch):
    tree_model.save(tmp_path / "m")
    before = (tmp_path / "m" / "model.pt").read_bytes()

    def fail(*args: object, **kwargs: object) -> None:
        raise error

    for place, name in ((torch, "save"), (_atomic_save.os, "replace")):
        with monkeypatch.context() as patched:
            patched.setattr(place, name, fail)
            with pytest.raises(type(error)) as raised:
                tree_model.save(tmp_path / "m", overwrite=True)
        if isinstance(error, OSError):
            assert str(tmp_path / "m") in str(raised.value)
        assert (tmp_path / "m" / "model.pt").read_bytes() == before
    tree_model.save(tmp_path / "m", overwrite=True)
    np.testing.assert_array_equal(
        ht.HDTree.load(tmp_path / "m", adata=old_cells()).get_latent(), tree_model.get_latent()
    )
