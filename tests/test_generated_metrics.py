"""Measures of generated cells: closed forms, brute force, and real cells against cells that are spoiled on purpose."""

from __future__ import annotations

from functools import partial

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from scipy import sparse

import hdtree_sc as ht
from hdtree_sc.metrics import _generated

MEASURES = ["frechet_distance", "mmd2", "classifier_auc", "gene_correlation_error", "zero_fraction_error"]
small_counts = npst.arrays(np.int64, st.tuples(st.integers(2, 8), st.just(4)), elements=st.integers(0, 5))
QUICK = {"n_components": 10}


@pytest.fixture(scope="module", autouse=True)
def _small_forests():
    """Tables are compared here, not forests: a tenth of the trees will do."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_generated, "classifier_auc", partial(_generated.classifier_auc, n_estimators=20))
        yield


@pytest.fixture(scope="module")
def counts():
    """Counts of the 300 most frequent genes in the bundled C. elegans cells."""
    values = ht.datasets.celegans().X.toarray()
    return values[:, np.argsort(-values.sum(axis=0), kind="stable")[:300]]


@pytest.fixture(scope="module")
def thirds(counts):
    """Three random samples of the cells, 480 each, that share none."""
    return np.split(counts[np.random.default_rng(0).permutation(len(counts))[:1440]], 3)


@pytest.fixture(scope="module")
def table_of_real(thirds):
    """Real cells taken for generated ones."""
    return ht.metrics.compare_cells(thirds[0], thirds[1], reference=thirds[2], **QUICK)


def within_cells(counts):
    """Each cell's values on other genes."""
    return np.random.default_rng(1).permuted(counts, axis=1)


def within_genes(counts):
    """Each gene's values in other cells: every gene is distributed as it was, none knows of another."""
    return np.random.default_rng(1).permuted(counts, axis=0)


class TestClassifier:
    def test_samples_far_apart_are_told_and_samples_of_one_distribution_are_not(self):
        rng = np.random.default_rng(0)
        x, y = rng.normal(size=(120, 3)), rng.normal(size=(90, 3))
        assert ht.metrics.classifier_auc(x, y + 20, n_estimators=20) == 1
        same = [
            ht.metrics.classifier_auc(rng.normal(size=(60, 3)), rng.normal(size=(60, 3)), n_estimators=10)
            for _ in range(10)
        ]
        assert abs(np.mean(same) - 0.5) < 0.08

    def test_cells_without_a_difference_are_a_coin_toss(self):
        assert ht.metrics.classifier_auc(np.ones((9, 2)), np.ones((12, 2)), n_estimators=5) == pytest.approx(0.5)

    def test_it_sees_what_means_and_covariances_do_not(self):
        rng = np.random.default_rng(0)
        x = rng.normal(size=(300, 1))
        y = rng.choice([-1.0, 1.0], size=(300, 1)) + rng.normal(size=(300, 1)) * 0.1
        assert ht.metrics.frechet_distance(x, y) < 0.1
        assert ht.metrics.classifier_auc(x, y, n_estimators=30) > 0.7

    def test_copies_mislead_it(self):
        x = np.random.default_rng(0).normal(size=(80, 3))
        assert ht.metrics.classifier_auc(x, x, n_estimators=20) < 0.3

    def test_the_seed_is_all_its_randomness(self):
        rng = np.random.default_rng(0)
        x, y = rng.normal(size=(50, 3)), rng.normal(size=(50, 3))
        before = np.random.get_state()[1].copy()  # noqa: NPY002 - to see that it is left alone
        first, again, other = (ht.metrics.classifier_auc(x, y, n_estimators=10, seed=s) for s in (3, 3, 4))
        assert first == again
        assert first != other
        np.testing.assert_array_equal(before, np.random.get_state()[1])  # noqa: NPY002

    def test_too_few_cells(self):
        with pytest.raises(ValueError, match=r"n_splits=3: .* got 5 cells in X and 2 in Y"):
            ht.metrics.classifier_auc(np.zeros((5, 2)), np.zeros((2, 2)))
        with pytest.raises(ValueError, match="n_splits=1: two or more folds"):
            ht.metrics.classifier_auc(np.zeros((5, 2)), np.zeros((5, 2)), n_splits=1)
        with pytest.raises(ValueError, match="X has 2 coordinates and Y has 3"):
            ht.metrics.classifier_auc(np.zeros((5, 2)), np.zeros((5, 3)))

    def test_real_cells(self, thirds):
        real, other, _ = (np.log1p(values) for values in thirds)
        same = ht.metrics.classifier_auc(real, other, n_estimators=50)
        assert 0.35 < same < 0.65
        for spoil in (within_cells, within_genes):
            assert ht.metrics.classifier_auc(real, spoil(other), n_estimators=50) > same + 0.2


