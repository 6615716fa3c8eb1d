"""The data sets: simulated cells obey the laws they were drawn from, the bundled cells are those of the source."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from sklearn.decomposition import PCA
from sklearn.neighbors import KNeighborsRegressor

from hdtree_sc.datasets import branching, celegans
from hdtree_sc.datasets._programmes import random_branches, random_programmes
from hdtree_sc.tree import Tree
from tests.helpers import DATA


@pytest.fixture(scope="module")
def easy() -> ad.AnnData:
    return branching(1500, 300, "easy", return_means=True, seed=1)


# ---------------------------------------------------------------------------------------------------------- simulated


@pytest.mark.parametrize(
    ("difficulty", "n_branches", "n_genes"), [("easy", 7, 1000), ("medium", 13, 1000), ("hard", 11, 500)]
)
def test_presets_have_the_trees_they_promise(difficulty, n_branches, n_genes):
    adata = branching(400, difficulty=difficulty)
    tree = Tree.from_newick(adata.uns["tree_newick"])
    assert adata.n_vars == n_genes
    assert len(tree) == n_branches
    assert len(tree.leaves) == (n_branches + 1) // 2


def test_counts_are_whole_numbers_in_csr(easy):
    assert sparse.issparse(easy.X)
    assert easy.X.format == "csr"
    assert easy.X.dtype == np.float32
    assert np.array_equal(easy.X.data, np.rint(easy.X.data))
    assert easy.X.data.min() > 0


def test_tree_fields_agree_with_each_other(easy):
    tree = Tree.from_newick(easy.uns["tree_newick"])
    assert tree.nodes == tuple(easy.obs["branch"].cat.categories) == tuple(easy.uns["branches"].index)
    assert tree.leaves == tuple(easy.obs["tip"].cat.categories)
    assert [tree.parent(child) for _, child in easy.uns["edges"]] == [parent for parent, _ in easy.uns["edges"]]
    branches = easy.uns["branches"]
    for parent, child in easy.uns["edges"]:
        assert branches.loc[child, "start"] == pytest.approx(branches.loc[parent, "end"])
    assert branches["end"].max() == pytest.approx(1.0)
    lengths = (branches["end"] - branches["start"]).to_numpy()
    np.testing.assert_allclose(tree.lengths[1:], lengths[1:], rtol=1e-5)


def test_cells_lie_on_their_branch(easy):
    branches = easy.uns["branches"].loc[easy.obs["branch"].astype(str)]
    pt = easy.obs["pt"].to_numpy()
    assert np.all((pt >= branches["start"].to_numpy()) & (pt <= branches["end"].to_numpy()))
    on_tip = branches["is_tip"].to_numpy()
    assert np.array_equal(easy.obs["tip"].notna().to_numpy(), on_tip)
    assert np.array_equal(easy.obs["tip"].astype(str)[on_tip], easy.obs["branch"].astype(str)[on_tip])


def test_expression_is_continuous_at_branch_points(easy):
    """A daughter starts where its mother ends, and ends elsewhere than its sister."""
    share = np.log(easy.layers["mean"] / easy.layers["mean"].sum(axis=1, keepdims=True))
    branch, pt = easy.obs["branch"].astype(str).to_numpy(), easy.obs["pt"].to_numpy()

    def cell(name: str, which: str) -> np.ndarray:
        cells = np.flatnonzero(branch == name)
        return share[cells[np.argmin(pt[cells]) if which == "first" else np.argmax(pt[cells])]]

    gaps, travels = [], []
    for parent, child in easy.uns["edges"]:
        gaps.append(np.linalg.norm(cell(child, "first") - cell(parent, "last")))
        travels.append(np.linalg.norm(cell(child, "last") - cell(child, "first")))
    assert np.median(gaps) < 0.2 * np.median(travels)


def test_programmes_are_continuous_and_sisters_part():
    rng = np.random.default_rng(0)
    branches = random_branches(5, rng)
    programmes = random_programmes(branches, 8, 0.7, rng)
    child = np.arange(1, len(branches.names))
    ends = programmes.at(branches.parents[child], np.ones(len(child)))
    np.testing.assert_allclose(programmes.at(child, np.zeros(len(child))), ends, rtol=1e-12)
    assert np.all(np.linalg.norm(programmes.at(child, np.ones(len(child))) - ends, axis=1) > 0.5)


def test_divergence_is_the_change_along_a_branch():
    """Over many programmes the change along branches of length 1 has standard deviation 1."""
    rng = np.random.default_rng(0)
    branches = random_branches(40, rng)
    programmes = random_programmes(branches, 50, 0.7, rng)
    every = np.arange(len(branches.names))
    change = programmes.at(every, np.ones(len(every))) - programmes.at(every, np.zeros(len(every)))
    assert change.std() == pytest.approx(1.0, abs=0.1)


@pytest.mark.parametrize(("alpha", "beta"), [(0.0, 0.0), (1.0, 0.0), (0.5, 0.4)])
def test_noise_has_the_variance_that_was_asked_for(alpha, beta):
    """Of all residuals squared, the mean is that of mu + alpha mu + beta mu^2, gene by gene."""
    adata = branching(3000, 200, "easy", alpha=alpha, beta=beta, library_size=2000, return_means=True, seed=3)
    mu = adata.layers["mean"].astype(float)
    expected = (mu * (1 + adata.var["alpha"].to_numpy()) + mu**2 * adata.var["beta"].to_numpy()).mean(axis=0)
    counts = adata.X.toarray()
    observed = ((counts - mu) ** 2).mean(axis=0)
    seen = mu.mean(axis=0) > 0.5
    assert np.median(observed[seen] / expected[seen]) == pytest.approx(1.0, abs=0.05)
    np.testing.assert_allclose(counts.mean(), mu.mean(), rtol=0.02)
    if alpha + beta > 0:
        assert np.median(observed[seen] / mu.mean(axis=0)[seen]) > 1.4  # more than Poisson


def test_library_sizes_are_log_normal_around_the_median():
    adata = branching(2000, 200, library_size=3000, library_sd=0.5, alpha=0, beta=0)
    log = np.log(np.asarray(adata.X.sum(axis=1)).ravel())
    assert np.median(log) == pytest.approx(np.log(3000), abs=0.05)
    assert log.std() == pytest.approx(0.5, abs=0.04)


def test_seed_reproduces_and_the_global_random_state_is_left_alone():
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    first, again, other = branching(200, 50, seed=7), branching(200, 50, seed=7), branching(200, 50, seed=8)
    np.testing.assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002
    assert (first.X != again.X).nnz == 0
    pd.testing.assert_frame_equal(first.obs, again.obs)
    assert (first.X != other.X).nnz > 0
    generator = np.random.default_rng(7)
    assert (branching(200, 50, seed=generator).X != first.X).nnz == 0
    assert (branching(200, 50, seed=generator).X != first.X).nnz > 0  # a generator moves on


def test_batches_shift_some_genes_and_leave_the_biology():
    one, two = (branching(1500, 200, "easy", n_batches=n, batch_strength=0.6, seed=2) for n in (1, 2))
    assert one.uns["tree_newick"] == two.uns["tree_newick"]
    np.testing.assert_array_equal(one.obs["pt"], two.obs["pt"])
    assert list(two.obs["batch"].cat.categories) == ["batch_0", "batch_1"]

    def ratio(adata: ad.AnnData, group: np.ndarray) -> np.ndarray:
        share = adata.X.multiply(1 / adata.X.sum(axis=1)).tocsr()
        return np.log(np.ravel(share[group].mean(axis=0)) / np.ravel(share[~group].mean(axis=0)))

    group = (two.obs["batch"] == "batch_0").to_numpy()
    seen = np.ravel(one.X.mean(axis=0)) > 2
    shifted, null = ratio(two, group)[seen], ratio(one, group)[seen]
    assert shifted.std() > 3 * null.std()
    assert np.mean(np.abs(shifted - np.median(shifted)) < 3 * null.std()) > 0.3  # untouched genes
    flat = branching(1500, 200, "easy", n_batches=2, batch_strength=0.0, seed=2)
    assert (flat.X != one.X).nnz == 0


def test_collection_time_follows_pseudotime_with_jitter(easy):
    time, pt = easy.obs["time"], easy.obs["pt"]
    assert time.dtype == float
    assert set(time) <= {0.0, 1.0, 2.0, 3.0, 4.0}
    assert np.corrcoef(time, pt)[0, 1] > 0.9
    exact = branching(500, 20, time_jitter=0.0, n_time_points=4)
    np.testing.assert_array_equal(exact.obs["time"], np.minimum(np.floor(exact.obs["pt"] * 4), 3))
    assert not np.array_equal(time, np.minimum(np.floor(pt * 5), 4))


def test_density_tips_puts_more_cells_on_tips():
    uniform, tips = (branching(2000, 20, density=d).obs["tip"].notna().mean() for d in ("uniform", "tips"))
    assert tips > uniform + 0.1


def test_presets_are_ordered_by_difficulty():
    """How well a cell's neighbours tell how far it has gone along its branch (R2 on held-out cells)."""

    def progress(difficulty: str, seed: int) -> float:
        adata = branching(800, difficulty=difficulty, seed=seed)
        counts = adata.X.toarray()
        pcs = PCA(20, random_state=0).fit_transform(np.log1p(counts / counts.sum(axis=1, keepdims=True) * 1e4))
        ends = adata.uns["branches"].loc[adata.obs["branch"].astype(str), ["start", "end"]].to_numpy()
        gone = (adata.obs["pt"].to_numpy() - ends[:, 0]) / (ends[:, 1] - ends[:, 0])
        known, held_out = slice(0, 400), slice(400, 800)
        return KNeighborsRegressor(10).fit(pcs[known], gone[known]).score(pcs[held_out], gone[held_out])

    easy, medium, hard = (np.mean([progress(d, seed) for seed in range(4)]) for d in ("easy", "medium", "hard"))
    assert easy > medium > hard > 0


