"""Laws of the tree of latents and of what it is made of: stacked networks, leaf decoder, the cut of a leaf in two."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.cluster import KMeans
from sklearn.metrics import mutual_info_score
from torch.distributions import Bernoulli, Independent, Normal, kl_divergence
from torch.nn import functional as F

from hdtree_sc.graph._agglomerate import group_means, information_linkage, link_counts
from hdtree_sc.graph._bisect import best_bisection, mutual_information, two_sides
from hdtree_sc.graph._neighbors import nearest_neighbors
from hdtree_sc.nn import LatentTree, LeafDecoder
from hdtree_sc.nn._latent_tree import FIRST_LOG_VARIANCE, precision_weighted
from hdtree_sc.nn._stacked import StackedMLP

N_EMBEDDING, N_DETAIL, N_LATENT = 5, 2, 3


def stir(tree: LatentTree, seed: int = 0, scale: float = 0.5) -> LatentTree:
    """Random weights in place of the zeros with which routers and priors begin."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in tree.parameters():
            parameter.copy_(scale * torch.randn(parameter.shape, generator=generator))
    return tree


def grown(steps: list[tuple[bool, int]], n_slots: int = 15, seed: int = 0) -> LatentTree:
    """A tree after some growing (True) and pruning (False); the number chooses among the nodes that there are."""
    tree = LatentTree(N_EMBEDDING, N_LATENT, n_slots, n_detail=N_DETAIL, n_hidden=8)
    for is_growth, choice in steps:
        if is_growth and (~tree.active).sum() >= 2:
            leaves = tree.leaf_slots().tolist()
            tree.attach(leaves[choice % len(leaves)])
        elif not is_growth and len(gone := tree.plan.slots[tree.plan.side != 0]):
            # of two siblings, as something has to be left
            tree.detach(int(gone[choice % len(gone)]))
    return stir(tree, seed)


def full(depth: int = 2) -> LatentTree:
    """A complete tree."""
    return grown([(True, 0)] * (2**depth - 1), n_slots=2 ** (depth + 1) - 1)


def embeddings(n: int = 6, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, N_EMBEDDING + N_DETAIL, generator=torch.Generator().manual_seed(seed))


# -- shape of the tree ---------------------------------------------------------------------------------------

histories = st.lists(st.tuples(st.sampled_from([True, True, False]), st.integers(0, 30)), max_size=14)


@given(steps=histories, n=st.integers(1, 4))
@settings(max_examples=60, deadline=None)
def test_however_a_tree_grew_and_was_pruned_shares_add_up(steps, n):
    tree = grown(steps)
    plan, share = tree.plan, tree.log_shares(embeddings(n)).exp()
    assert share.shape == (len(plan.slots), n)
    torch.testing.assert_close(share[plan.is_leaf].sum(0), torch.ones(n))
    for node, slot in enumerate(plan.slots.tolist()):
        below = [plan.slots.tolist().index(new) for new in tree.child[slot].tolist() if new >= 0]
        if below:
            torch.testing.assert_close(share[below].sum(0), share[node])
    _, drawn = tree.descend(torch.randn(n, N_LATENT))
    torch.testing.assert_close(drawn.exp()[plan.is_leaf].sum(0), torch.ones(n))


