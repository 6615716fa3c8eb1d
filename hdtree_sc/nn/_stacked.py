"""The same layer many times over, with all parameters in one tensor."""

from __future__ import annotations

import math

import torch
from torch import nn


class StackedLinear(nn.Module):
    """One linear layer for each of several members (heads, nodes of a tree), worked out in one batched product.

    Parameters
    ----------
    n_members
        Number of members.
    n_in
        Width of the input.
    n_out
        Width of the output.
    zero
        Whether it answers zero at first.
    """

    def __init__(self, n_members: int, n_in: int, n_out: int, *, zero: bool = False) -> None:
        super().__init__()
        # as nn.Linear begins
        bound = 0.0 if zero else 1.0 / math.sqrt(n_in)
        self.weight = nn.Parameter(torch.empty(n_members, n_in, n_out).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(n_members, 1, n_out).uniform_(-bound, bound))

    def forward(self, x: torch.Tensor, member: torch.Tensor) -> torch.Tensor:
        """Answer of some members.

        Parameters
        ----------
        x
            Input of each of m members, (m, n, n_in).
        member
            The members, int (m,).

        Returns
        -------
        (m, n, n_out).
        """
        return torch.baddbmm(self.bias[member], x, self.weight[member])


class StackedMLP(nn.Module):
    """One network with a hidden layer for each of several members.

    Parameters
    ----------
    n_members
        Number of members.
    n_in
        Width of the input.
    n_hidden
        Width of the hidden layer.
    n_out
        Width of the output.
    zero
        Whether it answers zero at first.
    """

    def __init__(self, n_members: int, n_in: int, n_hidden: int, n_out: int, *, zero: bool = False) -> None:
        super().__init__()
        self.first = StackedLinear(n_members, n_in, n_hidden)
        self.norm = nn.LayerNorm(n_hidden, elementwise_affine=False)
        self.last = StackedLinear(n_members, n_hidden, n_out, zero=zero)

    def forward(self, x: torch.Tensor, member: torch.Tensor) -> torch.Tensor:
        """Answer of some members, see :class:`StackedLinear`; an input (n, n_in) is that of all of them."""
        if x.ndim == 2:
            x = x.expand(len(member), -1, -1)
        return self.last(nn.functional.silu(self.norm(self.first(x, member))), member)
