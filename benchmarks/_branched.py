"""Branched diffusion and its rivals on one half of a data set, and what is measured of the cells they make."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from sklearn.ensemble import RandomForestClassifier

import hdtree_sc as ht
from benchmarks import _data, _generators, _measures, _transmutation
from benchmarks._cells import QUIET, NotApplicable
from benchmarks._halves import LABEL, halves
from benchmarks._kept import fingerprint, kept
from hdtree_sc import metrics

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from anndata import AnnData
    from numpy.typing import NDArray

    from benchmarks._cells import Cells
    from benchmarks._halves import Halves

    Measures = Mapping[str, float]
    Make = Callable[["Classes", str, int], NDArray]

LEAST = 20
"""Fewest cells of a class in each half."""
MOST_OF_CLASS = 300
"""Most cells that are made and compared of a class."""
MOST_FITTED = 10_000
"""Most cells that are fitted (MNIST)."""
N_AXES = 10
"""Principal components in which classes are compared: a class may have a few dozen cells."""
POOL = 3
"""Unconditional cells made for each one wanted."""


class Classes:
    """The classes of a data set that are large enough, in the halves of a seed.

    Parameters
    ----------
    half
        The halves.
    """

    def __init__(self, half: Halves) -> None:
        self.half = half
        rng = np.random.default_rng(half.seed)
        counts = [pd.Series(labels).value_counts() for labels in (half.fit_labels, half.held_labels)]
        both = pd.concat(counts, axis=1).min(axis=1, skipna=False)
        self.names = sorted(both.index[both >= LEAST])
        self.n = {name: int(min(both[name], MOST_OF_CLASS)) for name in self.names}
        rows = np.flatnonzero(np.isin(half.fit_labels, self.names))
        self.fit_rows = np.sort(rng.permutation(rows)[:MOST_FITTED])
        self.fit = half.fit[self.fit_rows].copy()
        self.fit.obs[LABEL] = self.fit.obs[LABEL].cat.remove_unused_categories()
        places = half.place(half.held_values)[:, :N_AXES]
        chosen = np.flatnonzero(np.isin(half.held_labels, self.names))
        chosen = rng.permutation(chosen)[:MOST_FITTED]
        self.judge = RandomForestClassifier(300, class_weight="balanced_subsample", random_state=half.seed, n_jobs=1)
        self.judge.fit(half.place(half.held_values[chosen]), half.held_labels[chosen])
        self.held = {name: places[rng.permutation(np.flatnonzero(half.held_labels == name))] for name in self.names}

    def fitted(self, name: str, n: int) -> NDArray[np.float32]:
        """``n`` fitted cells of a class."""
        rows = np.flatnonzero(self.half.fit_labels == name)
        return self.half.fit_values[np.random.default_rng(self.half.seed + 1).permutation(rows)[:n]]

    def scores(self, name: str, values: NDArray) -> dict[str, float]:
        """Hit rate and distances of cells made of a class."""
        points = self.half.place(_data.dense(values))
        real, fake = self.held[name][: self.n[name]], points[:, :N_AXES]
        return {
            "hit": float((self.judge.predict(points) == name).mean()),
            "Frechet": metrics.frechet_distance(real, fake),
            "MMD2 x 1000": 1000 * metrics.mmd2(real, fake),
        }

    def over_classes(self, make: Make) -> dict[str, float]:
        """Means over the classes of what a maker of cells makes, and the worst hit."""
        found = pd.DataFrame([self.scores(name, make(self, name, self.n[name])) for name in self.names])
        return {**found.mean().to_dict(), "worst hit": float(found["hit"].min())}


@lru_cache(maxsize=1)
def classes(cells: Cells) -> Classes:
    """The classes of a data set, computed once while its methods run."""
    return Classes(halves(cells))


# -- models --------------------------------------------------------------------------------------------------------


def trained(adata: AnnData, cells: Cells) -> ht.BranchedDiffusion:
    """BranchedDiffusion as it comes."""
    import scvi

    scvi.settings.seed = cells.seed
    ht.BranchedDiffusion.setup_anndata(adata, labels_key=LABEL)
    model = ht.BranchedDiffusion(adata, gene_likelihood=cells.data.likelihood)
    model.train(**QUIET)
    return model


def of_kind(cells: Cells, kind: str) -> tuple[ht.BranchedDiffusion, dict[str, float]]:
    """A model of all classes, and what it took; all kinds have one autoencoder.

    Parameters
    ----------
    cells
        The data set.
    kind
        ``"branched"``; ``"heads"``, with one head per branch; ``"label"``: the same network and training, told the
        label at all noise levels and nothing of a tree.
    """
    import scvi

    held = classes(cells).fit
    mark = cells.cache / "branched" / f"{cells.data.name}-{cells.seed}-{fingerprint()}"
    model, cost = kept(mark, ht.BranchedDiffusion, held, lambda: trained(held, cells))
    if kind == "branched":
        return model, cost

    def fit() -> ht.BranchedDiffusion:
        scvi.settings.seed = cells.seed
        other = ht.BranchedDiffusion.load(mark, adata=held, accelerator="cpu")
        if kind == "label":
            # a star: no class shares anything with another, and its embedding is told at every noise level
            other.class_tree_ = None
            other._drop_generator()
            other._given = ht.Tree.from_parents(dict.fromkeys(classes(cells).names, "root"))
            other._learn_classes()
        else:
            other.init_params_["non_kwargs"]["conditioning"] = "multi_head"
        other.train_diffusion(gate="none" if kind == "label" else "step", **QUIET)
        return other

    other, more = kept(mark.with_name(f"{mark.name}-{kind}"), ht.BranchedDiffusion, held, fit)
    return other, _measures.total_cost(cost, more)


# -- new cells -----------------------------------------------------------------------------------------------------


def by_model(kind: str, guidance: float) -> Callable[[Cells], Measures]:
    """Measures of cells that a model makes class by class."""

    def run(cells: Cells) -> Measures:
        model, cost = of_kind(cells, kind)

        def make(held: Classes, name: str, n: int) -> NDArray:
            return model.generate(n, label=name, guidance=guidance, seed=cells.seed, keep_mean=False).X

        with _measures.Step() as step:
            found = classes(cells).over_classes(make)
        return found | _measures.total_cost(cost, step.cost)

    return run


def by_classifier(cells: Cells) -> Measures:
    """Measures of unconditional cells that a classifier, fitted on fitted cells, takes for a class."""
    held = classes(cells)
    model, cost = of_kind(cells, "label")
    with _measures.Step() as step:
        pool = _data.dense(model.generate(POOL * sum(held.n.values()), seed=cells.seed, keep_mean=False).X)
        chooser = RandomForestClassifier(300, class_weight="balanced_subsample", random_state=cells.seed)
        chooser.fit(held.half.place(_data.dense(held.fit.X)), held.fit.obs[LABEL].astype(str))
        said = chooser.predict_proba(held.half.place(pool))
        column = {name: i for i, name in enumerate(chooser.classes_)}
        # the most certain ones of a class: so many are made of each
        found = held.over_classes(lambda _held, name, n: pool[np.argsort(-said[:, column[name]])[:n]])
    return found | _measures.total_cost(cost, step.cost)


def plain(make: Make) -> Callable[[Cells], Measures]:
    """Measures of cells that are made without a model."""

    def run(cells: Cells) -> Measures:
        with _measures.Step() as step:
            found = classes(cells).over_classes(make)
        return found | step.cost

    return run


def real(held: Classes, name: str, n: int) -> NDArray:
    """Fitted cells themselves."""
    return held.fitted(name, n)


def moments(held: Classes, name: str, n: int) -> NDArray:
    """Genes by themselves, with the moments they have in the class."""
    known, rng = held.half.fit_values[held.half.fit_labels == name], np.random.default_rng(held.half.seed + 1)
    return _generators.with_moments(known, n, rng, is_count=held.half.is_count)


def scvi_by_class(cells: Cells) -> Measures:
    """Measures of cells decoded from a normal distribution with the moments of a class in scVI's latent."""
    import torch

    if not cells.data.counts:
        msg = "needs raw counts"
        raise NotApplicable(msg)
    held = classes(cells)
    model, cost = _generators.scvi_model(held.half)
    latent = model.get_latent_representation(give_mean=False)
    rng = np.random.default_rng(cells.seed)
    torch.manual_seed(cells.seed)

    def make(_held: Classes, name: str, n: int) -> NDArray:
        own = held.half.fit_labels == name
        z = rng.multivariate_normal(latent[own].mean(0), np.cov(latent[own].T), n).astype(np.float32)
        library = rng.choice(held.half.fit_values[own].sum(1), n).astype(np.float32)
        with torch.inference_mode():
            made = model.module.generative(
                torch.from_numpy(z), torch.from_numpy(library).clamp_min(1.0).log()[:, None], torch.zeros(n, 1).long()
            )
            return made["px"].sample().numpy()

    with _measures.Step() as step:
        found = held.over_classes(make)
    return found | _measures.total_cost(cost, step.cost)


