"""Saved models: what is wrong with a file is said before it is used."""

from __future__ import annotations

import pickle
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from hdtree_sc.model._training_cells import cells_to_load

if TYPE_CHECKING:
    from typing import Self

    from anndata import AnnData

FILE_NAME = "model.pt"


def _release(text: str) -> tuple[int, ...]:
    """Major and minor number: files are compatible within a minor version."""
    return tuple(int(part) for part in text.split(".")[:2])


class FileMixin:
    """Loading with readable errors, on top of scvi-tools' files."""

    @classmethod
    def load(cls, dir_path: str | Path, adata: AnnData | bool | None = None, **kwargs: Any) -> Self:  # noqa: FBT001
        """Load a saved model.

        A model file is a pickle: load only files that you trust.

        Parameters
        ----------
        dir_path
            Folder that ``save`` wrote.
        adata
            The cells it was trained on, in any order. They are registered anew; where genes are in another order or
            there are more of them, a copy with the model's genes is. ``build_tree`` and ``train_diffusion`` need all
            cells of the training, which are known by name. None looks for cells saved with the model, False loads
            without cells: getters then want theirs.
        **kwargs
            Keyword arguments of scvi-tools' ``load`` (``accelerator``, ``device``, ``prefix``, ...).

        Returns
        -------
        The model, in evaluation mode.

        Raises
        ------
        ValueError
            If there is no model in the folder, the file is truncated, it was written by another class or by a newer
            minor version of this package, or ``adata`` lacks genes or has categories that the model does not know.
        """
        path = Path(dir_path) / f"{kwargs.get('prefix') or ''}{FILE_NAME}"
        if not path.is_file():
            msg = f"dir_path: there is no saved model at {path}."
            raise ValueError(msg)
        try:
            held = torch.load(path, map_location="cpu", weights_only=False, mmap=True)["attr_dict"]
        except (RuntimeError, EOFError, OSError, KeyError, pickle.UnpicklingError) as error:
            msg = f"dir_path: {path} is truncated or not a complete model file; copy or save it again."
            raise ValueError(msg) from error
        name = held["registry_"].get("model_name")
        if name != cls.__name__:
            msg = f"dir_path: {path} holds a model of class {name}, not {cls.__name__}: use {name}.load."
            raise ValueError(msg)
        written = held.get("package_version_", "0.0")
        if _release(written) > _release(version("hdtree-sc")):
            msg = (
                f"dir_path: {path} was written by hdtree-sc {written}, newer than the {version('hdtree-sc')} installed "
                "here: upgrade hdtree-sc."
            )
            raise ValueError(msg)
        model = super().load(str(dir_path), adata=cells_to_load(adata, held["registry_"]), **kwargs)  # type: ignore[misc]
        model._find_training_cells(held["registry_"])
        return model
