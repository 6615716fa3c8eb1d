"""Laws of the hierarchical codebook."""

import os
import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hdtree_sc.nn import TreeCodebook
from hdtree_sc.nn._codebook import heap_level


def blobs(n: int = 400, seed: int = 0) -> torch.Tensor:
    """Four groups in the plane, two pairs: the pairs are 10 apart, the groups within a pair 2."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.tensor([[-5.0, -1.0], [-5.0, 1.0], [5.0, -1.0], [5.0, 1.0]])
    return centres[torch.arange(n) % 4] + 0.1 * torch.randn(n, 2, generator=generator)


def grown(depth: int = 3, max_leaves: int = 4) -> tuple[TreeCodebook, torch.Tensor]:
    codebook = TreeCodebook(2, depth)
    z = blobs()
    codebook.initialise(z, max_leaves=max_leaves, generator=torch.Generator().manual_seed(0))
    return codebook, z


def test_levels_of_heap_nodes_are_exact_at_powers_of_two():
    nodes = torch.arange(2**12)
    assert heap_level(nodes).tolist() == [(k + 1).bit_length() - 1 for k in range(2**12)]


def test_bisecting_finds_the_pairs_first_and_the_groups_below():
    codebook, z = grown()
    leaf = codebook.assign(z)
    group = torch.arange(len(z)) % 4
    assert {tuple(leaf[group == g].unique().tolist()) for g in range(4)} == {(3,), (4,), (5,), (6,)}
    top = codebook.paths(leaf)[:, 0]
    assert len(top[group < 2].unique()) == 1
    assert len(top[group >= 2].unique()) == 1


def test_a_node_that_the_data_do_not_support_stays_a_leaf():
    codebook = TreeCodebook(2, 4)
    z = torch.cat([torch.zeros(15, 2), torch.full((200, 2), 9.0) + torch.randn(200, 2)])
    codebook.initialise(z, max_leaves=16, min_cells=10)
    sizes = torch.bincount(codebook.assign(z))
    assert sizes[sizes > 0].min() >= 10
    levels = heap_level(codebook.is_leaf().nonzero().squeeze(1))
    assert levels.min() < levels.max(), "fifteen equal cells cannot be split, two hundred others can"


@given(seed=st.integers(0, 1000), depth=st.integers(1, 5), max_leaves=st.integers(1, 20))
@settings(max_examples=30, deadline=None)
def test_every_level_partitions_the_cells_and_parents_are_sums_of_children(seed, depth, max_leaves):
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(120, 3, generator=generator)
    codebook = TreeCodebook(3, depth)
    codebook.initialise(z, max_leaves=max_leaves, min_cells=3, generator=generator)
    codebook.update(z, codebook.assign(z))
    inner = (codebook.active & ~codebook.is_leaf()).nonzero().squeeze(1)
    for total in (codebook.counts, codebook.sums):
        torch.testing.assert_close(total[inner], total[2 * inner + 1] + total[2 * inner + 2])
    torch.testing.assert_close(codebook.counts[0], codebook.counts[codebook.is_leaf()].sum())
    path = codebook.paths(codebook.assign(z))
    assert (path[:, 1:][path[:, :-1] < 0] < 0).all(), "below the leaf there is nothing"
    both = path[:, 1:] >= 0
    assert ((path[:, 1:][both] - 1) // 2 == path[:, :-1][both]).all(), "a path goes from parent to child"
    probabilities = codebook.node_probabilities(z)
    torch.testing.assert_close(probabilities[:, 0], torch.ones(len(z)))
    torch.testing.assert_close(
        probabilities[:, inner], probabilities[:, 2 * inner + 1] + probabilities[:, 2 * inner + 2]
    )


def test_greedy_descent_equals_a_loop_over_cells():
    generator = torch.Generator().manual_seed(1)
    z = torch.randn(200, 3, generator=generator)
    codebook = TreeCodebook(3, 4)
    codebook.initialise(z, max_leaves=12, min_cells=5, generator=generator)
    expected = []
    for point in z:
        node = 0
        while 2 * node + 2 < len(codebook.active) and codebook.active[2 * node + 1]:
            apart = [(codebook.codes[c] - point).square().sum() for c in (2 * node + 1, 2 * node + 2)]
            node = 2 * node + 1 + int(apart[1] < apart[0])
        expected.append(node)
    assert codebook.assign(z).tolist() == expected


def test_a_replaced_tree_sends_cells_to_the_nearest_of_all_leaves():
    codebook, z = grown()
    # the wrong pairs: (0, 2) and (1, 3); top-down a cell of group 0 would be lost half of the time
    leaf = torch.tensor([3, 5, 4, 6])[torch.arange(len(z)) % 4]
    active = torch.zeros_like(codebook.active)
    active[:7] = True
    codebook.set_tree(active, torch.zeros(len(active)))
    codebook.set_leaves(z, leaf)
    assert torch.equal(codebook.assign(z), leaf)
    probabilities = codebook.node_probabilities(z)
    assert (probabilities[torch.arange(len(z)), leaf] > 0.99).all()


def test_running_means_follow_the_cells():
    codebook, z = grown()
    for _ in range(200):
        codebook.update(z + 3.0, codebook.assign(z))
    torch.testing.assert_close(codebook.codes[0], (z + 3.0).mean(0), atol=1e-2, rtol=0)


def test_dead_leaves_take_cells_from_their_sibling_and_leave_the_rest_alone():
    codebook, z = grown()
    leaf = codebook.assign(z)
    moved = torch.where((leaf == 4).unsqueeze(1), codebook.codes[3], z)  # the group of leaf 4 has gone to its sibling
    codebook.codes[4] += 1.0
    far = codebook.codes[5:7].clone()
    assert codebook.reseed(moved, codebook.assign(moved), min_share=0.01, min_cells=5) == 1
    held = torch.bincount(codebook.assign(moved), minlength=7)
    assert held[3] >= 5
    assert held[4] >= 5
    torch.testing.assert_close(codebook.codes[5:7], far, atol=0.05, rtol=0)


def test_commitment_is_a_share_that_scaling_does_not_change():
    codebook, z = grown()
    share = codebook.commitment(z, codebook.assign(z))
    assert 0 < share < 0.01
    for buffer in (codebook.codes,):
        buffer *= 100
    torch.testing.assert_close(codebook.commitment(100 * z, codebook.assign(100 * z)), share)


def test_codebook_of_fixed_size_loads_strictly():
    codebook, z = grown()
    again = TreeCodebook(2, 3)
    again.load_state_dict(codebook.state_dict(), strict=True)
    assert torch.equal(again.assign(z), codebook.assign(z))


RANK = """
import os, sys, torch
sys.path.insert(0, {tests!r})
from test_codebook import grown
rank = int(sys.argv[1])
torch.distributed.init_process_group("gloo", init_method="file://" + sys.argv[2], rank=rank, world_size=2)
codebook, z = grown()
part = z[rank::2]
codebook.update(part, codebook.assign(part))
torch.save(codebook.state_dict(), sys.argv[3] + str(rank))
torch.distributed.destroy_process_group()
"""


@pytest.mark.slow
@pytest.mark.skipif(not torch.distributed.is_available(), reason="torch without distributed")
def test_two_processes_hold_the_codebook_of_one_on_all_cells(tmp_path):
    script = RANK.format(tests=os.path.dirname(__file__))
    arguments = [str(tmp_path / "store"), str(tmp_path / "state")]
    ranks = [subprocess.Popen([sys.executable, "-c", script, str(rank), *arguments]) for rank in (0, 1)]
    assert [rank.wait(timeout=120) for rank in ranks] == [0, 0]
    codebook, z = grown()
    codebook.update(z, codebook.assign(z))
    for rank in (0, 1):
        state = torch.load(tmp_path / f"state{rank}")
        for name, value in codebook.state_dict().items():
            torch.testing.assert_close(state[name], value, msg=f"rank {rank}, {name}")


@given(seed=st.integers(0, 1000), depth=st.integers(2, 5), max_leaves=st.integers(2, 20))
@settings(max_examples=30, deadline=None)
def test_of_a_dropped_node_its_sibling_takes_the_parents_place(seed, depth, max_leaves):
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(120, 3, generator=generator)
    codebook = TreeCodebook(3, depth)
    codebook.initialise(z, max_leaves=max_leaves, min_cells=2, generator=generator)
    leaves = codebook.is_leaf().nonzero().squeeze(1)
    node = int(leaves[torch.randint(len(leaves), (1,), generator=generator)])
    before = codebook.codes[leaves[leaves != node]]
    codebook.drop(node)
    left = codebook.is_leaf().nonzero().squeeze(1)
    assert len(left) == len(leaves) - 1
    # the other leaves are the same, wherever they are now
    torch.testing.assert_close(before.sort(0).values, codebook.codes[left].sort(0).values)
    inner = (codebook.active & ~codebook.is_leaf()).nonzero().squeeze(1)
    assert bool(codebook.active[2 * inner + 1].all() & codebook.active[2 * inner + 2].all())
    assert bool(codebook.active[(codebook.active.nonzero().squeeze(1) - 1).clamp_min(0) // 2].all())