@given(steps=histories)
@settings(max_examples=60, deadline=None)
def test_the_plan_lists_parents_before_children_and_shows_forks_and_ends_alone(steps):
    tree = grown(steps)
    plan = tree.plan
    slots = plan.slots.tolist()
    assert sorted(slots) == tree.active.nonzero().squeeze(1).tolist(), "each node once, and no other slot"
    assert (plan.above[1:] < torch.arange(1, len(slots))).all()
    assert [slots[above] for above in plan.above[1:].tolist()] == tree.parent[plan.slots[1:]].tolist()
    assert [first for first, _ in plan.levels[1:]] == [last for _, last in plan.levels[:-1]]
    n_splits = [0] * len(slots)
    for node in range(1, len(slots)):
        above = int(plan.above[node])
        n_splits[node] = n_splits[above] + int(plan.splits[above])
    assert [tree.depth_of(slot) for slot in slots] == n_splits
    shown, parents = plan.shown.tolist(), plan.shown_parents
    assert parents[0] == -1
    assert all(0 <= above < place for place, above in enumerate(parents[1:], 1))
    n_children = np.bincount([above for above in parents if above >= 0], minlength=len(parents))
    assert set(n_children) <= {0, 2}
    assert [bool(plan.is_leaf[node]) for node in shown] == [n == 0 for n in n_children]
    assert len(shown) == 2 * int(plan.is_leaf.sum()) - 1


def test_a_leaf_that_no_cell_reaches_can_go_without_a_trace():
    tree = full()
    first, second = tree.child[0].tolist()
    gone = int(tree.child[first, 1])
    with torch.no_grad():
        tree.router.last.bias[first] = 60.0
    before = dict(zip(tree.plan.slots.tolist(), tree.log_shares(embeddings()), strict=True))
    assert before[gone].exp().max() < 1e-6
    tree.detach(gone)
    after = dict(zip(tree.plan.slots.tolist(), tree.log_shares(embeddings()), strict=True))
    assert set(before) - set(after) == {gone}
    for slot, share in after.items():
        torch.testing.assert_close(share, before[slot], atol=1e-6, rtol=0)
    assert tree.plan.slots[tree.plan.shown].tolist() == [0, int(tree.child[first, 0]), second, *tree.child[second]]


def test_what_is_taken_away_leaves_its_cells_to_its_sibling():
    tree = full()
    first, second = tree.child[0].tolist()
    tree.detach(first)
    assert int(tree.active.sum()) == 4, "its children went with it"
    share = dict(zip(tree.plan.slots.tolist(), tree.log_shares(embeddings()).exp(), strict=True))
    torch.testing.assert_close(share[second], torch.ones(6))
    assert tree.attach(int(tree.child[second, 0]))[0] == first, "its slot can be used again"


def test_new_leaves_begin_as_their_parent():
    tree = LatentTree(N_EMBEDDING, N_LATENT, 3, n_detail=N_DETAIL, n_hidden=8)
    x = embeddings()
    before = tree(x, draw=False)
    assert tree.attach(0) == (1, 2)
    after = tree(x, draw=False)
    torch.testing.assert_close(after.z, before.z.expand(3, -1, -1))
    torch.testing.assert_close(after.log_share.exp()[1:], torch.full((2, 6), 0.5))
    torch.testing.assert_close(after.prior_variance[1:], torch.full((2, 6, N_LATENT), FIRST_LOG_VARIANCE).exp())
    assert torch.count_nonzero(after.decision) == 0
    torch.testing.assert_close(after.divergence()[0], before.divergence()[0])


def test_what_cannot_be_split_or_taken_away_is_said():
    tree = full(1)
    with pytest.raises(ValueError, match="slot 0 cannot be split.*no leaf"):
        tree.attach(0)
    with pytest.raises(ValueError, match="slot 1 cannot be split.*two slots"):
        tree.attach(1)
    with pytest.raises(ValueError, match="root"):
        tree.detach(0)
    tree.detach(1)
    with pytest.raises(ValueError, match="slot 1 cannot be split"):
        tree.attach(1)
    assert tree.plan.slots.tolist() == [0, 2], "an error changes nothing"


def test_a_grown_tree_loads_strictly_into_a_new_one():
    tree = grown([(True, 0), (True, 1), (True, 0), (False, 2), (True, 1)])
    fresh = LatentTree(N_EMBEDDING, N_LATENT, 15, n_detail=N_DETAIL, n_hidden=8)
    assert len(fresh.plan.slots) == 1
    fresh.load_state_dict(tree.state_dict(), strict=True)
    assert torch.equal(fresh.plan.slots, tree.plan.slots)
    one, other = (module(embeddings(), draw=False) for module in (tree, fresh))
    for name in ("z", "variance", "prior_mean", "log_share", "decision", "log_prior_share"):
        assert torch.equal(getattr(one, name), getattr(other, name)), name


