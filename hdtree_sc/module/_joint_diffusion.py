"""The diffusion of HDTree's joint objective, conditioned on the codes of a cell's path."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from hdtree_sc.module._latent_diffusion import Condition, LatentDiffusion

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hdtree_sc.nn import TreeCodebook


class JointDiffusion(LatentDiffusion):
    r"""Denoises what the encoder reads, conditioned on the sum of the codes of a cell's path.

    .. math:: c = W \sum_{l=1}^{L} (e_l - e_0) / s, \qquad e_l \leftarrow z + \mathrm{sg}(e_l - z)

    with the codes :math:`e_l` of the path's nodes, :math:`e_0` of the root, and the spread :math:`s` of all codes. In
    the backward pass each code stands for the latent (straight-through), so that what the denoiser needs to know of a
    cell reaches the encoder, and by the running means the codes. No node has an embedding of its own: the tree may be
    structured again while this is trained, and :meth:`hand_over` gives the weights to a diffusion over the nodes of the
    tree that it ends with.

    Parameters
    ----------
    n_features
        Number of components that the encoder reads.
    n_latent
        Width of the codes.
    label_numbers
        For each label of the registry its number as a condition, from 1; 0 for the unknown one.
    n_hidden
        Width of the denoiser.
    n_blocks
        Number of its residual blocks.

    References
    ----------
    HDTree, arXiv 2506.23287, Eq. 6 and 7. Straight-through: van den Oord et al. 2017.
    """

    label_numbers: torch.Tensor

    def __init__(
        self,
        n_features: int,
        n_latent: int,
        *,
        label_numbers: Sequence[int] = (0,),
        n_hidden: int = 256,
        n_blocks: int = 3,
    ) -> None:
        n_labels = max(label_numbers, default=0)
        super().__init__(
            n_features,
            parents=[-1],
            n_code=n_latent,
            n_labels=n_labels,
            gate="none",
            n_hidden=n_hidden,
            n_blocks=n_blocks,
        )
        self.register_buffer("label_numbers", torch.tensor(label_numbers, dtype=torch.long), persistent=False)

    def condition(self, where: Condition, level: torch.Tensor) -> torch.Tensor:
        """Condition vectors (n, width) of summed codes, ``where.signal``, and of labels."""
        assert where.signal is not None
        return self.path.code(where.signal) + self.label(where.label, level)

    def path_loss(
        self,
        codebook: TreeCodebook,
        points: torch.Tensor,
        z: torch.Tensor,
        leaf: torch.Tensor,
        label: torch.Tensor,
        generator: torch.Generator | None = None,
    ) -> torch.Tensor:
        """Denoising loss (n,), with paths and labels left out at random.

        Parameters
        ----------
        codebook
            The codes.
        points
            What the encoder reads, (n, n_features).
        z
            Latents, (n, n_latent), to which the gradient goes.
        leaf
            Their leaves, slots of the heap, int (n,).
        label
            Their labels in the registry, int (n,).
        generator
            Random numbers.
        """
        x0, device = self.whiten(points.detach()), points.device
        codes = path_codes(codebook, z, leaf)
        where = self.drop_condition(
            Condition(torch.zeros_like(leaf), self.label_numbers[label.clamp_max(len(self.label_numbers) - 1)]),
            generator,
        )
        kept = self._kept_levels(codebook.paths(leaf) >= 0, generator)
        where = Condition(where.node, where.label, (codes * kept.unsqueeze(2)).sum(1))
        level = self.levels_for_training(len(x0), generator, device)
        noise = torch.randn(x0.shape, generator=generator, device=device)
        return self.loss(x0, where, level, noise)

    @staticmethod
    def _kept_levels(held: torch.Tensor, generator: torch.Generator | None) -> torch.Tensor:
        """Levels (n, depth) that are seen: paths are whole, shortened and dropped in two, one and one of four rows."""
        fate, cut = torch.rand(2, len(held), generator=generator, device=held.device)
        length = held.sum(1)
        seen = torch.where(fate < 0.5, length, torch.where(fate < 0.75, (cut * length).floor().long(), 0))
        return held & (torch.arange(held.shape[1], device=held.device) < seen.unsqueeze(1))

    @torch.no_grad()
    def hand_over(self, diffusion: LatentDiffusion, codes: torch.Tensor, spread: torch.Tensor) -> None:
        """Give the weights to a diffusion over the nodes of a tree, which then answers as this one does.

        Parameters
        ----------
        diffusion
            The other, whose path has the gate ``"none"``.
        codes
            Codes of the tree's nodes, the root first, (n_nodes, n_latent).
        spread
            Spread of all codes, see :func:`code_spread`.
        """
        for part in ("denoiser", "label"):
            getattr(diffusion, part).load_state_dict(getattr(self, part).state_dict())
        for name in ("centre", "axes", "spread"):
            getattr(diffusion, name).copy_(getattr(self, name))
        diffusion.path.code.load_state_dict(self.path.code.state_dict())
        diffusion.path.node.weight.zero_()
        diffusion.path.codes.copy_((codes - codes[0]) / spread)


def code_spread(codebook: TreeCodebook) -> torch.Tensor:
    """Standard deviation of all codes, one number."""
    codes = codebook.codes[codebook.active]
    return (codes - codes[:1]).square().mean().sqrt().clamp_min(1e-6)


def path_codes(codebook: TreeCodebook, z: torch.Tensor, leaf: torch.Tensor) -> torch.Tensor:
    """Codes of each cell's path from level 1 on, (n, depth, n_latent), less the root's; gradients go to the latents.

    Parameters
    ----------
    codebook
        The codes.
    z
        Latents, (n, n_latent).
    leaf
        Their leaves, slots of the heap, int (n,); below them codes are of no meaning.
    """
    codes = codebook.codes[codebook.paths(leaf).clamp_min(0)]
    latent = z.float().unsqueeze(1)
    return (latent + (codes - latent).detach() - codebook.codes[0]) / code_spread(codebook)
