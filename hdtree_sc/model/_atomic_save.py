"""Files that are written beside those they replace, so that a folder holds a whole model at any time."""

from __future__ import annotations

import errno
import os
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


@contextmanager
def locked(folder: Path, *, shared: bool = False) -> Iterator[None]:
    """Keep others from replacing the files of a folder; with ``shared`` they may read them.

    The lock ends with the process, however that ends. Where folders cannot be locked, it does nothing.
    """
    handle = None
    with suppress(OSError):  # there is no such folder, or its disk knows no locks
        if fcntl is not None:
            handle = os.open(folder, os.O_RDONLY)
            fcntl.flock(handle, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
    try:
        yield
    finally:
        if handle is not None:
            os.close(handle)


@contextmanager
def staged(folder: Path, prefix: str, names: list[str]) -> Iterator[Path]:
    """A path for a new folder; the files written to it take the place of those in ``folder``, or vanish.

    Parameters
    ----------
    folder
        Where the files belong. Made if it does not exist, and removed again after an error.
    prefix
        What their names begin with there.
    names
        Their names. Once the first is in its place the others count as replaced: if the process ends right then, they
        are found in the folder they were written to.
    """
    is_new, written = not folder.exists(), False
    folder.mkdir(parents=True, exist_ok=True)
    stage = folder / f"{STAGED}{uuid4().hex}"
    try:
        yield stage
        for path in (*(stage / name for name in names), stage):
            _sync(path)
        written = True
        with locked(folder):
            for name in names:
                os.replace(stage / name, folder / f"{prefix}{name}")
                _sync(folder)
    finally:
        if not written or (stage / names[0]).exists() or not any(stage.iterdir()):
            shutil.rmtree(stage, ignore_errors=True)
        if is_new:
            with suppress(OSError):  # it is not empty, unless something failed
                folder.rmdir()


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
        by_torch = isinstance(error, RuntimeError)
        if by_torch and "PytorchStreamWriter" not in str(error) and "inline_container" not in str(error):
            raise
        number = getattr(error, "errno", None) or (errno.ENOSPC if by_torch else errno.EIO)
        disk = next(place for place in (folder, *folder.absolute().parents) if place.exists())
        free = shutil.disk_usage(disk).free
        msg = (
            f"{os.strerror(number)}: the model could not be saved in {folder}; {free / 1e6:,.1f} MB are free on this "
            "disk. What was saved there before is whole"
        )
        raise OSError(number, msg) from error