# -- latents -------------------------------------------------------------------------------------------------


@given(
    mean=st.floats(-2, 2), spread=st.floats(0.2, 2), prior_mean=st.floats(-2, 2), prior_spread=st.floats(0.2, 2)
)  # fmt: skip
@settings(max_examples=30, deadline=None)
def test_what_cell_and_parent_say_is_joined_as_two_normal_densities_are(mean, spread, prior_mean, prior_spread):
    grid = np.linspace(-15, 15, 20_001)
    log = -0.5 * ((grid - mean) / spread) ** 2 - 0.5 * ((grid - prior_mean) / prior_spread) ** 2
    weight = np.exp(log - log.max())
    expected = np.average(grid, weights=weight)
    scatter = np.average((grid - expected) ** 2, weights=weight)
    told = (torch.tensor(value, dtype=torch.float64) for value in (mean, spread**2, prior_mean, prior_spread**2))
    joint, variance = precision_weighted(*told)
    assert float(joint) == pytest.approx(expected, abs=1e-5)
    assert float(variance) == pytest.approx(scatter, rel=1e-4)


def test_each_node_answers_as_a_walk_down_the_tree_by_hand():
    tree, x = full(), embeddings()
    passage, slots = tree(x, draw=False), tree.plan.slots.tolist()

    def ask(stack: StackedMLP, slot: int, value: torch.Tensor) -> torch.Tensor:
        return stack(value, torch.tensor([slot]))[0]

    z, share = {}, {0: torch.zeros(len(x))}
    for node, slot in enumerate(slots):
        mean, log_variance = ask(tree.posterior, slot, x).chunk(2, -1)
        variance, up = log_variance.clamp(-8, 4).exp(), int(tree.parent[slot])
        if up >= 0:
            shift, prior_log_variance = ask(tree.prior, slot, z[up]).chunk(2, -1)
            prior_variance = (prior_log_variance + FIRST_LOG_VARIANCE).clamp(-8, 4).exp()
            total = 1 / variance + 1 / prior_variance
            mean = (mean / variance + (z[up] + shift) / prior_variance) / total
            variance = 1 / total
            sign = 1.0 if tree.child[up, 0] == slot else -1.0
            share[slot] = share[up] + F.logsigmoid(sign * ask(tree.router, up, x[:, :N_EMBEDDING])[:, 0])
        z[slot] = mean
        torch.testing.assert_close(passage.z[node], mean)
        torch.testing.assert_close(passage.variance[node], variance)
        torch.testing.assert_close(passage.log_share[node], share[slot])
        torch.testing.assert_close(
            tree.summed_down(passage.divergence())[node],
            sum((passage.divergence()[slots.index(above)] for above in way_to(tree, slot)), torch.zeros(len(x))),
        )


def way_to(tree: LatentTree, slot: int) -> list[int]:
    """Slots from a node up to the root."""
    way = [slot]
    while tree.parent[way[-1]] >= 0:
        way.append(int(tree.parent[way[-1]]))
    return way


def test_divergences_are_those_of_torch():
    passage = (tree := full())(embeddings(), draw=True)
    posterior, prior = (
        Independent(Normal(mean, variance.sqrt()), 1)
        for mean, variance in ((passage.mean, passage.variance), (passage.prior_mean, passage.prior_variance))
    )
    torch.testing.assert_close(passage.divergence(), kl_divergence(posterior, prior), rtol=1e-4, atol=1e-4)
    seen = tree.router(embeddings()[:, :N_EMBEDDING], tree.plan.slots)[..., 0]
    told = tree.prior_router(passage.z, tree.plan.slots)[..., 0]
    expected = kl_divergence(Bernoulli(logits=seen), Bernoulli(logits=told))
    expected[tree.plan.is_leaf] = 0.0
    torch.testing.assert_close(passage.decision, expected, rtol=1e-4, atol=1e-5)


