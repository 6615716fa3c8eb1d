"""Cells that are not the registered object: matched by name, checked, and left as they are."""

from __future__ import annotations

import warnings

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scvi
from anndata import AnnData
from helpers import QUIET
from scipy import sparse

import hdtree_sc as ht

pytestmark = pytest.mark.slow  # trains models

ODD = np.arange(150) % 2
MODELS = {"HDTree": {}, "TreeVAE": {}, "BranchedDiffusion": {"diffusion_kwargs": {"max_epochs": 1}}}


def cells(**obs) -> AnnData:
    """The same small cells with columns of one's own."""
    adata = ht.datasets.branching(150, 40, "easy")
    return AnnData(adata.X.copy(), obs=pd.DataFrame(obs, index=adata.obs_names), var=adata.var[[]].copy())


def trained(adata, name="HDTree", model_kwargs=None, **setup):
    scvi.settings.seed = 0
    kind = getattr(ht, name)
    kind.setup_anndata(adata, **setup)
    model = kind(adata, **(model_kwargs or {}))
    model.train(max_epochs=1, **QUIET, **MODELS[name])
    return model


@pytest.fixture(scope="module", params=list(MODELS))
def known(request):
    """A model of each class, its cells with counts in a layer, and their latents; treat all as read-only."""
    adata = cells(batch=np.array(["one", "two"])[ODD], kind=np.array(["x", "y", "z"])[np.arange(150) % 3])
    adata.layers["counts"] = adata.X.copy()
    adata.X = np.log1p(adata.X.toarray())
    model = trained(adata, request.param, layer="counts", batch_key="batch", labels_key="kind")
    return model, adata, model.get_latent()


def test_copies_and_views_of_the_training_cells_are_matched_by_name_and_left_alone(known):
    model, adata, right = known
    order = np.random.default_rng(0).permutation(40)
    rows = np.arange(0, 150, 7)
    forms = {
        "copy": (adata.copy(), right),
        "view": (adata[:], right),
        "genes": (adata[:, order].copy(), right),
        "view of genes": (adata[:, order], right),
        "view of cells": (adata[rows], right[rows]),
    }
    for name, (form, wanted) in forms.items():
        is_view, obs, uns = form.is_view, form.obs.copy(), dict(form.uns)
        np.testing.assert_allclose(model.get_latent(form), wanted, atol=1e-5, err_msg=name)
        assert model.get_node_probabilities(form).index.equals(form.obs_names)
        assert form.is_view == is_view, name
        assert dict(form.uns) == uns, name
        pd.testing.assert_frame_equal(form.obs, obs)
    np.testing.assert_allclose(model.get_latent(adata[rows], indices=[2, 1]), right[rows[[2, 1]]], atol=1e-5)


@pytest.mark.parametrize("form", [sparse.csc_matrix, sparse.csr_matrix, lambda x: x.toarray().astype(np.float64)])
def test_the_format_of_the_values_changes_nothing(known, form):
    model, adata, right = known
    other = adata.copy()
    other.layers["counts"] = form(other.layers["counts"])
    before = other.layers["counts"].copy()
    np.testing.assert_allclose(model.get_latent(other), right, atol=1e-5)
    assert type(other.layers["counts"]) is type(before)
    assert abs(other.layers["counts"] - before).max() == 0


def test_copies_are_checked_as_new_cells_are_and_a_refusal_changes_nothing(known):
    model, adata, right = known
    before = model.get_latent(adata.copy())
    bad = adata.copy()
    bad.layers["counts"] = bad.layers["counts"] * 0.5
    for refused in (bad, adata[:0], adata[:, :0]):
        with pytest.raises(ValueError, match="counts|cells|genes"):
            model.get_latent(refused)
        with pytest.raises(ValueError, match="counts|cells|genes"):
            model.load_query_data(refused, model)
    with pytest.raises(TypeError, match="AnnData"):
        model.get_latent(adata.to_df())
    np.testing.assert_array_equal(model.get_latent(adata.copy()), before)
    np.testing.assert_array_equal(model.get_latent(), right)


