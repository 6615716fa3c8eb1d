"""Bad input: every message names what is wrong, and nothing is changed."""

import numpy as np
import pandas as pd
import pytest
import scvi
from helpers import QUIET

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