def test_latents_are_drawn_from_their_posteriors():
    tree = full(1)
    x = embeddings(1).expand(20_000, -1)
    passage = tree(x, draw=True, generator=torch.Generator().manual_seed(0))
    again = tree(x, draw=True, generator=torch.Generator().manual_seed(0))
    assert torch.equal(passage.z, again.z)
    scaled = (passage.z - passage.mean) / passage.variance.sqrt()
    torch.testing.assert_close(scaled.mean(1), torch.zeros(3, N_LATENT), atol=0.04, rtol=0)
    torch.testing.assert_close(scaled.std(1), torch.ones(3, N_LATENT), atol=0.04, rtol=0)
    assert not torch.equal(passage.mean[1], tree(x, draw=False).mean[1]), "children follow what their parent drew"


def test_from_the_root_down_latents_are_drawn_from_their_priors():
    tree = full(1)
    root = torch.randn(1, N_LATENT, generator=torch.Generator().manual_seed(0)).expand(20_000, -1)
    torch.manual_seed(0)
    z, log_share = tree.descend(root)
    mean, variance = tree.given(root.expand(2, -1, -1), tree.plan.slots[1:])
    torch.testing.assert_close(((z[1:] - mean) / variance.sqrt()).std(1), torch.ones(2, N_LATENT), atol=0.04, rtol=0)
    torch.testing.assert_close(tree.descend(root, draw=False)[0][1:], mean)
    first = tree.prior_router(root[:1], torch.tensor([0]))[0, 0, 0].sigmoid()
    torch.testing.assert_close(log_share[1].exp(), first.expand(20_000))


def test_one_cell_is_enough():
    tree = full()
    one, many = tree(embeddings()[:1], draw=False), tree(embeddings(), draw=False)
    torch.testing.assert_close(one.z, many.z[:, :1])
    torch.testing.assert_close(one.log_share, many.log_share[:, :1])


def test_routers_do_not_see_the_details():
    tree, x = full(), embeddings()
    other = x.clone()
    other[:, N_EMBEDDING:] += 1.0
    assert torch.equal(tree.log_shares(x), tree.log_shares(other))
    assert not torch.allclose(tree(x, draw=False).z, tree(other, draw=False).z)


# -- what it is made of --------------------------------------------------------------------------------------


def test_stacked_networks_answer_as_each_alone():
    torch.manual_seed(0)
    stack = StackedMLP(4, 5, 8, 3)
    x, member = torch.randn(3, 7, 5), torch.tensor([2, 0, 2])
    out = stack(x, member)
    for row, m in enumerate(member.tolist()):
        h = F.linear(x[row], stack.first.weight[m].T, stack.first.bias[m, 0])
        h = F.silu(F.layer_norm(h, (8,)))
        torch.testing.assert_close(out[row], F.linear(h, stack.last.weight[m].T, stack.last.bias[m, 0]))
    torch.testing.assert_close(stack(x[0], member), stack(x[:1].expand(3, -1, -1), member))
    assert torch.count_nonzero(StackedMLP(4, 5, 8, 3, zero=True)(x, member)) == 0


