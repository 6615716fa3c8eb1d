"""Distances along trajectories and the likeness of their networks, against what paper and pencil say."""

from __future__ import annotations

import sys
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy.stats import spearmanr

import hdtree_sc as ht

sys.path.append(str(Path(__file__).parents[1]))  # the benchmarks are not installed with the package
measures = pytest.importorskip("benchmarks._topology_measures", reason="the benchmarks are in the repository only")


def fork(**given):
    """A stem of length 1 with branches of lengths 1 and 2, and one cell in the middle of each."""
    values = {
        "parent": np.array([-1, 0, 0]),
        "end": np.array([1.0, 2.0, 3.0]),
        "branch": np.arange(3),
        "time": np.array([0.5, 1.5, 2.0]),
    }
    return measures.Trajectory(**(values | given))


def test_the_way_goes_over_the_last_common_point():
    found = fork().distances(np.arange(3))
    np.testing.assert_allclose(found, [[0, 1, 1.5], [1, 0, 1.5], [1.5, 1.5, 0]])
    # two cells on one branch, and one before its branch, which stands where the branch begins
    late = fork(branch=np.array([2, 2, 2]), time=np.array([2.5, 1.5, 0.2]))
    np.testing.assert_allclose(late.distances(np.array([0])), [[0, 1, 1.5]])
    # branches that begin at the root have nothing in common
    apart = fork(parent=np.array([-1, -1, -1]), time=np.array([0.5, 1.5, 2.0]))
    np.testing.assert_allclose(apart.distances(np.array([0])), [[0, 2, 2.5]])


def test_distances_correlate_by_rank():
    truth, line = fork(), fork(parent=np.array([-1, 0, 1]))
    assert measures.geodesic_correlation(truth, truth) == pytest.approx(1)
    # true: 0 1 1.5 | 1 0 1.5 | 1.5 1.5 0; on the line: 0 1 1.5 | 1 0 .5 | 1.5 .5 0
    by_hand = spearmanr([0, 1, 1.5, 1, 0, 1.5, 1.5, 1.5, 0], [0, 1, 1.5, 1, 0, 0.5, 1.5, 0.5, 0]).statistic
    assert measures.geodesic_correlation(truth, line) == pytest.approx(by_hand)


def test_networks_are_merged():
    assert fork().network() == [(1, [(1, []), (2, [])])]
    assert fork(parent=np.array([-1, 0, 1])).network() == [(1.5, [(1.5, [])])], "a line, cut in two"
    # a branch without length is no edge: what begins at its end begins at the root
    assert fork(end=np.array([0.0, 2.0, 3.0])).network() == [(2, []), (3, [])]
    # a node with one way out is none
    chain = fork(parent=np.array([-1, 0, 1, 1]), end=np.array([1.0, 2.0, 3.0, 4.0])).network()
    assert chain == [(2, [(1, []), (2, [])])]


def test_him_of_a_fork_and_a_line():
    even = fork(end=np.array([1.0, 2.0, 2.0])).network()
    line = fork(parent=np.array([-1, 0, 1])).network()
    assert measures.him_similarity(even, even) == pytest.approx(1)
    assert measures.him_similarity(even, []) == 0
    # the fork: three edges of 1/6, the line: two of 1/4; 1/3 is in both, of 1/2, so that of both directions
    # 2 (1/2 + 1/2 - 2/3) is not, among 4 * 3 entries
    hamming = (2 / 3) / 12
    # Laplacian of a star of three edges w: 0, w, w, 4w; of a path of two: 0, w, 3w; a node alone: 0
    lines = [np.sqrt([1 / 6, 1 / 6, 4 / 6]), np.sqrt([0, 1 / 4, 3 / 4])]
    at = np.linspace(0, 400, 4_000_001)
    curves = [sum(0.1 / ((at - x) ** 2 + 0.01) for x in line) for line in lines]
    curves = [curve / np.trapezoid(curve, at) for curve in curves]
    spectral = np.sqrt(np.trapezoid((curves[0] - curves[1]) ** 2, at))
    expected = 1 - np.sqrt((hamming**2 + spectral**2) / 2)
    assert measures.him_similarity(even, line) == pytest.approx(expected, abs=2e-3)
    assert measures.him_similarity(line, even) == pytest.approx(expected, abs=2e-3)


def test_him_does_not_hang_on_the_order_of_branches_or_the_unit_of_time():
    other = fork(end=np.array([10.0, 30.0, 20.0])).network()
    assert measures.him_similarity(fork().network(), other) == pytest.approx(1)
    assert measures.him_similarity(fork().network(), fork(end=np.array([1.0, 2.0, 9.0])).network()) < 0.99


def test_the_truth_of_simulated_cells():
    adata = ht.datasets.branching(300, n_tips=3, seed=0)
    found = measures.true_trajectory(adata)
    assert (found.parent < 0).sum() == 1
    assert (found.begin <= found.end).all()
    tips = np.setdiff1d(np.arange(len(found.parent)), found.parent)
    assert len(tips) == 3
    assert len(found.network()) == 1, "one stem"
    # milestones in place of branches
    cells = ad.AnnData(np.zeros((4, 1), dtype=np.float32))
    cells.obs["branch"], cells.obs["pt"] = ["m1->m3", "m3->m0", "m3->m0", "m3->m2"], [1.0, 1.5, 2.0, 3.0]
    cells.uns["edges"] = np.array([["m1", "m3"], ["m3", "m0"], ["m3", "m2"]])
    found = measures.true_trajectory(cells)
    assert found.parent.tolist() == [-1, 0, 0]
    np.testing.assert_allclose(found.distances(np.array([2])), [[1, 0.5, 0, 3]])


def test_the_lineage_tree_is_a_trajectory(annotated):
    from benchmarks.lineage_tree import trajectory

    first = annotated.obs["time"].astype(float).idxmin()
    ht.tl.lineage_tree(annotated, first)
    found = trajectory(annotated)
    stones = annotated.uns["hdtree"]["lineage"]["milestones"]
    assert (found.begin <= found.end).all()
    assert len(np.setdiff1d(np.arange(len(found.parent)), found.parent)) == stones["is_terminal"].sum()
    names = list(dict.fromkeys(stones["branch"]))
    assert [names[i] for i in found.branch] == annotated.obs["hdtree_branch"].astype(str).tolist()
    far = found.distances(np.array([annotated.obs_names.get_loc(first)]))[0]
    assert np.corrcoef(far, annotated.obs["hdtree_pseudotime"])[0, 1] > 0.9, "from the root it is pseudotime"


def test_pagas_tree_is_measured(tmp_path):
    pytest.importorskip("igraph", reason="needs the extra bench")
    from benchmarks import topology

    adata = topology.truth("branching_4", tmp_path, 0)
    points = topology.points_of(adata)
    found = topology.paga(adata, points, topology.first_cell(adata, points), 0)
    np.testing.assert_array_equal(found["trajectory"].time, found["order"])
    measured = topology.measured(adata, found)
    assert measured["cor_dist"] > 0.6
    assert 0.5 < measured["HIM"] <= 1
    rows = pd.DataFrame([{"set": "branching_4", "seed": seed, "method": "PAGA tree", **measured} for seed in (0, 1)])
    topology.report(rows, tmp_path, stem="small", head="# Small", worst=("HIM",))
    text = (tmp_path / "small.md").read_text()
    assert "cor_dist | HIM" in text
    assert f"{measured['HIM']:.3f} ± 0.000 ({measured['HIM']:.3f})" in text
