"""Saved models: they come back to the bit, run nothing, tell damage, and are whole at any time."""

from __future__ import annotations

import errno
import os
import shutil
import threading
import zipfile
from collections import namedtuple
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scvi
import torch
from helpers import QUIET
from scvi.hub import HubMetadata

import hdtree_sc as ht
from hdtree_sc.files import _atomic_save
from hdtree_sc.files._file_format import SEAL, read_model

pytestmark = pytest.mark.slow  # trains models

OLD = Path(__file__).parent / "data" / "models_0.1.0.zip"
"""Models of every kind that version 0.1.0 wrote as pickles, their cells, and what they gave."""
PLAIN = Path(__file__).parent / "data" / "models_0.1.0_plain.zip"
"""An HDTree and a TreeVAE with generators that version 0.1.0 wrote as plain values, their cells, and what they gave.

HDTree (10 and 2 epochs) and TreeVAE (30 and 2, ``max_leaves=3``, ``split_rule="largest"``) of the sizes below; weights
were rounded to 16 bits before they were saved, for a small file.
"""
SMALL = {"n_latent": 3, "n_hidden": 8, "n_layers": 1, "n_pcs": 3, "n_input_pcs": 3}
CLASSES = {"HDTree": ht.HDTree, "TreeVAE": ht.TreeVAE, "BranchedDiffusion": ht.BranchedDiffusion}


def trained(name, n_cells=60):
    cells, cls = ht.datasets.branching(n_cells, 12, "easy"), CLASSES[name]
    cls.setup_anndata(cells, labels_key="branch")
    model = cls(cells, **SMALL)
    if name == "BranchedDiffusion":
        model.train(max_epochs=1, diffusion_kwargs={"max_epochs": 1, "n_hidden": 8}, **QUIET)
    else:
        model.train(max_epochs=1, **QUIET)
        model.train_diffusion(max_epochs=1, n_hidden=8, **QUIET)
    return model


@pytest.fixture(scope="module")
def tiny():
    """A small trained model; treat it as read-only."""
    return trained("HDTree")


@pytest.fixture(scope="module")
def other():
    """A model of other cells; treat it as read-only."""
    return trained("HDTree", 70)


@pytest.fixture
def folder(tiny, tmp_path):
    tiny.save(tmp_path / "m")
    return tmp_path / "m"


def attributes(model):
    return {name: value for name, value in model._get_user_attributes() if name.endswith("_")}


def assert_same(one, two):
    """Equal to the bit and of the same kinds, but for kinds of dictionaries."""
    if isinstance(one, dict):
        assert list(one) == list(two)
        for key in one:
            assert_same(one[key], two[key])
        return
    assert type(one) is type(two)
    if isinstance(one, list | tuple):
        assert len(one) == len(two)
        for a, b in zip(one, two, strict=True):
            assert_same(a, b)
    elif isinstance(one, pd.DataFrame):
        pd.testing.assert_frame_equal(one, two, check_exact=True)
    elif isinstance(one, np.ndarray):
        assert one.dtype == two.dtype
        np.testing.assert_array_equal(one, two)
    else:
        assert one == two or one != one


def values(adata):
    return adata.X.toarray() if hasattr(adata.X, "toarray") else np.asarray(adata.X)


# -- what is written comes back ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CLASSES)
def test_a_file_is_plain_and_all_of_it_comes_back(name, tmp_path):
    model, cls = trained(name), CLASSES[name]
    model.save(tmp_path / "m")
    content = torch.load(tmp_path / "m" / "model.pt", weights_only=True)
    assert set(content) == {"model_state_dict", "var_names", "attr_dict"}
    again = cls.load(tmp_path / "m", adata=False)
    assert_same(attributes(again), attributes(model))
    for key, weights in model.module.state_dict().items():
        assert content["model_state_dict"][key].dtype == weights.dtype
        assert torch.equal(again.module.state_dict()[key], weights), key
    assert np.array_equal(values(again.generate(4, n_steps=2, seed=0)), values(model.generate(4, n_steps=2, seed=0)))
    with_cells = cls.load(tmp_path / "m", adata=model.adata.copy())
    assert np.array_equal(with_cells.get_latent(), model.get_latent())
    assert not with_cells.module.training
    # what scvi-tools itself reads of a folder
    assert cls.load_registry(tmp_path / "m")["model_name"] == name
    assert HubMetadata.from_dir(str(tmp_path / "m"), anndata_version="0.12").model_cls_name == name


