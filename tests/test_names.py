"""What a name means: a cell, a node, a group of cells, a path."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import hdtree_sc as ht
from hdtree_sc.get._groups import rows_of_group, text_groups
from hdtree_sc.get._path_cells import path_cells
from hdtree_sc.get._path_names import ends_of_name, joined_name, stored_name
from hdtree_sc.tl._terminal import as_names


def on_a_line(n=120):
    """Cells along a line on leaves a, b, c, d and e of a caterpillar, 24 each, in order."""
    rng = np.random.default_rng(0)
    x = np.sort(rng.random(n))
    adata = ad.AnnData(np.zeros((n, 1), np.float32))
    adata.obs_names = [f"cell{i}" for i in range(n)]
    adata.obsm["X_hdtree"] = np.column_stack([x, 0.01 * rng.normal(size=n)]).astype(np.float32)
    tree = ht.Tree.from_newick("(((a:1,b:1)ab:1,(c:1,d:1)cd:1)abcd:1,e:3)root;")
    adata.uns["hdtree"] = {"nodes": tree.to_frame(), "codebook": np.zeros((len(tree), 2), np.float32)}
    adata.obs["hdtree_leaf"] = pd.Categorical(np.repeat(list("abcde"), n // 5), categories=list(tree.leaves))
    ht.tl.lineage_graph(adata, n_neighbors=6)
    return adata


@pytest.fixture(scope="module")
def line():
    return on_a_line()


# -- cells and nodes -----------------------------------------------------------------------------------------


VERBS = {
    "pseudotime": lambda a, name: ht.tl.pseudotime(a, root=name),
    "source": lambda a, name: ht.tl.lineage_path(a, name, "e"),
    "target": lambda a, name: ht.tl.lineage_path(a, "e", name),
    "terminal": lambda a, name: ht.tl.fate_probabilities(a, [name], root="e"),
    "root": lambda a, name: ht.tl.fate_probabilities(a, ["e"], root=name),
}


@pytest.mark.parametrize("verb", VERBS)
def test_a_name_of_both_is_refused_and_a_prefix_says_which(line, verb):
    adata = line.copy()
    # the last cell of the line is called as the first leaf
    adata.obs_names = [*adata.obs_names[:-1], "a"]
    before = adata.obs.copy()
    with pytest.raises(ValueError, match="'a' is a cell and a node of the tree; give 'cell:a' or 'node:a'"):
        VERBS[verb](adata, "a")
    pd.testing.assert_frame_equal(adata.obs, before)
    VERBS[verb](adata, "node:a")


def test_what_a_prefix_says_is_taken(line):
    adata = line.copy()
    adata.obs_names = [*adata.obs_names[:-1], "a"]
    ht.tl.pseudotime(adata, root="cell:a")
    assert adata.uns["hdtree"]["pseudotime"]["root_node"] == "e"
    ht.tl.pseudotime(adata, root="node:a")
    assert adata.uns["hdtree"]["pseudotime"]["root_node"] == "a"
    assert list(ht.tl.lineage_path(adata, "cell:a", "c")["node"]) == ["e", "d", "c"]
    assert list(ht.tl.lineage_path(adata, "node:a", "c")["node"]) == ["a", "b", "c"]


def test_a_cell_whose_own_name_looks_like_a_prefix(line):
    adata = line.copy()
    adata.obs_names = [*adata.obs_names[:-1], "node:x"]
    ht.tl.pseudotime(adata, root="node:x")
    assert adata.uns["hdtree"]["pseudotime"]["root_cell"] == "node:x"


def test_cells_of_one_name_are_refused(line):
    adata = line.copy()
    adata.obs_names = [*adata.obs_names[:-1], "cell0"]
    with pytest.raises(ValueError, match="2 cells are called 'cell0'"):
        ht.tl.lineage_path(adata, "cell0", "e")


# -- groups --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "value", "rows"),
    [
        ([1, 2, 1], "1", [0, 2]),
        ([1, 2, 1], 1.0, [0, 2]),
        ([1.0, 2.0, np.nan], 1, [0]),
        ([1.0, 2.0, np.nan], "2", [1]),
        (["1.0", "2.0", None], 2, [1]),
        (pd.array([1, None, 2], dtype="Int64"), "2", [2]),
        (pd.array([True, None, False], dtype="boolean"), True, [0]),
        ([True, False, True], "False", [1]),
        (pd.Categorical([3, 4, 3]), "3", [0, 2]),
        (["nan", None, "a"], "nan", [0]),
        (["nan", None, "a"], np.nan, []),
        ([1.0, np.nan], "nan", []),
        (pd.Categorical(["a", None], categories=["a", "gone"]), "gone", []),
        (["0.1", "0.10"], "0.10", [1]),
        (["0.1", "b"], "0.10", []),
        (["1_0", "b"], 10, []),
        ([1, "1", "a"], "1", [0, 1]),
    ],
)
def test_a_group_is_matched_by_its_text_and_a_missing_value_is_none(values, value, rows):
    column = pd.Series(values)
    assert rows_of_group(column, value).tolist() == rows
    groups = text_groups(column)
    assert (groups.codes < 0).tolist() == column.isna().tolist()
    assert "gone" not in groups.categories


@pytest.mark.parametrize("missing", ["nan", np.nan, pd.NA])
def test_cells_without_a_group_are_no_group(line, missing):
    adata = line.copy()
    adata.obs["t"] = pd.Series(["x"] * 60 + [None] * 30 + ["y"] * 30, index=adata.obs_names, dtype=object)
    for call in (
        lambda: ht.tl.pseudotime(adata, root_key="t", root_value=missing),
        lambda: ht.tl.lineage_path(adata, missing, "y", groupby="t"),
        lambda: ht.tl.lineage_path(adata, "y", missing, groupby="t"),
        lambda: ht.tl.fate_probabilities(adata, [missing], groupby="t", root="x"),
        lambda: ht.tl.fate_probabilities(adata, ["y"], groupby="t", root=[missing]),
    ):
        with pytest.raises(ValueError, match="(nan|<NA>).*'x', 'y'; 30 cells have no value"):
            call()
    assert "hdtree_pseudotime" not in adata.obs


def test_a_group_that_is_called_nan_is_one(line):
    adata = line.copy()
    adata.obs["t"] = pd.Categorical(["nan"] * 24 + [None] * 48 + ["y"] * 48)
    ht.tl.pseudotime(adata, root_key="t", root_value="nan")
    assert adata.uns["hdtree"]["pseudotime"]["root_node"] == "a"
    table = ht.tl.lineage_path(adata, "nan", "y", groupby="t")
    assert list(table["composition"]) == ["nan", "", "", "y"]
    assert list(table["share"]) == [1, 0, 0, 1]


def test_numbers_as_groups_start_and_end_where_their_cells_are(line):
    adata = line.copy()
    adata.obs["k"] = np.repeat([0.0, 1.0, 2.0, np.nan, 4.0], 24)
    ht.tl.pseudotime(adata, root_key="k", root_value=0)
    assert list(ht.tl.lineage_path(adata, 0, "2", groupby="k")["node"]) == ["a", "b", "c"]
    ht.tl.fate_probabilities(adata, [2, 4], groupby="k")
    assert sorted(adata.obsm["hdtree_fates"].columns) == ["2", "4"]
    ht.tl.fate_probabilities(adata, {"end": 4}, groupby="k", root=0)
    assert list(adata.obsm["hdtree_fates"].columns) == ["end"]


# -- paths and ends ------------------------------------------------------------------------------------------


AWKWARD = st.text(alphabet="/|%->257C3EFa ", min_size=1, max_size=8)


@given(AWKWARD, AWKWARD)
@example(" ->", "2")
def test_names_of_paths_read_back_and_have_no_slash(source, target):
    name = joined_name((source, target))
    assert "/" not in name
    assert ends_of_name(name) == [source, target]
    assert stored_name(f"{source} -> {target}", {name: 0}) == name


def test_paths_of_version_0_1_are_read():
    assert stored_name("A/B -> C", {"A|B -> C": 0}) == "A|B -> C"
    assert stored_name("A|B -> C", {"A|B -> C": 0}) == "A|B -> C"
    # what is written today has another key, and is not taken for a path that was never asked for
    assert stored_name("A/B -> C", {joined_name(("A|B", "C")): 0}) is None
    assert stored_name("A", {"A -> B": 0}) is None


def test_groups_that_differ_by_a_slash_only_have_a_path_each_also_in_a_file(line, tmp_path):
    adata = line.copy()
    adata.obs["t"] = np.repeat(["A/B", "A|B", "A -> B", "-", "C"], 24)
    starts = {"A/B": "a", "A|B": "b", "A -> B": "c", "-": "d"}
    for start in starts:
        ht.tl.lineage_path(adata, start, "C", groupby="t")
    adata.write_h5ad(tmp_path / "cells.h5ad")
    back = ad.read_h5ad(tmp_path / "cells.h5ad")
    assert len(back.uns["hdtree"]["paths"]) == 4
    for start, leaf in starts.items():
        cells = path_cells(back, f"{start} -> C", key="hdtree")
        assert cells.ends == (start, "C")
        assert back.obs["hdtree_leaf"].astype(str).iloc[cells.rows].min() == leaf
        assert (
            ht.pl.lineage_path(back, path=f"{start} -> C", basis="X_hdtree", show=False).get_title() == f"{start} → C"
        )


def test_names_of_ends_are_unique_and_a_name_that_can_stay_stays():
    assert as_names(["A/B", "A|B", "A/B", "C"]) == ["A|B (2)", "A|B", "A|B (3)", "C"]
    assert as_names(["x", "x", 3]) == ["x", "x (2)", "3"]
