"""Contrastive loss, decoder, scaler and likelihood against what they must equal."""

import numpy as np
import pytest
import scanpy as sc
import torch
from scvi.distributions import NegativeBinomial

import hdtree_sc as ht
from hdtree_sc.module._covariates import CovariateVector
from hdtree_sc.module._likelihood import SparseNegativeBinomial
from hdtree_sc.nn import Decoder, soft_contrastive_loss
from hdtree_sc.nn._contrastive import squared_euclidean, squared_hyperbolic
from hdtree_sc.nn._scaler import ExpressionScaler, noise_share


def written_out(anchors, positives, nu, e):
    """The loss as its formula reads, in double precision."""
    d2 = torch.cdist(anchors.double(), positives.double()).square()
    q = (1 + d2 / nu) ** (-(nu + 1) / 2)
    p = q / (q.sum(1, keepdim=True) - q.diagonal().unsqueeze(1))
    s, c = p.diagonal(), p.sum(0)
    return -e * s.log().mean() + 0.5 * (2 + s).log().mean() + 0.5 * (1 + c).log().mean()


@pytest.mark.parametrize(("nu", "e"), [(0.2, 0.5), (0.2, 2.0), (1.0, 0.2)])
def test_contrastive_loss_is_its_formula(nu, e):
    generator = torch.Generator().manual_seed(0)
    anchors = torch.randn(50, 8, generator=generator)
    positives = anchors + 0.3 * torch.randn(50, 8, generator=generator)
    loss = soft_contrastive_loss(anchors, positives, nu=nu, exaggeration=e)
    torch.testing.assert_close(loss.double(), written_out(anchors, positives, nu, e), rtol=1e-5, atol=1e-5)


def test_contrastive_loss_has_a_finite_gradient_where_pairs_coincide():
    anchors = torch.zeros(6, 3, requires_grad=True)
    soft_contrastive_loss(anchors, torch.zeros(6, 3)).backward()
    assert torch.isfinite(anchors.grad).all()
    assert soft_contrastive_loss(torch.ones(1, 3), torch.zeros(1, 3)) == 0, "one pair has nothing to contrast with"


def test_hyperbolic_distance_is_twice_the_flat_one_near_the_origin_and_grows_faster_away_from_it():
    """Half of the norm of a tangent vector is what it is in the ball, whose distances are twice as long there."""
    a, p = torch.randn(12, 4), torch.randn(12, 4)
    near = squared_hyperbolic(0.01 * a, 0.01 * p)
    torch.testing.assert_close(near, squared_euclidean(0.01 * a, 0.01 * p), rtol=1e-2, atol=1e-5)
    # from the origin distances are those of the tangent space, across it longer than straight
    torch.testing.assert_close(squared_hyperbolic(a, torch.zeros(1, 4)), squared_euclidean(a, torch.zeros(1, 4)))
    apart = torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 2.0]])
    assert squared_hyperbolic(*apart) > squared_euclidean(*apart)
    kernel = {"nu": 0.2, "exaggeration": 2.0}
    assert soft_contrastive_loss(a, p, metric="hyperbolic", **kernel) != soft_contrastive_loss(a, p, **kernel)


def test_contrastive_loss_falls_when_pairs_meet():
    z = torch.randn(40, 4, generator=torch.Generator().manual_seed(0))
    assert soft_contrastive_loss(z, z) < soft_contrastive_loss(z, z.flip(0))


def test_sparse_negative_binomial_is_scvi_tools_own():
    generator = torch.Generator().manual_seed(0)
    mu = (3 * torch.rand(40, 30, generator=generator)).requires_grad_()
    theta = 0.1 + torch.rand(30, generator=generator)
    counts = torch.poisson(mu.detach(), generator=generator)
    ours = SparseNegativeBinomial(mu=mu, theta=theta.expand_as(mu)).log_prob(counts)
    theirs = NegativeBinomial(mu=mu, theta=theta.expand_as(mu)).log_prob(counts)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    gradients = [torch.autograd.grad(value.sum(), mu)[0] for value in (ours, theirs)]
    torch.testing.assert_close(*gradients, rtol=1e-3, atol=1e-5)


