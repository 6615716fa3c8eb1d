"""Whatever small AnnData comes: a clear error of ours that leaves it as it was, or finite and valid results."""

from __future__ import annotations

import traceback
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scvi
from helpers import QUIET
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy import sparse

import hdtree_sc as ht

pytestmark = pytest.mark.slow  # trains models

PACKAGE = Path(ht.__file__).parent
FORMATS = {"dense": np.asarray, "csr": sparse.csr_matrix, "csc": sparse.csc_matrix}
DTYPES = ("float32", "float64", "int32", "int64", "uint8", "uint16", "bool")
SPOILERS = {"nan": np.nan, "inf": np.inf, "negative": -1.0, "fraction": 0.5, "huge": 1e30}


def columns(rng: np.random.Generator, n: int) -> dict[str, object]:
    """Columns of every odd kind that ``obs`` was seen to hold."""
    two = np.arange(n) % 2
    return {
        "text": np.array(["a", "b"], dtype=object)[two],
        "number": two.astype(int),
        "flag": two.astype(bool),
        "gaps": np.where(rng.random(n) < 0.3, np.nan, two.astype(float)),
        "nullable": pd.array(np.where(two, 1, 2), dtype="Int64"),
        "unused": pd.Categorical(np.array(["a", "b"])[two], categories=["gone", "b", "a"]),
        "named_unknown": np.array(["unknown", "a"], dtype=object)[two],
        "missing_text": pd.Series(np.array(["a", None], dtype=object)[two]).to_numpy(),
        "odd_names": np.array(["A/B", "A|B $x$"], dtype=object)[two],
        "mixed": np.array([1, "a"], dtype=object)[two],
        "one_each": np.array([f"c{i}" for i in range(n)], dtype=object),
        "zero_size": two.astype(float),
        "infinite": np.where(two, np.inf, 1.0),
        "size": 0.5 + rng.random(n),
    }


FITTING = {
    "batch_key": ("text", "number", "flag", "nullable", "unused", "odd_names", "mixed"),
    "labels_key": (
        "text",
        "number",
        "flag",
        "gaps",
        "nullable",
        "unused",
        "named_unknown",
        "missing_text",
        "odd_names",
    ),
    "time_key": ("number", "gaps", "nullable", "size"),
    "size_factor_key": ("size", "nullable"),
}
"""Columns that set-up should take."""


@st.composite
def data(draw) -> ad.AnnData:
    """1 to 60 cells of counts, or of what was meant to be counts."""
    rng = np.random.default_rng(draw(st.integers(0, 2**31)))
    n, m = draw(st.one_of(st.integers(1, 60), st.integers(20, 60))), draw(st.integers(2, 12))
    x = rng.poisson(rng.gamma(1.0, 2.0, m), (n, m)).astype(float)
    if draw(st.integers(0, 9)):
        x[:, 0] += 1  # no cell is empty
    dtype = draw(st.sampled_from(DTYPES))
    if draw(st.integers(0, 9)) == 0 and dtype.startswith("float"):
        x[rng.integers(n), rng.integers(m)] = SPOILERS[draw(st.sampled_from(sorted(SPOILERS)))]
    adata = ad.AnnData(FORMATS[draw(st.sampled_from(sorted(FORMATS)))](x.astype(dtype)))
    adata.obs = pd.DataFrame(columns(rng, n), index=adata.obs_names)
    if draw(st.booleans()):
        adata.obs_names = [f"cell{i}" for i in range(n)]
    if draw(st.integers(0, 19)) == 0:
        adata.var_names = ["twice"] * m
    return adata


def snapshot(adata: ad.AnnData) -> tuple[object, ...]:
    values = adata.X.toarray() if sparse.issparse(adata.X) else np.array(adata.X)
    return values.tobytes(), values.dtype, type(adata.X), adata.obs.to_csv(), list(adata.var_names), sorted(adata.uns)


