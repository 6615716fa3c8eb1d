"""The benchmark of generated cells on tiny real data: its plain generators, judges and tables; no model is trained."""

from __future__ import annotations

import argparse
import functools
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

sys.path.append(str(Path(__file__).parents[1]))  # the benchmarks are not installed with the package
pytest.importorskip("benchmarks", reason="the benchmarks are in the repository only")

from benchmarks import (
    _branched,
    _data,
    _generators,
    _kept,
    _report,
    _run,
    _transmutation,
    _withheld,
    branched,
    generation,
)
from benchmarks._cells import Cells
from benchmarks._halves import APART, NEARER, REALISM, Halves, logged
from hdtree_sc import metrics
from hdtree_sc.metrics import _generated

NAME = "celegans_amphid_embryo"


@pytest.fixture(autouse=True)
def _talkative(monkeypatch):
    """Benchmarks silence loggers for good, which other tests listen to, and compile what is not needed here."""
    monkeypatch.setattr(_run, "quiet", lambda: None)
    monkeypatch.setattr(_run, "warm_up", lambda: None)


@pytest.fixture
def folder(tmp_path, worm):
    """A folder with 360 C. elegans cells and few genes under the name of the benchmark's set."""
    worm[::2, :200].copy().write_h5ad(tmp_path / f"{NAME}.h5ad")
    return tmp_path


@pytest.fixture
def half(folder) -> Halves:
    return Halves(Cells(folder, NAME, 0, folder / "cache"))


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_halves_share_no_cell_and_real_cells_are_the_floor(half, monkeypatch):
    few_trees = functools.partial(_generated.classifier_auc, n_estimators=20)
    for module in (metrics, _generated):
        monkeypatch.setattr(module, "classifier_auc", few_trees)
    assert half.fit.n_obs + half.held.n_obs == half.cells.adata.n_obs
    assert not set(half.fit.obs_names) & set(half.held.obs_names)
    assert half.fit.obs["label"].value_counts().min() >= 2
    floor, shuffled = half.scores(), half.scores(_generators.shuffled_genes(half, rng()))
    assert set(floor) == {*REALISM, *APART, "correlation error", "zero error", NEARER}
    for measure in ("Frechet, other PCs", "MMD2 x 1000", "AUC, other PCs", "correlation error"):
        assert floor[measure] < shuffled[measure], measure
    assert 0.35 < floor[NEARER] < 0.65


def test_copies_are_noticed(half):
    assert half.nearer(half.fit_values[half.of_fit]) > 0.95
    assert half.nearer(half.held_values[half.of_held]) < 0.05


def test_plain_generators_make_cells_of_the_data(half):
    for make in (_generators.of_a_label, _generators.of_neighbours, _generators.shuffled_genes, _generators.by_moments):
        values = make(half, rng())
        assert values.shape == (half.n, half.fit.n_vars)
        assert (values == np.round(values)).all()
        assert values.min() >= 0
        assert values.sum() == pytest.approx(half.fit_values[half.of_fit].sum(), rel=0.15), make
    one, other = np.zeros((50, 4)), np.full((50, 4), 10.0)
    assert set(np.unique(_generators.mixed(one, other, rng(), thinned=False))) == {0, 10}
    assert _generators.mixed(one, other, rng(), thinned=True).mean() == pytest.approx(5, abs=0.5)


def test_moments_keep_mean_and_variance_of_each_label(half):
    half.fit_values = rng().negative_binomial(2, 0.3, (4000, 3)).astype(float)
    half.fit_labels = np.repeat(["a", "b"], 2000)
    half.fit_values[2000:] *= 3
    half.of_fit, half.n, half.fit = np.arange(4000), 4000, half.fit[:, :3]
    made = _generators.by_moments(half, rng())
    for rows in (slice(2000), slice(2000, None)):
        np.testing.assert_allclose(made[rows].mean(0), half.fit_values[rows].mean(0), rtol=0.1)
        np.testing.assert_allclose(made[rows].var(0), half.fit_values[rows].var(0), rtol=0.25)


def test_logs_are_of_the_genes_given():
    logs = logged(np.array([[1.0, 3.0], [0.0, 0.0]]), is_count=True)
    np.testing.assert_allclose(np.expm1(logs), [[2500, 7500], [0, 0]])
    np.testing.assert_array_equal(logged(np.array([[-1.0]]), is_count=False), [[-1]])


def test_a_stage_is_withheld_and_recognised(folder):
    case = _withheld.Withheld(Cells(folder, NAME, 0, folder / "cache"))
    assert case.case.stage not in set(case.fit_labels)
    real = case.scores(case.floor_logs)
    ends = case.scores(_withheld.ends(case, rng()))
    assert real["hit"] > ends["hit"]
    assert real["Frechet"] < ends["Frechet"]
    for make in (_withheld.interpolated, _withheld.mixed):
        assert make(case, rng()).shape == (case.n * _withheld.REPEATS, case.fit.n_vars)


