"""Training of a few rows of parameters while all else stands still."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@contextmanager
def train_rows(
    module: torch.nn.Module, trained: dict[torch.nn.Parameter, list[int]], *, lr: float
) -> Iterator[Callable[[torch.Tensor], None]]:
    """A step of Adam on a loss, which changes some rows of some parameters while all else stands still."""
    needed = {parameter: parameter.requires_grad for parameter in module.parameters()}
    masks = []
    for parameter, rows in trained.items():
        mask = torch.zeros(len(parameter), *[1] * (parameter.ndim - 1), device=parameter.device)
        mask[rows] = 1.0
        masks.append(mask)
    optimizer = torch.optim.Adam(list(trained), lr=lr)

    def step(loss: torch.Tensor) -> None:
        gradients = torch.autograd.grad(loss, list(trained), allow_unused=True)
        for parameter, gradient, mask in zip(trained, gradients, masks, strict=True):
            parameter.grad = None if gradient is None else gradient * mask
        optimizer.step()

    try:
        for parameter in needed:
            parameter.requires_grad_(parameter in trained)
        with torch.enable_grad():
            yield step
    finally:
        for parameter, was in needed.items():
            parameter.requires_grad_(was)
            parameter.grad = None