def is_ours(error: Exception) -> bool:
    """A readable error that our own code raised on purpose."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    known = isinstance(error, ValueError | KeyError | TypeError | RuntimeError)
    return (
        known and len(str(error)) > 15 and Path(last.filename).is_relative_to(PACKAGE) and "raise" in (last.line or "")
    )


def attempt(adata: ad.AnnData, call, described: str) -> bool:
    """Whether a call went through; if it did not, the error is ours and the data are as they were."""
    before, raised = snapshot(adata), None
    try:
        call()
    except Exception as error:
        if not is_ours(error):
            msg = f"{described}: {type(error).__name__}: {error}"
            raise AssertionError(msg) from error
        raised = error
    assert raised is None or snapshot(adata) == before, f"{described} failed and changed the data: {raised}"
    return raised is None


def check_tree(adata: ad.AnnData, key: str) -> None:
    tree = ht.get.tree(adata, key=key)
    assert np.isfinite(adata.obsm[f"X_{key}"]).all()
    assert set(adata.obs[f"{key}_leaf"].astype(str)) <= set(tree.leaves)
    assert int(tree.n_cells[0]) == adata.n_obs


def run_verbs(adata: ad.AnnData, key: str) -> None:
    """Every verb on a tree; what it writes is finite."""
    tree = ht.get.tree(adata, key=key)
    if attempt(adata, lambda: ht.tl.lineage_graph(adata, key=key), "lineage_graph"):
        start = {"root_key": "text", "root_value": "a"}
        if attempt(adata, lambda: ht.tl.pseudotime(adata, key=key, **start), "pseudotime"):
            assert adata.obs[f"{key}_pseudotime"].between(0, 1).all()
            if attempt(adata, lambda: ht.tl.fate_probabilities(adata, key=key), "fate_probabilities"):
                np.testing.assert_allclose(adata.obsm[f"{key}_fates"].sum(1), 1, atol=1e-9)
        held = list(dict.fromkeys(adata.obs[f"{key}_leaf"].astype(str)))
        ends = f"node:{held[0]}", f"node:{held[-1]}"
        if attempt(adata, lambda: ht.tl.lineage_path(adata, *ends, key=key), "lineage_path"):
            stored = adata.uns[key]
            assert stored["paths"][stored["last_path"]]["n_cells"].sum() <= adata.n_obs
    if attempt(adata, lambda: ht.tl.cut_tree(adata, key=key), "cut_tree"):
        assert adata.obs[f"{key}_cut"].notna().all()
    if len(tree.leaves) > 1:
        attempt(adata, lambda: ht.tl.node_markers(adata, key=key), "node_markers")
    attempt(adata, lambda: ht.tl.compare_conditions(adata, "flag", key=key), "compare_conditions")
    attempt(adata, lambda: ht.tl.to_dendrogram(adata, key=key), "to_dendrogram")


@pytest.mark.filterwarnings("ignore")
@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(st.data())
def test_an_error_of_ours_or_valid_results(drawn):
    adata = drawn.draw(data())
    setup = {}
    for argument, fitting in FITTING.items():
        if drawn.draw(st.integers(0, 2)) == 0:
            names = fitting if drawn.draw(st.integers(0, 9)) else sorted(adata.obs.columns)
            setup[argument] = drawn.draw(st.sampled_from(names))
    model_class = drawn.draw(st.sampled_from([ht.HDTree, ht.HDTree, ht.TreeVAE, ht.BranchedDiffusion]))
    likelihood = drawn.draw(st.sampled_from(["nb", "nb", "zinb", "normal", "bernoulli"]))
    models: list = []
    scvi.settings.seed = 0
    if not attempt(adata, lambda: model_class.setup_anndata(adata, **setup), "setup_anndata"):
        return
    if not attempt(adata, lambda: models.append(model_class(adata, gene_likelihood=likelihood)), "model"):
        return
    key = {"HDTree": "hdtree", "TreeVAE": "treevae", "BranchedDiffusion": "branched"}[model_class.__name__]
    if not attempt(adata, lambda: models[0].train(max_epochs=1, **QUIET), "train"):
        return
    if attempt(adata, lambda: ht.tl.tree(adata, models[0]), "tree"):
        check_tree(adata, key)
        run_verbs(adata, key)


@pytest.mark.parametrize("model_class", [ht.HDTree, ht.TreeVAE])
@pytest.mark.parametrize("likelihood", ["nb", "normal"])
def test_cells_that_are_copies_of_a_few(model_class, likelihood):
    """k-means leaves groups empty then."""
    kinds = np.random.default_rng(0).poisson(5, (3, 8)) + 1
    adata = ad.AnnData(np.repeat(kinds, 30, axis=0).astype(np.float32))
    scvi.settings.seed = 0
    model_class.setup_anndata(adata)
    model = model_class(adata, gene_likelihood=likelihood)
    model.train(max_epochs=3, **QUIET)
    ht.tl.tree(adata, model)
    check_tree(adata, {"HDTree": "hdtree", "TreeVAE": "treevae"}[model_class.__name__])
