"""What the diffusion is told of a tree: the nodes of a path, from the noise on at which they come apart."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hdtree_sc import Tree
from hdtree_sc.nn import PathConditioner

QUICK = settings(max_examples=40, deadline=None)
NOTHING = -torch.inf

#            root, parts at noise level 3
#           /                         \
#     left, parts at 1            right, a leaf
#     /             \
#  twin 1, leaf  twin 2, leaf
PARENTS = [-1, 0, 1, 1, 0]
HEIGHTS = torch.tensor([3.0, 1.0, NOTHING, NOTHING, NOTHING])
ROOT, LEFT, TWIN_1, TWIN_2, RIGHT = range(5)


@st.composite
def trees(draw, max_nodes=15):
    """Trees of any shape with heights that never grow downwards, some of them equal."""
    n = draw(st.integers(1, max_nodes))
    parents = [-1, *(draw(st.integers(0, i - 1)) for i in range(1, n))]
    steps = draw(st.lists(st.sampled_from([0.0, 0.5, 1.0]), min_size=n, max_size=n))
    heights = np.zeros(n)
    for node in range(n - 1, 0, -1):
        heights[parents[node]] = max(heights[parents[node]], heights[node] + steps[node])
    return Tree([f"n{i}" for i in range(n)], parents, heights=heights)


def showing(parents, heights, gate) -> PathConditioner:
    """A conditioner whose answer is how far each node is told: their embeddings are the unit vectors."""
    conditioner = PathConditioner(parents, 2, len(parents), gate=gate)
    conditioner.describe(torch.zeros(len(parents), 2), heights)
    with torch.no_grad():
        conditioner.node.weight.copy_(torch.eye(len(parents)))
    return conditioner.requires_grad_(requires_grad=False)


def told(gate: str, node: int, level: float) -> list[float]:
    """How far the nodes of the tree above are told to a cell at a node, at a noise level."""
    return showing(PARENTS, HEIGHTS, gate)(torch.tensor([node]), torch.tensor([[level]]))[0].tolist()


class TestGate:
    def test_without_a_gate_the_whole_path_is_told_at_every_noise_level(self):
        assert told("none", TWIN_1, -9.0) == told("none", TWIN_1, 9.0) == [1, 1, 1, 0, 0]
        assert told("none", LEFT, 0.0) == [1, 1, 0, 0, 0], "a path may end at an inner node"

    def test_a_step_tells_a_node_below_the_branch_point_it_comes_from(self):
        assert told("step", TWIN_1, 5.0) == [1, 0, 0, 0, 0]
        assert told("step", TWIN_1, 2.0) == [1, 1, 0, 0, 0]
        assert told("step", TWIN_1, 0.0) == [1, 1, 1, 0, 0]
        assert told("step", RIGHT, 2.0) == [1, 0, 0, 0, 1]

    def test_at_the_branch_point_itself_its_children_are_one(self):
        assert told("step", TWIN_1, 1.0) == told("step", TWIN_2, 1.0) == [1, 1, 0, 0, 0]
        assert told("step", TWIN_1, float(np.nextafter(np.float32(1), np.float32(0)))) == [1, 1, 1, 0, 0]

    def test_a_soft_gate_is_half_open_at_the_branch_point_and_a_step_far_from_it(self):
        assert told("soft", TWIN_1, 3.0)[:2] == [1, 0.5]
        assert told("soft", TWIN_1, 1.0)[2] == 0.5
        assert told("soft", TWIN_1, 1.5)[2] == pytest.approx(1 / (1 + np.e)), "width of half a unit"
        assert told("soft", TWIN_1, 20.0) == pytest.approx([1, 0, 0, 0, 0], abs=1e-9)
        assert told("soft", TWIN_1, -20.0) == pytest.approx([1, 1, 1, 0, 0], abs=1e-9)

    @pytest.mark.parametrize("gate", ["none", "step", "soft"])
    @pytest.mark.parametrize("level", [-9.0, 1.0, 9.0])
    def test_the_root_tells_nothing_but_itself(self, gate, level):
        assert told(gate, ROOT, level) == [1, 0, 0, 0, 0]

    @pytest.mark.parametrize("gate", ["step", "soft"])
    def test_nodes_below_a_leaf_that_does_not_part_are_never_told(self, gate):
        conditioner = showing([-1, 0], torch.tensor([NOTHING, NOTHING]), gate)
        assert conditioner(torch.tensor([1]), torch.tensor([[-9.0]])).tolist() == [[1, 0]]

    def test_an_unknown_gate_is_answered_with_those_that_exist(self):
        with pytest.raises(ValueError, match="'hard' is none of none, step, soft"):
            PathConditioner(PARENTS, 2, 8, gate="hard")

    @QUICK
    @given(trees(), st.data())
    def test_above_their_branch_point_all_descendants_share_one_condition(self, tree, data):
        torch.manual_seed(0)
        conditioner = PathConditioner(tree.parents.tolist(), 3, 8, gate="step")
        conditioner.describe(torch.randn(len(tree), 3), torch.as_tensor(tree.heights.copy()))
        nodes = st.sampled_from(tree.nodes)
        a, b = data.draw(nodes), data.draw(nodes)
        level = tree.heights[tree.index(tree.lca(a, b))] + data.draw(st.sampled_from([0.0, 0.25, 1.0]))
        of_a, of_b = (conditioner(torch.tensor([tree.index(x)]), torch.tensor([[level]]).float()) for x in (a, b))
        assert torch.equal(of_a, of_b)

    def test_below_their_branch_point_siblings_differ(self):
        assert told("step", TWIN_1, 0.9) != told("step", TWIN_2, 0.9)


class TestCodes:
    def test_a_node_is_its_embedding_and_its_code(self):
        conditioner = PathConditioner(PARENTS, 2, 8, gate="none")
        codes = torch.randn(5, 2)
        conditioner.describe(codes, HEIGHTS)
        expected = (conditioner.node.weight + codes @ conditioner.code.weight.T)[[ROOT, LEFT, TWIN_2]].sum(0)
        torch.testing.assert_close(conditioner(torch.tensor([TWIN_2]), torch.zeros(1, 1))[0], expected)

    def test_what_the_nodes_are_is_saved_with_the_weights(self):
        first, second = (PathConditioner(PARENTS, 2, 8) for _ in range(2))
        first.describe(torch.randn(5, 2), HEIGHTS)
        second.load_state_dict(first.state_dict())
        node, level = torch.arange(5), torch.linspace(-2, 4, 5).unsqueeze(1)
        assert torch.equal(first(node, level), second(node, level))


class TestKinship:
    @QUICK
    @given(trees())
    def test_lowest_common_ancestors_are_those_of_the_tree(self, tree):
        conditioner = PathConditioner(tree.parents.tolist(), 1, 1)
        a, b = (grid.flatten() for grid in torch.meshgrid(*[torch.arange(len(tree))] * 2, indexing="ij"))
        expected = [tree.index(tree.lca(tree.nodes[i], tree.nodes[j])) for i, j in zip(a, b, strict=True)]
        assert conditioner.lca(a, b).tolist() == expected


class TestShorten:
    @QUICK
    @given(trees(), st.floats(0, 1), st.integers(0, 99))
    def test_paths_end_at_themselves_or_at_an_ancestor(self, tree, share, seed):
        conditioner = PathConditioner(tree.parents.tolist(), 1, 1)
        node = torch.arange(len(tree))
        cut = conditioner.shorten(node, share, torch.Generator().manual_seed(seed))
        assert torch.equal(conditioner.lca(node, cut), cut)

    def test_a_share_of_0_leaves_paths_as_they_are(self):
        node = torch.tensor([TWIN_1, RIGHT, ROOT, LEFT])
        assert torch.equal(PathConditioner(PARENTS, 1, 1).shorten(node, 0.0), node)

    def test_a_cut_path_ends_at_any_node_above_its_end_alike(self):
        cut = PathConditioner(PARENTS, 1, 1).shorten(torch.full((8000,), TWIN_1), 0.5, torch.Generator().manual_seed(0))
        shares = torch.bincount(cut, minlength=5) / len(cut)
        torch.testing.assert_close(shares, torch.tensor([0.25, 0.25, 0.5, 0, 0]), atol=0.02, rtol=0)

    def test_the_cuts_are_those_of_the_seed(self):
        conditioner, node = PathConditioner(PARENTS, 1, 1), torch.randint(0, 5, (200,))
        one, same, other = (
            conditioner.shorten(node, 0.5, torch.Generator().manual_seed(seed)).tolist() for seed in (0, 0, 1)
        )
        assert one == same
        assert one != other
