"""Cells carried from one type to another: whether they arrive, find the way back, and keep what is not type."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from sklearn.ensemble import RandomForestClassifier

import hdtree_sc as ht
from benchmarks import _data, _measures
from benchmarks._halves import LABEL, TIME, halves
from benchmarks._kept import fingerprint, of_half
from hdtree_sc.generate import Route, Sampling
from hdtree_sc.module import Condition

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from anndata import AnnData
    from numpy.typing import NDArray

    from benchmarks._cells import Cells
    from benchmarks._halves import Halves

N_TYPES = 4
"""Largest types, between which cells are carried both ways."""
N_STEPS = 50
MOST_CARRIED = 1000
"""Most cells of a type that are carried."""
WAYS: dict[str, dict[str, Any]] = {
    "ode": {"mode": "ode"},
    "sde": {"mode": "sde"},
    "ode, not aligned": {"mode": "ode", "align": False},
    "sde, not aligned": {"mode": "sde", "align": False},
    "means moved": {"mode": "ode", "noise_level": -8.9},
}
"""Arguments of ``transmute``; the last moves means at next to no noise: latent arithmetic, as of scGen."""
MEASURES = (
    "hit", "worst hit", "hit, real target", "hit, untouched", "target probability", "cycle r", "cycle r, re-encoded",
    "time kept", "time ceiling", "neighbours kept", "expression kept", "CPU seconds",
)  # fmt: skip


def forest_of(points: NDArray, labels: NDArray, seed: int) -> RandomForestClassifier:
    """A classifier that has seen no generated cell."""
    return RandomForestClassifier(300, class_weight="balanced_subsample", random_state=seed).fit(points, labels)


def correlation(one: NDArray, other: NDArray) -> float:
    """Mean over dimensions of Pearson's correlation across cells; dimensions that do not vary are left out."""
    varies = (one.std(0) > 0) & (other.std(0) > 0)
    one, other = one[:, varies], other[:, varies]
    return float((((one - one.mean(0)) / one.std(0)) * ((other - other.mean(0)) / other.std(0))).mean())


def cycle(
    model: Any, adata: AnnData | None, out: Any, rows: NDArray, source: str, target: str, *, align: bool
) -> float:
    """Correlation of latents with what comes back of them from a target: no count is drawn, nothing encoded again."""
    generator = model._generator()
    cells = model._encoded(generator, adata, rows)
    device = torch.device("cpu")
    here, there = (Condition.of(generator.places.of(None, name), len(rows), device) for name in (source, target))
    with torch.inference_mode():
        levels = torch.from_numpy(out.obs["branch_noise"].to_numpy())
        how = Sampling(N_STEPS, batch_size=len(rows))

        def carried(cells: Any, route: Route) -> torch.Tensor:
            return generator.transport(cells, route, how, mode="ode", align=align)

        away = replace(cells, whitened=carried(cells, Route(here, there, levels)))
        back = carried(away, Route(there, here, levels))
        return correlation(*(generator.diffusion.colour(points).numpy() for points in (cells.whitened, back)))


