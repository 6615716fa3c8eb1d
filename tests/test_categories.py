"""Categories of cells: those with cells, of any type, known by their text."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import hdtree_sc as ht
from hdtree_sc.data._category_names import numbered, positions_of, renumbered, text_of, typed

CODES = np.arange(60) % 3
TEXT = np.array(["b", "a", "c"])[CODES]


@pytest.mark.parametrize(
    ("value", "text"), [(2, "2"), (2.0, "2"), (np.float32(2), "2"), (0.5, "0.5"), (True, "True"), ("2.0", "2.0")]
)
def test_names_are_text_and_whole_numbers_have_no_point(value, text):
    assert text_of(value) == text


def test_a_category_is_found_by_its_text_then_by_its_number():
    assert positions_of([2, 2.0, "2", "2.0", np.int8(2), "3", True], [1, 2]).tolist() == [1, 1, 1, 1, 1, -1, 0]
    assert positions_of(["True", True, 1], [False, True]).tolist() == [1, 1, 1]
    # two texts that are one number are two categories
    assert positions_of(["1", "1.0", 1], ["1.0", "1"]).tolist() == [1, 0, 1]


COLUMNS = {
    "int": (pd.Series(CODES), [0, 1, 2], "integer"),
    "float": (pd.Series(CODES / 2), [0.0, 0.5, 1.0], "floating"),
    "bool": (pd.Series(CODES == 0), [False, True], "boolean"),
    "text": (pd.Series(TEXT), ["a", "b", "c"], "string"),
    "order": (pd.Series(pd.Categorical(TEXT, ["c", "none", "b", "a"])), ["c", "b", "a"], "string"),
    "int, gaps": (pd.Series(np.where(CODES == 2, np.nan, CODES)), ["0", "1", "unknown"], "floating"),
    "Int64, gaps": (pd.Series(CODES, dtype="Int64").where(CODES < 2), ["0", "1", "unknown"], "integer"),
    "bool, gaps": (pd.Series(CODES == 0, dtype="boolean").where(CODES < 2), ["False", "True", "unknown"], "boolean"),
    "mixed": (pd.Series(np.array([1, "a", "1"], dtype=object)[CODES]), ["1", "a"], None),
    "intervals": (pd.Series(pd.cut(CODES, [-1, 0.5, 3, 9])), ["(-1.0, 0.5]", "(0.5, 3.0]"], None),
}  # fmt: skip


@pytest.mark.parametrize("name", COLUMNS)
def test_categories_with_cells_are_numbered_and_keep_their_type(name):
    column, wanted, kind = COLUMNS[name]
    codes, categories, found = numbered(column)
    assert categories.tolist() == wanted
    assert kind in (None, found)
    named = pd.Series([text_of(value) for value in column])
    assert [text_of(categories[code]) for code in codes] == named.where(column.notna(), "unknown").tolist()
    known = [name for name in map(text_of, categories) if name != "unknown"]
    values = typed(known, found)
    assert [text_of(value) for value in values] == known
    assert kind not in ("integer", "floating", "boolean") or values.dtype.kind == kind[0]


@pytest.mark.parametrize(
    "column",
    [[2, 0], [2.0, 0.0], ["2", "0"], ["2.0", "0.0"], pd.Categorical([2, 0], [5, 0, 2])],
    ids=["int", "float", "text", "text of float", "category"],
)
@pytest.mark.parametrize("known", [[0, 1, 2], ["0", "1", "2"], ["0.0", "1.0", "2.0"]], ids=["int", "text", "older"])
def test_a_column_is_numbered_as_another_was(column, known):
    codes, categories = renumbered(pd.Series(column), known, extend=False, name="column")
    assert codes.tolist() == [2, 0]
    assert categories.tolist() == known


def test_further_categories_are_appended_or_refused_and_missing_ones_are_unknown():
    column = pd.Series([0.0, np.nan, 7.0])
    codes, categories = renumbered(column, [0, 1], extend=True, name="column")
    assert codes.tolist() == [0, 3, 2]
    assert categories.tolist() == [0, 1, "7", "unknown"]
    with pytest.raises(ValueError, match="column holds '7'.*'0', '1'"):
        renumbered(column, [0, 1], extend=False, name="column")
    assert renumbered(column[:2], [0, 1], extend=False, name="column")[0].tolist() == [0, 2]


def test_categories_without_cells_count_nowhere_and_the_users_columns_stay():
    adata = ht.datasets.branching(60, 20, "easy")
    for key in ("kind", "batch", "plate"):
        adata.obs[key] = pd.Categorical(CODES, [9, 0, 1, 2])
    before = adata.obs.copy()
    setup = {"labels_key": "kind", "batch_key": "batch", "categorical_covariate_keys": ["plate"]}
    ht.BranchedDiffusion.setup_anndata(adata, **setup)
    pd.testing.assert_frame_equal(adata.obs[before.columns], before)
    model = ht.BranchedDiffusion(adata)
    assert model._setup.labels == ["0", "1", "2"]
    assert (model.summary_stats.n_batch, model.summary_stats.n_labels) == (3, 3)
    assert model.module.covariates.n_cats_per_cov == (3,)
    for key in ("batch", "labels"):
        np.testing.assert_array_equal(model.adata_manager.get_from_registry(key).ravel(), CODES)


def test_a_class_that_the_split_leaves_without_training_cells_is_refused_before_training(cells):
    # scvi-tools validates on the first cells unless it shuffles
    cells.obs["kind"] = np.r_[["rare"] * 2, ["other"] * 2, ["common"] * (cells.n_obs - 4)]
    ht.BranchedDiffusion.setup_anndata(cells, labels_key="kind")
    model = ht.BranchedDiffusion(cells)
    with pytest.raises(ValueError, match="labels_key: .* had fewer than two training cells"):
        model.train(max_epochs=1, train_size=0.5, shuffle_set_split=False, enable_progress_bar=False)
    assert not bool(model.module.scaler.fitted)
