"""A model of cells: its set-up, its files, and other cells that are asked about."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import rich.pretty  # noqa: F401  (scvi-tools prints with it and does not import it)
from anndata import AnnData
from scvi import settings
from scvi.data import AnnDataManager
from scvi.data._download import _download
from scvi.model._utils import parse_device_args
from scvi.model.base import BaseModelClass, RNASeqMixin, UnsupervisedTrainingMixin

from hdtree_sc._docs import FILES, shared_params
from hdtree_sc.data import (
    CellManager,
    CellReader,
    Query,
    Setup,
    TrainingCells,
    cells_to_load,
    check_names,
    check_setup,
    make_room,
    registered_fields,
)
from hdtree_sc.files import (
    CELLS_FILE,
    MODEL_FILE,
    PLAIN_PICKLE,
    backing_kept,
    cells_beside,
    full_disk_named,
    locked,
    read_model,
    seal,
    staged,
)
from hdtree_sc.module import TIME_KEY

if TYPE_CHECKING:
    from typing import Self

    import pandas as pd
    from numpy.typing import NDArray

    from hdtree_sc.module import CellModule


class CellModel(RNASeqMixin, UnsupervisedTrainingMixin, BaseModelClass):
    """scvi-tools' model with files of plain values, and with readable errors.

    Files are as scvi-tools writes them, written beside older ones, and checked before they are used.
    """

    module: CellModule
    cell_names_: list[str] | None = None
    """Names of the cells that were split into training, validation and test cells, whose positions here are
    ``train_indices_``, ``validation_indices_`` and ``test_indices_``.
    """
    _guest: AnnDataManager | None = None
    _query: Query | None = None

    # ---------------------------------------------------------------- parts

    @property
    def _reader(self) -> CellReader:
        return CellReader(self)

    @property
    def _split(self) -> TrainingCells:
        return TrainingCells(self)

    @property
    def _setup(self) -> Setup:
        return Setup(self.registry)

    @staticmethod
    def _seed() -> int:
        return int(settings.seed or 0)

    def _option(self, name: str) -> Any:
        return self.init_params_["non_kwargs"][name]

    def _require_trained(self, what: str) -> None:
        if not self.is_trained_:
            msg = f"{what} needs a trained model: call {type(self).__name__}.train() first."
            raise RuntimeError(msg)

    def _require_cells(self, otherwise: str) -> None:
        """Refuse to train a model without cells, or of a query."""
        if self.adata is None:
            raise ValueError(otherwise)
        self._split.start()

    def _refuse_query(self, what: str) -> None:
        """Training cells are known by their rows, and those of a query are others."""
        if self._query is not None:
            msg = f"{what}: this model only places query cells on a tree that exists; call it on the reference model."
            raise RuntimeError(msg)

    # ---------------------------------------------------------------- set-up

    def get_var_names(self, **kwargs: Any) -> NDArray[Any]:
        """Names of the features: of the genes, or of the columns of ``obsm_key``.

        Parameters
        ----------
        **kwargs
            Ignored: scvi-tools' arguments for MuData.
        """
        return self._setup.features

    @classmethod
    def setup_anndata(
        cls,
        adata: AnnData,
        layer: str | None = None,
        batch_key: str | None = None,
        labels_key: str | None = None,
        time_key: str | None = None,
        size_factor_key: str | None = None,
        categorical_covariate_keys: list[str] | None = None,
        continuous_covariate_keys: list[str] | None = None,
        *,
        obsm_key: str | None = None,
        **kwargs: Any,
    ) -> None:
        """Register an AnnData.

        Parameters
        ----------
        adata
            The data; values are read from ``X`` or ``layer`` and never changed. It may be backed: cells are then read
            from disk a minibatch at a time.
        layer
            Layer with the values. Counts may be off whole numbers by rounding errors (a millionth of the count).
        batch_key
            ``obs`` column of batches, given to encoder and decoder.
        labels_key
            ``obs`` column of cell labels, missing in any number of cells; cells called ``"unknown"`` count as cells
            without a label. HDTree does not train on them unless it is made with ``use_labels=True``; BranchedDiffusion
            needs them.
        time_key
            ``obs`` column with the time of collection, a number, missing in any number of cells. The latent is trained
            to predict it.
        size_factor_key
            ``obs`` column of library sizes, finite and above 0, in place of the sum of each cell's counts.
        categorical_covariate_keys
            Further ``obs`` columns of categories, given to encoder and decoder.
        continuous_covariate_keys
            Further ``obs`` columns of finite numbers, given to encoder and decoder.
        obsm_key
            ``obsm`` entry whose columns are the features, in place of the genes in ``X`` or a layer: principal
            components, an embedding. For ``gene_likelihood="normal"``.
        **kwargs
            Keyword arguments of :meth:`scvi.data.AnnDataManager.register_fields`.

        Raises
        ------
        KeyError
            If a layer, column or ``obsm`` entry does not exist.
        ValueError
            If ``layer`` and ``obsm_key`` are both given, values or numbers of cells are not finite, names are not
            unique, a category is missing in some cells, or a label has one cell only. Nothing is changed then.

        Notes
        -----
        Batches, labels and categories may be of any type, and are known by their text: ``2``, ``2.0`` and ``"2"`` are
        one, here and wherever a label or a batch is named. A category without cells is none.
        """
        setup_method_args = cls._get_setup_method_args(**locals())
        categories: dict[str, str | None] = {"batch_key": batch_key, "labels_key": labels_key}
        numbers: dict[str, str | None] = {"time_key": time_key, "size_factor_key": size_factor_key}
        for held, argument, keys in (
            (categories, "categorical_covariate_keys", categorical_covariate_keys),
            (numbers, "continuous_covariate_keys", continuous_covariate_keys),
        ):
            held |= {f"{argument}[{i}]": key for i, key in enumerate(check_names(argument, keys))}
        check_setup(
            adata,
            layer=layer,
            obsm_key=obsm_key,
            categorical=categories,
            numerical=numbers,
            labels_key=labels_key,
            is_query="source_registry" in kwargs,
        )
        fields = registered_fields(
            layer=layer,
            obsm_key=obsm_key,
            batch_key=batch_key,
            labels_key=labels_key,
            time_key=time_key,
            size_factor_key=size_factor_key,
            categorical_covariate_keys=categorical_covariate_keys,
            continuous_covariate_keys=continuous_covariate_keys,
            time_name=TIME_KEY,
        )
        manager = CellManager(fields=fields, setup_method_args=setup_method_args)
        manager.register_fields(adata, **kwargs)
        cls.register_manager(manager)

    # ---------------------------------------------------------------- other cells

    @classmethod
    def load_query_data(cls, adata: AnnData, reference_model: Self | str, **load_kwargs: Any) -> Self:
        """A model of the same tree over new cells, without retraining.

        Parameters
        ----------
        adata
            New cells, also a view or on disk. Genes are matched by name; those that are missing count as zero.
            Categories are matched by text; ``obs`` columns that it lacks (batch, labels, time, categorical
            covariates), missing values and categories that training did not know count as unknown. Not changed.
        reference_model
            A trained model, or the folder of a saved one.
        **load_kwargs
            Keyword arguments of ``load`` when a folder is given.

        Returns
        -------
        A trained model whose getters default to ``adata``; pass it to :func:`hdtree_sc.tl.tree` with ``adata``.

        Raises
        ------
        ValueError
            If not one gene is shared, or the values are none that the model can place.
        RuntimeError
            If the reference was not trained.

        Notes
        -----
        An unknown batch is encoded as the mean of all batches. On every second cell of the bundled worm, over four
        seeds, 12 % of the cells then change leaf, and 6 % if instead 20 of 485 genes taken at random are missing. Name
        the batch where training knows it.

        Examples
        --------
        >>> import hdtree_sc as ht
        >>> new = ht.datasets.celegans()[1::2].copy()
        >>> query = ht.HDTree.load_query_data(new, model)
        >>> ht.tl.tree(new, query)
        >>> set(new.obs["hdtree_leaf"]) <= set(model.get_tree().leaves)
        True
        """
        reference = reference_model
        if not isinstance(reference, cls):
            reference = cls.load(reference_model, adata=load_kwargs.pop("adata", False), **load_kwargs)
        reference._require_trained("load_query_data")
        manager = reference._reader.register_aligned(adata)
        model = copy.copy(reference)
        model.id = str(uuid4())
        model.module = copy.deepcopy(reference.module)
        model._guest = None
        model._query = Query.of(adata, model._setup.argument("layer"), model._setup.argument("obsm_key"))
        model._adata = manager.adata
        model._adata_manager = manager
        model._register_manager_for_instance(manager)
        return model

    def is_query(self, adata: AnnData) -> bool:
        """Whether cells are others than those of the training, or not all of them, or in another order.

        Parameters
        ----------
        adata
            Cells that the model can place. A copy of the training's is no query, with its genes in any order.
        """
        return self._reader.is_query(adata)

    @classmethod
    def register_manager(cls, adata_manager: AnnDataManager) -> None:
        """Keep the manager of an AnnData for the models that are made with it."""
        make_room(cls, adata_manager)
        super().register_manager(adata_manager)

    def get_anndata_manager(self, adata: AnnData | None, required: bool = False) -> AnnDataManager | None:  # noqa: FBT001, FBT002
        """The manager of an AnnData that this model reads as it is: of that very object, not of a copy of it.

        Parameters
        ----------
        adata
            The AnnData.
        required
            Whether it is an error if there is none.

        Raises
        ------
        ValueError
            If there is none and one is required.
        """
        known = self._reader.known(adata)
        if known is None and required:
            msg = f"adata: it is not registered with this model; call {type(self).__name__}.setup_anndata(adata) first."
            raise ValueError(msg)
        return known

    def _validate_anndata(self, adata: AnnData | None = None, copy_if_view: bool = True) -> AnnData:  # noqa: FBT001, FBT002
        """The registered AnnData behind ``adata``: itself, or an aligned copy; the user's is never written to."""
        manager = self._reader.manager_of(adata)
        manager.validate()
        return manager.adata

    def _validation_names(self) -> pd.Index:
        return self._split.held_out_names

    # ---------------------------------------------------------------- files

    @shared_params(FILES)
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

        Examples
        --------
        >>> import hdtree_sc as ht
        >>> model.save("my_model", overwrite=True)
        >>> again = ht.HDTree.load("my_model", adata)
        >>> (again.get_latent_representation() == model.get_latent_representation()).all().item()
        True
        """
        folder, cells = Path(dir_path), self.adata
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
        with full_disk_named(folder), staged(folder, prefix or "", names) as stage, backing_kept(cells):
            super().save(str(stage), overwrite=True, save_anndata=save_anndata, save_kwargs=pickles, **kwargs)
            try:
                seal(stage / MODEL_FILE, stage / CELLS_FILE if save_anndata else None)
                read_model(stage / MODEL_FILE, trust=False)
            except ValueError as error:
                msg = f"save_kwargs: with {save_kwargs} what was written is no file that load() reads."
                raise ValueError(msg) from error

    @classmethod
    @shared_params(FILES)
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
        adata
            The cells it was trained on, in any order. They are registered with the model; where genes are in another
            order or there are more of them, a copy with the model's genes is. ``build_tree`` and ``train_diffusion``
            need all cells of the training, which are known by name. None looks for cells saved with the model, False
            loads without cells: getters then need theirs.
        accelerator
            Lightning accelerator.
        device
            Device of the accelerator.
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

        Examples
        --------
        >>> import hdtree_sc as ht
        >>> model.save("my_model", overwrite=True)
        >>> again = ht.HDTree.load("my_model", adata)
        >>> again.get_tree() == model.get_tree()
        True
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
            cells = cells_beside(saved) if adata is None else adata
        saved.check_whole(cls)
        if isinstance(cells, AnnData):
            cells = cells_to_load(cells, saved.registry)
            cls.setup_anndata(cells, source_registry=saved.registry, **saved.registry["setup_args"])
            model = saved.built(cls, cells)
            model._split.find(saved.registry)
        else:
            model = saved.built(cls, None)
        model.to_device(where)
        model.module.eval()
        return model

    @staticmethod
    @shared_params(FILES)
    def load_registry(dir_path: str | Path, prefix: str | None = None, *, trust: bool = False) -> dict[str, Any]:
        """The registry of the cells that a saved model was set up with."""
        return read_model(Path(dir_path) / f"{prefix or ''}{MODEL_FILE}", trust=trust).registry

    @staticmethod
    @shared_params(FILES)
    def view_setup_args(dir_path: str | Path, prefix: str | None = None, *, trust: bool = False) -> None:
        """Print the arguments of ``setup_anndata`` of a saved model."""
        AnnDataManager.view_setup_method_args(CellModel.load_registry(dir_path, prefix, trust=trust))

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
