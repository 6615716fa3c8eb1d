"""Values of backed AnnData, which are read from a file when they are asked for."""

from __future__ import annotations

from typing import Any


def is_on_disk(values: Any) -> bool:
    """Whether a matrix is in a file."""
    # slow to import, and whoever has an AnnData has done so
    import h5py
    from anndata.abc import CSCDataset, CSRDataset

    return isinstance(values, h5py.Dataset | CSRDataset | CSCDataset)


def in_memory(values: Any) -> Any:
    """A matrix, read from its file if it is in one."""
    if not is_on_disk(values):
        return values
    return values.to_memory() if hasattr(values, "to_memory") else values[()]