def test_a_tree_of_the_users_own_is_kept():
    text = "((HSC_a:2,HSC_b:1)MPP:1,(CLP:1,GMP:1,MEP:3)CMP:1)HSC;"
    for tree in (text, Tree.from_newick(text)):
        adata = branching(300, 30, tree=tree)
        assert set(adata.obs["branch"].cat.categories) == {"HSC", "MPP", "HSC_a", "HSC_b", "CMP", "CLP", "GMP", "MEP"}
        branches = adata.uns["branches"]
        lengths = branches["end"] - branches["start"]
        assert lengths["MEP"] == pytest.approx(3 * lengths["CLP"])
        assert branches.loc["MEP", "parent"] == "CMP"
    topology = branching(300, 30, tree="((a,b)c,d)e;").uns["branches"]
    assert np.allclose(topology["end"] - topology["start"], 1 / 3)  # no lengths: all alike


def test_a_single_tip_is_a_line():
    adata = branching(100, 20, n_tips=1)
    assert list(adata.obs["branch"].cat.categories) == ["root"]
    assert adata.uns["edges"].shape == (0, 2)


def test_simulated_data_survive_h5ad(easy, tmp_path):
    easy.write_h5ad(tmp_path / "simulated.h5ad")
    back = ad.read_h5ad(tmp_path / "simulated.h5ad")
    assert (back.X != easy.X).nnz == 0
    pd.testing.assert_frame_equal(back.obs, easy.obs)
    pd.testing.assert_frame_equal(back.uns["branches"], easy.uns["branches"], check_dtype=False)
    assert back.uns["tree_newick"] == easy.uns["tree_newick"]
    np.testing.assert_array_equal(back.uns["edges"], easy.uns["edges"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"difficulty": "brutal"}, "easy"),
        ({"n_cells": 0}, "n_cells=0"),
        ({"n_genes": 0}, "n_genes=0"),
        ({"n_tips": 0}, "n_tips=0"),
        ({"n_batches": 0}, "n_batches=0"),
        ({"batch_strength": -1.0}, "batch_strength"),
        ({"alpha": np.nan}, "alpha"),
        ({"persistence": 1.0}, "persistence"),
        ({"library_size": 0}, "library_size"),
        ({"density": "dense"}, "'tips'"),
        ({"tree": "(a,b)c;", "n_tips": 3}, "leave n_tips out"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        branching(**arguments)


# --------------------------------------------------------------------------------------------------------- C. elegans


def test_celegans_is_complete_and_whole_numbered():
    adata = celegans()
    assert adata.shape == (1444, 10000)
    assert adata.X.format == "csr"
    assert adata.X.dtype == np.float32
    assert np.array_equal(adata.X.data, np.rint(adata.X.data))
    assert adata.X.data.min() >= 1
    assert adata.obs_names.is_unique
    assert adata.var_names.is_unique
    assert {"time", "embryo_time_bin", "lineage", "cell_type", "batch", "time_point", "total_counts"} <= set(adata.obs)
    assert adata.obs["time"].notna().all()
    assert adata.obs["time"].dtype.kind == "f"
    assert adata.obs["lineage"].isna().sum() == 84
    assert adata.obs["batch"].nunique() == 7
    assert json.loads(adata.uns["cell_type_parent"])["ADL"] == "ADL_parent"
    assert sorted(adata.var["highly_variable_rank"]) == list(range(10000))


def test_celegans_colours_tell_nine_types_apart():
    adata = celegans()
    colors = list(adata.uns["cell_type_colors"])
    assert len(colors) == len(adata.obs["cell_type"].cat.categories) == 9
    rgb = np.array([[int(c[i : i + 2], 16) for i in (1, 3, 5)] for c in colors])
    distances = np.linalg.norm(rgb[:, None] - rgb[None], axis=2)[np.triu_indices(9, 1)]
    assert distances.min() > 60


def test_celegans_gives_a_fresh_copy_each_time():
    first = celegans()
    first.X.data[:] = 0
    first.obs["cell_type"] = "gone"
    assert celegans().X.data.min() > 0
    assert celegans().obs["cell_type"].nunique() == 9


def test_celegans_survives_h5ad_with_its_missing_lineages(tmp_path):
    adata = celegans()[:, :20].copy()
    adata.write_h5ad(tmp_path / "worm.h5ad")
    pd.testing.assert_frame_equal(ad.read_h5ad(tmp_path / "worm.h5ad").obs, adata.obs)


def test_celegans_fits_the_package():
    import hdtree_sc.datasets

    assert (Path(hdtree_sc.datasets.__file__).parent / "celegans.h5ad").stat().st_size <= 2_000_000


def test_celegans_equals_its_source():
    path = DATA / "celegans_amphid_embryo.h5ad"
    if not path.exists():
        pytest.skip(f"{path} is not here; HDTREE_DATA names its folder")
    source, adata = ad.read_h5ad(path), celegans()
    shared = source[:, adata.var_names]
    assert list(shared.obs_names) == list(adata.obs_names)
    assert (shared.X.astype("float32") != adata.X).nnz == 0
    for column in ("time", "embryo_time_bin", "lineage", "cell_type", "batch", "time_point"):
        ours, theirs = (
            frame[column].astype(object).where(frame[column].notna(), None) for frame in (adata.obs, source.obs)
        )
        assert ours.tolist() == theirs.tolist()
    np.testing.assert_array_equal(adata.obs["total_counts"], np.ravel(source.X.sum(axis=1, dtype="int64")))
    assert adata.uns["cell_type_parent"] == source.uns["cell_type_parent"]


def test_importing_datasets_is_light():
    heavy = "{'torch', 'scanpy', 'scvi', 'lightning'}"
    code = f"import sys, hdtree_sc.datasets; print(sorted({heavy} & set(sys.modules)))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert loaded.strip() == "[]"
