"""Numbers of cells."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scvi.data.fields import NumericalObsField

if TYPE_CHECKING:
    from anndata import AnnData
    from numpy.typing import NDArray


class NumberField(NumericalObsField):
    """Column of numbers of any type; one that is missing is NaN, also where pandas has another mark for it."""

    def get_field_data(self, adata: AnnData) -> NDArray[np.float32]:
        """The numbers, float32 (n_cells, 1)."""
        return adata.obs[self.attr_key].to_numpy(np.float32, na_value=np.nan).reshape(-1, 1)