# -- one way for several classes -----------------------------------------------------------------------------------


def prefixes(*, shared: bool) -> Callable[[Cells], Measures]:
    """Network calls and distances of all classes made together."""

    def run(cells: Cells) -> Measures:
        held = classes(cells)
        model, _ = of_kind(cells, "branched")
        with _measures.Step() as step:
            out = model.generate(
                max(held.n.values()), label=held.names, share_prefix=shared, seed=cells.seed, keep_mean=False
            )
        values, made = _data.dense(out.X), out.obs[LABEL].to_numpy()
        found = held.over_classes(lambda _held, name, n: values[made == name][:n])
        alone = model.generate(2, label=held.names, share_prefix=True, seed=0).uns["branched"]
        found["network calls"] = alone["network_calls" if shared else "network_calls_unshared"]
        return found | step.cost

    return run


# -- from class to class -------------------------------------------------------------------------------------------


def transmuted(kind: str, **options: Any) -> Callable[[Cells], Measures]:
    """Means over the ordered pairs of the largest classes; another kind goes up to the noise of the branched model."""

    def run(cells: Cells) -> Measures:
        held, branched = classes(cells), of_kind(cells, "branched")[0]
        model = of_kind(cells, kind)[0]

        def way(source: str, target: str) -> dict[str, Any]:
            if kind == "branched":
                return options
            one = np.flatnonzero(held.fit.obs[LABEL] == source)[:1]
            there = branched.transmute(indices=one, target=target, mode="sde", align=False, n_steps=4, seed=0)
            return options | {"noise_level": float(there.obs["branch_noise"].iloc[0])}

        return _transmutation.over_pairs(_transmutation.pairs(held.half, model, way, held.half.fit))

    return run