class TestGeneCorrelations:
    def test_by_hand(self):
        # of the three pairs of genes, the first goes from 1 to -1 and the others from 0 to 0
        x = np.array([[0, 0, 0], [0, 0, 1], [1, 1, 0], [1, 1, 1]])
        y = np.array([[0, 1, 0], [0, 1, 1], [1, 0, 0], [1, 0, 1]])
        assert ht.metrics.gene_correlation_error(x, y) == pytest.approx(2 / np.sqrt(3))

    @given(small_counts, small_counts)
    @settings(max_examples=60, deadline=None)
    def test_equals_numpy_dense_or_sparse(self, x, y):
        kept = (np.ptp(x, axis=0) > 0) & (np.ptp(y, axis=0) > 0)
        if kept.sum() < 2:
            with pytest.raises(ValueError, match=rf"vary in both samples, got {kept.sum()} of 4"):
                ht.metrics.gene_correlation_error(x, y)
            return
        gap = (np.corrcoef(x[:, kept].T) - np.corrcoef(y[:, kept].T))[np.triu_indices(kept.sum(), 1)]
        expected = pytest.approx(np.sqrt((gap**2).mean()), abs=1e-9)
        assert ht.metrics.gene_correlation_error(x, y) == expected
        assert ht.metrics.gene_correlation_error(sparse.csc_array(y), sparse.csr_matrix(x)) == expected

    def test_scale_and_shift_of_a_gene_do_not_matter(self):
        rng = np.random.default_rng(0)
        x = rng.normal(size=(3000, 4))  # more cells than are made dense at a time
        assert ht.metrics.gene_correlation_error(x, x * [1, 2, 30, 0.1] + 1e3) == pytest.approx(0, abs=1e-9)

    def test_a_constant_that_is_no_binary_fraction_is_constant(self):
        x = np.random.default_rng(0).normal(size=(30, 3))
        y = x.copy()
        y[:, 2] = 0.1
        assert ht.metrics.gene_correlation_error(x, y) == pytest.approx(0, abs=1e-12)

    def test_the_most_variable_genes_of_the_first_sample(self):
        rng = np.random.default_rng(0)
        x, y = rng.normal(size=(40, 4)) * [1, 9, 2, 8], rng.normal(size=(40, 4)) * [7, 1, 9, 1]
        expected = ht.metrics.gene_correlation_error(x[:, [1, 3]], y[:, [1, 3]])
        assert ht.metrics.gene_correlation_error(x, y, n_genes=2) == pytest.approx(expected)
        assert ht.metrics.gene_correlation_error(x, y, n_genes=9) == ht.metrics.gene_correlation_error(x, y)
        with pytest.raises(ValueError, match="n_genes=1: two or more"):
            ht.metrics.gene_correlation_error(x, y, n_genes=1)

    def test_independent_genes_differ_by_the_sampling_error(self):
        rng = np.random.default_rng(0)
        error = ht.metrics.gene_correlation_error(rng.normal(size=(200, 80)), rng.normal(size=(200, 80)))
        assert error == pytest.approx(np.sqrt(2 / 199), rel=0.05)