def test_the_arguments_of_setup_are_printed(folder, capsys):
    ht.HDTree.view_setup_args(folder)
    assert "'branch'" in capsys.readouterr().out


def test_cells_prefix_and_overwrite_are_as_in_scvi_tools(tiny, tmp_path):
    folder = tmp_path / "deep" / "m"
    tiny.save(folder, prefix="a_", save_anndata=True, compression="gzip")
    assert sorted(os.listdir(folder)) == ["a_adata.h5ad", "a_model.pt"]
    again = ht.HDTree.load(folder, prefix="a_")
    assert np.array_equal(again.get_latent(), tiny.get_latent())
    assert ht.HDTree.load(folder, prefix="a_", adata=False).adata is None
    with pytest.raises(ValueError, match="overwrite=True"):
        tiny.save(folder)
    (folder / "notes.txt").write_text("mine")
    tiny.save(folder, overwrite=True)
    assert sorted(os.listdir(folder)) == ["a_adata.h5ad", "a_model.pt", "model.pt", "notes.txt"]
    (folder / "a_adata.h5ad").unlink()
    with pytest.warns(UserWarning, match="without cells"):
        alone = ht.HDTree.load(folder, prefix="a_")
    with pytest.raises(ValueError, match="save_anndata"):
        alone.save(tmp_path / "cells", save_anndata=True)
    with pytest.raises(TypeError, match="adata"):
        ht.HDTree.load(folder, adata=[1])


def test_cells_on_disk_stay_where_they_are(tiny, tmp_path, monkeypatch):
    tiny.adata.write_h5ad(tmp_path / "cells.h5ad")
    cells = ad.read_h5ad(tmp_path / "cells.h5ad", backed="r")
    monkeypatch.setattr(tiny, "_adata", cells)
    tiny.save(tmp_path / "m", save_anndata=True)
    assert cells.filename == tmp_path / "cells.h5ad"
    assert cells.X[:2].shape == (2, 12)


def test_what_cannot_be_written_is_named_before_anything_is_replaced(tiny, folder, monkeypatch):
    before = (folder / "model.pt").read_bytes()
    monkeypatch.setattr(tiny, "note_", object(), raising=False)
    with pytest.raises(TypeError, match="note_"):
        tiny.save(folder, overwrite=True)
    monkeypatch.delattr(tiny, "note_")
    for options in ({"pickle_protocol": 4}, {"_use_new_zipfile_serialization": False}):
        with pytest.raises(ValueError, match="save_kwargs"):
            tiny.save(folder, overwrite=True, save_kwargs=options)
    assert os.listdir(folder) == ["model.pt"]
    assert (folder / "model.pt").read_bytes() == before


# -- nothing of a stranger's file is run ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def old(tmp_path_factory):
    folder = tmp_path_factory.mktemp("old")
    with zipfile.ZipFile(OLD) as archive:
        archive.extractall(folder)
    return folder


@pytest.mark.parametrize("name", CLASSES)
def test_files_of_version_0_1_0_load_if_trusted_and_are_saved_as_new_ones(name, old, tmp_path):
    cls, expected = CLASSES[name], np.load(old / "expected.npz")
    obs = pd.DataFrame(
        {"branch": expected["branch"], "batch": expected["batch"]}, index=[f"cell_{i}" for i in range(60)]
    )
    cells = ad.AnnData(expected["counts"].astype(np.float32), obs, pd.DataFrame(index=[f"gene_{i}" for i in range(10)]))
    with pytest.raises(ValueError, match=r"model\.pt.*pickle.*runs any code.*trust=True"):
        cls.load(old / name, adata=cells.copy())
    model = cls.load(old / name, adata=cells.copy(), trust=True)
    np.testing.assert_allclose(model.get_latent(), expected[name], atol=1e-5)
    generated = values(model.generate(4, n_steps=2, seed=0))
    np.testing.assert_allclose(generated, expected[f"{name}_generated"], rtol=1e-3, atol=1e-3)
    query = cls.load_query_data(cells[:20].copy(), str(old / name), trust=True)
    np.testing.assert_allclose(query.get_latent(), expected[name][:20], atol=1e-5)
    assert cls.load_registry(old / name, trust=True)["model_name"] == name
    model.save(tmp_path / "new")
    again = cls.load(tmp_path / "new", adata=False)
    assert np.array_equal(again.get_latent(cells), model.get_latent(cells))
    assert_same(attributes(again), attributes(model))


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    folder = tmp_path_factory.mktemp("plain")
    with zipfile.ZipFile(PLAIN) as archive:
        archive.extractall(folder)
    return folder


