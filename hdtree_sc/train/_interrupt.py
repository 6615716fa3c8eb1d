"""Ctrl-C in a training."""

from __future__ import annotations

import signal
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lightning.pytorch import Trainer


@contextmanager
def interruptible(trainer: Trainer) -> Iterator[None]:
    """Ctrl-C leaves the block as if training had come to its end; ``trainer.interrupted`` says that it did not.

    Lightning would end the process and leave Ctrl-C switched off.

    Parameters
    ----------
    trainer
        The trainer that works within the block.

    Raises
    ------
    KeyboardInterrupt
        If no step has been made, so that there is nothing to keep.
    """
    handler = signal.getsignal(signal.SIGINT)
    try:
        yield
    except (KeyboardInterrupt, SystemExit) as stop:
        # Lightning turns Ctrl-C into exit(1)
        if isinstance(stop, SystemExit) and not isinstance(stop.__context__, KeyboardInterrupt):
            raise
        if not trainer.global_step:
            msg = "Training was interrupted before its first step: nothing was learned."
            raise KeyboardInterrupt(msg) from None
    finally:
        if handler is not None and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, handler)
