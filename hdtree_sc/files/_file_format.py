"""What a model file holds, and reading it without running anything of it.

A file is what scvi-tools saves (weights, names of features, attributes), with the attributes in plain form. Behind it,
as the comment of the zip archive, stand the checksums of the file itself and of the cells saved beside it.
"""

from __future__ import annotations

import copy
import hashlib
import inspect
import io
import pickle
import re
import zipfile
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from os import SEEK_END
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
import torch
from scvi.model.base._constants import SAVE_KEYS
from scvi.model.base._save_load import _initialize_model

from hdtree_sc.files._plain_values import from_plain, to_plain

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from anndata import AnnData

KEYS = (SAVE_KEYS.MODEL_STATE_DICT_KEY, SAVE_KEYS.VAR_NAMES_KEY, SAVE_KEYS.ATTR_DICT_KEY)
PYRO = "pyro_param_store"
ZIP_START, ZIP_END = b"PK\x03\x04", b"PK\x05\x06"
ZIP_REST = 18
"""Bytes after the mark of the end of a zip archive, if it has no comment; the last two are the comment's length."""
SEAL = re.compile(rb"hdtree-sc sha256 file=([0-9a-f]{64}) cells=([0-9a-f]{64}|none)\Z")
LENGTH = 2
"""Bytes of the length of a zip archive's comment, which stand before it."""
CHUNK = 1 << 20


@contextmanager
def damage_named(path: Path) -> Iterator[None]:
    """Turn any error inside into the ValueError that names a damaged file."""
    try:
        yield
    except Exception as error:
        what = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        msg = f"dir_path: {path} is truncated, damaged or not a complete model file ({what}); copy or save it again."
        raise ValueError(msg) from error


# -- writing -------------------------------------------------------------------------------------------------


class _PlainPickler(pickle.Pickler):
    """Pickler of what scvi-tools saves, which writes the attributes in plain form."""

    def dump(self, content: dict[str, Any]) -> None:
        weights, names, attributes = (content[key] for key in KEYS)
        # scvi-tools adds all parameters that pyro knows in this process, none of which are this model's
        weights = copy.copy(weights)
        weights.pop(PYRO, None)
        plain = {}
        for name, value in attributes.items():
            try:
                plain[name] = to_plain(value)
            except TypeError as error:
                msg = f"The model's {name} cannot be saved: {error}."
                raise TypeError(msg) from error
        super().dump(dict(zip(KEYS, (weights, to_plain(names), plain), strict=True)))


PLAIN_PICKLE = SimpleNamespace(__name__="plain_pickle", Pickler=_PlainPickler, dump=pickle.dump)
"""For ``torch.save(pickle_module=)``."""


def digest(file: BinaryIO, size: int | None = None) -> str:
    """SHA-256 of the first ``size`` bytes of a file, of all by default."""
    file.seek(0)
    found, left = hashlib.sha256(), size
    while part := file.read(CHUNK if left is None else min(CHUNK, left)):
        found.update(part)
        left = None if left is None else left - len(part)
    return found.hexdigest()


