"""torch's process-wide settings while a model works: other packages change them without a word."""

from __future__ import annotations

import inspect
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import wraps
from typing import TYPE_CHECKING, Any, TypeVar

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Model = TypeVar("Model", bound=type)


def keep_threads() -> None:
    """Set torch back to the number of threads that it was started with, or that :func:`torch.set_num_threads` set.

    Sums depend on that number in their last digits. numba, in scanpy's ``normalize_total`` for example, changes it in
    the OpenMP runtime that torch shares, but only for the thread that calls it: a new thread has the number that torch
    was given.
    """
    with ThreadPoolExecutor(1) as pool:
        n_threads = pool.submit(torch.get_num_threads).result()
    if torch.get_num_threads() != n_threads:
        torch.set_num_threads(n_threads)


@contextmanager
def own_settings() -> Iterator[None]:
    """Single precision as torch's default, and torch's own number of threads; the default is as before after it."""
    keep_threads()
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def with_own_settings(cls: Model) -> Model:
    """Class decorator: all public methods and the constructor work under :func:`own_settings`.

    It is put on the classes that users see, so that inherited methods have it too.
    """
    for name in dir(cls):
        if name.startswith("_") and name != "__init__":
            continue
        held = inspect.getattr_static(cls, name)
        if inspect.isfunction(held):
            setattr(cls, name, _under_own_settings(held))
        elif isinstance(held, classmethod):
            setattr(cls, name, classmethod(_under_own_settings(held.__func__)))
    return cls


def _under_own_settings(function: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        with own_settings():
            return function(*args, **kwargs)

    return wrapped
