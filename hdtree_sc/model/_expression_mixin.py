"""scvi-tools' getters of expression, with cells named as in this package's own."""

from __future__ import annotations

from functools import wraps
from typing import TYPE_CHECKING, Any

from scvi.model.base import RNASeqMixin, VAEMixin

from hdtree_sc._disk import is_on_disk
from hdtree_sc._errors import whole_number
from hdtree_sc.model._arguments import rows_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from anndata import AnnData

COUNTED = ("batch_size", "n_samples", "n_mc_samples", "n_samples_overall")
"""Arguments of these getters that are whole numbers."""


def with_rows(getter: Callable[..., Any]) -> Callable[..., Any]:
    """A getter of scvi-tools whose ``indices`` are whatever :func:`rows_of` takes, and that needs a trained model."""

    @wraps(getter)
    def checked(self: Any, adata: AnnData | None = None, indices: Any = None, *args: Any, **kwargs: Any) -> Any:
        self._require_trained(getter.__name__)
        for name in COUNTED:
            if kwargs.get(name) is not None:
                kwargs[name] = whole_number(name, kwargs[name])
        if kwargs.get("transform_batch") is not None:
            kwargs["transform_batch"] = self._as_batches(kwargs["transform_batch"])
        if indices is not None:
            adata = self._validate_anndata(adata)
            indices = rows_of(indices, adata.obs_names)
        return getter(self, adata, indices, *args, **kwargs)

    return checked


class ExpressionMixin(RNASeqMixin):
    """scvi-tools' getters of a model that decodes expression."""

    get_normalized_expression = with_rows(RNASeqMixin.get_normalized_expression)
    posterior_predictive_sample = with_rows(RNASeqMixin.posterior_predictive_sample)
    get_feature_correlation_matrix = with_rows(RNASeqMixin.get_feature_correlation_matrix)
    get_likelihood_parameters = with_rows(RNASeqMixin.get_likelihood_parameters)
    get_latent_library_size = with_rows(RNASeqMixin.get_latent_library_size)

    def differential_expression(self, adata: AnnData | None = None, *args: Any, **kwargs: Any) -> Any:
        """Genes that differ between groups of cells, see :meth:`scvi.model.SCVI.differential_expression`.

        Parameters
        ----------
        adata
            Cells with the model's genes; the training data by default.
        *args, **kwargs
            Arguments of scvi-tools' method. ``idx1`` and ``idx2`` may be positions, names of cells, a slice or a mask,
            or one text that is a query of ``obs``.

        Raises
        ------
        RuntimeError
            Before training.
        ValueError
            If cells are not as they should be, or are on disk.
        """
        self._require_trained("differential_expression")
        adata = self._validate_anndata(adata)
        if is_on_disk(adata.X):
            msg = "differential_expression reads all values at once, and adata is backed: adata = adata.to_memory()."
            raise ValueError(msg)
        for name in ("idx1", "idx2"):
            if kwargs.get(name) is not None and not isinstance(kwargs[name], str):
                kwargs[name] = rows_of(kwargs[name], adata.obs_names, argument=name)
        return super().differential_expression(adata, *args, **kwargs)


class FitMixin(VAEMixin):
    """scvi-tools' measures of fit."""

    get_elbo = with_rows(VAEMixin.get_elbo)
    get_marginal_ll = with_rows(VAEMixin.get_marginal_ll)
    get_reconstruction_error = with_rows(VAEMixin.get_reconstruction_error)
    get_aggregated_posterior = with_rows(VAEMixin.get_aggregated_posterior)
