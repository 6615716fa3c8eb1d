"""The diffusion core against closed forms and against diffusers, and the generator's parts that stand around it."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hdtree_sc.data._points import PointSplitter, TensorBatches
from hdtree_sc.diffusion import CLEAN, NoiseSchedule, alpha_sigma, diffusion_loss, integrate, variational_bound
from hdtree_sc.diffusion._objective import data_and_noise, loss_weight
from hdtree_sc.diffusion._schedule import ddpm_levels
from hdtree_sc.module._covariate_pool import CovariatePool
from hdtree_sc.module._latent_diffusion import Condition, LatentDiffusion, without_condition
from hdtree_sc.nn import Denoiser

QUICK = settings(max_examples=30, deadline=None)
KINDS = ["cosine", "linear"]
METHODS = ["ancestral", "ddim", "dpm"]
ODES = ["ddim", "dpm"]
TARGETS = ["v", "eps", "x0"]


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


@dataclass
class Mixture:
    """Normal modes in any number of dimensions, of which everything is known, the perfect denoiser included."""

    shares: torch.Tensor
    means: torch.Tensor
    variances: torch.Tensor

    def draw(self, n: int) -> torch.Tensor:
        mode = torch.multinomial(self.shares, n, replacement=True)
        spread = self.variances[mode].sqrt()
        return self.means[mode] + spread * torch.randn(n, self.means.shape[1], dtype=torch.float64)

    def mode_of(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cdist(x, self.means).argmin(1)

    def denoise(self, x: torch.Tensor, level: torch.Tensor) -> torch.Tensor:
        """``E[x0 | x]``: the mean over modes, by their probability, of what each would expect."""
        alpha, sigma = (scale.unsqueeze(1) for scale in alpha_sigma(level))
        variance = alpha**2 * self.variances + sigma**2
        off = x.unsqueeze(1) - alpha * self.means
        log_density = -0.5 * (off.square() / variance + variance.log()).sum(2)
        shares = torch.softmax(self.shares.log() + log_density, 1)
        return (shares.unsqueeze(2) * (self.means + alpha * self.variances / variance * off)).sum(1)

    def network(self, target: str = "v"):
        """A network that never errs."""

        def answer(x: torch.Tensor, level: torch.Tensor) -> torch.Tensor:
            (alpha, sigma), data = alpha_sigma(level), self.denoise(x, level)
            return {"x0": data, "eps": (x - alpha * data) / sigma, "v": (alpha * x - data) / sigma}[target]

        return answer


def normal(mean: float | list[float], variance: float | list[float]) -> Mixture:
    """One normal class."""
    mean, variance = (torch.as_tensor(value, dtype=torch.float64).reshape(1, -1) for value in (mean, variance))
    return Mixture(torch.ones(1, dtype=torch.float64), mean, variance.expand_as(mean))


THREE = Mixture(
    torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64),
    torch.tensor([[-2.0, 0.0], [3.0, 1.0], [0.0, 4.0]], dtype=torch.float64),
    torch.tensor([[0.09], [0.25], [0.16]], dtype=torch.float64).expand(3, 2),
)


def scales(level: float) -> tuple[float, float]:
    alpha, sigma = alpha_sigma(torch.tensor(level, dtype=torch.float64))
    return float(alpha), float(sigma)


def noised(x: torch.Tensor, level: float) -> torch.Tensor:
    alpha, sigma = scales(level)
    return alpha * x + sigma * torch.randn_like(x)


def flow(x: torch.Tensor, mean: float, variance: float, start: float, stop: float) -> torch.Tensor:
    """Where the probability-flow ODE of one normal class leads: as many standard deviations from its mean as before."""
    (alpha, sigma), (alpha_stop, sigma_stop) = scales(start), scales(stop)
    deviations = (x - alpha * mean) / (alpha**2 * variance + sigma**2) ** 0.5
    return alpha_stop * mean + (alpha_stop**2 * variance + sigma_stop**2) ** 0.5 * deviations


def correlations(before: torch.Tensor, after: torch.Tensor) -> torch.Tensor:
    return torch.stack([torch.corrcoef(torch.stack(pair))[0, 1] for pair in zip(before.T, after.T, strict=True)])


class TestSchedule:
    @QUICK
    @given(st.sampled_from(KINDS), st.floats(0, 1), st.floats(-12, -1), st.floats(1, 12))
    def test_time_and_level_are_each_others_inverse(self, kind, time, lowest, highest):
        schedule, time = NoiseSchedule(kind, lowest, highest), torch.tensor(time, dtype=torch.float64)
        level = schedule.level(time)
        torch.testing.assert_close(schedule.time(level), time, atol=1e-9, rtol=0)
        torch.testing.assert_close(schedule.level(schedule.time(level)), level, atol=1e-6, rtol=0)

    @pytest.mark.parametrize("kind", KINDS)
    def test_time_runs_from_the_lowest_level_to_the_highest(self, kind):
        levels = NoiseSchedule(kind).level(torch.linspace(0, 1, 101, dtype=torch.float64))
        assert (levels.diff() > 0).all()
        torch.testing.assert_close(levels[[0, -1]], torch.tensor([-9.0, 9.0], dtype=torch.float64))
        outside = torch.tensor([CLEAN, -20.0, 20.0], dtype=torch.float64)
        assert NoiseSchedule(kind).time(outside).tolist() == pytest.approx([0, 0, 1])

    def test_cosine_is_that_of_nichol_and_dhariwal(self):
        level = NoiseSchedule("cosine", -12, 12).level(torch.tensor([0.2, 0.7], dtype=torch.float64))
        # the ends of the schedule are .0016 of a unit of time inside theirs
        expected = torch.cos(0.5 * torch.pi * torch.tensor([0.2, 0.7], dtype=torch.float64))
        torch.testing.assert_close(alpha_sigma(level)[0], expected, atol=3e-3, rtol=0)

    def test_linear_is_the_exponential_of_the_integral_of_beta(self):
        schedule = NoiseSchedule("linear", -9.0, 9.0)
        times = torch.linspace(0, 1, 9, dtype=torch.float64)
        integral = -2 * alpha_sigma(schedule.level(times))[0].log()  # .1 s + 9.95 s^2 with s evenly spaced
        even = (-0.1 + torch.sqrt(0.01 + 4 * 9.95 * integral)) / (2 * 9.95)
        torch.testing.assert_close(even.diff(), even.diff().mean().expand(8))

    @given(st.floats(-30, 30))
    def test_signal_and_noise_have_unit_variance_together_and_the_ratio_that_the_level_says(self, level):
        alpha, sigma = scales(level)
        assert alpha**2 + sigma**2 == pytest.approx(1)
        assert np.log(sigma**2 / alpha**2) == pytest.approx(level, abs=1e-6)

    def test_clean_data_are_all_signal(self):
        assert scales(CLEAN) == (1, 0)

    @pytest.mark.parametrize("kind", KINDS)
    def test_a_whole_way_leads_from_the_highest_level_to_the_lowest_and_then_to_clean_data(self, kind):
        schedule = NoiseSchedule(kind)
        levels = schedule.steps(10)
        assert levels.shape == (12,)
        assert levels[[0, -2, -1]].tolist() == [9, -9, CLEAN]
        torch.testing.assert_close(schedule.time(levels[:-1]), torch.linspace(1, 0, 11, dtype=torch.float64))

    def test_a_way_starts_and_stops_anywhere_down_and_up(self):
        schedule = NoiseSchedule()
        down, up = schedule.steps(7, start=2.5, stop=-1.5), schedule.steps(7, start=-1.5, stop=2.5)
        assert down[[0, -1]].tolist() == [2.5, -1.5]
        torch.testing.assert_close(up, down.flip(0))

    @QUICK
    @given(
        st.sampled_from(KINDS),
        st.integers(1, 30),
        st.integers(-12, 12),
        st.one_of(st.just(CLEAN), st.integers(-12, 12)),
        st.lists(st.integers(-12, 12)),
    )
    def test_every_way_is_monotone_and_passes_through_what_it_must(self, kind, n_steps, start, stop, through):
        levels = NoiseSchedule(kind).steps(n_steps, start, stop, through=through)
        assert levels[0] == start
        assert levels[-1] == stop
        assert (levels.diff() > 0).all() if stop > start else (levels.diff() < 0).all()
        last = min(-9, start) if stop == CLEAN else stop
        assert {level for level in through if min(start, last) < level < max(start, last)} <= set(levels.tolist())

    def test_mistakes_are_named(self):
        with pytest.raises(ValueError, match="'sigmoid' is none of cosine, linear"):
            NoiseSchedule("sigmoid")
        with pytest.raises(ValueError, match="not below highest"):
            NoiseSchedule(lowest=3, highest=3)
        with pytest.raises(ValueError, match="n_steps: 0"):
            NoiseSchedule().steps(0)
        with pytest.raises(ValueError, match="give lowest for data without noise"):
            NoiseSchedule().steps(5, start=CLEAN, stop=2.0)


class TestObjective:
    @pytest.mark.parametrize("target", TARGETS)
    def test_a_network_that_knows_the_data_has_no_loss(self, target):
        point = normal([2.0, -1.0, 0.5], 0.0)  # data without spread can be told from any noise
        x0, level = point.means.expand(64, 3), torch.linspace(-5, 5, 64, dtype=torch.float64).unsqueeze(1)
        loss = diffusion_loss(point.network(target), x0, level, torch.randn_like(x0), target)
        assert loss.shape == (64,)
        torch.testing.assert_close(loss, torch.zeros_like(loss))

    @pytest.mark.parametrize("target", TARGETS)
    def test_errors_count_as_errors_of_the_data_by_an_snr_of_at_most_5(self, target):
        x0, noise, answer = torch.randn(3, 64, 4, dtype=torch.float64)
        level = torch.linspace(-8, 8, 64, dtype=torch.float64).unsqueeze(1)
        alpha, sigma = alpha_sigma(level)
        data, _ = data_and_noise(answer, alpha * x0 + sigma * noise, level, target)
        loss = diffusion_loss(lambda x, level: answer, x0, level, noise, target)
        snr = (-level).exp()[:, 0]
        torch.testing.assert_close(loss, snr.clamp_max(5) * (data - x0).square().mean(1))

    @pytest.mark.parametrize("target", TARGETS)
    def test_the_weight_is_finite_at_every_level_of_the_schedule(self, target):
        weight = loss_weight(torch.linspace(-9, 9, 50), target)
        assert (weight > 0).all()
        assert (weight <= 5).all()

    @pytest.mark.parametrize("target", TARGETS)
    @QUICK
    @given(st.floats(-9, 9), st.sampled_from([0.1, 10.0]))
    def test_what_a_network_says_means_data_and_noise_none_of_which_is_clipped(self, target, level, size):
        x0, noise = size * torch.ones(5, 2, dtype=torch.float64), 10 * torch.randn(5, 2, dtype=torch.float64)
        level = torch.full((5, 1), level, dtype=torch.float64)
        alpha, sigma = alpha_sigma(level)
        said = {"x0": x0, "eps": noise, "v": alpha * noise - sigma * x0}[target]
        data, rest = data_and_noise(said, alpha * x0 + sigma * noise, level, target)
        torch.testing.assert_close(data, x0)
        torch.testing.assert_close(rest, noise)


class TestSamplers:
    # the error of ancestral and ddim is of first order, that of dpm of second
    @pytest.mark.parametrize(("method", "n_steps"), [("ancestral", 200), ("ddim", 200), ("dpm", 50)])
    @pytest.mark.parametrize("start", [9.0, 0.0, -2.0])
    def test_modes_come_out_with_their_shares_means_and_variances(self, method, n_steps, start):
        x = noised(THREE.draw(6000), start)
        levels = NoiseSchedule().steps(n_steps, start)
        drawn = integrate(THREE.network(), x, levels, method=method)
        mode = THREE.mode_of(drawn)
        shares = torch.bincount(mode, minlength=3) / len(mode)
        torch.testing.assert_close(shares.double(), THREE.shares, atol=0.025, rtol=0)
        for k in range(3):
            torch.testing.assert_close(drawn[mode == k].mean(0), THREE.means[k], atol=0.06, rtol=0)
            torch.testing.assert_close(drawn[mode == k].var(0), THREE.variances[k], atol=0, rtol=0.12)

    @pytest.mark.parametrize("method", ODES)
    @QUICK
    @given(st.floats(-3, 3), st.floats(0.05, 4), st.floats(-6, 6), st.floats(-6, 6))
    def test_a_normal_class_flows_as_its_formula_says(self, method, mean, variance, start, stop):
        x = torch.linspace(-3, 3, 7, dtype=torch.float64).unsqueeze(1)
        levels = NoiseSchedule().steps(300, start, stop)
        found = integrate(normal(mean, variance).network(), x, levels, method=method)
        exact = flow(x, mean, variance, start, stop)
        # ways up blow up what is off the data, and its error with it
        scale = max(1.0, float(exact.abs().max()))
        assert float((found - exact).abs().max()) < (0.02 if method == "ddim" else 0.0015) * scale

    @pytest.mark.parametrize(("method", "order"), [("ddim", 1), ("dpm", 2)])
    @pytest.mark.parametrize(("start", "stop"), [(4.0, -4.0), (-4.0, 4.0)])
    def test_twice_the_steps_halve_the_error_of_ddim_and_quarter_that_of_dpm(self, method, order, start, stop):
        network, x = normal(1.0, 0.3).network(), torch.linspace(-2, 2, 9, dtype=torch.float64).unsqueeze(1)
        errors = [
            float(
                (
                    integrate(network, x, NoiseSchedule().steps(n, start, stop), method=method)
                    - flow(x, 1.0, 0.3, start, stop)
                )
                .abs()
                .max()
            )
            for n in (80, 160, 320)
        ]
        for coarse, fine in pairwise(errors):
            assert np.log2(coarse / fine) == pytest.approx(order, abs=0.25)

    def test_dpm_keeps_its_order_when_short_steps_follow_long_ones(self):
        network, x = normal(1.0, 0.3).network(), torch.linspace(-2, 2, 9, dtype=torch.float64).unsqueeze(1)
        errors = []
        for n_pairs in (40, 80, 160):
            even = torch.linspace(4, -4, n_pairs + 1, dtype=torch.float64)
            levels = torch.cat([even, even[:-1] - 0.8 * 8 / n_pairs]).sort(descending=True).values
            errors.append(float((integrate(network, x, levels) - flow(x, 1.0, 0.3, 4.0, -4.0)).abs().max()))
        for coarse, fine in pairwise(errors):
            assert np.log2(coarse / fine) == pytest.approx(2, abs=0.25)

    @pytest.mark.parametrize("method", METHODS)
    def test_the_step_to_clean_data_is_what_the_network_expects(self, method):
        x = torch.randn(20, 2, dtype=torch.float64)
        level = torch.full((20, 1), 0.5, dtype=torch.float64)
        whole = integrate(THREE.network(), x, torch.tensor([0.5, CLEAN]), method=method)
        torch.testing.assert_close(whole, THREE.denoise(x, level))

    def test_one_step_of_dpm_is_one_of_ddim(self):
        x, levels = torch.randn(20, 2, dtype=torch.float64), torch.tensor([2.0, 1.0])
        first, second = (integrate(THREE.network(), x, levels, method=method) for method in ODES)
        assert torch.equal(first, second)

    @pytest.mark.parametrize("method", METHODS)
    def test_it_is_all_one_what_the_network_is_asked_for(self, method):
        x, levels = torch.randn(20, 2, dtype=torch.float64), NoiseSchedule().steps(20)
        v, eps, x0 = (
            integrate(
                THREE.network(target),
                x,
                levels,
                method=method,
                target=target,
                generator=torch.Generator().manual_seed(0),
            )
            for target in TARGETS
        )
        torch.testing.assert_close(eps, v)
        torch.testing.assert_close(x0, v)

    @pytest.mark.parametrize("method", ["ddim", "ancestral"])
    @QUICK
    @given(st.sets(st.integers(1, 24)), st.integers(0, 99))
    def test_a_way_in_parts_is_the_whole_way(self, method, cuts, number):
        x, levels = torch.randn(10, 2, dtype=torch.float64), NoiseSchedule().steps(24)
        whole = integrate(THREE.network(), x, levels, method=method, generator=torch.Generator().manual_seed(number))
        generator, stops = torch.Generator().manual_seed(number), [0, *sorted(cuts), len(levels) - 1]
        for first, last in pairwise(stops):
            x = integrate(THREE.network(), x, levels[first : last + 1], method=method, generator=generator)
        assert torch.equal(x, whole)

    def test_dpm_in_parts_differs_by_its_memory_of_one_step_only(self):
        x, levels = torch.randn(200, 2, dtype=torch.float64), NoiseSchedule().steps(200)
        parts = integrate(THREE.network(), integrate(THREE.network(), x, levels[:100]), levels[99:])
        whole = integrate(THREE.network(), x, levels)
        assert float((parts - whole).abs().quantile(0.95)) < 0.01

    def test_no_noise_is_lost_at_stops_on_the_way(self):
        # data of one point: at each level the sample is that point and nothing but noise, however coarse the steps
        point, levels = normal(1.5, 0.0), torch.tensor([6.0, 4.0, 2.0, 0.0, -2.0], dtype=torch.float64)
        x = noised(torch.full((20_000, 1), 1.5, dtype=torch.float64), 6.0)
        for before, here in pairwise(levels.tolist()):
            x = integrate(point.network(), x, torch.tensor([before, here]), method="ancestral")
            (alpha, sigma), (alpha_before, sigma_before) = scales(here), scales(before)
            assert float(x.mean()) == pytest.approx(1.5 * alpha, abs=0.03)
            assert float(x.var()) == pytest.approx(sigma**2, rel=0.04)
            fresh = sigma**2 / sigma_before**2 * (1 - alpha_before**2 / alpha**2)
            assert fresh > 0.5 * sigma**2, "the variance would tell if the noise of the last step were dropped"

    @pytest.mark.parametrize("method", ODES)
    def test_up_and_down_again_leads_back(self, method):
        x = THREE.draw(300)
        up, down = (NoiseSchedule().steps(400, start, -start) for start in (-3.0, 3.0))
        back = integrate(THREE.network(), integrate(THREE.network(), x, up, method=method), down, method=method)
        assert float((back - x).abs().quantile(0.95)) < (0.1 if method == "ddim" else 0.01)
        assert torch.equal(THREE.mode_of(back), THREE.mode_of(x))

    def test_the_ancestral_sampler_does_not_lead_up(self):
        with pytest.raises(ValueError, match="use ddim or dpm for the way up"):
            integrate(THREE.network(), torch.zeros(2, 2), torch.tensor([-1.0, 1.0]), method="ancestral")

    def test_an_unknown_method_is_answered_with_those_that_exist(self):
        with pytest.raises(ValueError, match="'heun' is none of ancestral, ddim, dpm"):
            integrate(THREE.network(), torch.zeros(2, 2), torch.tensor([1.0, -1.0]), method="heun")

    @pytest.mark.parametrize("method", METHODS)
    def test_a_way_of_no_length_leaves_data_as_they_are(self, method):
        x = torch.randn(5, 2, dtype=torch.float64)
        assert torch.equal(integrate(THREE.network(), x, NoiseSchedule().steps(5, 1.0, 1.0), method=method), x)

    @pytest.mark.parametrize("method", METHODS)
    @pytest.mark.parametrize("start", [-9.0, -11.0])
    def test_data_with_hardly_any_noise_are_denoised_in_one_step(self, method, start):
        x = THREE.draw(50)
        out = integrate(THREE.network(), noised(x, start), NoiseSchedule().steps(20, start), method=method)
        torch.testing.assert_close(out, x, atol=0.06, rtol=0)

    @pytest.mark.parametrize("method", METHODS)
    def test_stops_right_beside_steps_do_no_harm(self, method):
        # in float32 what the network says at both differs by rounding only, which no slope may be made of
        network = THREE.network()
        x, plain = torch.randn(500, 2), NoiseSchedule().steps(60)
        beside = NoiseSchedule().steps(60, through=(plain[1:-2] - 1e-9).tolist())
        assert len(beside) > 1.9 * len(plain)
        out = integrate(lambda x, level: network(x, level).float(), x, beside, method=method)
        shares = torch.bincount(THREE.mode_of(out.double()), minlength=3) / len(x)
        torch.testing.assert_close(shares.double(), THREE.shares, atol=0.08, rtol=0)
        off = (out - THREE.means.float()[THREE.mode_of(out.double())]).abs()
        assert float(off.max()) < 5 * THREE.variances.max().sqrt()


class TestTransmutation:
    """Two normal classes: what a cell keeps on its way from one to the other depends on the noise level alone."""

    here, there = (normal(mean, [1.0, 0.5, 0.1]) for mean in ([2.0, 0.0, 1.0], [-1.0, 3.0, 0.0]))
    level = 0.7

    def ceiling(self) -> torch.Tensor:
        alpha, sigma = scales(self.level)
        kept = alpha**2 * self.here.variances[0]
        return kept / (kept + sigma**2)

    def reach(self, x: torch.Tensor, method: str, n_steps: int) -> torch.Tensor:
        return integrate(self.there.network(), x, NoiseSchedule().steps(n_steps, self.level), method=method)

    def test_with_fresh_noise_and_the_ancestral_sampler_features_keep_their_share_of_the_signal(self):
        x = self.here.draw(10_000)
        found = correlations(x, self.reach(noised(x, self.level), "ancestral", 150))
        torch.testing.assert_close(found, self.ceiling(), atol=0.03, rtol=0)

    def test_with_fresh_noise_and_the_ode_they_keep_its_root(self):
        x = self.here.draw(10_000)
        found = correlations(x, self.reach(noised(x, self.level), "dpm", 50))
        torch.testing.assert_close(found, self.ceiling().sqrt(), atol=0.03, rtol=0)

    def test_by_the_ode_both_ways_they_keep_everything_but_their_place_and_come_back(self):
        x = self.here.draw(500)
        up = NoiseSchedule().steps(100, -9.0, self.level)
        far = self.reach(integrate(self.here.network(), x, up), "dpm", 100)
        torch.testing.assert_close(correlations(x, far), torch.ones(3, dtype=torch.float64), atol=1e-6, rtol=0)
        shared = integrate(self.there.network(), far, up)
        back = integrate(self.here.network(), shared, NoiseSchedule().steps(100, self.level))
        torch.testing.assert_close(back, x, atol=0.02, rtol=0)


class TestAgainstDiffusers:
    """The published samplers of another package, step by step on its own grid."""

    @pytest.fixture
    def diffusers(self):
        return pytest.importorskip("diffusers")

    def test_levels_of_the_discrete_grid(self, diffusers):
        theirs = diffusers.DDPMScheduler(1000, clip_sample=False).alphas_cumprod.double()
        torch.testing.assert_close(torch.sigmoid(-ddpm_levels()), theirs, rtol=1e-4, atol=0)
        assert (ddpm_levels().diff() > 0).all()

    @pytest.mark.parametrize(("name", "method"), [("DDPMScheduler", "ancestral"), ("DDIMScheduler", "ddim")])
    @pytest.mark.parametrize("n_steps", [1000, 50])
    def test_ddpm_and_ddim_step_by_step(self, diffusers, name, method, n_steps):
        scheduler = getattr(diffusers, name)(1000, clip_sample=False)
        scheduler.set_timesteps(n_steps)
        clean = torch.tensor([CLEAN], dtype=torch.float64)
        levels = torch.cat([ddpm_levels()[scheduler.timesteps], clean])
        ours = theirs = torch.randn(16, 2, dtype=torch.float64)
        our_random, their_random = (torch.Generator().manual_seed(0) for _ in range(2))
        network = THREE.network("eps")
        for time, way in zip(scheduler.timesteps, levels.unfold(0, 2, 1), strict=True):
            ours = integrate(network, ours, way, method=method, target="eps", generator=our_random)
            noise = network(theirs, way[:1].expand(len(theirs), 1))
            extra = {"generator": their_random} if method == "ancestral" else {"eta": 0.0}
            theirs = scheduler.step(noise, time, theirs, **extra).prev_sample
            torch.testing.assert_close(ours, theirs, rtol=0, atol=5e-3)  # their scales are float32

    @pytest.mark.parametrize("n_steps", [10, 40])
    def test_dpm_solver_of_second_order(self, diffusers, n_steps):
        scheduler = diffusers.DPMSolverMultistepScheduler(1000, solver_order=2, algorithm_type="dpmsolver++")
        scheduler.set_timesteps(n_steps)
        levels = 2 * scheduler.sigmas.double().log()  # of sigma / alpha, 0 last
        network = THREE.network("eps")
        start = theirs = torch.randn(16, 2, dtype=torch.float64)
        for time, level in zip(scheduler.timesteps, levels[:-1], strict=True):
            noise = network(theirs, level.expand(len(theirs), 1))
            theirs = scheduler.step(noise, time, theirs).prev_sample
        ours = integrate(network, start, levels, method="dpm", target="eps")
        torch.testing.assert_close(ours, theirs, rtol=0, atol=5e-3)


class TestDenoiser:
    def test_it_begins_at_zero_and_a_cell_does_not_depend_on_those_beside_it(self):
        denoiser = Denoiser(5, 7, n_hidden=16, n_blocks=2).eval()
        x, level, condition = torch.randn(6, 5), torch.linspace(-9, 9, 6).unsqueeze(1), torch.randn(6, 7)
        assert torch.equal(denoiser(x, level, condition), torch.zeros(6, 5))
        for weight in denoiser.parameters():
            torch.nn.init.normal_(weight, std=0.3)
        together, alone = denoiser(x, level, condition), denoiser(x[:1], level[:1], condition[:1])
        torch.testing.assert_close(together[:1], alone)
        assert not torch.allclose(together, denoiser(x, level + 1, condition))
        assert not torch.allclose(together, denoiser(x, level, -condition))


def generator(**options) -> LatentDiffusion:
    """Of four dimensions over a root with a leaf and an inner node of two leaves."""
    made = LatentDiffusion(4, parents=[-1, 0, 1, 1, 0], n_code=2, n_labels=2, n_hidden=8, n_blocks=1, **options)
    made.path.describe(torch.zeros(5, 2), torch.tensor([12.0, 1.0, CLEAN, CLEAN, CLEAN]))
    return made.eval().requires_grad_(requires_grad=False)


class TestLatentDiffusion:
    def test_whitened_data_have_unit_variance_and_no_correlation(self):
        points = torch.randn(4000, 4) @ torch.randn(4, 4) + 5
        made = generator()
        made.fit_whitening(points)
        white = made.whiten(points)
        torch.testing.assert_close(white.mean(0), torch.zeros(4), atol=1e-3, rtol=0)
        torch.testing.assert_close(white.T @ white / len(white), torch.eye(4), atol=5e-3, rtol=0)
        torch.testing.assert_close(made.unwhiten(white), points, atol=1e-4, rtol=1e-4)

    def test_axes_without_variance_are_not_blown_up(self):
        points = torch.randn(500, 4) * torch.tensor([10.0, 1.0, 0.0, 1e-6]) + 3
        made = generator()
        made.fit_whitening(points)
        white = made.whiten(points)
        assert float(white.abs().max()) < 10
        torch.testing.assert_close(made.unwhiten(white), points, atol=1e-4, rtol=1e-4)
        made.fit_whitening(torch.ones(5, 4))
        assert torch.isfinite(made.whiten(torch.ones(5, 4))).all()

    def test_cells_part_at_the_branch_point_of_their_nodes(self):
        here, there = torch.tensor([2, 1, 2, 2, 0]), torch.tensor([3, 4, 2, 1, 3])
        unlabelled = torch.zeros(5, dtype=torch.long)
        levels = generator().branch_levels(Condition(here, unlabelled), Condition(there, unlabelled))
        # twins; over the root, but within the schedule; the same; one within the other, twice
        assert levels.tolist() == [1, 9, CLEAN, CLEAN, CLEAN]

    def test_labels_say_where_they_part_if_both_cells_have_one(self):
        made = generator()
        made.label_levels[1, 2] = made.label_levels[2, 1] = 0.5
        twins = torch.tensor([2, 2, 2]), torch.tensor([3, 3, 3])
        levels = made.branch_levels(
            Condition(twins[0], torch.tensor([1, 1, 1])), Condition(twins[1], torch.tensor([2, 1, 0]))
        )
        assert levels.tolist() == [0.5, CLEAN, 1]

    def test_a_run_calls_the_network_as_often_as_it_says_and_so_do_its_parts(self, monkeypatch):
        made, calls = generator(), []
        monkeypatch.setattr(made, "network", lambda *_: lambda x, level: calls.append(level) or x)
        everywhere = Condition(torch.zeros(3, dtype=torch.long), torch.zeros(3, dtype=torch.long))
        made.flow(torch.randn(3, 4), everywhere, n_steps=50)
        assert len(calls) == 50
        made.flow(made.flow(torch.randn(3, 4), everywhere, stop=0.3, n_steps=50), everywhere, start=0.3, n_steps=50)
        assert len(calls) == pytest.approx(100, abs=1)
        made.flow(torch.randn(3, 4), everywhere, start=-9.0)
        assert len(calls) == pytest.approx(101, abs=1), "almost clean data need one step"

    def test_guidance_leads_away_from_what_nothing_is_told_of(self):
        made = generator()
        for weight in made.parameters():
            torch.nn.init.normal_(weight, std=0.3)
        x, level = torch.randn(3, 4), torch.full((3, 1), -2.0)
        where = Condition(torch.tensor([2, 3, 4]), torch.tensor([1, 2, 0]))
        nowhere = without_condition(where, node=True, label=True)
        free, given_, guided = (
            made.network([told], weight)(x, level) for told, weight in [(nowhere, 1.0), (where, 1.0), (where, 3.0)]
        )
        torch.testing.assert_close(guided, free + 3 * (given_ - free))

    def test_each_part_of_a_condition_is_left_out_for_its_share_of_cells(self):
        where = Condition(torch.full((8000,), 2), torch.full((8000,), 1))
        left = generator().drop_condition(where, torch.Generator().manual_seed(0))
        nodes = torch.bincount(left.node, minlength=5) / 8000
        # untold in a quarter; shortened in another, to the root or to the inner node
        torch.testing.assert_close(nodes, torch.tensor([0.375, 0.125, 0.5, 0, 0]), atol=0.02, rtol=0)
        assert float((left.label == 0).double().mean()) == pytest.approx(0.4, abs=0.02)

    @pytest.mark.parametrize("kind", KINDS)
    def test_training_sees_all_times_alike(self, kind):
        made = generator(schedule=kind)
        levels = made.levels_for_training(64, torch.Generator().manual_seed(0), torch.device("cpu"))
        assert levels.shape == (64, 1)
        drawn = made.schedule.time(levels.double()[:, 0])
        assert torch.equal((64 * drawn.sort().values).floor().long(), torch.arange(64)), "one in each 64th of the time"

    def test_noise_is_added_at_its_level(self):
        x = generator().noised(torch.full((5000, 4), 3.0), 1.0)
        alpha, sigma = scales(1.0)
        assert float(x.mean()) == pytest.approx(3 * alpha, abs=0.03)
        assert float(x.std()) == pytest.approx(sigma, rel=0.03)

    def test_an_unknown_target_is_answered_with_those_that_exist(self):
        with pytest.raises(ValueError, match="'score' is none of v, eps, x0"):
            generator(target="score")


class TestDonors:
    @pytest.fixture
    def pool(self) -> CovariatePool:
        """Ten of leaf 1, half of them in batch 1; ten of leaf 2, all in batch 0."""
        pool = CovariatePool(20, 3)
        node, batch = torch.tensor([1] * 10 + [2] * 10), torch.tensor([0, 1] * 5 + [0] * 10)
        label = torch.tensor([1, 1, 1, 2] + [0] * 16)
        shuffled = torch.randperm(20)
        where = Condition(node[shuffled], label[shuffled])
        pool.fill(where, batch[shuffled], torch.arange(20.0).unsqueeze(1), torch.zeros(20, 3))
        return pool

    def test_donors_are_of_the_same_leaf_and_shared_out_evenly(self, pool):
        leaf = torch.tensor([1, 2, 2]).repeat(50)
        rows = pool.draw(leaf)
        assert torch.equal(pool.node[rows], leaf)
        times = torch.bincount(rows, minlength=20)
        assert torch.equal(times, torch.where(pool.node == 1, 5, 10))
        assert not torch.equal(rows[leaf == 1].sort().values, rows[leaf == 1]), "in no order"

    def test_one_cell_draws_any_donor_of_its_leaf(self, pool):
        rows = torch.cat([pool.draw(torch.tensor([1])) for _ in range(200)])
        assert len(rows.unique()) == 10

    def test_a_batch_comes_first_and_then_the_leaf_within_it(self, pool):
        leaf = torch.tensor([1, 2]).repeat(500)
        rows = pool.draw(leaf, batch=1)
        assert (pool.batch[rows] == 1).all(), "a leaf that has none there draws from the others of the batch"
        assert (pool.node[rows[leaf == 1]] == 1).all()
        assert len(rows[leaf == 1].unique()) == 5

    def test_a_leaf_without_donors_draws_from_all_and_of_the_batch_if_one_is_given(self, pool):
        leaf = torch.full((2000,), 7)
        assert len(pool.draw(leaf).unique()) == 20
        assert (pool.batch[pool.draw(leaf, batch=1)] == 1).all()

    def test_a_batch_without_donors_is_as_none(self, pool):
        leaf = torch.tensor([1, 2]).repeat(50)
        assert torch.equal(pool.node[pool.draw(leaf, batch=5)], leaf)

    def test_the_draw_is_that_of_torchs_seed(self, pool):
        leaf, drawn = torch.ones(50, dtype=torch.long), []
        for number in (0, 0, 1):
            torch.manual_seed(number)
            drawn.append(pool.draw(leaf).tolist())
        assert drawn[0] == drawn[1]
        assert drawn[0] != drawn[2]

    def test_shares_of_labels_are_among_the_labelled_donors_of_a_node(self, pool):
        assert pool.label_shares(3, 2).tolist() == [[0, 0], [0.75, 0.25], [0, 0]]


class TestPoints:
    def test_a_pass_shows_every_row_once(self):
        rows = torch.arange(10)
        in_order = [batch["x"].tolist() for batch in TensorBatches({"x": rows}, 4)]
        assert in_order == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
        shuffled = TensorBatches({"x": rows, "y": -rows}, 5, generator=torch.Generator().manual_seed(0))
        one, other = (list(shuffled) for _ in range(2))
        assert sorted(torch.cat([batch["x"] for batch in one]).tolist()) == rows.tolist()
        assert all(torch.equal(batch["x"], -batch["y"]) for batch in one + other)
        assert not torch.equal(one[0]["x"], other[0]["x"]), "every pass has its own order"

    def test_small_data_are_gone_through_more_than_once_an_epoch(self):
        splitter = PointSplitter(
            {"x": torch.arange(8)}, {"x": torch.arange(3)}, batch_size=4, n_batches=6,
            train_idx=np.arange(8), val_idx=np.arange(3), seed=1,
        )  # fmt: skip
        batches = list(splitter.train_dataloader())
        assert len(batches) == len(splitter.train_dataloader()) == 6
        assert torch.bincount(torch.cat([batch["x"] for batch in batches])).tolist() == [3] * 8
        assert [batch["x"].tolist() for batch in splitter.val_dataloader()] == [[0, 1, 2]]

    def test_without_validation_there_are_no_minibatches_of_it(self):
        splitter = PointSplitter(
            {"x": torch.arange(8)}, None, batch_size=4, n_batches=1, train_idx=np.arange(8), val_idx=None
        )
        assert list(splitter.val_dataloader()) == []


class TestBound:
    @pytest.mark.parametrize("target", TARGETS)
    def test_a_perfect_denoiser_of_normal_data_reaches_their_likelihood(self, target):
        """Of standard normal data the noised ones are standard normal too, and the best guess is ``alpha x``."""
        schedule = NoiseSchedule(lowest=-12.0, highest=12.0)
        x0 = torch.randn(2000, 3, dtype=torch.float64)

        def network(x, level):
            alpha, sigma = alpha_sigma(level)
            return {"x0": alpha * x, "eps": sigma * x, "v": torch.zeros_like(x)}[target]

        bound = variational_bound(network, x0, schedule, n_levels=1000, target=target)
        exact = 0.5 * (x0.square() + np.log(2 * np.pi)).sum(1)
        assert abs(float((bound - exact).mean())) < 0.05
        assert np.corrcoef(bound, exact)[0, 1] > 0.8

    def test_a_worse_denoiser_is_further_from_it(self):
        """Data of variance .09, and denoisers that take it for .09, .3 and 1."""
        x0 = 0.3 * torch.randn(500, 2)

        def bound(variance):
            def network(x, level):
                alpha, sigma = alpha_sigma(level)
                return alpha * variance * x / (alpha**2 * variance + sigma**2)

            random = torch.Generator().manual_seed(0)
            return variational_bound(network, x0, NoiseSchedule(), n_levels=50, target="x0", generator=random).mean()

        exact = 0.5 * (x0.square() / 0.09 + np.log(2 * np.pi * 0.09)).sum(1).mean()
        assert exact - 0.2 < bound(0.09) < bound(0.3) < bound(1.0)
