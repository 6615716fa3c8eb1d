"""The benchmarks' measures, plain peers and tables, on tiny real data; no model is trained here."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import hdtree_sc as ht

sys.path.append(str(Path(__file__).parents[1]))  # the benchmarks are not installed with the package
pytest.importorskip("benchmarks", reason="the benchmarks are in the repository only")

from benchmarks import _clusters, _data, _hdtree, _legacy, _measures, _orders, _report, _run, legacy, orders, trees
from benchmarks._cells import Cells, NotApplicable


@pytest.fixture(autouse=True)
def _talkative(monkeypatch):
    """Benchmarks silence loggers for good, which other tests listen to."""
    monkeypatch.setattr(_run, "quiet", lambda: None)


@pytest.fixture(scope="module")
def digits():
    """300 small images of the digits 0 to 4."""
    from sklearn.datasets import load_digits

    points, labels = load_digits(n_class=5, return_X_y=True)
    return points[:300].astype(np.float32), labels[:300].astype(str).astype(object)


@pytest.fixture
def folder(tmp_path, worm):
    """A folder with 240 C. elegans cells under the name of the benchmark's set."""
    small = worm[::3].copy()
    small.write_h5ad(tmp_path / "celegans_amphid_embryo.h5ad")
    return tmp_path


@pytest.fixture
def worms(folder) -> Cells:
    return Cells(folder, "celegans_amphid_embryo", 0, folder / "cache")


def arguments(folder, methods, **given):
    defaults = {
        "data": folder, "seeds": 2, "sets": ["celegans_amphid_embryo"], "methods": methods, "cache": folder / "cache",
        "retry": False, "report_only": False,
    }  # fmt: skip
    return argparse.Namespace(**(defaults | given))


def leiden(points, n_leaves, seed):
    pytest.importorskip("igraph", reason="needs the extra bench")
    return _clusters.leiden(points, n_leaves, seed)


@pytest.mark.parametrize("build", [trees._ward, pytest.param(leiden, marks=pytest.mark.slow)])
def test_plain_trees_have_the_leaves_asked_for(digits, build):
    points, labels = digits
    tree, leaf = build(points, 5, 0)
    assert len(tree.leaves) == 5
    assert set(leaf) == set(tree.leaves)
    scores = _measures.tree_measures(tree, leaf, labels)
    assert scores["leaves"] == 5
    assert scores["NMI"] > 0.8
    assert all(0 < scores[name] <= 1 for name in _measures.TREE_MEASURES)


def test_leiden_is_merged_down_where_no_resolution_gives_the_number(digits):
    points, _ = digits
    far = np.concatenate([points[:50], points[:50] + 1000, points[:50] + 2000])
    tree, leaf = leiden(far, 2, 0)  # three parts without any edge between them are never two clusters
    assert len(tree.leaves) == len(set(leaf)) == 2


def test_top_of_linkage_is_scipys_cut(digits):
    from scipy.cluster.hierarchy import fcluster, linkage
    from sklearn.metrics import adjusted_rand_score

    merges = linkage(digits[0], "ward")
    for n_leaves in (1, 2, 7):
        tree, leaf = _clusters.top_of_linkage(merges, n_leaves)
        assert len(tree.leaves) == n_leaves
        assert adjusted_rand_score(fcluster(merges, n_leaves, "maxclust"), leaf.astype(str)) == 1
    assert len(_clusters.top_of_linkage(merges, len(digits[0]))[0].leaves) == len(digits[0])


def test_orders_and_their_measures(worms):
    points = worms.space("PCA").points
    for order in (_orders.distance_to_root, _orders.first_component, _orders.dpt):
        found = order(points, worms)
        assert _measures.order_measures(found, worms.time, worms.labels)["rho"] > 0.5, order
    told = _measures.crossvalidated_time(points, worms.time, 0)
    assert _measures.order_measures(told, worms.time, worms.labels)["rho"] > 0.8


