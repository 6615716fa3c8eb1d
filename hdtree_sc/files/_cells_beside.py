"""Cells that are saved beside a model."""

from __future__ import annotations

import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING

import anndata
from scvi.model.base._constants import SAVE_KEYS

from hdtree_sc.files._atomic_save import STAGED
from hdtree_sc.files._file_format import damage_named, digest_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from anndata import AnnData

    from hdtree_sc.files._file_format import SavedModel

MODEL_FILE, CELLS_FILE = SAVE_KEYS.MODEL_FNAME, SAVE_KEYS.ADATA_FNAME


def cells_beside(saved: SavedModel) -> AnnData | bool:
    """The cells that were saved with a model; False, with a warning, if there are none."""
    path = saved.path.with_name(saved.path.name.removesuffix(MODEL_FILE) + CELLS_FILE)
    # a process that ended between the two files left the second where it was written to
    places = [place for place in (path, *path.parent.glob(f"{STAGED}*/{CELLS_FILE}")) if place.is_file()]
    if saved.cells is not None and places:
        places = [place for place in places if digest_of(place) == saved.cells]
        if not places:
            msg = (
                f"dir_path: {path} is not the file that was saved with the model: it is damaged, or was written later. "
                "If it holds the right cells, give them: load(..., adata=anndata.read_h5ad(...))."
            )
            raise ValueError(msg)
    elif not path.is_file():
        warnings.warn(
            f"No cells were saved with the model in {path.parent}, and adata is not given: the model is loaded without "
            "cells.",
            stacklevel=3,
        )
        return False
    with damage_named(places[0]):
        return anndata.read_h5ad(places[0])


@contextmanager
def backing_kept(adata: AnnData | None) -> Iterator[None]:
    """Keep the file behind an AnnData on disk: writing such an AnnData makes the new file the one behind it."""
    file = adata.file if adata is not None and adata.isbacked else None
    behind = None if file is None else file.filename
    try:
        yield
    finally:
        if file is not None:
            file.filename = behind
