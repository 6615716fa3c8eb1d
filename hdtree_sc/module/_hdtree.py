"""The joint objective of HDTree: contrastive encoder, likelihood decoder and tree codebook in one loss."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from scvi import REGISTRY_KEYS
from scvi.module.base import LossOutput, auto_move_data
from torch import nn
from torch.nn import functional as F

from hdtree_sc._keys import POSITIVE
from hdtree_sc.module._joint_diffusion import JointDiffusion
from hdtree_sc.module._pair_module import PairModule
from hdtree_sc.nn import MLP, Decoder, TreeCodebook, soft_contrastive_loss

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch.distributions import Distribution

    from hdtree_sc.nn import Likelihood, Metric

TIME_KEY = "time"
"""Registry key of the time of collection."""


class HDTreeModule(PairModule):
    """Encoder, decoder, tree codebook and a 2-D head for plots, trained together.

    Parameters
    ----------
    n_input
        Number of features.
    n_batch
        Number of batches.
    n_cats_per_cov
        Number of categories of each further categorical covariate.
    n_continuous_cov
        Number of continuous covariates.
    n_latent
        Width of the latent.
    n_hidden
        Width of the hidden layers.
    n_layers
        Number of hidden layers of the encoder.
    dropout_rate
        Dropout rate of the encoder.
    tree_depth
        Number of tree levels below the root.
    gene_likelihood
        ``"nb"``, ``"zinb"``, ``"normal"`` or ``"bernoulli"``.
    n_pcs
        Number of principal components in which neighbours are searched.
    n_input_pcs
        Number of principal components that the encoder reads.
    has_time
        Whether cells carry a time, known for some of them at least.
    predicted_labels
        For each label, whether the latent is trained to predict it; empty for none.
    nu
        Degrees of freedom of the contrastive kernel.
    exaggeration
        Attraction of the contrastive loss.
    metric
        Its distances: ``"euclidean"`` or ``"hyperbolic"``.
    joint_diffusion
        Whether a denoiser of what the encoder reads is trained with the rest, conditioned on the codes of the path.
    label_numbers
        For each label of the registry its number as a condition of that denoiser, from 1; 0 for the unknown one.
    """

    encoder: MLP

    def __init__(
        self,
        n_input: int,
        *,
        n_batch: int = 1,
        n_cats_per_cov: Sequence[int] = (),
        n_continuous_cov: int = 0,
        n_latent: int = 24,
        n_hidden: int = 256,
        n_layers: int = 2,
        dropout_rate: float = 0.0,
        tree_depth: int = 10,
        gene_likelihood: Likelihood = "nb",
        n_pcs: int = 30,
        n_input_pcs: int = 50,
        has_time: bool = False,
        predicted_labels: Sequence[bool] = (),
        nu: float = 0.2,
        exaggeration: float = 0.5,
        metric: Metric = "euclidean",
        joint_diffusion: bool = False,
        label_numbers: Sequence[int] = (0,),
    ) -> None:
        super().__init__(
            n_input,
            n_batch=n_batch,
            n_cats_per_cov=n_cats_per_cov,
            n_continuous_cov=n_continuous_cov,
            n_latent=n_latent,
            gene_likelihood=gene_likelihood,
            n_pcs=n_pcs,
            n_input_pcs=n_input_pcs,
        )
        self.nu = nu
        self.exaggeration = exaggeration
        self.metric: Metric = metric
        n_covariates = self.covariates.width
        self.encoder = MLP(
            self.n_input_pcs + n_covariates, n_latent, n_hidden=n_hidden, n_layers=n_layers, dropout=dropout_rate
        )
        self.decoder = Decoder(
            n_latent, n_input, n_covariates=n_covariates, likelihood=gene_likelihood, n_hidden=n_hidden
        )
        self.codebook = TreeCodebook(n_latent, tree_depth)
        self._add_heads()
        if has_time:
            self.time_head = MLP(n_latent, 1, n_hidden=64, n_layers=1, dropout=0.0)
        self.label_head = nn.Linear(n_latent, len(predicted_labels)) if predicted_labels else None
        self.register_buffer("predicted_labels", torch.tensor(predicted_labels, dtype=torch.bool), persistent=False)
        self.joint = (
            JointDiffusion(self.n_input_pcs, n_latent, label_numbers=label_numbers) if joint_diffusion else None
        )
        # mean and standard deviation of the known times of training cells
        self.register_buffer("time_moments", torch.tensor([0.0, 1.0]))

    @auto_move_data
    def inference(
        self,
        x: torch.Tensor,
        covariates: torch.Tensor,
        library: torch.Tensor,
        x_positive: torch.Tensor | None = None,
        covariates_positive: torch.Tensor | None = None,
        n_samples: int = 1,
    ) -> dict[str, torch.Tensor]:
        """Latents of cells; of pairs, as training has them, also the positives' latents and the cells' leaves."""
        out = self._encoded(x, covariates, x_positive, covariates_positive)
        if n_samples > 1:
            # the encoder is deterministic: every draw is the same
            out["z"], library = out["z"].expand(n_samples, *out["z"].shape), library.expand(n_samples, *library.shape)
        if "z_positive" in out and bool(self.codebook.initialised):
            out["leaf"] = self.codebook.assign(out["z"].detach())
        return out | {"library": library}

    def loss(
        self,
        tensors: dict[str, torch.Tensor],
        inference_outputs: dict[str, torch.Tensor],
        generative_outputs: dict[str, Distribution],
        *,
        contrastive_weight: float = 1.0,
        reconstruction_weight: float = 0.3,
        commitment_weight: float = 0.5,
        diffusion_weight: float = 1.0,
        time_weight: float = 3.0,
        label_weight: float = 1.0,
        kl_weight: float = 1.0,
    ) -> LossOutput:
        """Joint loss of a minibatch of pairs.

        Parameters
        ----------
        tensors
            Minibatch.
        inference_outputs
            Of :meth:`inference`.
        generative_outputs
            Of :meth:`generative`.
        contrastive_weight
            Weight of the soft contrastive loss.
        reconstruction_weight
            Weight of the negative log likelihood, in nats per feature.
        commitment_weight
            Weight of the share of the latents' scatter that the codebook leaves unexplained, once it exists.
        diffusion_weight
            Weight of the denoising loss, where the diffusion is trained jointly, once the codebook exists.
        time_weight
            Weight of the squared error of the time that the latent predicts, in standard deviations.
        label_weight
            Weight of the cross-entropy of the known labels, where the latent is trained to predict them.
        kl_weight
            Ignored: scvi-tools' measures of fit give it to any module, and this one has no prior.
        """
        z = inference_outputs["z"]
        x = tensors[REGISTRY_KEYS.X_KEY]
        reconstruction = -generative_outputs["px"].log_prob(x).sum(-1)
        terms = {"reconstruction": reconstruction_weight * reconstruction.mean() / x.shape[1]}
        z_positive = inference_outputs.get("z_positive")
        if z_positive is not None:
            terms["contrastive"] = contrastive_weight * soft_contrastive_loss(
                z, z_positive, nu=self.nu, exaggeration=self.exaggeration, metric=self.metric
            )
            # The map is for the eye only: its gradient ends at the latent.
            flat, flat_positive = self.map_head(torch.cat([z, z_positive]).detach()).chunk(2)
            terms["map"] = soft_contrastive_loss(flat, flat_positive, nu=1.0, exaggeration=0.5)
        if "leaf" in inference_outputs:
            terms["commitment"] = commitment_weight * self.codebook.commitment(z, inference_outputs["leaf"])
            if self.joint is not None:
                terms["diffusion"] = diffusion_weight * self._diffusion_loss(tensors, z, inference_outputs["leaf"])
        if self.label_head is not None:
            terms["label"] = label_weight * self._label_loss(z, tensors[REGISTRY_KEYS.LABELS_KEY][:, 0].long())
        if self.time_head is not None:
            terms["time"] = time_weight * self._time_loss(tensors, inference_outputs)
        return LossOutput(
            loss=torch.stack(list(terms.values())).sum(),
            reconstruction_loss=reconstruction,
            n_obs_minibatch=z.shape[0],
            extra_metrics={name: value.detach() for name, value in terms.items() if name != "reconstruction"},
        )

    def _diffusion_loss(self, tensors: dict[str, torch.Tensor], z: torch.Tensor, leaf: torch.Tensor) -> torch.Tensor:
        assert self.joint is not None
        # held-out cells meet the same noise each time
        generator = None if self.training else torch.Generator(z.device).manual_seed(0)
        points = self._encoder_input(tensors)[0]
        label = self.registered_labels(tensors)
        return self.joint.path_loss(self.codebook, points, z, leaf, label, generator).mean()

    def _label_loss(self, z: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        assert self.label_head is not None
        known = self.predicted_labels[label]
        logits = self.label_head(z)[known]
        return F.cross_entropy(logits, label[known]) if len(logits) else z.sum() * 0.0

    def _time_loss(self, tensors: dict[str, torch.Tensor], inference_outputs: dict[str, torch.Tensor]) -> torch.Tensor:
        """Squared error of the known times; a point between two cells has a time between theirs."""
        assert self.time_head is not None
        z, time = inference_outputs["z"], tensors[TIME_KEY]
        if "z_positive" in inference_outputs:
            share = inference_outputs["share"]
            between = share * time + (1 - share) * tensors[POSITIVE + TIME_KEY]
            z, time = torch.cat([z, inference_outputs["z_positive"]]), torch.cat([time, between])
        known = torch.isfinite(time)
        mean, std = self.time_moments
        error = self.time_head(z) - torch.where(known, (time - mean) / std, torch.zeros_like(time))
        return (error.square() * known).sum() / known.sum().clamp_min(1)

    def predicted_time(self, z: torch.Tensor) -> torch.Tensor:
        """Time (n,) predicted from latents, in the units of the training data; NaN for a model without time."""
        if self.time_head is None:
            return torch.full_like(z[:, 0], torch.nan)
        mean, std = self.time_moments
        return self.time_head(z)[:, 0] * std + mean
