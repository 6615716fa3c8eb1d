"""Bad input: every message names what is wrong, and nothing is changed."""

import numpy as np
import pandas as pd
import pytest
import scvi
from anndata import read_h5ad
from helpers import QUIET
from scipy import sparse

import hdtree_sc as ht


@pytest.fixture
def unchanged(cells):
    """The cells, with a check afterwards that a failed call left them alone."""
    before = cells.copy()
    yield cells
    pd.testing.assert_frame_equal(cells.obs, before.obs)
    assert set(cells.uns) == set(before.uns)


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"layer": "nope"}, KeyError, "layer.*'nope'"),
        ({"batch_key": "nope"}, KeyError, "batch_key.*'nope'.*cell_type"),
        ({"labels_key": "nope"}, KeyError, "labels_key.*'nope'"),
        ({"time_key": "nope"}, KeyError, "time_key.*'nope'"),
        ({"categorical_covariate_keys": ["batch", "nope"]}, KeyError, r"categorical_covariate_keys\[1\].*'nope'"),
        ({"continuous_covariate_keys": ["batch"]}, ValueError, r"continuous_covariate_keys\[0\].*numbers"),
        ({"time_key": "cell_type"}, ValueError, "time_key.*numbers"),
        ({"batch_key": "lineage"}, ValueError, "batch_key.*missing in"),
    ],
)
def test_keys_that_do_not_exist_or_hold_the_wrong_kind(unchanged, arguments, error, words):
    with pytest.raises(error, match=words):
        ht.HDTree.setup_anndata(unchanged, **arguments)


def test_not_an_anndata():
    with pytest.raises(TypeError, match=r"anndata\.AnnData"):
        ht.HDTree.setup_anndata(np.eye(3))


@pytest.mark.parametrize("n", [0, 1])
def test_no_cells_or_one_cell(cells, n):
    with pytest.raises(ValueError, match=f"{n} cells"):
        ht.HDTree.setup_anndata(cells[:n].copy())


@pytest.mark.parametrize("axis", ["obs_names", "var_names"])
def test_names_that_are_not_unique(cells, axis):
    names = getattr(cells, axis).to_numpy().copy()
    names[1] = names[0]
    setattr(cells, axis, names)
    with pytest.raises(ValueError, match=f"{axis}_make_unique"):
        ht.HDTree.setup_anndata(cells)


def test_a_label_with_one_cell(unchanged):
    other = unchanged.copy()
    other.obs["label"] = ["alone", *["many"] * (other.n_obs - 1)]
    with pytest.raises(ValueError, match="'alone'.*one cell"):
        ht.HDTree.setup_anndata(other, labels_key="label")


@pytest.mark.parametrize(
    ("value", "words"),
    [(np.nan, "NaN or infinite"), (np.inf, "NaN or infinite")],
)
def test_values_that_are_not_finite(cells, value, words):
    cells.X = cells.X.toarray()
    cells.X[3, 5] = value
    with pytest.raises(ValueError, match=words):
        ht.HDTree.setup_anndata(cells)


def spoiled(cells, change):
    cells.X = cells.X.toarray()
    change(cells.X)
    ht.HDTree.setup_anndata(cells)
    return cells


@pytest.mark.parametrize(
    ("change", "likelihood", "words"),
    [
        (lambda x: x.__setitem__((3, 5), -1), "nb", "negative.*normal"),
        (lambda x: x.__setitem__((3, 5), 0.5), "zinb", "integer counts.*layer"),
        (lambda x: x.__setitem__(3, 0), "nb", "1 cells.*filter_cells"),
        (lambda x: x.__setitem__((3, 5), 2), "bernoulli", "above 1"),
        (lambda x: None, "poisson", "poisson.*nb"),
    ],
)
def test_values_that_the_likelihood_cannot_give(cells, change, likelihood, words):
    spoiled(cells, change)
    with pytest.raises(ValueError, match=words):
        ht.HDTree(cells, gene_likelihood=likelihood)


def test_genes_without_counts_are_named_and_kept(cells):
    spoiled(cells, lambda x: x.__setitem__((slice(None), 7), 0))
    with pytest.warns(UserWarning, match=f"1 of {cells.n_vars} genes"):
        ht.HDTree(cells)


def test_text_is_no_expression(cells):
    cells.layers["text"] = np.full(cells.shape, "a", dtype=object)
    with pytest.raises(ValueError, match="numbers wanted"):
        ht.HDTree.setup_anndata(cells, layer="text")


