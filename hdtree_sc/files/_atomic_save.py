"""Files that are written beside those they replace, so that a folder holds a whole model at any time."""

from __future__ import annotations

import errno
import os
import re
import shutil
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING
from uuid import uuid4

try:
    import fcntl
except ImportError:  # on Windows, where folders cannot be locked
    fcntl = None  # type: ignore[assignment]

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

STAGED = ".saving-"
"""How the names of the folders begin that files are written to first."""
LIBRARY_WRITES = re.compile("PytorchStreamWriter|inline_container|write failed")
"""What torch and HDF5 say where Python would raise an OSError."""


def _lock(folder: Path, how: str) -> int | None:
    """A handle on a folder that holds a lock until it is closed or the process ends, however that ends.

    None where there is no such folder, its disk knows no locks, or somebody else holds one and ``how`` is "if free".
    """
    if fcntl is None:
        return None
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:
        return None
    modes = {"read": fcntl.LOCK_SH, "write": fcntl.LOCK_EX, "if free": fcntl.LOCK_EX | fcntl.LOCK_NB}
    try:
        fcntl.flock(handle, modes[how])
    except OSError:
        os.close(handle)
        return None
    return handle


@contextmanager
def locked(folder: Path, how: str) -> Iterator[None]:
    """Hold a lock of a folder, if one is to be had: many may "read" its files at a time, one may "write" them."""
    handle = _lock(folder, how)
    try:
        yield
    finally:
        if handle is not None:
            os.close(handle)


@contextmanager
def staged(folder: Path, prefix: str, names: list[str]) -> Iterator[Path]:
    """A new folder to write files in, which then take the place of those in ``folder``, or vanish.

    Parameters
    ----------
    folder
        Where the files belong. Made if it does not exist, and removed again after an error.
    prefix
        What their names begin with there.
    names
        Their names. Once the first is in its place the others count as replaced: if the process ends right then, they
        are found in the folder they were written to, until the next save.
    """
    is_new, written = not folder.exists(), False
    folder.mkdir(parents=True, exist_ok=True)
    stage = folder / f"{STAGED}{uuid4().hex}"
    with locked(folder, "write"):
        stage.mkdir()
        owned = _lock(stage, "write")
    try:
        yield stage
        for path in (*(stage / name for name in names), stage):
            _sync(path)
        written = True
        with locked(folder, "write"):
            for name in names:
                os.replace(stage / name, folder / f"{prefix}{name}")
                _sync(folder)
            _sweep(folder)
    finally:
        if owned is not None:
            os.close(owned)
        if not written or (stage / names[0]).exists() or not any(stage.iterdir()):
            shutil.rmtree(stage, ignore_errors=True)
        if is_new:
            with suppress(OSError):  # it is not empty, unless something failed
                folder.rmdir()


def _sweep(folder: Path) -> None:
    """Remove what processes left that ended while they were saving."""
    for stage in folder.glob(f"{STAGED}*"):
        handle = _lock(stage, "if free")
        if handle is not None:
            shutil.rmtree(stage, ignore_errors=True)
            os.close(handle)


def _sync(path: Path) -> None:
    """Wait until a file or folder is on the disk."""
    if path.is_dir() and os.name == "nt":
        return
    handle = os.open(path, os.O_RDONLY if os.name != "nt" else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def full_disk_named(folder: Path) -> Iterator[None]:
    """Name the folder, and what is free on its disk, in errors of writing."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and not LIBRARY_WRITES.search(str(error)):
            raise
        said = re.search(r"errno = (\d+)", str(error))
        number = getattr(error, "errno", None) or int(said[1] if said else errno.ENOSPC)
        disk = next(place for place in (folder, *folder.absolute().parents) if place.exists())
        free = shutil.disk_usage(disk).free
        msg = (
            f"{os.strerror(number)}: the model could not be saved in {folder}; {free / 1e6:,.1f} MB are free on this "
            "disk. If a model was saved there before, the folder still holds a whole one."
        )
        raise OSError(number, msg) from error
