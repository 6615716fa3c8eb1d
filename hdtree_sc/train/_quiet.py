"""What Lightning says of itself is kept from the user; warnings about the training are not."""

from __future__ import annotations

import logging
import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

LOGGERS = ("lightning.pytorch", "lightning.fabric")
WARNINGS = (
    # Lightning's own use of torch
    r".*isinstance\(treespec, LeafSpec\).*",
    # losses are logged once an epoch
    r"The number of training batches .* is smaller than the logging interval",
    # minibatches are cut out of tensors: there is nothing for workers to do
    r".*does not have many workers.*",
    # what a new class is added to stands still
    r"Found \d+ module\(s\) in eval mode",
)


@contextmanager
def quiet() -> Iterator[None]:
    """No tips, no hardware report and no progress notes of Lightning within the block.

    Its loggers are as before after it. A level that the user chose, such as ``DEBUG``, is not touched: ``INFO`` is the
    one that Lightning gives itself.
    """
    loggers = [logger for logger in map(logging.getLogger, LOGGERS) if logger.level in (logging.NOTSET, logging.INFO)]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            for message in WARNINGS:
                warnings.filterwarnings("ignore", message=message)
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