def test_an_empty_matrix_points_to_the_layers(cells):
    cells.layers["counts"] = cells.X
    cells.X = None
    with pytest.raises(ValueError, match="layer="):
        ht.HDTree.setup_anndata(cells)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"n_latent": 0}, "n_latent"),
        ({"tree_depth": 40}, "tree_depth.*1 to 14"),
        ({"tree_builder": "oak"}, "oak.*links"),
    ],
)
def test_options_out_of_range(cells, arguments, words):
    ht.HDTree.setup_anndata(cells)
    with pytest.raises(ValueError, match=words):
        ht.HDTree(cells, **arguments)


def test_more_depth_than_cells(cells):
    few = cells[:8].copy()
    ht.HDTree.setup_anndata(few)
    with pytest.raises(ValueError, match="10 levels.*8 cells"):
        ht.HDTree(few)


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [{"batch_size": 5000}, {"batch_size": 1}])
def test_minibatches_larger_than_the_data(cells, arguments):
    ht.HDTree.setup_anndata(cells)
    with pytest.raises(ValueError, match="batch_size.*outside 2 to"):
        ht.HDTree(cells).train(**arguments, **QUIET)


def test_pairs_need_a_neighbour(cells):
    ht.HDTree.setup_anndata(cells)
    with pytest.raises(ValueError, match="n_neighbors: 0"):
        ht.HDTree(cells).train(n_neighbors=0, **QUIET)


def test_a_training_set_of_nothing(cells):
    ht.HDTree.setup_anndata(cells)
    with pytest.raises(ValueError, match="train_size"):
        ht.HDTree(cells).train(train_size=0.001, **QUIET)


def test_several_devices_need_a_seed(cells, monkeypatch):
    ht.HDTree.setup_anndata(cells)
    monkeypatch.setattr(scvi.settings, "_seed", None)
    with pytest.raises(ValueError, match=r"scvi\.settings\.seed"):
        ht.HDTree(cells).train(devices=2, strategy="ddp", **QUIET)


@pytest.mark.parametrize(
    "method",
    [
        "get_latent",
        "get_tree",
        "get_tree_paths",
        "get_node_probabilities",
        "get_map",
        "get_time",
        "get_expression_pca",
        "build_tree",
    ],
)
def test_asked_before_training(cells, method):
    ht.HDTree.setup_anndata(cells)
    with pytest.raises(RuntimeError, match=r"call HDTree\.train\(\) first"):
        getattr(ht.HDTree(cells), method)()


# -- numbers and categories of cells -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argument", "values"),
    [
        ("size_factor_key", (0.0, -1.0, np.nan, np.inf, 1e-60)),
        ("continuous_covariate_keys", (np.nan, np.inf, -np.inf, 1e30, 1e300)),
        ("time_key", (np.inf, -np.inf, 1e300)),
    ],
)
def test_numbers_that_make_no_sense_are_refused_at_set_up(unchanged, argument, values):
    before = unchanged.obs.copy()
    key = ["quantity"] if argument.startswith("cont") else "quantity"
    for value in values:
        for kind in ("float64", "Float64"):
            unchanged.obs["quantity"] = pd.array(np.r_[value, np.ones(unchanged.n_obs - 1)], dtype=kind)
            if np.isnan(value) and kind == "Float64":
                unchanged.obs.loc[unchanged.obs_names[0], "quantity"] = pd.NA
            with pytest.raises(ValueError, match="'quantity'.*in 1 cells"):
                ht.HDTree.setup_anndata(unchanged, **{argument: key})
    unchanged.obs = before


@pytest.mark.parametrize("kind", ["int64", "bool", "Int64", "Float64"])
def test_numbers_of_every_type_are_read(cells, kind):
    cells.obs["quantity"] = pd.array(np.arange(cells.n_obs) % 2 + (kind != "bool"), dtype=kind)
    if kind.endswith("t64") and kind[0].isupper():
        cells.obs.loc[cells.obs_names[3], "quantity"] = pd.NA
    ht.HDTree.setup_anndata(cells, time_key="quantity")
    model = ht.HDTree(cells)
    time = model.adata_manager.get_from_registry("time")
    np.testing.assert_array_equal(time.ravel(), cells.obs["quantity"].to_numpy(np.float32, na_value=np.nan))


def test_one_column_is_no_list_of_columns(unchanged):
    for argument in ("categorical_covariate_keys", "continuous_covariate_keys"):
        with pytest.raises(TypeError, match=rf"{argument}.*\['batch'\]"):
            ht.HDTree.setup_anndata(unchanged, **{argument: "batch"})


@pytest.mark.parametrize(("name", "words"), [("unknown", "without a label"), ("nan", "missing"), ("NA", "missing")])
def test_labels_that_may_stand_for_a_missing_one_are_named(cells, name, words):
    cells.obs["label"] = np.where(np.arange(cells.n_obs) % 2, name, "a")
    with pytest.warns(UserWarning, match=f"'{name}'.*{words}"):
        ht.HDTree.setup_anndata(cells, labels_key="label")
    labels = ht.HDTree(cells)._setup.labels
    assert labels == (["a"] if name == "unknown" else sorted([name, "a"]))


