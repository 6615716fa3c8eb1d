"""A stage that no generator has seen, made from what lies before and after it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

import hdtree_sc as ht
from benchmarks import _data, _generators
from benchmarks._halves import LABEL, components, logged, part
from benchmarks._kept import generator
from benchmarks._transmutation import forest_of
from hdtree_sc import metrics

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from benchmarks._cells import Cells

N_PCS = 10
"""Components: stages have few cells."""
REPEATS = 10
"""Samples of the stage's size that are made; their Frechet distances are averaged."""
FIT_SHARE = 2 / 3
MEASURES = ("hit", "Frechet")


@dataclass(frozen=True)
class Case:
    """What is withheld.

    Parameters
    ----------
    stage
        Its label.
    before, after
        Labels between which it lies.
    """

    stage: str
    before: str
    after: tuple[str, ...]


CASES = {
    "celegans_amphid_embryo": Case("ASG_AWA", "Neuroblast_ASG_AWA", ("ASG", "AWA")),
    "schlitzer15_dendritic": Case("CDP", "MDP", ("PreDC",)),
    "guo10_blastocyst": Case("16-cell", "8-cell", ("32-cell",)),
}
"""Cases by data set."""


class Withheld:
    """A data set less one stage, and who judges what is made in its place.

    Two thirds of the other cells are fitted. The last third and half of the stage teach a classifier; the components
    are those of the third. The stage's other half is the floor.

    Parameters
    ----------
    cells
        The data set.
    """

    def __init__(self, cells: Cells) -> None:
        self.cells, self.case, self.is_count = cells, CASES[cells.data.name], cells.data.counts
        rng = np.random.default_rng(cells.seed)
        is_stage = cells.labels == self.case.stage
        chosen = ~is_stage & (rng.random(len(is_stage)) < FIT_SHARE)
        self.fit, self.fit_labels = part(cells, np.flatnonzero(chosen)), cells.labels[chosen]
        self.values = _data.dense(self.fit.X)
        logs = logged(_data.dense(cells.adata.X), is_count=self.is_count)
        others, stage = np.flatnonzero(~is_stage & ~chosen), rng.permutation(np.flatnonzero(is_stage))
        self.pca = components(logs[others], N_PCS)
        shown, self.n = stage[len(stage) // 2 :], len(stage) // 2
        self.real = self.pca.transform(logs[shown])
        self.floor_logs = logs[stage[: self.n]]
        known = np.concatenate([others, shown])
        self.forest = forest_of(self.pca.transform(logs[known]), cells.labels[known], cells.seed)

    def scores(self, logs: NDArray) -> dict[str, float]:
        """Share of cells that are taken for the stage, and their distance from real ones, in samples of equal size.

        Parameters
        ----------
        logs
            Log-normalised values of cells, in random order.
        """
        places = self.pca.transform(logs)
        samples = [places[start : start + self.n] for start in range(0, len(places) - self.n + 1, self.n)]
        apart = [metrics.frechet_distance(self.real, sample) for sample in samples]
        return {"hit": float((self.forest.predict(places) == self.case.stage).mean()), "Frechet": float(np.mean(apart))}

    def parents(self, rng: np.random.Generator) -> tuple[NDArray, NDArray]:
        """Rows of fitted cells before and after the stage, as many of each end as are made."""
        ends = [np.flatnonzero(np.isin(self.fit_labels, names)) for names in ([self.case.before], self.case.after)]
        one, other = (rng.choice(rows, self.n * REPEATS) for rows in ends)
        return one, other


@lru_cache(maxsize=1)
def withheld(cells: Cells) -> Withheld:
    """The data set less a stage, made once while its methods run."""
    return Withheld(cells)


def judged(make: Callable[[Withheld, np.random.Generator], NDArray]) -> Callable[[Cells], dict[str, float]]:
    """Measures of a way to make the stage.

    Parameters
    ----------
    make
        From the data set and random numbers to log-normalised values.
    """

    def run(cells: Cells) -> dict[str, float]:
        case = withheld(cells)
        return case.scores(make(case, np.random.default_rng(cells.seed + 1)))

    return run


def floor(case: Withheld, rng: np.random.Generator) -> NDArray:
    """The stage's other half."""
    del rng
    return case.floor_logs


def ends(case: Withheld, rng: np.random.Generator) -> NDArray:
    """Cells before and after, as they are."""
    one, other = case.parents(rng)
    chosen = np.where(rng.random(len(one)) < 0.5, one, other)
    return logged(case.values[chosen], is_count=case.is_count)


def interpolated(case: Withheld, rng: np.random.Generator) -> NDArray:
    """Halfway between a cell before and one after, in log-normalised values."""
    return np.mean([logged(case.values[rows], is_count=case.is_count) for rows in case.parents(rng)], axis=0)


def mixed(case: Withheld, rng: np.random.Generator) -> NDArray:
    """Counts of a cell before and one after together, halved binomially; without counts, gene by gene."""
    one, other = (case.values[rows] for rows in case.parents(rng))
    return logged(_generators.mixed(one, other, rng, thinned=case.is_count), is_count=case.is_count)


# -- HDTree --------------------------------------------------------------------------------------------------------


def _model(case: Withheld) -> Any:
    return generator(case.fit, case.cells, what="withheld")[0]


def _logs(case: Withheld, made: list[NDArray], rng: np.random.Generator) -> NDArray:
    values = np.vstack(made)
    return logged(values[rng.permutation(len(values))[: case.n * REPEATS]], is_count=case.is_count)


def along_path(case: Withheld, rng: np.random.Generator) -> NDArray:
    """Cells of the nodes on the way from before to after, without its ends where it has others."""
    model, adata = _model(case), case.fit.copy()
    ht.tl.tree(adata, model)
    ht.tl.lineage_graph(adata)
    made = []
    for after in case.case.after:
        nodes = [str(node) for node in ht.tl.lineage_path(adata, case.case.before, after, groupby=LABEL)["node"]]
        nodes = nodes[1:-1] or nodes
        each = -(-case.n * REPEATS // (len(nodes) * len(case.case.after)))
        made += [
            _data.dense(model.generate(each, node=node, seed=case.cells.seed + i, keep_mean=False).X)
            for i, node in enumerate(nodes)
        ]
    return _logs(case, made, rng)


def hybrids(case: Withheld, rng: np.random.Generator, between: str = "midpoint") -> NDArray:
    """Cells between before and after."""
    model, n = _model(case), -(-case.n * REPEATS // len(case.case.after))
    made = []
    for after in case.case.after:
        out = model.hybrids(case.case.before, after, n, seed=case.cells.seed, between=between, keep_mean=False)
        made.append(_data.dense(out.X[(out.obs["role"] == "hybrid").to_numpy()]))
    return _logs(case, made, rng)


def latent_midpoints(case: Withheld, rng: np.random.Generator) -> NDArray:
    """Halfway between a cell before and one after in the latent, decoded; the diffusion has no part in it."""
    model = _model(case)
    generator = model._generator()
    cells = model._encoded(generator, None, None)
    one, other = (torch.from_numpy(rows) for rows in case.parents(rng))
    with torch.inference_mode(), torch.random.fork_rng():
        torch.manual_seed(case.cells.seed)
        halfway = (cells.whitened[one] + cells.whitened[other]) / 2
        made = generator.decode(halfway, cells.inputs[one], keep_mean=False, batch_size=4096)
    return _logs(case, [_data.dense(made.values)], rng)
