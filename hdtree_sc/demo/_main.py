"""From the bundled cells to figures and a report, with the steps printed on the way."""

from __future__ import annotations

import argparse
import logging
import sys
import warnings
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

QUIET = ("lightning.pytorch", "lightning.fabric", "scvi")
"""Loggers of tips and hardware. Lightning sets their levels when it is imported."""


class Steps:
    """Tells which step runs and how long each took.

    Parameters
    ----------
    total
        Number of steps.
    """

    def __init__(self, total: int) -> None:
        self.total = total
        self.seconds: dict[str, float] = {}

    @contextmanager
    def step(self, name: str, *, talks: bool = False) -> Iterator[list[str]]:
        """One step; what is put into the list that it yields is printed with its seconds.

        Parameters
        ----------
        name
            What the step does.
        talks
            Whether it writes to the terminal itself, so that its seconds go on a line of their own.
        """
        head = f"[{len(self.seconds) + 1}/{self.total}] {name} ..."
        print(head, end="\n" if talks else " ", flush=True)
        notes: list[str] = []
        start = perf_counter()
        yield notes
        self.seconds[name] = perf_counter() - start
        line = ", ".join([f"{self.seconds[name]:.1f} s", *notes])
        print(f"{head} {line}" if talks else line, flush=True)


@contextmanager
def quiet() -> Iterator[None]:
    """Keep tips, hardware chatter and advice for other uses of Lightning and scvi-tools from the terminal."""
    loggers = [logging.getLogger(name) for name in QUIET]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            for module in ("lightning", "scvi", "anndata", "torch"):
                warnings.filterwarnings("ignore", module=module)
            warnings.filterwarnings("ignore", message="Training was interrupted")  # the demo says so itself
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo; the exit status is 0, or 130 if it was interrupted.

    Parameters
    ----------
    arguments
        Of the command line; those of the process without it.
    """
    options = _parser().parse_args(arguments)
    if options.max_epochs is not None and options.max_epochs < 1:
        _parser().error(f"--max-epochs {options.max_epochs}: at least 1 is needed")
    if options.out.exists() and not options.out.is_dir():
        _parser().error(f"--out {options.out}: this is a file, a folder is needed")
    try:
        written = run(options.out, max_epochs=options.max_epochs, seed=options.seed, progress=options.progress)
    except KeyboardInterrupt:
        print("\ninterrupted: the demo is not complete; run it again", file=sys.stderr)
        return 130
    print("\nwritten:")
    for path in written:
        print(f"  {path}")
    print(f"\nopen {options.out / 'report.html'}")
    return 0


def run(folder: Path, *, max_epochs: int | None, seed: int, progress: bool) -> list[Path]:
    """All steps; returns what was written.

    Parameters
    ----------
    folder
        Where to; made if it is not there.
    max_epochs
        Passes over the training cells; the model's default without it.
    seed
        Seed of the training.
    progress
        Whether a progress bar is shown.
    """
    began = perf_counter()
    steps = Steps(7)
    with steps.step("load libraries and cells") as notes:
        import matplotlib as mpl

        mpl.use("Agg")  # draws without a display
        import hdtree_sc.model  # noqa: F401  (slow: torch and scvi-tools)
        from hdtree_sc import tl
        from hdtree_sc.demo import _analysis, _figures, _measures, _report

        adata = _analysis.load_cells()
        # Made first, so that a folder that cannot be written to is reported before the work.
        folder.mkdir(parents=True, exist_ok=True)
        notes.append(f"{adata.n_obs:,} cells, {adata.n_vars:,} genes")
    with quiet(), steps.step("train HDTree", talks=True) as notes:
        model = _analysis.train_model(adata, seed=seed, max_epochs=max_epochs, progress=progress)
        if _was_interrupted(model):
            raise KeyboardInterrupt
        notes.append(f"{model.trainer.current_epoch} epochs")
    with steps.step("tree") as notes:
        tl.tree(adata, model)
        notes.append(f"{int(adata.uns['hdtree']['nodes']['is_leaf'].sum())} leaves")
    with steps.step("lineage, pseudotime, lineage path") as notes:
        path = _analysis.trace_lineage(adata)
        notes.append(f"{_analysis.SOURCE} to {_analysis.TARGET} in {len(path)} nodes")
    with steps.step("compare with annotated types and embryo time") as notes:
        results = _measures.measure(adata, model, path)
        notes.append(f"rho with embryo time {results.orders.iloc[0, 0]:.3f}")
    with steps.step("figures") as notes:
        figures = _figures.save_figures(adata, model, folder)
        notes.append(str(len(figures)))
    with steps.step("files and report"):
        adata.write_h5ad(folder / "celegans.h5ad", compression="gzip")
        model.save(str(folder / "model"), overwrite=True, save_anndata=False)
        report = folder / "report.html"
        times = {**steps.seconds, "all, from the start": perf_counter() - began}
        page = _report.page(adata, model, results, folder=folder, seconds=times, seed=seed, max_epochs=max_epochs)
        report.write_text(page, encoding="utf-8")
    return [report, *figures, folder / "celegans.h5ad", folder / "model"]


def _was_interrupted(model: Any) -> bool:
    """Whether Ctrl-C ended the training, which leaves a usable model, but not the one that the report is about."""
    trainer = getattr(model, "trainer", None)
    return trainer is None or trainer.interrupted


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m hdtree_sc.demo",
        description="Train HDTree on the bundled C. elegans cells; write figures, annotated cells and a report.",
    )
    parser.add_argument("--out", type=Path, default=Path("demo"), help="folder to write to (default: demo)")
    parser.add_argument("--max-epochs", type=int, metavar="N", help="passes over the cells (default: the model's own)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the training (default: 0)")
    parser.add_argument("--no-progress", dest="progress", action="store_false", help="show no progress bar")
    return parser
