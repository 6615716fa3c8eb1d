"""scvi-tools' runner, with a history that loses nothing."""

from __future__ import annotations

from scvi.train import TrainRunner


class TreeTrainRunner(TrainRunner):
    """Keeps metrics that an earlier training of the same model did not have."""

    def _update_history(self) -> None:
        super()._update_history()
        known = self.model.history_
        if isinstance(known, dict):
            for name, values in (getattr(self.trainer.logger, "history", None) or {}).items():
                known.setdefault(name, values)
