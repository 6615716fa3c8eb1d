"""The benchmark of steadiness on few real cells, with what needs no training."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.append(str(Path(__file__).parents[1]))  # the benchmarks are not installed with the package
pytest.importorskip("benchmarks", reason="the benchmarks are in the repository only")

from benchmarks import _run, steadiness
from benchmarks._cells import Cells


@pytest.fixture
def folder(tmp_path, worm):
    """A folder with 240 C. elegans cells under the name of the benchmark's set."""
    worm[::3].copy().write_h5ad(tmp_path / "celegans_amphid_embryo.h5ad")
    return tmp_path


def test_one_thing_is_varied_at_a_time(folder, worm, monkeypatch):
    monkeypatch.setattr(steadiness, "GENES", (100, 200, 10_000))
    one, two, three = (Cells(folder, "celegans_amphid_embryo", seed, folder / "cache") for seed in range(3))
    seeds, cells, genes = (steadiness.Varied(two, kind) for kind in steadiness.KINDS)
    assert (seeds.seed, cells.seed, genes.seed) == (1, 0, 0)
    n = len(worm[::3])
    assert [part.adata.n_obs for part in (seeds, cells, genes)] == [n, round(0.8 * n), n]
    assert genes.adata.n_vars == 200
    assert seeds.adata.n_vars == two.adata.n_vars
    other = steadiness.Varied(one, "cells")
    assert set(other.adata.obs_names) != set(cells.adata.obs_names)
    assert len({part.cache for part in (seeds, cells, genes, other)}) == 4
    assert steadiness.exists(two, "genes")
    assert not steadiness.exists(three, "genes"), "more genes than there are"


def test_orders_and_ends_are_in_the_tables(folder, monkeypatch):
    pytest.importorskip("igraph", reason="needs the extra bench")
    monkeypatch.setattr(steadiness, "GENES", (100, 200))
    monkeypatch.setattr(_run, "quiet", lambda: None)
    given = argparse.Namespace(
        data=folder, seeds=2, sets=["celegans_amphid_embryo"], methods=["paga", "dpt"], cache=folder / "cache",
        retry=False, report_only=False,
    )  # fmt: skip
    rows = _run.run("steadiness", steadiness.METHODS, given)
    assert len(rows) == 4
    for row in rows:
        assert all(np.isfinite(row[f"rho, {kind}"]) for kind in steadiness.KINDS)
    steadiness.report(rows, folder)
    text = (folder / "steadiness.md").read_text()
    lines = [line for line in text.splitlines() if line.startswith("| cells | PAGA tree")]
    assert len(lines) == 2, "one of all sets, one of the set"
    first, second = (row["rho, cells"] for row in rows[:2])
    assert f"| {(first + second) / 2:.3f} | {min(first, second):.3f} |" in lines[1]
    assert (folder / "steadiness.csv").exists()