@pytest.mark.parametrize("name", ["HDTree", "TreeVAE"])
def test_plain_files_of_version_0_1_0_load_and_give_what_they_gave(name, plain):
    cls, expected = CLASSES[name], np.load(plain / "expected.npz")
    obs = pd.DataFrame({"branch": expected["branch"]}, index=[f"cell_{i}" for i in range(60)])
    obs["batch"] = np.where(np.arange(60) % 2, "a", "b")
    cells = ad.AnnData(expected["counts"].astype(np.float32), obs, pd.DataFrame(index=[f"gene_{i}" for i in range(12)]))
    model = cls.load(plain / name, adata=cells)
    tree = model.get_tree()
    assert list(tree.nodes) == expected[f"{name}.nodes"].tolist()
    np.testing.assert_allclose(tree.heights, expected[f"{name}.heights"])
    np.testing.assert_allclose(model.get_latent(), expected[f"{name}.latent"], atol=1e-5)
    np.testing.assert_allclose(
        model.get_node_probabilities().to_numpy(), expected[f"{name}.probabilities"], rtol=1e-4, atol=1e-5
    )
    rows = {"indices": slice(0, 8), "n_steps": 5, "seed": 0}
    made = {
        "generate": model.generate(6, n_steps=5, seed=0),
        "transmute": model.transmute(target=tree.leaves[-1], **rows),
        "reconstruct": model.reconstruct(**rows),
    }
    for verb, out in made.items():
        np.testing.assert_allclose(out.layers["mean"], expected[f"{name}.{verb}_mean"], rtol=1e-3, atol=1e-3)


