"""What modules have that are trained on pairs of neighbours."""

from __future__ import annotations

from typing import Any

import torch

from hdtree_sc._keys import POSITIVE
from hdtree_sc.module._cell_module import CellModule


class PairModule(CellModule):
    """Encodes cells, and with them points between them and their neighbours."""

    nu: float
    exaggeration: float

    def _get_inference_input(self, tensors: dict[str, torch.Tensor], **kwargs: Any) -> dict[str, Any]:
        x, covariates, library = self._encoder_input(tensors)
        out = {"x": x, "covariates": covariates, "library": library}
        if any(name.startswith(POSITIVE) for name in tensors):
            out["x_positive"], out["covariates_positive"], _ = self._encoder_input(tensors, POSITIVE)
        return out

    def _encoded(
        self,
        x: torch.Tensor,
        covariates: torch.Tensor,
        x_positive: torch.Tensor | None,
        covariates_positive: torch.Tensor | None,
    ) -> dict[str, torch.Tensor]:
        """Latents ``z`` of cells; of pairs also the positives' latents and the cells' share in them.

        The positive is a random point between the cell and its neighbour (the midpoint in evaluation), mixed after
        normalisation, so that the latent is pulled together along the data and not only at the cells.
        """
        if x_positive is None or covariates_positive is None:
            return {"z": self.encoder(torch.cat([x, covariates], dim=1))}
        share = torch.rand(x.shape[0], 1, device=x.device) if self.training else x.new_full((x.shape[0], 1), 0.5)
        mixed = torch.cat(
            [share * x + (1 - share) * x_positive, share * covariates + (1 - share) * covariates_positive], 1
        )
        z, z_positive = self.encoder(torch.cat([torch.cat([x, covariates], dim=1), mixed])).chunk(2)
        return {"z": z, "z_positive": z_positive, "share": share}