def test_an_empty_text_is_no_label(cells):
    cells.obs["label"] = np.where(np.arange(cells.n_obs) % 2, " ", "a")
    with pytest.raises(ValueError, match="labels_key.*empty text"):
        ht.HDTree.setup_anndata(cells, labels_key="label")


def test_values_that_name_no_category_are_refused(cells):
    cells.obs["label"] = [[0], *["a"] * (cells.n_obs - 1)]
    for argument in ("labels_key", "batch_key"):
        with pytest.raises(ValueError, match=f"{argument}.*'label'.*no category"):
            ht.HDTree.setup_anndata(cells, **{argument: "label"})


# -- values in other forms -----------------------------------------------------------------------------------


@pytest.mark.parametrize("likelihood", ["nb", "normal"])
def test_values_too_large_for_single_precision_are_refused(cells, likelihood):
    cells.X = cells.X.toarray().astype(np.float64)
    for value in (1e30, -1e30, 1e300):
        cells.X[3, 5] = value
        with pytest.raises(ValueError, match=r"up to 1e\+30*.*logarithms"):
            ht.HDTree.setup_anndata(cells)


@pytest.mark.parametrize("likelihood", ["nb", "zinb"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("place", ["X", "dense", "layer"])
def test_counts_with_rounding_errors_are_counts(cells, likelihood, dtype, place):
    right = cells.X.copy()
    near = right.astype(dtype)
    near.data = (near.data * dtype(1.1) / dtype(1.1)).astype(dtype) * dtype(1 + 1e-12)
    cells.X = near.toarray() - dtype(1e-12) if place == "dense" else near
    cells.layers["counts"] = near
    ht.HDTree.setup_anndata(cells, layer="counts" if place == "layer" else None)
    ht.HDTree(cells, gene_likelihood=likelihood)


def test_fractions_are_told_by_how_far_off_they_are(cells):
    for off, words in ((1e-4, "by up to 0.0001.*np.rint"), (0.4, "by up to 0.4.*layer")):
        cells.X = cells.X.tocsr(copy=True)
        cells.X.data = np.round(cells.X.data)
        cells.X.data[7] = 1 + off
        ht.HDTree.setup_anndata(cells)
        with pytest.raises(ValueError, match=words):
            ht.HDTree(cells)


@pytest.mark.slow
@pytest.mark.parametrize("as_sparse", [True, False])
def test_truth_values_are_0_and_1(worm, as_sparse):
    adata = worm[:100].copy()
    right = adata.copy()
    adata.X = adata.X.toarray() > 0
    right.X = adata.X.astype(np.float32)
    if as_sparse:
        adata.X = sparse.csr_matrix(adata.X)
    found = []
    for cells in (adata, right):
        scvi.settings.seed = 0
        ht.HDTree.setup_anndata(cells)
        model = ht.HDTree(cells, gene_likelihood="bernoulli", n_hidden=16)
        model.train(max_epochs=1, **QUIET)
        found.append(model.get_latent(cells.copy()))
    np.testing.assert_array_equal(*found)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["csr", "csc", "dense"])
def test_cells_on_disk_are_those_in_memory(tmp_path, kind):
    adata = ht.datasets.branching(90, 20, "easy")
    stored = adata.copy()
    stored.X = {"csr": adata.X, "csc": adata.X.tocsc(), "dense": adata.X.toarray()}[kind]
    stored[:, ::-1].copy().write_h5ad(tmp_path / "turned.h5ad")
    stored.write_h5ad(tmp_path / "cells.h5ad")
    found = []
    for cells in (adata, read_h5ad(tmp_path / "cells.h5ad", backed="r")):
        scvi.settings.seed = 0
        ht.HDTree.setup_anndata(cells)
        model = ht.HDTree(cells, n_hidden=16)
        model.train(max_epochs=1, **QUIET)
        found.append(model.get_latent())
    np.testing.assert_array_equal(*found)
    rows = [7, 1, 7]
    for query in (
        None,
        read_h5ad(tmp_path / "cells.h5ad", backed="r"),
        read_h5ad(tmp_path / "turned.h5ad", backed="r"),
    ):
        np.testing.assert_allclose(model.get_latent(query, indices=rows), found[0][rows], atol=1e-5)
    ht.tl.tree(cells, model)
    for gene in range(2):
        number = model.get_normalized_expression(indices=rows).iloc[:, gene]
        np.testing.assert_allclose(number, model.get_normalized_expression().iloc[rows, gene], rtol=1e-4)
    with pytest.raises(ValueError, match="to_memory"):
        model.differential_expression(idx1=[1, 2, 3])
