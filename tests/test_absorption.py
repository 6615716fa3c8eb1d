"""Fate probabilities are those of the walk that the notes describe, whatever the ends are."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

import hdtree_sc as ht
from hdtree_sc.graph import _walk_solver
from hdtree_sc.graph._absorption import absorption, first_met


def by_elimination(strengths: sparse.csr_matrix, time: np.ndarray, end: np.ndarray, width: float) -> np.ndarray:
    """The documented walk without loss of digits: states are eliminated one by one, and nothing is ever subtracted
    (Grassmann, Taksar and Heyman 1985).
    """
    edges, n_ends = strengths.tocoo(), end.max() + 1
    back = np.maximum(time[edges.row] - time[edges.col], 0) / width
    step = np.zeros(strengths.shape)
    step[edges.row, edges.col] = edges.data * np.exp(-back)
    exact = np.eye(n_ends + 1)[end][:, :n_ends]
    free = np.flatnonzero(end < 0)
    p, n = np.hstack([step[np.ix_(free, free)], step[free] @ exact]), len(free)
    for i in range(n - 1, -1, -1):
        p[i, i:n] = 0
        p[i] /= p[i].sum()
        p[:i] += np.outer(p[:i, i], p[i])
    for i in range(n):
        exact[free[i]] = p[i, :i] @ exact[free[:i]] + p[i, n:]
    return exact


def walk_of(adata, names):
    """Graph, time, ends and width that fate_probabilities walks with."""
    strengths = sparse.csr_matrix(adata.obsp["hdtree_connectivities"], dtype=float)
    strengths.data = np.sqrt(strengths.data)
    end = np.full(adata.n_obs, -1)
    for i, name in enumerate(names):
        end[(adata.obs["cell_type"] == name).to_numpy()] = i
    return strengths, adata.obs["hdtree_pseudotime"].to_numpy(float), end, adata.uns["hdtree"]["fates"]["width"]


@pytest.fixture(scope="module")
def ordered(fitted):
    adata = fitted[1].copy()
    ht.tl.pseudotime(adata, root=adata.obs_names[int(np.argmin(adata.obs["time"].to_numpy()))])
    return adata


@pytest.mark.parametrize("names", [("ASG", "AWA"), ("AWA", "ASG"), ("AWB",), ("ADL", "ASG", "AWA")])
def test_given_ends_take_what_the_walk_gives_them_in_any_order(ordered, names):
    ht.tl.fate_probabilities(ordered, list(names), groupby="cell_type")
    fates = ordered.obsm["hdtree_fates"][list(names)]
    np.testing.assert_allclose(fates, by_elimination(*walk_of(ordered, names)), atol=1e-5)
    np.testing.assert_allclose(fates.sum(1), 1, atol=1e-12)


def test_a_further_end_takes_from_the_others_only(ordered):
    names = ["ASG", "AWA"]
    ht.tl.fate_probabilities(ordered, names, groupby="cell_type")
    two = ordered.obsm["hdtree_fates"][names].copy()
    ht.tl.fate_probabilities(ordered, [*names, "ADL"], groupby="cell_type")
    assert (ordered.obsm["hdtree_fates"][names] - two).to_numpy().max() < 1e-6


def test_the_error_is_bounded_and_kept(ordered):
    ht.tl.fate_probabilities(ordered, ["ASG", "AWA"], groupby="cell_type")
    kept = ordered.uns["hdtree"]["fates"]
    assert 0 <= kept["residual"] <= 1e-9
    assert 0 <= kept["error"] < 1e-3


def test_iteration_and_factors_agree(ordered):
    ht.tl.fate_probabilities(ordered, ["ASG", "AWA"], groupby="cell_type")
    strengths, time, end, width = walk_of(ordered, ["ASG", "AWA"])
    found = [absorption(strengths, time, end, 2, width, direct=direct).probability for direct in (True, False)]
    np.testing.assert_allclose(*found, atol=1e-6)


def test_equations_that_were_not_solved_are_an_error(ordered, monkeypatch):
    ht.tl.fate_probabilities(ordered, ["ASG", "AWA"], groupby="cell_type")
    before = ordered.obsm["hdtree_fates"].copy()
    monkeypatch.setattr(_walk_solver, "DIRECT_STATES", 0)
    monkeypatch.setattr(_walk_solver, "MAX_STEPS", 0)
    with pytest.raises(RuntimeError, match="not solved"):
        ht.tl.fate_probabilities(ordered, ["AWB", "AWA"], groupby="cell_type")
    assert ordered.obsm["hdtree_fates"].equals(before)


@st.composite
def networks(draw):
    """A connected graph whose strengths and times differ by many orders of magnitude."""
    n = draw(st.integers(3, 30))
    rng = np.random.default_rng(draw(st.integers(0, 2**31)))
    pairs = {tuple(sorted(p)) for p in pairwise(rng.permutation(n))}
    pairs |= {tuple(sorted(p)) for p in rng.integers(0, n, (2 * n, 2)) if p[0] != p[1]}
    a, b = np.array(sorted(pairs)).T
    strength = np.exp(rng.uniform(-7, 0, len(a)))
    graph = sparse.coo_matrix((np.r_[strength, strength], (np.r_[a, b], np.r_[b, a])), shape=(n, n)).tocsr()
    end = np.full(n, -1)
    end[rng.permutation(n)[:2]] = [0, 1]
    return graph, rng.random(n), end, draw(st.sampled_from([1.0, 0.1, 0.02, 0.005]))


@settings(max_examples=60, deadline=None)
@given(networks())
def test_any_network(network):
    graph, time, end, width = network
    found = absorption(graph, time, end, 2, width)
    np.testing.assert_allclose(found.probability, by_elimination(graph, time, end, width), atol=1e-4)


def test_a_part_without_an_end_and_equal_times():
    # 0 - 1 - 2 and, apart from them, 3 - 4
    a, b = [0, 1, 3], [1, 2, 4]
    graph = sparse.coo_matrix((np.ones(6), (a + b, b + a)), shape=(5, 5)).tocsr()
    found = absorption(graph, np.zeros(5), np.array([0, -1, 1, -1, -1]), 2, 0.0).probability
    np.testing.assert_allclose(found, [[1, 0], [0.5, 0.5], [0, 1], [0.5, 0.5], [0.5, 0.5]])


def test_between_two_times_a_walk_meets_them_in_proportion():
    # a chain of five cells whose ends have a time, and a cell apart that meets none
    a, b = np.arange(4), np.arange(1, 5)
    graph = sparse.coo_matrix((np.ones(8), (np.r_[a, b], np.r_[b, a])), shape=(6, 6)).tocsr()
    known = np.array([True, False, False, False, True, False])
    met = first_met(graph, np.zeros(6), known, np.array([0.0, 9, 9, 9, 1, 9])[:, None]).values[:, 0]
    np.testing.assert_allclose(met, [0, 0.25, 0.5, 0.75, 1, np.nan], atol=1e-9)


def test_a_time_that_most_cells_lack_still_says_where_forward_is(ordered):
    rng = np.random.default_rng(0)
    ordered.obs["half"] = ordered.obs["time"].where(rng.random(ordered.n_obs) < 0.1)
    out = ht.tl.fate_probabilities(ordered, ["ASG", "AWA"], groupby="cell_type", time_key="half", copy=True)
    assert out.uns["hdtree"]["fates"]["direction"] == "half"
    np.testing.assert_allclose(out.obsm["hdtree_fates"].sum(1), 1, atol=1e-12)
