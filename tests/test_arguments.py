"""Rows and numbers as users write them: taken for what they mean, or refused by name."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from helpers import QUIET

import hdtree_sc as ht
from hdtree_sc._errors import whole_number
from hdtree_sc.data._arguments import finite_number, rows_of

NAMES = pd.Index([f"cell_{i}" for i in range(6)])
EVEN = np.arange(6) % 2 == 0


@pytest.mark.parametrize(
    ("given", "rows"),
    [
        (None, range(6)),
        (5, [5]),
        (np.int64(0), [0]),
        (-1, [5]),
        ([3, 1, 3], [3, 1, 3]),
        ((2, -2), [2, 4]),
        (range(2, 4), [2, 3]),
        (np.array([4, 0], dtype=np.uint8), [4, 0]),
        (pd.Series([1, 2], dtype="Int64"), [1, 2]),
        (slice(0, 4), [0, 1, 2, 3]),
        (slice(None, None, -2), [5, 3, 1]),
        ("cell_2", [2]),
        (["cell_5", "cell_0"], [5, 0]),
        (NAMES[[1, 4]], [1, 4]),
        (pd.Series(["cell_3"]).astype("category"), [3]),
        (EVEN, [0, 2, 4]),
        (EVEN.tolist(), [0, 2, 4]),
        (pd.Series(EVEN, dtype="boolean"), [0, 2, 4]),
        (pd.Series(EVEN, index=NAMES), [0, 2, 4]),
        (pd.Series(EVEN, index=NAMES)[::-1], [0, 2, 4]),
    ],
    ids=repr,
)
def test_rows_are_what_is_meant(given, rows):
    found = rows_of(given, NAMES)
    assert found.tolist() == list(rows)
    assert found.dtype == np.int64


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ([], "no cell"),
        (slice(3, 3), "no cell"),
        (np.zeros(6, bool), "no cell"),
        (np.ones(5, bool), "mask of 5 values for 6 cells"),
        (pd.Series([True, None, True, True, True, True], dtype="boolean"), "mask"),
        ([6], "'6'.*0 to 5"),
        ([-7], "'-7'"),
        (["cell_1", "cell_9"], "'cell_9'"),
        (["cell_1", 1], "positions, names"),
        ([True, 1], "positions, names"),
        ([1.0], "positions, names"),
        ([np.nan], "positions, names"),
        (1.5, "positions, names"),
        (True, "positions, names"),
        ({1, 2}, "positions, names"),
        (slice("cell_0", "cell_3"), "positions, names"),
        (np.zeros((2, 2), int), "positions, names"),
        (np.where(EVEN), "positions, names"),
        (pd.Series([1, None], dtype="Int64"), "positions, names"),
    ],
    ids=repr,
)
def test_what_names_no_rows_is_refused(given, words):
    with pytest.raises(ValueError, match=f"indices: .*{words}"):
        rows_of(given, NAMES)


def test_a_name_that_is_there_twice_is_no_row():
    with pytest.raises(ValueError, match="'b'"):
        rows_of(["b"], pd.Index(["a", "b", "b"]))


@pytest.mark.parametrize("value", [2, 2.0, np.int32(2), np.float32(2)])
def test_whole_numbers(value):
    number = whole_number("n_cells", value)
    assert number == 2
    assert type(number) is int


@pytest.mark.parametrize("value", [0, -1, 2.5, True, "3", None, [3], np.nan, np.inf])
def test_what_is_no_whole_number_is_refused_by_name(value):
    with pytest.raises(ValueError, match="n_cells: .*whole number"):
        whole_number("n_cells", value)


@pytest.mark.parametrize("value", [np.nan, np.inf, "1", True, [1.0]])
def test_what_is_no_finite_number_is_refused_by_name(value):
    assert finite_number("guidance", np.float32(-1)) == -1.0
    with pytest.raises(ValueError, match="guidance"):
        finite_number("guidance", value)


# -- on the models -------------------------------------------------------------------------------------------

MODELS = {"HDTree": ht.HDTree, "BranchedDiffusion": ht.BranchedDiffusion, "TreeVAE": ht.TreeVAE}
FEW = {"n_steps": 2, "seed": 0}


@pytest.fixture(scope="module", params=MODELS)
def small(request):
    """A hardly trained model of each kind; treat as read-only.

    Labels are whole numbers of which one has no cells, batches are truth values, counts are in a layer, and ``obs``
    holds what an analysis of the cells left there.
    """
    import scvi

    from hdtree_sc.generate import _class_tree, _fit
    from hdtree_sc.growth import _map_fit

    model_class = MODELS[request.param]
    adata = ht.datasets.branching(150, 40, "easy")
    rows = np.arange(150)
    adata.obs = pd.DataFrame(
        {
            "kind": pd.Categorical(rows % 3, categories=[7, 0, 1, 2]),
            "late": rows % 2 == 0,
            "hour": rows / 10,
            "leiden": pd.Categorical((rows % 5).astype(str)),
            "hdtree_pseudotime": rows / 150,
        },
        index=adata.obs_names,
    )
    adata.layers["counts"] = adata.X.copy()
    adata.X = np.log1p(adata.X.toarray()).astype(np.float32)
    setup = {"layer": "counts", "labels_key": "kind", "batch_key": "late", "time_key": "hour"}
    scvi.settings.seed = 0
    with pytest.MonkeyPatch.context() as patch:
        for module, name, value in (
            (_fit, "STEPS", 3), (_fit, "VALIDATED", 64),
            (_class_tree, "N_BOOT", 2), (_map_fit, "STEPS", 5),
        ):  # fmt: skip
            patch.setattr(module, name, value)
        model_class.setup_anndata(adata, **setup)
        model = model_class(adata)
        if model_class is ht.BranchedDiffusion:
            model.train(max_epochs=1, diffusion_kwargs={"max_epochs": 1}, **QUIET)
        else:
            model.train(max_epochs=1, **QUIET)
            model.train_diffusion(max_epochs=1, **QUIET)
    return model, setup


GETTERS = {
    "get_latent": {},
    "get_latent_representation": {},
    "get_expression_pca": {},
    "get_tree_paths": {},
    "get_node_probabilities": {},
    "get_leaf_probabilities": {},
    "get_time": {},
    "get_normalized_expression": {},
    "get_likelihood_parameters": {},
    "get_elbo": {"return_mean": False},
    "get_marginal_ll": {"n_mc_samples": 2, "return_mean": False},
    "get_reconstruction_error": {"return_mean": False},
    "classify": {"n_noise": 2},
    "reconstruct": FEW,
    "place": {},
}


def plain(found) -> np.ndarray:
    """What a getter gave for each cell."""
    if isinstance(found, dict):
        found = found.get("reconstruction_loss", found.get("mean"))
    held = getattr(found, "latent", getattr(found, "obsm", {}).get("X_hdtree", found))
    if isinstance(held, pd.DataFrame):
        return np.asarray(held.astype(str)) if held.dtypes.iloc[0] == "category" else held.to_numpy()
    return held


@pytest.mark.parametrize("getter", GETTERS)
def test_every_getter_takes_rows_in_every_form_and_refuses_others_by_name(small, getter):
    model, _ = small
    if not hasattr(model, getter) or (getter == "get_time" and model.module.time_head is None):
        pytest.skip("of another model")

    def get(indices):
        return getattr(model, getter)(indices=indices, **GETTERS[getter])

    mask = np.zeros(150, bool)
    mask[[3, 8]] = True
    names = list(model.adata.obs_names[[3, 8]])
    forms = [get(form) for form in ([3, 8], names, mask, slice(3, 9, 5), [-147, -142])]
    for form in forms[1:]:
        if isinstance(form, pd.DataFrame):
            assert list(form.index) == names
            pd.testing.assert_frame_equal(form, forms[0])
        elif getter != "reconstruct":
            np.testing.assert_array_equal(plain(form), plain(forms[0]))
        else:
            assert form.shape == forms[0].shape
    assert getattr(plain(get(5)), "shape", (1,))[0] == 1
    for wrong in ([], [150], mask[1:], ["nobody"], 2.5):
        with pytest.raises(ValueError, match="indices"):
            get(wrong)


def test_rows_of_a_query_are_those_of_the_query(small):
    model, _ = small
    query = model.adata[::-1].copy()
    np.testing.assert_allclose(
        model.get_latent(query, indices=["cell_7", "cell_3"]), model.get_latent(indices=[7, 3]), atol=1e-5
    )
    assert list(model.reconstruct(query, indices=slice(0, 2), **FEW).obs_names) == list(query.obs_names[:2])
    with pytest.raises(ValueError, match="indices.*'150'"):
        model.transmute(query, target=1, indices=[150], **FEW)


def test_a_data_loader_and_rows_are_not_given_together(small):
    model, _ = small
    loader = model._make_data_loader(model.adata)
    with pytest.raises(ValueError, match="dataloader"):
        model.get_latent(indices=[1], dataloader=loader)


@pytest.mark.parametrize("value", [0, 2.5, True, "3", np.nan])
@pytest.mark.parametrize("argument", ["n_cells", "n_steps", "batch_size", "n_draws", "seed", "library", "guidance"])
def test_numbers_that_make_no_sense_are_refused_by_name(small, argument, value):
    model, _ = small
    makes_sense = {"seed": (0,), "guidance": (0, 2.5), "library": (2.5, "3", True)}
    if value in makes_sense.get(argument, ()):
        pytest.skip("it makes sense")
    verb, fine = (model.transmute, {"target": 1}) if argument == "n_draws" else (model.generate, {"n_cells": 3})
    with pytest.raises(ValueError, match=f"{argument}: "):
        verb(**(fine | {"n_steps": 2, argument: value}))


def test_a_whole_float_is_a_number_of_cells(small):
    model, _ = small
    assert model.generate(2.0, n_steps=2.0, seed=np.int64(0), batch_size=1.0).n_obs == 2
    assert model.hybrids(0, 1, np.float64(2), n_steps=2).n_obs == 6


# -- labels and batches that are no text ---------------------------------------------------------------------


@pytest.mark.parametrize("label", [1, 1.0, "1", "1.0", np.int8(1)])
def test_a_label_is_known_by_its_text(small, label):
    model, setup = small
    new = model.generate(4, label=label, batch="True", **FEW)
    assert new.obs["kind"].tolist() == [1] * 4
    assert new.obs["late"].tolist() == [True] * 4
    moved = model.transmute(source="0", target=label, **FEW)
    assert moved.n_obs == 50
    assert moved.obs["kind"].tolist() == [1] * 50
    assert set(moved.obs["target_label"]) == {"1"}
    assert set(moved.obs["source_label"]) == {"0"}
    assert pd.concat([model.adata.obs["kind"].astype(int), new.obs["kind"]]).dtype == np.int64
    assert new.obs["hour"].isna().all()
    type(model).setup_anndata(new.copy(), **setup)


@pytest.mark.parametrize("name", [7, "gone", "unknown"])
def test_a_label_without_cells_is_none(small, name):
    model, _ = small
    for call in (
        lambda: model.generate(3, label=name, **FEW),
        lambda: model.transmute(source=0, target=name, **FEW),
        lambda: model.hybrids(0, name, 3, n_steps=2),
    ):
        with pytest.raises(ValueError, match=f"{name}.*Labels: '0', '1', '2'"):
            call()
    with pytest.raises(ValueError, match="batch.*'False', 'True'"):
        model.generate(3, batch="maybe", **FEW)


def test_a_batch_is_known_by_its_text(small):
    model, _ = small
    as_batch = [model.get_normalized_expression(indices=[1], transform_batch=name) for name in (True, "True", ["True"])]
    for found in as_batch[1:]:
        pd.testing.assert_frame_equal(found, as_batch[0])
    with pytest.raises(ValueError, match="batch.*'maybe'.*'False', 'True'"):
        model.get_normalized_expression(transform_batch="maybe")


def test_generated_cells_are_placed_and_are_a_query(small):
    model, _ = small
    new = model.generate(5, label=2, **FEW)
    np.testing.assert_array_equal(type(model).load_query_data(new, model).get_latent(), model.get_latent(new))


# -- what generated cells hold -------------------------------------------------------------------------------


def test_cells_of_two_sets_have_different_names_and_equal_cells_the_same(small):
    model, _ = small
    sets = [model.generate(3, n_steps=2, seed=seed) for seed in (0, 1, None, None)]
    sets += [model.generate(3, label=label, **FEW) for label in (0, 1)]
    sets += [model.hybrids(0, 1, 1, n_steps=2, seed=seed) for seed in (0, 1)]
    names = np.concatenate([made.obs_names for made in sets])
    assert len(set(names)) == len(names)
    assert list(model.generate(3, n_steps=2, seed=0).obs_names) == list(sets[0].obs_names)


def test_counts_are_where_the_model_reads_them(small):
    model, _ = small
    new = model.generate(5, **FEW)
    counts = new.layers["counts"].toarray()
    np.testing.assert_array_equal(counts, new.X.toarray())
    before = model.get_latent(new)
    new.X = np.log1p(new.X)
    new.X.data *= 2
    np.testing.assert_array_equal(new.layers["counts"].toarray(), counts)
    np.testing.assert_array_equal(model.get_latent(new), before)


def test_transmuted_cells_keep_where_they_are_from_and_not_what_they_were(small):
    model, _ = small
    cells = model.adata
    moved = model.transmute(source=0, target=1, n_draws=2, **FEW)
    source = cells.obs.loc[moved.obs["source_cell"]]
    assert not {"leiden", "hdtree_pseudotime", "_scvi_labels"} & set(moved.obs)
    for column in ("late", "hour"):
        assert moved.obs[column].tolist() == source[column].tolist()
    for column in ("leiden", "hdtree_pseudotime", "kind"):
        assert moved.obs[f"source_{column}"].tolist() == source[column].tolist()
    for node in [name for name in model.get_tree().leaves if "." in name][:1]:
        away = model.transmute(target=node, indices=[1, 2], **FEW)
        # a leaf of BranchedDiffusion is a label
        assert ("kind" in away.obs) == (type(model) is ht.BranchedDiffusion)
        assert set(away.obs.get("kind", [0])) <= {0, 1, 2}
        assert away.obs["source_kind"].tolist() == [1, 2]
    again = model.transmute(moved[:5].copy(), target=2, **FEW)
    assert not [name for name in again.obs if name.startswith("source_source")]


def test_reconstructed_cells_keep_their_label_and_not_what_was_made_of_their_expression(small):
    model, _ = small
    again = model.reconstruct(indices=[4, 5], **FEW)
    assert again.obs["kind"].tolist() == [1, 2]
    assert not {"leiden", "hdtree_pseudotime"} & set(again.obs)
    assert again.obs["source_leiden"].tolist() == ["4", "0"]