def test_scaler_is_scanpy_normalize_log_scale(worm):
    reference = worm.copy()
    sc.pp.normalize_total(reference, target_sum=1e4)
    sc.pp.log1p(reference)
    values = reference.X.toarray()
    expected = np.clip((values - values.mean(0)) / (values.std(0) + 1e-3), -10, 10)
    x = torch.from_numpy(worm.X.toarray())
    scaler = ExpressionScaler(worm.n_vars, 5, is_count=True)
    scaler.fit_moments(x, x.sum(1, keepdim=True))
    library = x.sum(1, keepdim=True)
    np.testing.assert_allclose(scaler.standardised(x, library).numpy(), expected, rtol=1e-3, atol=2e-3)


def spread_by_spread(x, *, is_count=True):
    """How steeply the spread of what the encoder reads rises with that of the logged values: 1 is one unit for all."""
    library = x.sum(1, keepdim=True)
    scaler = ExpressionScaler(x.shape[1], 5, is_count=is_count)
    scaler.fit_moments(x, library)
    before, after = (
        part.std(0) for part in (scaler.transform(x, library), (scaler.transform(x, library)) / scaler.std)
    )
    told = before > 0.05
    return np.polyfit(before[told].log().numpy(), after[told].log().numpy(), 1)[0]


def test_genes_of_rich_cells_have_one_unit(worm):
    rich = torch.from_numpy(ht.datasets.branching(200, n_tips=4, seed=0).X.toarray())
    assert spread_by_spread(rich) == pytest.approx(1, abs=0.01)
    # values that are no counts are in the unit they came in
    assert spread_by_spread(torch.log1p(torch.from_numpy(worm.X.toarray())), is_count=False) == pytest.approx(
        1, abs=0.01
    )


def test_genes_of_cells_with_few_counts_go_halfway_to_equal_weight(worm):
    # some 50 counts a cell in 500 genes: the typical gene varies no more than counting makes it vary
    assert spread_by_spread(torch.from_numpy(worm.X.toarray())) == pytest.approx(0.5, abs=0.01)
    whole = ht.datasets.celegans()
    assert spread_by_spread(torch.from_numpy(whole.X.toarray())) == pytest.approx(1, abs=0.01)


def test_share_of_counting_noise_is_all_of_poisson_counts_and_little_of_groups_apart():
    generator = torch.Generator().manual_seed(0)
    rate = torch.full((4000, 40), 3.0)
    alike = torch.poisson(rate, generator=generator)
    apart = torch.poisson(rate * torch.where(torch.arange(4000) % 2 > 0, 20.0, 1.0)[:, None], generator=generator)
    shares = []
    for x in (alike, apart):
        library = torch.full((4000, 1), float(x.sum(1).median()))
        logged = torch.log1p(x * (1e4 / library))
        shares.append(noise_share(x, library, logged.std(0, correction=0)))
    assert shares[0] == pytest.approx(1, abs=0.05)
    assert shares[1] < 0.2


@pytest.mark.parametrize("likelihood", ["nb", "zinb", "normal", "bernoulli"])
def test_decoder_gives_the_parameters_of_each_likelihood(likelihood):
    decoder = Decoder(4, 7, n_covariates=2, likelihood=likelihood)
    out = decoder(torch.randn(3, 5, 4), torch.zeros(3, 5, 2), torch.full((3, 5, 1), 100.0))
    assert all(value.shape == (3, 5, 7) for value in out.values())
    if likelihood in ("nb", "zinb"):
        torch.testing.assert_close(out["scale"].sum(-1), torch.ones(3, 5))
        torch.testing.assert_close(out["mu"].sum(-1), torch.full((3, 5), 100.0))


def test_unknown_categories_are_the_mean_of_the_known_ones():
    vector = CovariateVector(3, (2,), 1)
    tensors = {
        "X": torch.zeros(2, 4),
        "batch": torch.tensor([[1], [3]]),
        "extra_categorical_covs": torch.tensor([[2], [0]]),
        "extra_continuous_covs": torch.tensor([[0.5], [2.0]]),
    }
    third = 1 / 3
    expected = torch.tensor([[0, 1, 0, 0.5, 0.5, 0.5], [third, third, third, 1, 0, 2.0]])
    torch.testing.assert_close(vector(tensors), expected)
    assert vector.width == 6
    assert CovariateVector(1).width == 0, "a single batch says nothing"
