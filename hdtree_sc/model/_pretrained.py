"""Another trained model whose encoder and decoder are taken over."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from scvi import REGISTRY_KEYS
from scvi.model import SCVI

from hdtree_sc.data import Setup
from hdtree_sc.model._hdtree import HDTree

if TYPE_CHECKING:
    from scvi.model.base import BaseModelClass

    from hdtree_sc.module import BranchedModule, ScviNetworks


def networks_of(model: HDTree | SCVI, own: BaseModelClass) -> dict[str, Any]:
    """What a module must be made with to hold the networks of a trained model.

    Parameters
    ----------
    model
        The trained model.
    own
        The model that takes them over.

    Returns
    -------
    Arguments of :class:`BranchedModule`.

    Raises
    ------
    TypeError
        If the model is neither HDTree nor scVI.
    ValueError
        If it was not trained, knows other genes or covariates, or is a kind of scVI whose decoder does not read latent,
        library size and covariates alone.
    """
    if not isinstance(model, HDTree | SCVI):
        msg = f"latent_model: a trained HDTree or scvi.model.SCVI wanted, got {type(model).__name__}."
        raise TypeError(msg)
    if not model.is_trained:
        msg = "latent_model: it was not trained; call its train() first."
        raise ValueError(msg)
    if list(model.get_var_names()) != list(own.get_var_names()):
        msg = "latent_model: it has other genes than adata, or in another order."
        raise ValueError(msg)
    if _covariates_of(model) != _covariates_of(own):
        msg = "latent_model: it was set up with other batches or covariates than adata."
        raise ValueError(msg)
    module = model.module
    if isinstance(model, HDTree):
        widths = [layer.out_features for layer in module.encoder.layers if isinstance(layer, torch.nn.Linear)]
        return {
            "encoder": "fixed",
            "gene_likelihood": module.gene_likelihood,
            "n_latent": module.n_latent,
            "n_hidden": widths[0],
            "n_layers": len(widths) - 1,
            "n_pcs": module.n_pcs,
            "n_input_pcs": module.n_input_pcs,
        }
    refused = {
        f"gene_likelihood={module.gene_likelihood!r}": module.gene_likelihood not in ("nb", "zinb"),
        f"latent_distribution={module.latent_distribution!r}": module.latent_distribution != "normal",
        f"dispersion={module.dispersion!r}": module.dispersion == "gene-label",
        "use_observed_lib_size=False": not module.use_observed_lib_size,
        "size_factor_key": module.use_size_factor_key,
    }
    if any(refused.values()):
        named = ", ".join(name for name, is_so in refused.items() if is_so)
        msg = (
            f"latent_model: an scVI model with {named} cannot be used: its decoder must read latent, observed "
            "library size and covariates alone."
        )
        raise ValueError(msg)
    shape = Setup(model.registry).input_shape(model.summary_stats)
    return {
        "encoder": "scvi",
        "gene_likelihood": module.gene_likelihood,
        "n_latent": module.n_latent,
        "scvi_kwargs": {
            "n_input": shape["n_input"],
            "n_batch": shape["n_batch"],
            "n_labels": model.summary_stats.n_labels,
            "n_continuous_cov": shape["n_continuous_cov"],
            "n_cats_per_cov": shape["n_cats_per_cov"] or None,
            **model._module_kwargs,
        },
    }


def copy_weights(model: HDTree | SCVI, module: BranchedModule) -> None:
    """Copy the weights of a trained model into the module made for them."""
    if isinstance(model, SCVI):
        cast("ScviNetworks", module.encoder).vae.load_state_dict(model.module.state_dict())
        return
    for part in ("encoder", "decoder", "scaler"):
        getattr(module, part).load_state_dict(getattr(model.module, part).state_dict())


def _covariates_of(model: BaseModelClass) -> list[Any]:
    """Names and categories of batches and covariates."""
    fields, setup = model.registry["field_registries"], model.registry["setup_args"]
    batches = fields[REGISTRY_KEYS.BATCH_KEY]["state_registry"]["categorical_mapping"]
    further = fields.get(REGISTRY_KEYS.CAT_COVS_KEY, {}).get("state_registry", {}).get("mappings", {})
    return [
        [str(name) for name in np.asarray(batches)],
        {key: [str(name) for name in np.asarray(names)] for key, names in further.items()},
        list(setup.get("continuous_covariate_keys") or []),
    ]
