"""scvi-tools' getters, with cells named as in this package's own."""

from __future__ import annotations

from functools import wraps
from typing import TYPE_CHECKING, Any

from hdtree_sc._errors import whole_number
from hdtree_sc.data import rows_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from anndata import AnnData

    from hdtree_sc.model._base import CellModel

COUNTED = ("batch_size", "n_samples", "n_mc_samples", "n_samples_overall")
"""Arguments of these getters that are whole numbers."""


def with_rows(getter: Callable[..., Any]) -> Callable[..., Any]:
    """A getter of scvi-tools whose ``indices`` are whatever :func:`rows_of` takes, and that needs a trained model."""

    @wraps(getter)
    def checked(self: CellModel, adata: AnnData | None = None, indices: Any = None, *args: Any, **kwargs: Any) -> Any:
        self._require_trained(getter.__name__)
        for name in COUNTED:
            if kwargs.get(name) is not None:
                kwargs[name] = whole_number(name, kwargs[name])
        if kwargs.get("transform_batch") is not None:
            kwargs["transform_batch"] = self._setup.batch_values(kwargs["transform_batch"])
        if indices is not None:
            adata = self._validate_anndata(adata)
            indices = rows_of(indices, adata.obs_names)
        return getter(self, adata, indices, *args, **kwargs)

    return checked
