"""Height and width of images whose pixels are the features."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    from anndata import AnnData


def shape_of_images(
    given: tuple[int, int] | Literal["auto"] | None, adata: AnnData | None, n_vars: int
) -> tuple[int, int] | None:
    """Height and width of images, None where features are no pixels.

    Parameters
    ----------
    given
        What was asked for; ``"auto"``: what ``adata.uns["image_shape"]`` says, if it fits.
    adata
        The cells.
    n_vars
        Number of features.

    Raises
    ------
    ValueError
        If what was asked for is no height and width of so many pixels.
    """
    if given == "auto":
        return _stored_shape(adata, n_vars)
    return None if given is None else _checked_shape(given, n_vars)


def _stored_shape(adata: AnnData | None, n_vars: int) -> tuple[int, int] | None:
    """Shape of the images that an AnnData says it holds, or None."""
    stored = None if adata is None else adata.uns.get("image_shape")
    if stored is None:
        return None
    try:
        return _checked_shape(tuple(np.ravel(stored).astype(int)), n_vars)
    except (TypeError, ValueError):
        warnings.warn(
            f"adata.uns['image_shape'] is {stored!r}, which is no height and width of {n_vars} pixels: features are "
            "not taken for pixels. Say image_shape=None to see this no more.",
            stacklevel=4,
        )
        return None


def _checked_shape(shape: tuple[int, ...], n_vars: int) -> tuple[int, int]:
    if len(shape) != 2 or shape[0] * shape[1] != n_vars or min(shape) < 4:
        msg = f"image_shape: {tuple(shape)} is no height and width, at least 4 each, of {n_vars} pixels."
        raise ValueError(msg)
    return int(shape[0]), int(shape[1])