class Stranger:
    """A pickle of it makes a folder."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.makedirs, (str(self.mark),)


@pytest.mark.parametrize("place", ["bare", "attr_dict", "model_state_dict", "var_names", "legacy", "script"])
def test_a_strangers_file_runs_nothing(place, folder, tiny, tmp_path):
    file, mark = folder / "model.pt", tmp_path / "ran"
    content, stranger = torch.load(file, weights_only=True), Stranger(mark)
    if place in ("attr_dict", "model_state_dict"):
        content[place]["note_"] = stranger
    elif place == "var_names":
        content[place] = stranger
    if place == "script":
        torch.jit.save(torch.jit.script(torch.nn.ReLU()), file)
    else:
        bare = place in ("bare", "legacy")
        torch.save(stranger if bare else content, file, _use_new_zipfile_serialization=place != "legacy")
    readers = [
        lambda: ht.HDTree.load(folder, adata=tiny.adata.copy()),
        lambda: ht.HDTree.load(folder, adata=False),
        lambda: ht.HDTree.load_query_data(tiny.adata.copy(), str(folder)),
        lambda: ht.HDTree.load_registry(folder),
        lambda: ht.HDTree.view_setup_args(folder),
    ]
    for reader in readers:
        with pytest.raises(ValueError, match=r"model\.pt"):
            reader()
    with pytest.raises(NotImplementedError):
        ht.HDTree.convert_legacy_save(folder, tmp_path / "out")
    assert not mark.exists()


def test_a_strangers_archive_that_is_two_files_at_once_runs_nothing(folder, tmp_path):
    # a zip archive with a pickle before it: torch would read the pickle
    whole, mark = (folder / "model.pt").read_bytes(), tmp_path / "ran"
    torch.save(Stranger(mark), folder / "model.pt", _use_new_zipfile_serialization=False)
    with (folder / "model.pt").open("ab") as file:
        file.write(whole)
    with pytest.raises(ValueError, match=r"model\.pt"):
        ht.HDTree.load(folder, adata=False)
    assert not mark.exists()


# -- damage is told ------------------------------------------------------------------------------------------


def content_of(file):
    saved = read_model(file, trust=False)
    return saved.attributes, {name: weights.numpy() for name, weights in saved.weights.items()}, saved.var_names


@pytest.mark.parametrize("sealed", [True, False], ids=["with its checksum", "with those of zip alone"])
def test_a_flipped_byte_anywhere_is_told_or_changes_nothing(sealed, folder):
    file, random = folder / "model.pt", np.random.default_rng(0)
    whole = file.read_bytes()
    end = len(whole) - len(SEAL.search(whole)[0])
    if not sealed:
        whole = whole[: end - 2] + b"\0\0"
        file.write_bytes(whole)
    right, told = content_of(file), []
    places = {*range(40), *range(end - 60, len(whole)), *random.integers(0, len(whole), 300).tolist()}
    places |= set(random.integers(end - 9000, end, 100).tolist())
    for at in sorted(places):
        file.write_bytes(whole[:at] + bytes([whole[at] ^ (1 << at % 8)]) + whole[at + 1 :])
        try:
            found = content_of(file)
        except ValueError as error:
            told.append(str(file) in str(error))
        else:
            assert_same(found, right)
    assert len(told) > 300
    assert all(told)


@pytest.mark.parametrize("keep", [0, 3, 30, 0.5, -1, -100, -170, "text"])
def test_truncated_and_other_files_are_told(keep, folder):
    file = folder / "model.pt"
    whole = file.read_bytes()
    if keep == "text":
        file.write_text("no model")
    else:
        file.write_bytes(whole[: int(keep * len(whole)) if isinstance(keep, float) else keep])
    with pytest.raises(ValueError, match=r"model\.pt is truncated, damaged"):
        ht.HDTree.load(folder)


def _change(part, key, value):
    def changed(content):
        content[part][key] = value

    return changed


def _remove(part, key):
    def changed(content):
        del content[part][key]

    return changed


def _registry(key, value):
    def changed(content):
        content["attr_dict"]["registry_"][key] = value

    return changed


def _option(key, value):
    def changed(content):
        content["attr_dict"]["init_params_"]["non_kwargs"][key] = value

    return changed


WEIGHT = "map_head.layers.4.weight"
WRONG = {
    "no registry": _remove("attr_dict", "registry_"),
    "registry is a list": _change("attr_dict", "registry_", [1]),
    "no class": _registry("model_name", None),
    "another class": _registry("model_name", "TreeVAE"),
    "setup of text": _registry("setup_args", "X"),
    "setup with an unknown argument": _registry("setup_args", {"genes": 1}),
    "no fields": _registry("field_registries", {}),
    "fields of numbers": _registry("field_registries", {"X": 1}),
    "no parameters": _remove("attr_dict", "init_params_"),
    "parameters of text": _change("attr_dict", "init_params_", "n_latent"),
    "parameter of another type": _option("n_latent", "three"),
    "unknown parameter": _option("depth_of_sea", 3),
    "no version": _remove("attr_dict", "package_version_"),
    "version banana": _change("attr_dict", "package_version_", "banana"),
    "version of a number": _change("attr_dict", "package_version_", 3),
    "newer version": _change("attr_dict", "package_version_", "99.0.0"),
    "rows of text": _change("attr_dict", "train_indices_", "abc"),
    "history of a number": _change("attr_dict", "history_", 3),
    "second stage of text": _change("attr_dict", "diffusion_params_", "all"),
    "unknown kind": _change("attr_dict", "growth_", {"__kind__": "module", "name": "os"}),
    "array of objects": _change(
        "attr_dict", "growth_", {"__kind__": "array", "dtype": "|O", "shape": [9], "values": ["a"]}
    ),
    "another attribute": _change("attr_dict", "note", "hello"),
    "the class itself": _change("attr_dict", "__class__", "hello"),
    "a tensor less": _remove("model_state_dict", WEIGHT),
    "a tensor more": _change("model_state_dict", "more", torch.zeros(1)),
    "a tensor of another shape": _change("model_state_dict", WEIGHT, torch.zeros(2, 2)),
    "a list as tensor": _change("model_state_dict", WEIGHT, [1.0]),
    "a part more": lambda content: content.update(more=1),
    "a part less": lambda content: content.pop("attr_dict"),
    "names of a number": lambda content: content.update(var_names=3),
    "weights of a list": lambda content: content.update(model_state_dict=[1]),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_wrong_content_is_told_before_cells_are_touched(wrong, folder, tiny):
    file = folder / "model.pt"
    content = torch.load(file, weights_only=True)
    WRONG[wrong](content)
    torch.save(content, file)
    cells = ad.AnnData(tiny.adata.X.copy(), tiny.adata.obs[["branch"]].copy(), tiny.adata.var.copy())
    with pytest.raises(ValueError, match=r"dir_path: .*model\.pt"):
        ht.HDTree.load(folder, adata=cells)
    assert not cells.uns
    assert list(cells.obs) == ["branch"]


def test_loading_leaves_random_numbers_of_torch_as_one_model_does(folder):
    torch.manual_seed(0)
    ht.HDTree.load(folder, adata=False)
    after = torch.rand(1)
    torch.manual_seed(0)
    saved = read_model(folder / "model.pt", trust=False)
    saved.built(ht.HDTree, None)
    assert torch.equal(torch.rand(1), after)


def test_damaged_cells_are_told(tiny, tmp_path):
    tiny.save(tmp_path / "m", save_anndata=True)
    file = tmp_path / "m" / "adata.h5ad"
    whole = file.read_bytes()
    for at in np.random.default_rng(0).integers(0, len(whole), 20):
        file.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        with pytest.raises(ValueError, match=r"adata\.h5ad"):
            ht.HDTree.load(tmp_path / "m")
    file.write_bytes(whole)
    assert ht.HDTree.load(tmp_path / "m").adata.n_obs == tiny.adata.n_obs


# -- a folder holds a whole model at any time ----------------------------------------------------------------


def who(folder, *models):
    """Which of the models a folder holds with its own cells."""
    latent = ht.HDTree.load(folder).get_latent()
    return [model for model in models if np.array_equal(model.get_latent(), latent)]


def ended(function):
    """Run a function in a process of its own, which may end at any time."""
    child = os.fork()
    if child == 0:
        try:
            function()
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def at_call(number, function, action):
    """A function that acts in place of its n-th call."""
    calls = []

    def called(*args, **kwargs):
        calls.append(args)
        return action(*args) if len(calls) == number else function(*args, **kwargs)

    return called


def half_written(content, path, **_):
    Path(path).write_bytes(b"PK\x03\x04" + b"0" * 1000)
    os._exit(9)


KILLS = {
    "cells": (ad.AnnData, "write", 1, lambda *args: os._exit(9), 0),
    "model": (torch, "save", 1, half_written, 0),
    "disk": (os, "fsync", 1, lambda *args: os._exit(9), 0),
    "first": (os, "replace", 1, lambda *args: os._exit(9), 0),
    "second": (os, "replace", 2, lambda *args: os._exit(9), 1),
}


@pytest.mark.parametrize("at", KILLS)
def test_a_process_that_is_killed_leaves_the_old_save_or_the_new_one(at, tiny, other, tmp_path, monkeypatch):
    folder, (owner, name, call, action, new) = tmp_path / "m", KILLS[at]
    tiny.save(folder, save_anndata=True)
    with monkeypatch.context() as patched:
        patched.setattr(owner, name, at_call(call, getattr(owner, name), action))
        assert ended(lambda: other.save(folder, overwrite=True, save_anndata=True)) == 9
    assert who(folder, tiny, other) == [[tiny, other][new]]
    assert len(os.listdir(folder)) == 3
    other.save(folder, overwrite=True, save_anndata=True)
    assert who(folder, tiny, other) == [other]
    assert sorted(os.listdir(folder)) == ["adata.h5ad", "model.pt"], "the next save clears what was left"


def raises(error):
    def raised(*args, **kwargs):
        raise error

    return raised


FULL = {
    "torch": (
        torch,
        "save",
        RuntimeError("[enforce fail at inline_container.cc:1] PytorchStreamWriter failed writing"),
    ),
    "hdf5": (ad.AnnData, "write", RuntimeError("Disable slist failed (file write failed: errno = 28, message = 'x')")),
    "fsync": (os, "fsync", OSError(errno.ENOSPC, "No space left on device")),
    "replace": (os, "replace", OSError(errno.ENOSPC, "No space left on device")),
}


@pytest.mark.parametrize("at", FULL)
def test_a_full_disk_is_named_and_the_old_save_is_whole(at, tiny, other, tmp_path, monkeypatch):
    folder, (owner, name, error) = tmp_path / "m", FULL[at]
    tiny.save(folder, save_anndata=True)
    with monkeypatch.context() as patched:
        usage = namedtuple("usage", ["total", "used", "free"])
        patched.setattr(shutil, "disk_usage", lambda _: usage(9e9, 9e9, 3.21e6))
        patched.setattr(owner, name, raises(error))
        with pytest.raises(OSError, match=r"/m; 3\.2 MB are free") as told:
            other.save(folder, overwrite=True, save_anndata=True)
        assert told.value.errno == errno.ENOSPC
        with pytest.raises(OSError, match="MB are free"):
            other.save(tmp_path / "new", save_anndata=True)
    assert not (tmp_path / "new").exists()
    assert sorted(os.listdir(folder)) == ["adata.h5ad", "model.pt"]
    assert who(folder, tiny, other) == [tiny]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("something else")], ids=repr)
def test_other_ends_of_a_save_are_not_called_a_full_disk(error, tiny, other, tmp_path, monkeypatch):
    tiny.save(tmp_path / "m", save_anndata=True)
    with monkeypatch.context() as patched:
        patched.setattr(torch, "save", raises(error))
        with pytest.raises(type(error)):
            other.save(tmp_path / "m", overwrite=True)
    assert who(tmp_path / "m", tiny, other) == [tiny]


def test_a_reader_beside_two_writers_gets_a_whole_model(tiny, other, tmp_path):
    folder, stop, failed = tmp_path / "m", threading.Event(), []
    tiny.save(folder, save_anndata=True)

    def write(model):
        while not stop.is_set():
            try:
                model.save(folder, overwrite=True, save_anndata=True)
            except Exception as error:  # noqa: BLE001
                failed.append(error)

    writers = [threading.Thread(target=write, args=(model,)) for model in (tiny, other)]
    for writer in writers:
        writer.start()
    try:
        read = [who(folder, tiny, other) for _ in range(12)]
    finally:
        stop.set()
        for writer in writers:
            writer.join()
    assert not failed
    assert all(len(found) == 1 for found in read)
    assert who(folder, tiny, other) in ([tiny], [other])


def test_where_folders_cannot_be_locked_files_are_still_whole(tiny, other, tmp_path, monkeypatch):
    monkeypatch.setattr(_atomic_save, "fcntl", None)
    tiny.save(tmp_path / "m", save_anndata=True)
    other.save(tmp_path / "m", overwrite=True, save_anndata=True)
    assert who(tmp_path / "m", tiny, other) == [other]
    assert sorted(os.listdir(tmp_path / "m")) == ["adata.h5ad", "model.pt"]


def test_a_model_of_scvi_tools_is_refused_by_its_class_once_it_is_trusted(tmp_path):
    cells = scvi.data.synthetic_iid()
    scvi.model.SCVI.setup_anndata(cells)
    scvi.model.SCVI(cells).save(tmp_path / "m")
    with pytest.raises(ValueError, match="trust=True"):
        ht.HDTree.load(tmp_path / "m", adata=False)
    with pytest.raises(ValueError, match="class SCVI, not HDTree"):
        ht.HDTree.load(tmp_path / "m", adata=False, trust=True)