def test_cells_without_columns_count_as_unknown(known):
    model, adata, _ = known
    without, new = adata.copy(), adata.copy()
    del without.obs["batch"], without.obs["kind"]
    new.obs["batch"], new.obs["kind"] = "three", None
    np.testing.assert_allclose(model.get_latent(without), model.get_latent(new), atol=1e-6)


def test_tests_of_genes_read_further_columns_of_a_copy(known):
    model, adata, _ = known
    other = adata.copy()
    other.obs["side"] = np.array(["a", "b"])[ODD]
    table = model.differential_expression(other, groupby="side", group1="a", silent=True)
    assert set(table.index) == set(adata.var_names)
    assert list(model.get_normalized_expression(other[:, ::-1]).columns) == list(adata.var_names)


def test_a_gene_that_is_there_twice_is_refused_only_if_the_model_reads_it(known):
    model, adata, right = known
    extra = AnnData(np.ones((150, 2), np.float32), obs=adata.obs, var=pd.DataFrame(index=["more", "more"]))
    extra.layers["counts"] = extra.X
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Variable names are not unique")
        wide = ad.concat([adata, extra], axis=1, merge="first")
    np.testing.assert_allclose(model.get_latent(wide), right, atol=1e-5)
    wide.var_names = [*adata.var_names, "more", adata.var_names[0]]
    with pytest.raises(ValueError, match=f"'{adata.var_names[0]}'.*var_names_make_unique"):
        model.get_latent(wide)


def test_queries_are_not_kept(known):
    model, adata, _ = known
    before = len(type(model)._setup_adata_manager_store)
    for _ in range(3):
        model.get_latent(adata.copy())
    assert len(type(model)._setup_adata_manager_store) == before


def test_setting_up_a_copy_leaves_the_original_set_up():
    adata = cells()
    ht.HDTree.setup_anndata(adata)
    other = adata.copy()
    ht.HDTree.setup_anndata(other)
    assert ht.HDTree(adata).adata is adata
    assert ht.HDTree(other).adata is other


def test_cells_on_disk_are_placed(tmp_path):
    adata = cells()
    model = trained(adata)
    adata.write_h5ad(tmp_path / "cells.h5ad")
    disk = ad.read_h5ad(tmp_path / "cells.h5ad", backed="r")
    np.testing.assert_allclose(model.get_latent(disk), model.get_latent(), atol=1e-5)
    query = ht.HDTree.load_query_data(disk[:20], model)
    np.testing.assert_allclose(query.get_latent(), model.get_latent()[:20], atol=1e-5)


def test_a_layer_of_continuous_values_is_not_replaced_by_x():
    adata = cells()
    adata.layers["logs"] = np.log1p(adata.X.toarray())
    model = trained(adata, model_kwargs={"gene_likelihood": "normal"}, layer="logs")
    bare = cells()
    with pytest.raises(KeyError, match="'logs'"):
        model.get_latent(bare)
    bare.layers["logs"] = np.log1p(bare.X.toarray())
    np.testing.assert_allclose(model.get_latent(bare[:, ::-1]), model.get_latent(), atol=1e-5)


@pytest.mark.parametrize("as_table", [False, True])
def test_features_in_obsm_are_matched_by_name(as_table, tmp_path):
    adata = cells()
    values = np.log1p(adata.X.toarray())[:, :12]
    names = [f"f{i}" for i in range(12)]
    adata.obsm["x"] = pd.DataFrame(values, adata.obs_names, names) if as_table else values
    model = trained(adata, model_kwargs={"gene_likelihood": "normal"}, obsm_key="x")
    right = model.get_latent()
    model.save(tmp_path / "m")
    other = adata[:, :5].copy()
    if as_table:
        other.obsm["x"] = other.obsm["x"][names[::-1]]
    np.testing.assert_allclose(model.get_latent(other), right, atol=1e-5)
    np.testing.assert_allclose(ht.HDTree.load(tmp_path / "m", adata=other).get_latent(), right, atol=1e-5)
    adata._inplace_subset_var(adata.var_names[:20])
    np.testing.assert_array_equal(model.get_latent(), right)
    if as_table:
        adata.obsm["x"].iloc[:, 0] += 1
    else:
        adata.obsm["x"][:, 0] += 1
    with pytest.raises(ValueError, match=r"obsm\['x'\] was changed"):
        model.get_latent()


