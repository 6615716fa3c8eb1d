"""Splits that held-out cells do not bear out are dropped, those that they do are kept."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hdtree_sc.growth._split_support import prune_unsupported
from hdtree_sc.nn import TreeCodebook

N = 400


class Sample:
    """Cells at (+-5, +-1): latents, and for each cell the training cells that expression says are nearest.

    Expression knows the first coordinate if ``first`` is real, the second on the left and on the right if those are;
    a coordinate that it does not know is a coin in the latent, as that of an encoder that learned noise by heart.
    """

    def __init__(self, *, first: bool, left: bool, right: bool, share: float = 0.5) -> None:
        rng = np.random.default_rng(0)
        self.seen = {"first": first, "left": left, "right": right}
        self.train_side, self.train = self.draw(rng, share)
        own_side, self.held_out = self.draw(rng, share)
        known_train, known = self.known(self.train_side), self.known(own_side)
        self.neighbors = np.stack([rng.choice(np.flatnonzero((known_train == row).all(1)), 15) for row in known])

    @staticmethod
    def draw(rng, share):
        side = np.c_[rng.random(N) < 0.5, rng.random(N) < share]
        points = np.where(side, 1.0, -1.0) * [5.0, 1.0] + 0.1 * rng.normal(size=(N, 2))
        return side, torch.from_numpy(points.astype(np.float32))

    def known(self, side):
        second = np.where(side[:, 0], self.seen["right"], self.seen["left"]) & side[:, 1]
        return np.c_[side[:, 0] & self.seen["first"], second]

    def leaves(self) -> list[int]:
        """Leaves of the codebook root (1 (3 4) 2 (5 6)) after pruning."""
        codebook = TreeCodebook(2, 3)
        active = torch.zeros_like(codebook.active)
        active[:7] = True
        heights = torch.zeros_like(codebook.heights)
        heights[:3] = torch.tensor([10.0, 2.0, 2.0])
        codebook.set_tree(active, heights)
        codebook.set_leaves(self.train, torch.from_numpy(3 + self.train_side @ [2, 1]))
        prune_unsupported(codebook, self.train, self.held_out, self.neighbors)
        check(codebook, self.train)
        return codebook.is_leaf().nonzero().ravel().tolist()


def check(codebook: TreeCodebook, train: torch.Tensor) -> None:
    """Counts and codes are those of the cells that the leaves hold now, and leaves have no height."""
    leaf = codebook.assign(train)
    assert set(leaf.tolist()) == set(codebook.is_leaf().nonzero().ravel().tolist())
    assert codebook.counts[0] == len(train)
    assert (codebook.heights[codebook.is_leaf()] == 0).all()
    for node in leaf.unique():
        torch.testing.assert_close(codebook.codes[node], train[leaf == node].mean(0), rtol=1e-4, atol=1e-4)
    inactive = ~codebook.active
    assert (codebook.counts[inactive] == 0).all()


def test_real_splits_are_kept_and_noise_is_dropped():
    assert Sample(first=True, left=True, right=True).leaves() == [3, 4, 5, 6]
    assert Sample(first=True, left=False, right=True).leaves() == [1, 5, 6]
    assert Sample(first=True, left=False, right=False).leaves() == [1, 2]


def test_noise_all_over_leaves_the_root():
    assert Sample(first=False, left=False, right=False).leaves() == [0]


@pytest.mark.parametrize("share", [0.05, 0.95])
def test_agreement_that_a_large_branch_has_by_chance_does_not_count(share):
    assert Sample(first=True, left=False, right=False, share=share).leaves() == [1, 2]
    assert Sample(first=True, left=True, right=True, share=share).leaves() == [3, 4, 5, 6], "a rare type is one"


def test_a_split_stays_for_those_below_it():
    """The tree parts cells at random first and by what they are below: the splits below pay for it."""
    sample = Sample(first=True, left=True, right=True)
    rng = np.random.default_rng(1)
    kind = sample.train_side[:, 1]
    held = (sample.held_out[:, 1] > 0).numpy()
    sample.neighbors = np.stack([rng.choice(np.flatnonzero(kind == value), 15) for value in held])
    assert sample.leaves() == [3, 4, 5, 6]