def test_cells_stand_on_the_edges_of_pagas_tree(worms):
    pytest.importorskip("igraph", reason="needs the extra bench")
    found = _orders.paga_path(worms.space("PCA").points, worms)
    assert np.isfinite(found).all()
    assert found.min() >= 0
    assert _measures.order_measures(found, worms.time, worms.labels)["rho"] > 0.5


def test_rho_of_a_perfect_order_and_of_cells_out_of_reach():
    time = np.arange(80.0)
    groups = np.repeat(["a", "b"], 40)
    assert _measures.order_measures(time**2, time, groups) == pytest.approx({"rho": 1, "rho within": 1})
    assert _measures.order_measures(np.where(time < 79, time, np.inf), time, groups)["rho"] > 0.99
    assert np.isnan(_measures.rho_within(time, np.repeat([0.0, 1.0], 40), groups))


def test_held_out_cells_do_not_shape_a_space(worms):
    everything, kept = worms.space("PCA"), worms.space("PCA", held_out=True)
    assert worms.kept.sum() == round(0.8 * worms.adata.n_obs)
    assert everything.points.shape == kept.points.shape
    assert not np.allclose(everything.points, kept.points)
    with pytest.raises(NotApplicable, match="not fitted on"):
        worms.space("UMAP", held_out=True)
    again = Cells(worms._folder, "celegans_amphid_embryo", 0, worms.cache)
    assert again.space("PCA").cost == everything.cost  # read, not computed again


def test_a_step_is_timed_and_weighed():
    with _measures.Step() as step:
        np.ones(20_000_000).sum()
    assert step.seconds > 0
    assert np.isnan(step.peak_mb) or step.peak_mb > 150
    total = _measures.total_cost(step.cost, step.cost)
    assert total["seconds"] == pytest.approx(2 * step.seconds)
    assert total["peak MB"] == pytest.approx(step.peak_mb, nan_ok=True)


def test_reading_scales_logs_and_chooses_genes(folder, worm, monkeypatch):
    monkeypatch.setattr(_data, "N_GENES", 100)
    adata = _data.read(folder, "celegans_amphid_embryo")
    assert adata.n_vars == 100
    assert adata.X.dtype == np.float32
    whole = worm[::3]
    column = list(whole.var_names).index(adata.var_names[0])
    expected = np.log1p(whole.X[:, column].toarray().ravel() / np.asarray(whole.X.sum(1)).ravel() * 1e4)
    np.testing.assert_allclose(adata.layers["expression"][:, 0].toarray().ravel(), expected, rtol=1e-4)


def fails(cells):
    msg = f"no {cells.data.name}\nfor us"
    raise RuntimeError(msg)


def needs_counts(cells):
    msg = "needs raw counts"
    raise NotApplicable(msg)


METHODS = {
    "ward": _run.Method("Ward", trees.of_space("PCA", trees._ward)),
    "broken": _run.Method("broken", fails),
    "counts": _run.Method("counts only", needs_counts),
    "chance": _run.Method("chance", trees.chance, "reference"),
    "paper": _run.Method("paper", lambda cells: {"DP": 0.99}, "published"),
}


def test_runs_go_on_where_they_stopped(folder, monkeypatch):
    rows = _run.run("trees", METHODS, arguments(folder, ["ward", "broken"]))
    assert [(row["method"], row["seed"]) for row in rows] == [("ward", 0), ("ward", 1), ("broken", 0), ("broken", 1)]
    assert rows[2]["not run"] == "RuntimeError: no celegans_amphid_embryo for us"
    assert (folder / "cache" / ".gitignore").read_text() == "*\n"
    monkeypatch.setattr(_run, "Cells", None)  # nothing is read again
    assert _run.run("trees", METHODS, arguments(folder, ["ward", "broken"])) == rows
    lines = (folder / "cache" / "trees.jsonl").read_text().splitlines()
    kept = sorted((json.loads(line) for line in lines), key=lambda row: (row["method"] != "ward", row["seed"]))
    assert kept == rows


