"""Tests and trends that are written for many variables at once, against statsmodels, which fits one at a time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import statsmodels.api as sm
from scipy import stats

from hdtree_sc.stats import _trends, compare_shares, design, moderated_t, trend_curves, trend_test
from hdtree_sc.stats._moderation import squeeze
from hdtree_sc.stats._shares import _fit

N, GENES, KNOTS = 150, 6, 4


@dataclass
class Cells:
    """Values of cells, as the trends read them."""

    values: np.ndarray
    library: np.ndarray | None = None

    def dense(self, genes):
        return self.values[:, genes]


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def plan(rng):
    """A design of two batches."""
    return design(rng.random(N), rng.integers(0, 2, N), KNOTS, 20)


def counts(rng, plan, library):
    """Negative binomial counts with trends of different strength."""
    trend = np.outer(plan.basis @ np.linspace(-1, 1, plan.basis.shape[1]), np.linspace(0, 1.5, GENES))
    mean = library[:, None] * np.exp(trend + np.log(5.0) + 0.4 * plan.batch[:, None])
    return rng.poisson(rng.gamma(2.0, mean / 2.0)).astype(float)


def batches(plan):
    return np.eye(2)[plan.batch]


class TestTrendTest:
    def test_of_values_it_is_the_f_test_of_nested_linear_models(self, rng, plan):
        values = rng.normal(size=(N, GENES)) + np.outer(plan.basis[:, 0], np.arange(GENES) / 3)
        found = trend_test(Cells(values), plan, np.arange(GENES))
        for i in range(GENES):
            null = sm.OLS(values[:, i], batches(plan)).fit()
            full = sm.OLS(values[:, i], np.column_stack([batches(plan), plan.basis[:, 1:]])).fit()
            statistic, pval, _ = full.compare_f_test(null)
            np.testing.assert_allclose(found.statistic[i], statistic, rtol=1e-8)
            np.testing.assert_allclose(found.pval[i], pval, rtol=1e-7)
            np.testing.assert_allclose(found.r2[i], 1 - full.ssr / null.ssr, rtol=1e-7)

    def test_of_counts_it_is_the_score_test_over_the_pearson_statistic_that_is_left(self, rng, plan):
        library = np.where(plan.batch == 0, 1.0, 2.0)  # one size a batch: rates are then the likeliest ones
        values = counts(rng, plan, library)
        found = trend_test(Cells(values, library), plan, np.arange(GENES))
        splines, k = plan.basis[:, 1:], plan.basis.shape[1] - 1
        for i in range(GENES):
            mean = sm.GLM(values[:, i], batches(plan), sm.families.Poisson(), offset=np.log(library)).fit().fittedvalues
            family = sm.families.NegativeBinomial(alpha=dispersion(values[:, i], mean))
            null = sm.GLM(values[:, i], batches(plan), family, offset=np.log(library)).fit(tol=1e-12)
            score = null.score_test(exog_extra=splines, observed=False)[0]
            statistic = score / k / ((null.pearson_chi2 - score) / (N - 2 - k))
            np.testing.assert_allclose(found.statistic[i], statistic, rtol=1e-5)
            np.testing.assert_allclose(found.pval[i], stats.f.sf(statistic, k, N - 2 - k), rtol=1e-4)


def dispersion(values, mean):
    """By moments, as the trends take it."""
    return max(float((np.square(values - mean) - mean).sum() / np.square(mean).sum()), 1e-12)


class TestTrendCurves:
    @pytest.fixture
    def columns(self, plan):
        batch = (plan.batch == 1).astype(float)
        return np.column_stack([plan.basis, batch - batch.mean()])

    @pytest.fixture
    def grid(self, plan):
        return np.column_stack([plan.grid_basis, np.zeros(len(plan.grid))])

    def test_of_values_they_are_least_squares(self, rng, plan, columns, grid):
        values = rng.normal(size=(N, GENES)) + np.outer(plan.basis[:, 0], np.arange(GENES) / 3)
        found = trend_curves(Cells(values), plan, np.arange(GENES))
        for i in range(GENES):
            peer = sm.OLS(values[:, i], columns).fit()
            np.testing.assert_allclose(found.fit[i], peer.predict(grid), atol=1e-5)
            error = peer.get_prediction(grid).se_mean
            np.testing.assert_allclose(found.high[i] - found.fit[i], stats.norm.ppf(0.975) * error, rtol=1e-4)

    def test_of_counts_they_are_a_negative_binomial_regression(self, monkeypatch, rng, plan, columns, grid):
        monkeypatch.setattr(_trends, "RIDGE", 0.0)
        monkeypatch.setattr(_trends, "TOLERANCE", 1e-9)
        library = rng.uniform(0.5, 2.0, N)
        values = counts(rng, plan, library)
        found = trend_curves(Cells(values, library), plan, np.arange(GENES), target_sum=3.0)
        for i in range(GENES):
            first = sm.GLM(values[:, i], columns, sm.families.Poisson(), offset=np.log(library)).fit(tol=1e-12)
            family = sm.families.NegativeBinomial(alpha=dispersion(values[:, i], first.fittedvalues))
            peer = sm.GLM(values[:, i], columns, family, offset=np.log(library)).fit(scale="X2", tol=1e-12)
            log_fit = grid @ peer.params
            error = np.sqrt(np.einsum("mi,ij,mj->m", grid, peer.cov_params(), grid))
            np.testing.assert_allclose(found.fit[i], 3.0 * np.exp(log_fit), rtol=1e-5)
            wide = stats.norm.ppf(0.975) * error
            np.testing.assert_allclose(np.log(found.low[i] / 3.0), log_fit - wide, atol=1e-4)
            np.testing.assert_allclose(np.log(found.high[i] / 3.0), log_fit + wide, atol=1e-4)

    def test_the_ridge_hardly_moves_a_gene_with_counts(self, monkeypatch, rng, plan):
        library = np.ones(N)
        cells = Cells(counts(rng, plan, library), library)
        with_ridge = trend_curves(cells, plan, np.arange(GENES))
        monkeypatch.setattr(_trends, "RIDGE", 0.0)
        np.testing.assert_allclose(with_ridge.fit, trend_curves(cells, plan, np.arange(GENES)).fit, rtol=0.1)


class TestShares:
    treated = np.arange(10) % 2 == 0
    alone = np.zeros(10, dtype=int)
    pairs = np.arange(10) // 2

    @pytest.mark.parametrize("block", [alone, pairs], ids=["alone", "paired"])
    def test_a_fit_is_a_logistic_regression(self, rng, block):
        n = rng.integers(20, 400, (10, 5)).astype(float)
        k = rng.binomial(n.astype(int), rng.uniform(0.1, 0.6, (10, 5))).astype(float)
        columns = self.columns(block)
        share, leverage, settled = _fit(k, n, columns)
        assert settled.all()
        for i in range(5):
            peer = sm.GLM(np.column_stack([k[:, i], n[:, i] - k[:, i]]), columns, sm.families.Binomial()).fit(tol=1e-12)
            np.testing.assert_allclose(share[:, i], peer.fittedvalues, rtol=1e-6)
            np.testing.assert_allclose(leverage[:, i], peer.get_hat_matrix_diag(), rtol=1e-5)

    @pytest.mark.parametrize("block", [alone, pairs], ids=["alone", "paired"])
    @pytest.mark.parametrize("spread", [0.0, 0.6], ids=["by chance", "samples vary"])
    def test_one_share_is_tested_by_its_drop_in_deviance(self, rng, block, spread):
        n = rng.integers(50, 400, (10, 1))
        logit = -0.8 + 0.5 * self.treated[:, None] + rng.normal(0.0, spread, (10, 1))
        k = rng.binomial(n, 1.0 / (1.0 + np.exp(-logit)))
        (found,) = compare_shares(k, n, self.treated, block)

        columns, df = self.columns(block), 10 - np.linalg.matrix_rank(self.columns(block))
        peer = self.glm(k[:, 0], n[:, 0], columns)
        free = 1.0 - peer.get_hat_matrix_diag()
        # Williams (1982): samples of n cells count as n / (1 + (n - 1) rho), rho by moments
        rho = np.clip((peer.pearson_chi2 - free.sum()) / (free * (n[:, 0] - 1.0)).sum(), 0.0, 1.0)
        weight = 1.0 / (1.0 + (n[:, 0] - 1.0) * rho)
        full = self.glm(k[:, 0] * weight, n[:, 0] * weight, columns)
        null = self.glm(k[:, 0] * weight, n[:, 0] * weight, columns[:, :-1])
        drop = (null.deviance - full.deviance) / max(full.pearson_chi2 / df, 1.0)
        np.testing.assert_allclose(found, stats.f.sf(drop, 1, df), rtol=1e-4)
        assert (rho > 0.02) == (spread > 0)

    def columns(self, block):
        return np.column_stack([(block[:, None] == np.unique(block)).astype(float), self.treated.astype(float)])

    @staticmethod
    def glm(k, n, columns):
        return sm.GLM(np.column_stack([k, n - k]), columns, sm.families.Binomial()).fit(tol=1e-12)


class TestModeration:
    columns = np.column_stack([np.ones(8), np.arange(8) % 2])

    def test_of_one_gene_it_is_the_t_test_of_a_linear_model(self, rng):
        values = rng.normal(size=(8, 1))
        effect, p = moderated_t(values, self.columns)
        peer = sm.OLS(values[:, 0], self.columns).fit()
        np.testing.assert_allclose([effect[0], p[0]], [peer.params[-1], peer.pvalues[-1]], rtol=1e-9)

    def test_of_many_it_is_the_same_with_moderated_errors_and_degrees_of_freedom(self, rng):
        values = rng.normal(scale=np.sqrt(4.0 / rng.chisquare(4.0, 40)), size=(8, 40))
        effect, p = moderated_t(values, self.columns)
        peers = [sm.OLS(one, self.columns).fit() for one in values.T]
        variance = np.array([peer.mse_resid for peer in peers])
        moderated, df = squeeze(variance, np.full(40, 6.0), np.ones(40, dtype=bool))
        t = np.array([peer.tvalues[-1] for peer in peers]) * np.sqrt(variance / moderated)
        np.testing.assert_allclose(effect, [peer.params[-1] for peer in peers], rtol=1e-9)
        np.testing.assert_allclose(p, 2 * stats.t.sf(np.abs(t), df), rtol=1e-7)

    def test_the_variances_and_degrees_of_freedom_that_were_put_in_come_out(self, rng):
        # Smyth (2004): 1 / variance is chi-square of d0 degrees over d0 s0; the estimate is chi-square of df about it
        d0, s0, df = 8.0, 0.5, 6.0
        variance = d0 * s0 / rng.chisquare(d0, 100_000) * rng.chisquare(df, 100_000) / df
        moderated, degrees = squeeze(variance, np.full(len(variance), df), np.ones(len(variance), dtype=bool))
        np.testing.assert_allclose(degrees, d0 + df, rtol=0.05)
        np.testing.assert_allclose(moderated, (d0 * s0 + df * variance) / (d0 + df), rtol=0.05)
