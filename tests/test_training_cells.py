"""The cells of the training: changes in place are seen, and a loaded model knows them by name."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
import scvi
import torch
from anndata import AnnData
from helpers import QUIET
from scipy import sparse

import hdtree_sc as ht
from hdtree_sc.data._fingerprint import Fingerprint

pytestmark = pytest.mark.slow  # trains models


def cells() -> AnnData:
    adata = ht.datasets.branching(150, 40, "easy", n_batches=2)
    obs = pd.DataFrame({"batch": adata.obs["batch"].astype(str), "size": np.asarray(adata.X.sum(1)).ravel()})
    return AnnData(adata.X.copy(), obs=obs, var=adata.var[[]].copy())


def trained(adata, kind="HDTree", **setup):
    scvi.settings.seed = 0
    getattr(ht, kind).setup_anndata(adata, batch_key="batch", **setup)
    model = getattr(ht, kind)(adata)
    model.train(max_epochs=1, **QUIET)
    return model


# -- changed in place ----------------------------------------------------------------------------------------


def normalised(adata):
    sc.pp.normalize_total(adata, target_sum=1e4)
    sc.pp.log1p(adata)


CHANGES = {
    "normalised": (normalised, "layer="),
    "one value": (lambda a: a.X.data.__setitem__(7, 99), "layer="),
    "genes reversed": (lambda a: a._inplace_subset_var(a.var_names[::-1]), "genes"),
    "genes filtered": (lambda a: a._inplace_subset_var(a.var_names[:30]), "genes"),
    "cells filtered": (lambda a: a._inplace_subset_obs(np.arange(0, 150, 2)), "cells"),
    "cells reversed": (lambda a: a._inplace_subset_obs(np.arange(150)[::-1]), "cells"),
    "size factors": (lambda a: a.obs.insert(0, "size", 2 * a.obs.pop("size")), "size"),
}


@pytest.mark.parametrize("kind", ["HDTree", "TreeVAE"])
def test_changes_in_place_are_named_wherever_the_cells_are_read(kind, tmp_path):
    first, adata = None, cells()
    for change, word in CHANGES.values():
        if first is None:
            first = model = trained(adata, kind, size_factor_key="size")
            model.save(tmp_path / "m")
        else:
            adata = cells()
            model = getattr(ht, kind).load(tmp_path / "m", adata=adata)
        right = model.get_latent()
        change(adata)
        readers = [
            model.get_latent,
            lambda: model.get_latent(adata),  # noqa: B023
            lambda: ht.tl.tree(adata, model),  # noqa: B023
            lambda: model.train_diffusion(max_epochs=1, **QUIET),  # noqa: B023
            model.get_normalized_expression,
            *([model.build_tree] if kind == "HDTree" else []),
        ]
        for read in readers:
            with pytest.raises(ValueError, match=word):
                read()
        assert f"X_{kind.lower()}" not in adata.obsm
        np.testing.assert_allclose(model.get_latent(cells()), right, atol=1e-5)


def test_what_is_not_read_may_change_and_what_is_put_back_is_taken():
    adata = cells()
    adata.layers["counts"] = adata.X.copy()
    model = trained(adata, layer="counts")
    right = model.get_latent()
    normalised(adata)
    adata.layers["counts"] = sparse.csc_matrix(adata.layers["counts"])
    np.testing.assert_allclose(model.get_latent(), right, atol=1e-6)
    counts = adata.layers.pop("counts")
    with pytest.raises(ValueError, match=r"layers\['counts'\] was changed"):
        model.get_latent()
    adata.layers["counts"] = counts.toarray().astype(np.float64)
    np.testing.assert_allclose(model.get_latent(), right, atol=1e-6)
    adata.uns.clear()
    adata.obs = adata.obs[["batch"]]
    np.testing.assert_allclose(model.get_latent(), right, atol=1e-6)


def test_two_models_share_an_anndata_and_a_lost_column_is_named():
    adata = cells()
    adata.obs["half"] = np.arange(150) < 75
    model = trained(adata)
    right = model.get_latent()
    ht.HDTree.setup_anndata(adata, batch_key="half")
    np.testing.assert_array_equal(model.get_latent(), right)
    adata.obs["batch"] = "another"
    ht.HDTree.setup_anndata(adata, batch_key="half")
    registry = model.registry["field_registries"]["batch"]["state_registry"]
    with pytest.raises(ValueError, match="'batch'"):
        model.get_latent()
    assert len(registry["categorical_mapping"]) == 2
    adata.obs["batch"] = cells().obs["batch"]
    np.testing.assert_array_equal(model.get_latent(), right)


def test_query_models_see_changes_too():
    model = trained(cells())
    for change, word in list(CHANGES.values())[:4]:
        query = cells()
        mapped = ht.HDTree.load_query_data(query, model)
        np.testing.assert_allclose(mapped.get_latent(query), model.get_latent(), atol=1e-5)
        change(query)
        with pytest.raises(ValueError, match=word):
            ht.tl.tree(query, mapped)
    assert mapped.is_trained


def test_only_a_sample_of_many_cells_is_compared():
    adata = AnnData(sparse.random(5_000, 2_000, 0.01, format="csr", dtype=np.float32, random_state=0))
    seen = Fingerprint.of(adata)
    assert len(seen.rows) == 500
    others = np.setdiff1d(np.arange(5_000), seen.rows)
    adata.X = sparse.csr_matrix(sparse.diags(np.isin(np.arange(5_000), others) + 1.0) @ adata.X)
    seen.require_unchanged(adata)
    adata.X = adata.X * 2
    with pytest.raises(ValueError, match=r"adata\.X was changed"):
        seen.require_unchanged(adata)


# -- loaded --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A saved model, the model and its latents."""
    model = trained(cells())
    folder = tmp_path_factory.mktemp("saved") / "m"
    model.save(folder)
    return folder, model, model.get_latent()