def test_our_rows_are_measured_again_when_the_code_has_changed(tmp_path):
    cache = _run.Cache(tmp_path, "trees")
    row = {"data": "a", "method": "m", "seed": 0, "code": _hdtree.fingerprint()}
    cache.put(row)
    assert _run.Cache(tmp_path, "trees").get("a", "m", 0) == row
    cache.put(row | {"code": "of yesterday"})
    assert _run.Cache(tmp_path, "trees").get("a", "m", 0) is None


def test_tables_have_reasons_and_the_best_peer_in_bold(folder):
    rows = _run.run("trees", METHODS, arguments(folder, list(METHODS)))
    _report.write(
        "small", rows, METHODS, folder, head="# Small", tables={"all": ("## All", trees.MEASURES)},
        figure=("all", ("DP", "NMI")),
    )  # fmt: skip
    frame = pd.read_csv(folder / "small.csv")
    assert len(frame) == 9  # a published row has no seeds
    text = (folder / "small.md").read_text()
    lines = {line.split(" | ")[0].strip("| "): line for line in text.splitlines() if line.startswith("|")}
    assert lines["Ward"].count("**") == 2 * len(_measures.TREE_MEASURES)
    assert "±" in lines["Ward"]
    assert "**" not in lines["chance"] + lines["paper"]
    assert "not run: RuntimeError: no celegans" in lines["broken"]
    assert "not run: needs raw counts" in lines["counts only"]
    assert lines["paper"].endswith("| published |")
    assert "scanpy" in text
    assert len({line.count("|") for line in lines.values()}) == 1
    assert (folder / "small.png").stat().st_size > 10_000


def test_published_pruning_merges_the_smallest_siblings():
    names = ["root", "0", "1", "0.0", "0.1", "1.0", "1.1"]
    tree = ht.Tree(names, [-1, 0, 0, 1, 1, 2, 2])
    leaf = np.array(["0.0"] * 5 + ["0.1"] * 4 + ["1.0"] * 9 + ["1.1"] * 2, dtype=object)
    pruned, held = _legacy.prune(tree, leaf, 3)
    assert set(pruned.leaves) == {"0.0", "0.1", "1"}
    assert (held[9:] == "1").all()
    pruned, held = _legacy.prune(tree, leaf, 2)
    assert set(pruned.leaves) == {"0", "1"}
    assert pruned.levels.max() == 1


def test_published_purity_is_right_on_a_mirrored_tree_only():
    tree = ht.Tree(["root", "a", "b", "b1", "b2"], [-1, 0, 0, 2, 2])
    leaf = np.array(["a", "b1", "b2"] * 4, dtype=object)
    labels = np.array(["x", "y", "y"] * 4)
    assert ht.metrics.dendrogram_purity(tree, leaf, labels) == 1
    assert _legacy.mirrored_purity(tree, leaf, labels) < 1
    mirror = ht.Tree(["root", "a", "b"], [-1, 0, 0])
    assert _legacy.mirrored_purity(mirror, np.array(["a", "b"] * 3), np.array(["x", "y"] * 3)) == 1


def test_a_cut_is_followed_by_cells_that_were_not_there():
    tree = ht.Tree(["root", "0", "1", "0.0", "0.1"], [-1, 0, 0, 1, 1])
    found = _hdtree.follow(tree, {"0", "1"}, np.array(["0.1", "1", "0.0"], dtype=object))
    assert found.tolist() == ["0", "1", "0"]


def test_window_shares_of_separate_windows():
    points = np.concatenate([np.full((40, 2), at) for at in (0.0, 10.0, 20.0)])
    points += np.random.default_rng(0).normal(size=points.shape) * 0.1
    times = np.repeat([200.0, 400.0, 600.0], 40)
    assert legacy.window_shares(points, times) == {"300-500": 1.0, "500-750": 1.0}


@pytest.mark.parametrize("command", [trees, orders, legacy])
def test_methods_are_in_a_table_that_is_written(command):
    assert {method.table for method in command.METHODS.values()} == set(command.TABLES)
    assert {method.kind for method in command.METHODS.values()} <= set(_report.KINDS)
    assert any(method.kind == "ours" for method in command.METHODS.values())