def carried(
    model: Any, half: Halves, rows: NDArray, target: str, way: Mapping[str, Any], adata: AnnData | None = None
) -> tuple[Any, dict[str, float]]:
    """Cells of the fitted half at another type, and all measures but the classifier's.

    Parameters
    ----------
    model
        With a generator.
    half
        The halves.
    rows
        Cells of one type.
    target
        The other type.
    way
        Arguments of ``transmute``.
    adata
        The fitted half, where the model was not fitted on all of it.
    """
    source = half.fit_labels[rows[0]]
    options = {**way, "n_steps": N_STEPS, "seed": half.seed}
    with _measures.Step() as step:
        out = model.transmute(adata, target=target, indices=rows, **options)
    found = {"target probability": float(out.obs["target_probability"].mean()), "CPU seconds": step.cpu_seconds}
    found["branch noise"] = float(out.obs["branch_noise"].mean())
    if options["mode"] == "ode":
        latent = f"X_{model._tree_key}"
        again = model.transmute(out, target=source, **options, keep_mean=False)
        found["cycle r"] = cycle(model, adata, out, rows, source, target, align=options.get("align", True))
        found["cycle r, re-encoded"] = correlation(out.obsm[f"{latent}_source"], again.obsm[latent])
    wanted = [TIME] if TIME in half.fit.obs else []
    kept = ht.tl.retained_signal(half.fit, out, wanted, groupby=LABEL, log_normalize=half.is_count, seed=half.seed)
    for name in wanted:
        found |= {"time kept": kept.loc[name, "retained"], "time ceiling": kept.loc[name, "ceiling"]}
    found |= {f"{name} kept": kept.loc[name, "retained"] for name in ("neighbours", "expression")}
    return out, found


def pairs(
    half: Halves,
    model: Any,
    way: Callable[[str, str], Mapping[str, Any]],
    adata: AnnData | None = None,
) -> pd.DataFrame:
    """All measures of all ordered pairs of the largest types.

    Parameters
    ----------
    half, model, adata
        See `carried`.
    way
        From source and target to arguments of ``transmute``.
    """
    forest = forest_of(half.place(half.held_values), half.held_labels, half.seed)
    said = forest.predict(half.place(half.fit_values))
    types = half.fit.obs[LABEL].value_counts().index[:N_TYPES].astype(str)
    found = []
    for source, target in permutations(types, 2):
        rows = np.flatnonzero(half.fit_labels == source)[:MOST_CARRIED]
        out, row = carried(model, half, rows, target, way(source, target), adata)
        hit = forest.predict(half.place(_data.dense(out.X))) == target
        found.append({
            "source": source, "target": target, "cells": len(rows), "hit": float(hit.mean()),
            "hit, real target": float((said[half.fit_labels == target] == target).mean()),
            "hit, untouched": float((said[rows] == target).mean()), **row,
        })  # fmt: skip
    return pd.DataFrame(found)


def over_pairs(frame: pd.DataFrame) -> dict[str, float]:
    """Means over the pairs of types, the worst hit, and the time of all."""
    means = frame.drop(columns=["source", "target", "cells"]).mean()
    return {**means.to_dict(), "worst hit": frame["hit"].min(), "CPU seconds": frame["CPU seconds"].sum()}


def _file(folder: Path, data: str, seed: int, way: str) -> Path:
    mark = way.replace(", ", "-").replace(" ", "_")
    return folder / "generators" / f"{data}-{seed}-pairs-{mark}-{fingerprint()}.csv"


def transmuted(way: str) -> Callable[[Cells], dict[str, float]]:
    """Means over the pairs of types; the pairs are kept in a file."""

    def run(cells: Cells) -> dict[str, float]:
        half = halves(cells)
        frame = pairs(half, of_half(half)[0], lambda _source, _target: WAYS[way])
        file = _file(cells.cache, cells.data.name, cells.seed, way)
        file.parent.mkdir(parents=True, exist_ok=True)
        frame.to_csv(file, index=False)
        return over_pairs(frame)

    return run


def all_pairs(folder: Path, sets: Sequence[str], seeds: int) -> pd.DataFrame:
    """The pairs of all runs of today's code.

    Parameters
    ----------
    folder
        The cache.
    sets
        Data sets.
    seeds
        How many.
    """
    files = {
        (data, seed, way): _file(folder, data, seed, way) for data in sets for seed in range(seeds) for way in WAYS
    }  # fmt: skip
    found = {
        key: pd.read_csv(file, dtype={"source": str, "target": str}) for key, file in files.items() if file.exists()
    }
    if not found:
        return pd.DataFrame()
    return pd.concat(found, names=["data", "seed", "way"]).reset_index([0, 1, 2]).reset_index(drop=True)