class TestZeros:
    def test_by_hand(self):
        x = np.array([[0, 1, 0, 2], [0, 0, 3, 4]])
        y = np.array([[0, 1, 2, 0]])
        assert ht.metrics.zero_fraction(x) == pytest.approx(1 / 2)
        assert ht.metrics.zero_fraction_error(x, y) == pytest.approx((0 + 0.5 + 0.5 + 1) / 4)

    @given(small_counts, small_counts)
    @settings(max_examples=40, deadline=None)
    def test_sparse_is_as_dense(self, x, y):
        assert ht.metrics.zero_fraction(sparse.coo_array(x)) == pytest.approx((x == 0).mean())
        error = ht.metrics.zero_fraction_error(x, y)
        assert 0 <= error <= 1
        assert error == pytest.approx(ht.metrics.zero_fraction_error(sparse.csr_matrix(y), sparse.csc_matrix(x)))

    def test_stored_zeros_are_zeros_and_the_matrix_is_left_as_it_was(self):
        # an entry stored as 0, and one stored twice that comes to 0
        x = sparse.csr_matrix((np.array([0.0, 2.0, 1.0, -1.0]), [0, 1, 0, 0], [0, 2, 4]), shape=(2, 3))
        assert ht.metrics.zero_fraction(x) == pytest.approx(5 / 6)
        assert x.data.tolist() == [0, 2, 1, -1]

    def test_genes_must_agree_and_values_be_there(self):
        for metric in (ht.metrics.zero_fraction_error, ht.metrics.gene_correlation_error):
            with pytest.raises(ValueError, match="X has 3 genes and Y has 4"):
                metric(np.zeros((5, 3)), np.zeros((5, 4)))
        with pytest.raises(ValueError, match="no cells or no genes"):
            ht.metrics.zero_fraction(np.zeros((0, 3)))
        for matrix in (np.array([[np.nan, 1]]), sparse.csr_matrix([[np.inf, 1]])):
            with pytest.raises(ValueError, match="X: NaN or infinite"):
                ht.metrics.zero_fraction(matrix)