# -- categories ----------------------------------------------------------------------------------------------

KINDS = {
    "int": ODD.astype(int),
    "bool": ODD.astype(bool),
    "float": ODD.astype(float),
    "category": pd.Categorical(ODD),
    "Int64": pd.array(ODD, dtype="Int64"),
    "text": ODD.astype(str),
}
QUERIES = KINDS | {
    "float with gaps": np.where(ODD, 1.0, np.nan),
    "Int64 with gaps": pd.array(np.where(ODD, 1.0, np.nan), dtype="Int64"),
    "boolean with gaps": pd.array(np.where(ODD, True, None), dtype="boolean"),
    "text of floats": np.where(ODD, "1.0", "0.0"),
    "mixed": np.array([0, "1", None, 1, "0", True] * 25, dtype=object),
    "new": ODD + 7,
    "new text": np.where(ODD, "1", "q"),
}


def meaning(value: object) -> str:
    """Which category is meant."""
    return "gap" if pd.isna(value) else str(float(value)) if str(value) not in ("q",) else "q"


@pytest.mark.parametrize(
    ("kind", "role"),
    [*((kind, "batch_key") for kind in KINDS), ("bool", "categorical_covariate_keys"), ("Int64", "labels_key")],
)
def test_categories_are_matched_by_text(kind, role):
    column = ["own"] if role == "categorical_covariate_keys" else "own"
    model = trained(cells(own=KINDS[kind]), **{role: column})
    # what cells are encoded with does not hang on their labels
    right = {str(float(i)): model.get_latent(cells(own=np.full(150, i))) for i in (0, 1)}
    unknown = model.get_latent(cells())
    for name, values in QUERIES.items():
        if kind == "text" and ("bool" in name or name == "mixed"):
            continue  # True is no text of a number
        query = cells(own=values)
        before = query.obs.copy()
        wanted = np.stack([right.get(meaning(v), unknown)[i] for i, v in enumerate(query.obs["own"])])
        np.testing.assert_allclose(model.get_latent(query), wanted, atol=1e-5, err_msg=name)
        pd.testing.assert_frame_equal(query.obs, before)


def test_cells_that_a_model_made_are_placed_whatever_the_kind_of_the_labels():
    model = trained(cells(kind=np.arange(150) % 3), labels_key="kind")
    model.train_diffusion(max_epochs=1, **QUIET)
    made = model.generate(4, label="2", n_steps=2, seed=0)
    assert model.get_latent(made).shape == (4, 24)
    assert ht.HDTree.load_query_data(made, model).get_latent().shape == (4, 24)
    assert model.transmute(source="0", target="1", n_steps=2, seed=0).n_obs == 50


def test_a_time_may_be_a_label_and_a_batch_too():
    model = trained(cells(day=1.0 + ODD), batch_key="day", labels_key="day", time_key="day")
    right = model.get_latent()
    np.testing.assert_allclose(model.get_latent(cells(day=1 + ODD)), right, atol=1e-5)
    new = model.get_latent(cells(day=np.where(ODD, 2.0, 7.0)))
    np.testing.assert_allclose(new[ODD == 1], right[ODD == 1], atol=1e-5)
    np.testing.assert_allclose(new[ODD == 0], model.get_latent(cells())[ODD == 0], atol=1e-5)