def digest_of(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return digest(file)


def seal(path: Path, cells: Path | None) -> None:
    """Write the checksums of a model file, and of the cells that belong to it, behind it."""
    beside = "none" if cells is None else digest_of(cells)
    with path.open("r+b") as file:
        size = file.seek(0, SEEK_END) - LENGTH
        comment = f"hdtree-sc sha256 file={digest(file, size)} cells={beside}".encode()
        file.seek(size)
        file.write(len(comment).to_bytes(LENGTH, "little") + comment)


# -- reading -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SavedModel:
    """What a model file holds."""

    path: Path
    attributes: dict[str, Any]
    var_names: Any
    weights: dict[str, torch.Tensor]
    cells: str | None
    """Checksum of the cells saved beside it; None if none were."""

    @property
    def registry(self) -> dict[str, Any]:
        """The registry of the cells that the model was set up with."""
        return self.attributes["registry_"]

    def check(self, cls: type, allowed: list[str] | None = None) -> None:
        """Refuse a file of another class, or one that this version cannot read."""
        name = self.registry["model_name"]
        if name != cls.__name__ and name not in (allowed or []):
            msg = f"dir_path: {self.path} holds a model of class {name}, not {cls.__name__}: use {name}.load."
            raise ValueError(msg)
        written, installed = self.attributes.get("package_version_"), version("hdtree-sc")
        found = re.match(r"(\d+)\.(\d+)", str(written))
        if found is None:
            msg = (
                f"dir_path: {self.path} gives {written!r} as the version of hdtree-sc that wrote it, which is no "
                "version number: the file is damaged, or was not written by hdtree-sc."
            )
            raise ValueError(msg)
        # files are compatible within a minor version
        if (int(found[1]), int(found[2])) > tuple(int(part) for part in installed.split(".")[:2]):
            msg = (
                f"dir_path: {self.path} was written by hdtree-sc {written}, newer than the {installed} installed here: "
                "upgrade hdtree-sc."
            )
            raise ValueError(msg)

    def built(self, cls: type, adata: AnnData | None) -> Any:
        """The model, on the CPU, over cells that are registered, or without cells."""
        attributes = {name: value for name, value in self.attributes.items() if name != "registry_"}
        model = _initialize_model(cls, adata, self.registry, attributes, None)
        model.module.on_load(model)
        model.module.load_state_dict(self.weights)
        return model

    def check_whole(self, cls: Any) -> None:
        """Refuse a file that no model can be made of, before anyone's cells are touched."""
        with damage_named(self.path), torch.random.fork_rng(devices=[]):
            given = inspect.signature(cls.setup_anndata).bind(None, **self.registry["setup_args"])
            _require(not given.arguments.get("kwargs"), "setup_anndata does not know all arguments of its registry")
            self.built(cls, None)


def read_model(path: Path, *, trust: bool) -> SavedModel:
    """Read a model file.

    Parameters
    ----------
    path
        The file.
    trust
        Whether a file with a full pickle is read as well, which runs what the pickle says.

    Raises
    ------
    ValueError
        If there is no file, it is damaged, or it is a full pickle and not trusted.
    """
    if not path.is_file():
        msg = f"dir_path: there is no saved model at {path}."
        raise ValueError(msg)
    # one handle for all: whoever saves meanwhile replaces the file, and this one stays what it was
    with path.open("rb") as file:
        with damage_named(path):
            source, cells = _verified(file)
            content = _loaded(source, weights_only=True)
        if content is None and not trust:
            msg = (
                f"dir_path: {path} holds a full pickle and not plain values. Early versions of hdtree-sc wrote such "
                "files, and other packages do; loading one runs any code that is in it. If you know where the file is "
                "from, load it with trust=True and save the model again; otherwise do not load it."
            )
            raise ValueError(msg)
        with damage_named(path):
            return _checked(path, _loaded(source, weights_only=False) if content is None else content, cells)


def _verified(file: BinaryIO) -> tuple[BinaryIO, str | None]:
    """The archive, once its checksums are verified, and the checksum of the cells beside it."""
    if file.read(len(ZIP_START)) != ZIP_START:
        msg = "it is no zip archive"
        raise ValueError(msg)
    size = file.seek(0, SEEK_END)
    file.seek(max(0, size - 256))
    tail = file.read()
    found = SEAL.search(tail)
    if found is not None:
        if digest(file, size - len(found[0]) - LENGTH) != found[1].decode():
            msg = "its checksum is another"
            raise ValueError(msg)
        return file, None if found[2] == b"none" else found[2].decode()
    if not (tail[-len(ZIP_END) - ZIP_REST :].startswith(ZIP_END) and tail.endswith(bytes(LENGTH))):
        msg = "its end is missing"
        raise ValueError(msg)
    # older files, and those that were edited, have a checksum of each part alone, which torch does not read: it is
    # given the parts, and not an archive whose table of parts may be damaged
    parts = io.BytesIO()
    with zipfile.ZipFile(file) as archive, zipfile.ZipFile(parts, "w") as copied:
        for name in archive.namelist():
            copied.writestr(name, archive.read(name))
    return parts, None


def _loaded(file: BinaryIO, *, weights_only: bool) -> Any:
    """Content of a file; None if it is not plain and ``weights_only``."""
    file.seek(0)
    try:
        return torch.load(file, map_location="cpu", weights_only=weights_only)
    except pickle.UnpicklingError:
        if not weights_only:
            raise
        return None


def _checked(path: Path, content: Any, cells: str | None) -> SavedModel:
    """A saved model, if the content has the parts of one."""
    _require(isinstance(content, dict) and set(content) == set(KEYS), f"it does not hold {', '.join(KEYS)} alone")
    weights, names, attributes = (content[key] for key in KEYS)
    _require(isinstance(attributes, dict) and isinstance(weights, dict), "its parts are no dictionaries")
    weights.pop(PYRO, None)
    _require(all(isinstance(value, torch.Tensor) for value in weights.values()), "some weights are no tensors")
    attributes, names = from_plain(attributes), np.asarray(from_plain(names))
    _require(names.ndim == 1, "the names of features are no list")
    for name, value in attributes.items():
        _require(type(name) is str and re.fullmatch(r"_?[a-zA-Z]\w*_", name), f"{name!r} is no attribute of a model")
        if name.endswith("_indices_") and value is not None:
            rows = np.asarray(value)
            _require(rows.ndim == 1 and rows.dtype.kind in "iu", f"{name} are no row numbers")
    for name in ("registry_", "init_params_"):
        _require(isinstance(attributes.get(name), dict), f"it has no {name}")
    _require(isinstance(attributes["registry_"].get("model_name"), str), "its registry names no model")
    _require(isinstance(attributes.get("history_"), dict | None), "its history is none")
    return SavedModel(path, attributes, names, weights, cells)


def _require(holds: Any, otherwise: str) -> None:
    if not holds:
        raise ValueError(otherwise)