def forms():
    """Cells to load a model with, and which of the training cells they are."""
    order = np.random.default_rng(0).permutation(150)
    adata = cells()
    wide = ad.concat([adata, AnnData(np.ones((150, 3)), obs=adata.obs, var=pd.DataFrame(index=list("xyz")))], axis=1)
    wide.obs = adata.obs
    more = cells()
    more.obs_names = [f"new_{name}" for name in more.obs_names]
    return {
        "same": (cells(), np.arange(150)),
        "genes": (adata[:, ::-1].copy(), np.arange(150)),
        "more genes": (wide, np.arange(150)),
        "cells": (adata[order].copy(), order),
        "view": (adata[order], order),
        "text": (cells_with(batch=pd.Categorical(cells().obs["batch"])), np.arange(150)),
        "more cells": (ad.concat([more, cells()[order]]), np.r_[np.arange(150), order]),
    }


def cells_with(**columns):
    adata = cells()
    for name, values in columns.items():
        adata.obs[name] = values
    return adata


@pytest.mark.parametrize("form", list(forms()))
def test_genes_and_cells_are_known_by_name(saved, form):
    folder, model, right = saved
    adata, rows = forms()[form]
    again = ht.HDTree.load(folder, adata=adata)
    np.testing.assert_allclose(again.get_latent(), right[rows], atol=1e-5)
    np.testing.assert_allclose(again.get_latent(adata), right[rows], atol=1e-5)
    for part in ("train", "validation"):
        now, then = (getattr(m, f"{part}_indices") for m in (again, model))
        assert list(again.adata.obs_names[now]) == list(model.adata.obs_names[then])
    again.build_tree()
    assert again.get_tree().to_newick() == model.get_tree().to_newick()


def test_a_part_of_the_cells_answers_but_teaches_nothing(saved, tmp_path):
    folder, model, right = saved
    half = ht.HDTree.load(folder, adata=cells()[::2].copy())
    np.testing.assert_allclose(half.get_latent(), right[::2], atol=1e-5)
    for verb in (half.build_tree, half.train_diffusion):
        with pytest.raises(ValueError, match="75 of 150 are missing.*cells|cells.*75 of 150 are missing"):
            verb()
    half.save(tmp_path / "half")
    whole = ht.HDTree.load(tmp_path / "half", adata=cells())
    whole.build_tree()
    assert whole.get_tree().to_newick() == model.get_tree().to_newick()
    half.train(max_epochs=1, **QUIET)
    assert max(*half.train_indices, *half.validation_indices) < 75
    half.build_tree()


def test_cells_that_are_not_those_of_the_training_are_refused(saved):
    folder, _, _ = saved
    adata = cells()
    for fewer in (adata[:, :30], adata[:, :30].copy()):
        before = dict(fewer.uns)
        with pytest.raises(ValueError, match=r"lacks 10 of the model's 40 genes.*load_query_data"):
            ht.HDTree.load(folder, adata=fewer)
        assert dict(fewer.uns) == before
    with pytest.raises(ValueError, match=r"'batch'.*'elsewhere'.*load_query_data"):
        ht.HDTree.load(folder, adata=cells_with(batch="elsewhere"))


def test_files_without_names_go_by_positions_if_the_number_of_cells_is_the_same(saved, tmp_path):
    folder, model, _ = saved
    held = torch.load(folder / "model.pt", weights_only=False)
    held["attr_dict"].pop("cell_names_")
    (tmp_path / "old").mkdir()
    torch.save(held, tmp_path / "old" / "model.pt")
    again = ht.HDTree.load(tmp_path / "old", adata=cells())
    again.build_tree()
    assert again.get_tree().to_newick() == model.get_tree().to_newick()
    half = ht.HDTree.load(tmp_path / "old", adata=cells()[:75].copy())
    with pytest.raises(ValueError, match="earlier version"):
        half.build_tree()
    with pytest.raises(ValueError, match="load it with them"):
        ht.HDTree.load(tmp_path / "old", adata=False).build_tree()


def test_the_kind_of_a_column_may_change_on_the_way_through_a_file(tmp_path):
    adata = cells_with(batch=np.arange(150) % 2)
    model = trained(adata)
    model.save(tmp_path / "m")
    for values in (adata.obs["batch"].astype(str), adata.obs["batch"].astype(float)):
        again = ht.HDTree.load(tmp_path / "m", adata=cells_with(batch=values))
        np.testing.assert_allclose(again.get_latent(), model.get_latent(), atol=1e-5)
        again.build_tree()