def test_loadings_are_what_a_step_adds_beside_the_shared_trunk():
    torch.manual_seed(0)
    decoder = LeafDecoder(N_LATENT, 9, 4, likelihood="normal", n_hidden=16)
    slot = torch.tensor([1, 3])
    z, step, none, library = torch.randn(2, N_LATENT), torch.randn(2, N_LATENT), torch.zeros(2, 0), torch.ones(2, 1)

    def moved() -> torch.Tensor:
        return decoder(z + step, slot, none, library)["mu"] - decoder(z, slot, none, library)["mu"]

    with_own = moved()
    loadings = decoder.loadings(slot)
    assert loadings.shape == (2, 9, N_LATENT)
    with torch.no_grad():
        decoder.mix.zero_()
    torch.testing.assert_close(with_own - moved(), torch.einsum("mgz,mz->mg", loadings, step), atol=1e-5, rtol=1e-4)
    images = LeafDecoder(N_LATENT, 9, 4, n_hidden=16, head=torch.nn.Sequential(torch.nn.Linear(16, 9)))
    with pytest.raises(TypeError, match="linear"):
        images.loadings(slot)


def test_a_leaf_can_begin_as_another_and_then_part_from_it():
    torch.manual_seed(0)
    decoder = LeafDecoder(N_LATENT, 9, 4, n_hidden=16)
    z, library = torch.randn(5, N_LATENT), torch.full((5, 1), 100.0)

    def expected(slot: int) -> torch.Tensor:
        return decoder(z, torch.full((5,), slot), torch.zeros(5, 0), library)["mu"]

    assert not torch.allclose(expected(0), expected(2))
    torch.testing.assert_close(expected(0).sum(1), library[:, 0])
    decoder.begin_as(2, 0)
    assert torch.equal(expected(0), expected(2))
    with torch.no_grad():
        decoder.shift[2] += torch.randn(16)
    assert not torch.allclose(expected(0), expected(2))


# -- cutting a leaf in two -----------------------------------------------------------------------------------


@given(seed=st.integers(0, 10_000), shape=st.tuples(st.integers(1, 4), st.integers(1, 4)))
@settings(max_examples=40, deadline=None)
def test_mutual_information_is_that_of_scikit_learn(seed, shape):
    table = np.random.default_rng(seed).integers(0, 5, (2, *shape)) + np.eye(*shape, dtype=int)
    expected = [mutual_info_score(None, None, contingency=part) for part in table]
    np.testing.assert_allclose(mutual_information(table), expected, atol=1e-10)
    np.testing.assert_allclose(mutual_information(7.0 * table), expected, atol=1e-10)


def micro_codes(apart: float, n: int = 300, seed: int = 0):
    """Two groups of cells, the second half as large, ``apart`` from one another, cut into twelve micro-codes."""
    rng = np.random.default_rng(seed)
    is_second = np.arange(n) % 3 == 0
    points = rng.normal(size=(n, 2)) + np.where(is_second, apart, 0.0)[:, None]
    group = KMeans(12, n_init=1, random_state=seed).fit_predict(points)
    neighbors, _ = nearest_neighbors(points.astype(np.float32), 10, seed=seed)
    links = link_counts(neighbors, group, 12)
    return links, group_means(points, group), np.bincount(group), is_second, group


def test_two_planted_groups_are_the_best_cut():
    links, centroids, sizes, is_second, group = micro_codes(apart=9.0)
    cut = best_bisection(links, centroids, sizes, least=20)
    assert cut.shape == (12,)
    side = cut[group]
    assert (side == is_second).all() or (side != is_second).all()


def test_a_cut_leaves_enough_cells_on_both_sides_or_there_is_none():
    links, centroids, sizes, _, group = micro_codes(apart=9.0)
    cut = best_bisection(links, centroids, sizes, least=120)
    assert min(cut[group].sum(), (~cut[group]).sum()) >= 120, "the planted second group has but 100"
    assert best_bisection(links, centroids, sizes, least=151) is None
    assert best_bisection(links[:1, :1], centroids[:1], sizes[:1], least=1) is None


def test_every_merge_of_a_linkage_is_a_cut():
    links, centroids, sizes, *_ = micro_codes(apart=3.0)
    _, linkage = information_linkage(links, centroids, sizes)
    below = two_sides(linkage)
    assert below.shape == (11, 12)
    assert below.sum(1).tolist() == linkage[:, 3].tolist()
    assert below[-1].all()
