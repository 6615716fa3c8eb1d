"""scvi-tools' trainer with our manners."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from scvi.train import Trainer

from hdtree_sc.train._interrupt import interruptible
from hdtree_sc.train._quiet import quiet

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lightning.pytorch import Callback


class TreeTrainer(Trainer):
    """Keeps Lightning's notes from the user, and ends early on Ctrl-C.

    Parameters
    ----------
    callbacks
        Callbacks of Lightning; scvi-tools would add its own to the user's list.
    **kwargs
        Keyword arguments of :class:`scvi.train.Trainer`.
    """

    def __init__(self, *, callbacks: Sequence[Callback] | Callback | None = None, **kwargs: Any) -> None:
        given = [] if callbacks is None else [*callbacks] if isinstance(callbacks, list | tuple) else [callbacks]
        with quiet():
            super().__init__(callbacks=given, **kwargs)

    def fit(self, *args: Any, **kwargs: Any) -> None:
        """Train; ``interrupted`` says whether Ctrl-C ended it.

        Parameters
        ----------
        *args, **kwargs
            Arguments of :meth:`lightning.pytorch.Trainer.fit`.
        """
        with quiet(), interruptible(self):
            super().fit(*args, **kwargs)