class TestCompareCells:
    def test_its_rows_and_columns(self, table_of_real):
        assert list(table_of_real.index) == MEASURES
        assert list(table_of_real.columns) == ["value", "floor"]
        assert table_of_real.attrs["n_cells"] == 240  # the other 240 cells of the reference give the components

    def test_real_cells_are_at_the_floor(self, table_of_real):
        value, floor = table_of_real["value"], table_of_real["floor"]
        assert 0.35 < floor["classifier_auc"] < 0.65
        assert 0.35 < value["classifier_auc"] < 0.65
        assert abs(floor["mmd2"]) < 0.02
        assert abs(value["mmd2"]) < 0.02
        for name in ("frechet_distance", "gene_correlation_error", "zero_fraction_error"):
            assert 0.5 < value[name] / floor[name] < 2

    def test_cells_with_values_on_other_genes(self, thirds, table_of_real):
        spoiled = ht.metrics.compare_cells(thirds[0], within_cells(thirds[1]), reference=thirds[2], **QUICK)
        pd.testing.assert_series_equal(spoiled["floor"], table_of_real["floor"])
        assert spoiled.loc["classifier_auc", "value"] > 0.95
        assert (spoiled["value"] > 2 * spoiled["floor"]).drop("classifier_auc").all()

    def test_genes_that_do_not_know_of_one_another(self, thirds):
        spoiled = ht.metrics.compare_cells(thirds[0], within_genes(thirds[1]), reference=thirds[2], **QUICK)
        value, floor = spoiled["value"], spoiled["floor"]
        assert value["gene_correlation_error"] > 2 * floor["gene_correlation_error"]
        assert value["frechet_distance"] > 5 * floor["frechet_distance"]
        assert value["zero_fraction_error"] < 1.5 * floor["zero_fraction_error"]

    def test_the_floor_is_not_of_cells_that_made_the_components(self, counts):
        # of many genes and few cells, cells stand far out in components fitted to their own noise
        rng = np.random.default_rng(0)
        noise = rng.poisson(1.0, size=(360, 800))
        table = ht.metrics.compare_cells(noise[:120], noise[120:240], reference=noise[120:], **QUICK)
        assert table.loc["classifier_auc", "floor"] < 0.65

    def test_without_a_reference_real_cells_are_parted(self, thirds):
        table = ht.metrics.compare_cells(thirds[0], thirds[1], **QUICK)
        assert table.attrs["n_cells"] == 160
        assert 0.35 < table.loc["classifier_auc", "floor"] < 0.65
        fewer = ht.metrics.compare_cells(thirds[0], thirds[1][:50], **QUICK)
        assert fewer.attrs["n_cells"] == 50

    def test_sparse_is_as_dense_and_the_seed_repeats(self, counts):
        real, generated = counts[::10, :60], counts[1::10, :60]
        dense = ht.metrics.compare_cells(real, generated, n_components=4)
        pd.testing.assert_frame_equal(dense, ht.metrics.compare_cells(real, generated, n_components=4))
        mixed = ht.metrics.compare_cells(sparse.csr_matrix(real), sparse.csc_array(generated), n_components=4)
        pd.testing.assert_frame_equal(dense, mixed, rtol=0.02, atol=1e-6)
        other = ht.metrics.compare_cells(real, generated, n_components=4, seed=1)
        assert (dense != other).to_numpy().any()

    def test_counts_are_log_normalised_and_other_values_are_not(self, counts):
        real, generated = counts[::10, :60].astype(float), counts[1::10, :60].astype(float)
        real[0] = 0  # a cell without counts stays as it is
        logs = [
            np.log1p(50 * values / np.maximum(values.sum(axis=1, keepdims=True), 1)) for values in (real, generated)
        ]
        expected = ht.metrics.compare_cells(*logs, is_count=False, n_components=4)
        table = ht.metrics.compare_cells(real, generated, target_sum=50, n_components=4)
        pd.testing.assert_frame_equal(table, expected, rtol=0.02, atol=1e-6)
        depth = np.random.default_rng(0).integers(1, 5, size=(len(generated), 1))
        deeper = ht.metrics.compare_cells(real, generated * depth, target_sum=50, n_components=4)
        pd.testing.assert_frame_equal(deeper, table, rtol=0.02, atol=1e-6)

    def test_components_are_fewer_than_genes(self, counts):
        assert np.isfinite(ht.metrics.compare_cells(counts[::20, :5], counts[1::20, :5]).to_numpy()).all()

    def test_what_is_refused(self):
        ones = np.ones((9, 3))
        with pytest.raises(ValueError, match="got 3 in real, 4 in generated, 3 in reference"):
            ht.metrics.compare_cells(ones, np.ones((9, 4)), reference=ones)
        with pytest.raises(ValueError, match=r"9 real ones without a reference; got 2 real, 9 generated, 6 reference"):
            ht.metrics.compare_cells(ones[:8], ones)
        for matrix in (-ones, sparse.csr_matrix(-ones)):
            with pytest.raises(ValueError, match="generated: negative values are no counts"):
                ht.metrics.compare_cells(ones, matrix)
        with pytest.raises(ValueError, match="n_components=0"):
            ht.metrics.compare_cells(ones, ones, n_components=0)
        with pytest.raises(ValueError, match=r"target_sum=-1"):
            ht.metrics.compare_cells(ones, ones, target_sum=-1)
        with pytest.raises(ValueError, match="two or more genes"):
            ht.metrics.compare_cells(ones[:, :1], ones[:, :1])
        with pytest.raises(ValueError, match="reference: NaN"):
            ht.metrics.compare_cells(ones, ones, reference=ones * np.nan)
