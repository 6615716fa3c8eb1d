"""Saving models, and loading them with readable errors and without running what strangers wrote."""

from __future__ import annotations

import warnings
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anndata
import rich.pretty  # noqa: F401  (scvi-tools prints with it and does not import it)
from anndata import AnnData
from scvi.data import AnnDataManager
from scvi.data._download import _download
from scvi.model._utils import parse_device_args
from scvi.model.base._constants import SAVE_KEYS

from hdtree_sc.model._atomic_save import STAGED, full_disk_named, locked, staged
from hdtree_sc.model._file_format import PLAIN_PICKLE, damage_named, digest_of, read_model, seal
from hdtree_sc.model._training_cells import cells_to_load

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Self

    from hdtree_sc.model._file_format import SavedModel

MODEL_FILE, CELLS_FILE = SAVE_KEYS.MODEL_FNAME, SAVE_KEYS.ADATA_FNAME


class FileMixin:
    """Files as scvi-tools writes them, of plain values: written beside older ones, and checked before they are used."""

    def save(
        self,
        dir_path: str | Path,
        prefix: str | None = None,
        overwrite: bool = False,  # noqa: FBT001, FBT002
        save_anndata: bool = False,  # noqa: FBT001, FBT002
        save_kwargs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Save the model in a folder.

        The file is written beside an older one and then takes its place: whatever happens, a full disk or a crash, the
        folder holds the older save or the new one, whole.

        Parameters
        ----------
        dir_path
            The folder.
        prefix
            What the names of the files begin with.
        overwrite
            Whether the folder may exist; what was saved in it before is replaced.
        save_anndata
            Whether the cells are saved beside the model, as ``adata.h5ad``.
        save_kwargs
            Keyword arguments of :func:`torch.save`, less those that choose a pickle.
        **kwargs
            Further arguments of scvi-tools' ``save``, and of :meth:`anndata.AnnData.write_h5ad`.

        Raises
        ------
        ValueError
            If the folder exists and ``overwrite`` is false, there are no cells to save, or ``save_kwargs`` lead to a
            file that :meth:`load` does not read.
        OSError
            If the files cannot be written. The folder then still holds what it held.
        """
        folder, cells = Path(dir_path), self.adata  # type: ignore[attr-defined]
        if folder.exists() and not overwrite:
            msg = (
                f"dir_path: {folder} exists already: choose another folder, or replace what it holds by overwrite=True."
            )
            raise ValueError(msg)
        if save_anndata and cells is None:
            msg = "save_anndata: this model was loaded without cells: leave it out, or load the model with adata=."
            raise ValueError(msg)
        pickles = {**(save_kwargs or {}), "pickle_module": PLAIN_PICKLE}
        names = [MODEL_FILE, CELLS_FILE] if save_anndata else [MODEL_FILE]
        with full_disk_named(folder), staged(folder, prefix or "", names) as stage, _backing_kept(cells):
            super().save(  # type: ignore[misc]
                str(stage), overwrite=True, save_anndata=save_anndata, save_kwargs=pickles, **kwargs
            )
            try:
                seal(stage / MODEL_FILE, stage / CELLS_FILE if save_anndata else None)
                read_model(stage / MODEL_FILE, trust=False)
            except ValueError as error:
                msg = f"save_kwargs: with {save_kwargs} what was written is no file that load() reads."
                raise ValueError(msg) from error

    @classmethod
    def load(
        cls,
        dir_path: str | Path,
        adata: AnnData | bool | None = None,  # noqa: FBT001
        accelerator: str = "auto",
        device: int | str = "auto",
        prefix: str | None = None,
        backup_url: str | None = None,
        allowed_classes_names_list: list[str] | None = None,
        *,
        trust: bool = False,
    ) -> Self:
        """Load a saved model.

        Nothing that is in a file is run: it holds tensors and plain values, and its checksums are verified.

        Parameters
        ----------
        dir_path
            Folder that ``save`` wrote.
        adata
            The cells it was trained on, in any order. They are registered with the model; where genes are in another
            order or there are more of them, a copy with the model's genes is. ``build_tree`` and ``train_diffusion``
            need all cells of the training, which are known by name. None looks for cells saved with the model, False
            loads without cells: getters then need theirs.
        accelerator
            Lightning accelerator.
        device
            Device of the accelerator.
        prefix
            What the names of the files begin with.
        backup_url
            Address to fetch the model file from if the folder has none.
        allowed_classes_names_list
            Names of further classes whose files are loaded as this class.
        trust
            Whether a file that holds a full pickle is loaded: one that an early version of hdtree-sc wrote, or somebody
            else made. **Loading it runs any code that is in it**, so make sure where it is from; then save the
            model again.

        Returns
        -------
        The model, in evaluation mode.

        Raises
        ------
        ValueError
            If there is no model in the folder, the file is damaged, holds a full pickle and is not trusted, or was
            written by another class or by a newer minor version of this package, or ``adata`` lacks genes or has
            categories that the model does not know.
        """
        if not (adata is None or adata is False or isinstance(adata, AnnData)):
            msg = f"adata: an AnnData, None or False wanted, got {type(adata).__name__}."
            raise TypeError(msg)
        _, _, where = parse_device_args(
            accelerator=accelerator, devices=device, return_device="torch", validate_single_device=True
        )
        folder, prefix = Path(dir_path), prefix or ""
        path = folder / f"{prefix}{MODEL_FILE}"
        if backup_url is not None:
            _download(backup_url, str(folder), path.name)
        with locked(folder, "read"):
            saved = read_model(path, trust=trust)
            saved.check(cls, allowed_classes_names_list)
            cells = _cells_beside(saved) if adata is None else adata
        saved.check_whole(cls)
        if isinstance(cells, AnnData):
            cells = cells_to_load(cells, saved.registry)
            cls.setup_anndata(cells, source_registry=saved.registry, **saved.registry["setup_args"])  # type: ignore[attr-defined]
            model = saved.built(cls, cells)
            model._find_training_cells(saved.registry)
        else:
            model = saved.built(cls, None)
        model.to_device(where)
        model.module.eval()
        return model

    @staticmethod
    def load_registry(dir_path: str | Path, prefix: str | None = None, *, trust: bool = False) -> dict[str, Any]:
        """The registry of the cells that a saved model was set up with.

        Parameters
        ----------
        dir_path
            Folder that ``save`` wrote.
        prefix
            What the names of the files begin with.
        trust
            See :meth:`load`.
        """
        return read_model(Path(dir_path) / f"{prefix or ''}{MODEL_FILE}", trust=trust).registry

    @staticmethod
    def view_setup_args(dir_path: str | Path, prefix: str | None = None, *, trust: bool = False) -> None:
        """Print the arguments of ``setup_anndata`` of a saved model.

        Parameters
        ----------
        dir_path
            Folder that ``save`` wrote.
        prefix
            What the names of the files begin with.
        trust
            See :meth:`load`.
        """
        AnnDataManager.view_setup_method_args(FileMixin.load_registry(dir_path, prefix, trust=trust))

    @classmethod
    def convert_legacy_save(cls, *args: Any, **kwargs: Any) -> None:
        """Not needed: no version of this package wrote the files that scvi-tools converts here.

        Raises
        ------
        NotImplementedError
            Always.
        """
        msg = f"{cls.__name__} has no files from before scvi-tools 0.15: load() reads all that hdtree-sc wrote."
        raise NotImplementedError(msg)


def _cells_beside(saved: SavedModel) -> AnnData | bool:
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
def _backing_kept(adata: AnnData | None) -> Iterator[None]:
    """Keep the file behind an AnnData on disk: writing such an AnnData makes the new file the one behind it."""
    file = adata.file if adata is not None and adata.isbacked else None
    behind = None if file is None else file.filename
    try:
        yield
    finally:
        if file is not None:
            file.filename = behind