def test_correlation_is_taken_across_cells():
    points = rng().normal(size=(40, 3))
    assert _transmutation.correlation(points, 2 * points + 1) == pytest.approx(1)
    constant = np.c_[points[:, :2], np.ones(40)]
    assert _transmutation.correlation(points, constant) == pytest.approx(1)
    assert abs(_transmutation.correlation(points, points[::-1])) < 0.5


def test_a_kept_model_is_read_again(tmp_path):
    class Model:
        @classmethod
        def load(cls, folder, adata, accelerator):
            assert accelerator == "cpu"
            return folder

        def save(self, folder, overwrite):
            folder.mkdir(exist_ok=overwrite)

    model, cost = _kept.kept(tmp_path / "a" / "b", Model, None, Model)
    assert isinstance(model, Model)
    again, same = _kept.kept(tmp_path / "a" / "b", Model, None, None)
    assert again == tmp_path / "a" / "b"
    assert same == pytest.approx(cost, nan_ok=True)


def test_rows_are_kept_and_tables_written(folder, monkeypatch):
    ours = "hdtree"
    made = _run.Method("HDTree", lambda cells: {"Frechet": 1.0, APART[-1]: 0.5, NEARER: 0.5}, "ours")
    stage = {
        key: _run.Method(generation.METHODS[key].name, lambda cells, hit=hit: {"hit": hit, "Frechet": 1 / hit}, kind,
                         generation.WITHHELD)
        for key, hit, kind in (("hybrids", 0.8, "ours"), ("interpolated", 0.5, "peer"))
    }  # fmt: skip
    plain = _run.Method("two cells of a label", lambda cells: {"Frechet": 2.0, APART[-1]: 0.6, NEARER: 0.7})
    for key, method in {ours: made, "mix-label": plain, **stage}.items():
        monkeypatch.setitem(generation.METHODS, key, method)
    arguments = argparse.Namespace(
        data=folder, seeds=2, scvi_seeds=1, sets=[NAME, "guo10_blastocyst"], methods=["mix-label", ours, *stage],
        cache=folder / "cache", retry=False, report_only=False,
    )  # fmt: skip
    rows = generation.run(arguments)
    assert [row["method"] for row in rows if row["data"] == NAME] == [
        "hdtree", "hdtree", "mix-label", "mix-label", "hybrids", "hybrids", "interpolated", "interpolated"
    ]  # fmt: skip
    assert {row["method"] for row in rows if row["data"] == "guo10_blastocyst"} == set(stage)
    kept = sorted(file.name for file in (folder / "cache").glob("*.jsonl"))
    assert kept == sorted(["generation.jsonl", f"generation-{_kept.fingerprint()}.jsonl"])
    monkeypatch.setattr(_run, "Cells", None)  # nothing is read again
    assert generation.run(arguments) == rows
    pairs = pd.DataFrame({
        "data": NAME, "seed": 0, "way": ["ode", "sde"], "source": "AWA", "target": "AWC", "hit": [0.9, 0.8],
        "cycle r": [0.99, np.nan],
    })  # fmt: skip
    generation.write(rows, pairs, folder)
    text = (folder / "generation.md").read_text()
    assert "| celegans_amphid_embryo | HDTree, hybrids | interpolation, logs | 2 of 2 | 2 of 2 | 2 of 2 |" in text
    assert "| AWA → AWC | 0.900 | 0.990 | 0.800 |" in text
    assert "**" not in text
    assert len(pd.read_csv(folder / "generation.csv")) == len(rows)
    assert (folder / "generation.png").stat().st_size > 5_000


def test_methods_are_in_a_table_that_is_written():
    assert {method.table for method in generation.METHODS.values()} == set(generation.TABLES)
    assert {method.kind for method in generation.METHODS.values()} <= set(_report.KINDS)
    assert set(_withheld.CASES) <= set(_data.SETS)


def test_classes_are_judged_by_cells_that_nobody_fitted(half):
    held = _branched.Classes(half)
    assert min(held.n.values()) >= _branched.LEAST
    assert set(held.fit.obs["label"]) == set(held.names)
    floor, moments = (held.over_classes(make) for make in (_branched.real, _branched.moments))
    assert floor["MMD2 x 1000"] < moments["MMD2 x 1000"]
    wrong = held.over_classes(lambda made, name, n: made.fitted(next(x for x in made.names if x != name), n))
    assert wrong["hit"] < 0.3 < floor["hit"]


def test_a_difference_that_seeds_do_not_bear_out_is_a_tie():
    rows = [
        {"data": "x", "method": f"{name}, guidance 1.5", "seed": seed, "hit": hit, "Frechet": 5 + seed + better}
        for name, hits, better in (("branched", (0.8, 0.9, 0.7), 0), ("label-conditioned", (0.9, 0.8, 0.75), 2))
        for seed, hit in enumerate(hits)
    ]
    frame = pd.DataFrame(rows).assign(**{_run.REASON: np.nan})
    frame["Frechet"] += np.random.default_rng(0).normal(scale=1e-3, size=len(frame))
    lines = branched.verdict(frame).splitlines()
    assert [line.split("|")[-2].strip() for line in lines if line.startswith("| x")] == ["tie", "branched"]