# -- a class more --------------------------------------------------------------------------------------------------


def near_and_far(cells: Cells) -> dict[str, str]:
    """The class that parts last from another, and the one that parts first."""
    model, _ = of_kind(cells, "branched")
    columns, nodes = model.node_columns(), model.get_tree()
    leaves = {str(columns.loc[leaf, "label"]): str(nodes.parent(leaf)) for leaf in nodes.leaves}
    parts = pd.Series({label: columns.loc[parent, "log_snr"] for label, parent in leaves.items()})
    return {"near": str(parts.idxmax()), "far": str(parts.idxmin())}


def extended(way: str) -> Callable[[Cells], Measures]:
    """Measures of one class that came later: a near one and a far one.

    Parameters
    ----------
    way
        ``"real"``, ``"joint"`` (known from the beginning), ``"added"`` or ``"replay"`` (trained anew on cells that the
        model without it made, and on the new ones).
    """

    def run(cells: Cells) -> Measures:
        held, out = classes(cells), {}
        total = 0.0
        for which, name in near_and_far(cells).items():
            if way == "real":
                values = held.fitted(name, held.n[name])
            else:
                model, cost, change = _with_class(cells, name, way)
                total += cost
                values = model.generate(held.n[name], label=name, seed=cells.seed, keep_mean=False).X
                if change is not None:
                    out[f"{which}: change of others"] = change
            out |= {f"{which}: {measure}": value for measure, value in held.scores(name, values).items()}
        return out | {"CPU seconds": total}

    return run


def _with_class(cells: Cells, name: str, way: str) -> tuple[ht.BranchedDiffusion, float, float | None]:
    """A model that came to know a class, the time that took, and how far what it makes of another class moved."""
    if way == "joint":
        model, cost = of_kind(cells, "branched")
        return model, cost["CPU seconds"], None
    held = classes(cells)
    without = held.fit[held.fit.obs[LABEL] != name].copy()
    own = held.fit[held.fit.obs[LABEL] == name].copy()
    mark = cells.cache / "branched" / f"{cells.data.name}-{cells.seed}-without-{_plain(name)}-{fingerprint()}"
    model, _ = kept(mark, ht.BranchedDiffusion, without, lambda: trained(without, cells))
    if way == "replay":
        counts = without.obs[LABEL].value_counts()
        made = [
            model.generate(int(n), label=str(label), seed=cells.seed, keep_mean=False) for label, n in counts.items()
        ]
        both = together([*made, own])
        with _measures.Step() as step:
            model = trained(both, cells)
        return model, step.cpu_seconds, None
    other = next(label for label in held.names if label != name)
    before = _data.dense(model.generate(50, label=other, seed=1, keep_mean=False).X)
    with _measures.Step() as step:
        model.add_class(own, name, **QUIET)
    after = _data.dense(model.generate(50, label=other, seed=1, keep_mean=False).X)
    return model, step.cpu_seconds, float(np.abs(after - before).max())


def together(parts: list[AnnData]) -> AnnData:
    """Cells and their labels, one after the other."""
    import anndata as ad

    bare = [ad.AnnData(part.X, obs=part.obs[[LABEL]].astype(str), var=part.var[[]]) for part in parts]
    out = ad.concat(bare)
    out.obs_names_make_unique()
    out.obs[LABEL] = pd.Categorical(out.obs[LABEL])
    return out


def _plain(name: str) -> str:
    return "".join(letter if letter.isalnum() else "_" for letter in name)
