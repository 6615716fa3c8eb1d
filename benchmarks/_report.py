"""Rows as CSV, as markdown tables and as a figure."""

from __future__ import annotations

import textwrap
from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from benchmarks._run import REASON

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from matplotlib.axes import Axes

    from benchmarks._run import Method

NOT_RANKED = ("leaves", "CPU seconds", "peak MB")
"""Columns without a best peer: plain methods cost next to nothing."""
DIGITS = {"CPU seconds": 2, "peak MB": 0, "leaves": 1}
"""Digits behind the point; 3 for all others."""
COLORS = {"ours": "#c0392b", "peer": "#34495e", "reference": "#95a5a6", "published": "#2980b9"}
KINDS = {"ours": "hdtree-sc", "peer": "peer", "reference": "chance and supervised", "published": "published"}


def table(rows: Sequence[Mapping[str, Any]], methods: Mapping[str, Method]) -> pd.DataFrame:
    """Rows as they are, with the methods' names, kinds and tables in place of their keys.

    Parameters
    ----------
    rows
        What `benchmarks._run.run` returns.
    methods
        All methods.
    """
    frame = pd.DataFrame([{k: v for k, v in row.items() if k not in ("circumstances", "code")} for row in rows])
    known = frame["method"].map(methods)
    frame.insert(0, "table", [method.table for method in known])
    frame.insert(3, "kind", [method.kind for method in known])
    frame["method"] = [method.name for method in known]
    return frame.drop(columns=REASON, errors="ignore").assign(**{REASON: frame.get(REASON, np.nan)})


def spread(values: pd.Series, digits: int) -> str:
    """``mean ± sd`` over seeds; the mean alone of one seed, nothing of none."""
    values = values.dropna().astype(float)
    if values.empty:
        return ""
    deviation = f" ± {values.std():.{digits}f}" if len(values) > 1 else ""
    return f"{values.mean():.{digits}f}{deviation}"


def markdown(frame: pd.DataFrame, measures: Sequence[str]) -> str:
    """One data set as a table: a line for each method, ``mean ± sd`` over seeds, the best peer in bold.

    Parameters
    ----------
    frame
        Rows of one data set, as of `table`.
    measures
        Columns to show; those without any number are left out.
    """
    shown = [measure for measure in measures if measure in frame and frame[measure].notna().any()]
    by_method = frame.groupby("method", sort=False)
    kind, means = by_method["kind"].first(), by_method[shown].mean()
    peers = means[kind == "peer"].round(6)
    best = {
        measure: peers.index[peers[measure] == peers[measure].max()] for measure in shown if measure not in NOT_RANKED
    }
    lines = [f"| method | {' | '.join(shown)} | seeds |", f"|{'---|' * (len(shown) + 2)}"]
    for name, group in by_method:
        reasons = group[REASON].dropna().unique()
        done = int(group[REASON].isna().sum())
        texts = [spread(group[measure], DIGITS.get(measure, 3)) for measure in shown]
        texts = [
            f"**{text}**" if text and name in best.get(measure, ()) else text
            for measure, text in zip(shown, texts, strict=True)
        ]
        if not done:
            texts = [f"not run: {'; '.join(reasons)}", *[""] * (len(shown) - 1)]
        seeds = f"{done}" if done in (0, len(group)) else f"{done} ({len(group) - done} not run: {'; '.join(reasons)})"
        if kind[name] == "published":
            seeds = "published"
        lines.append(f"| {name} | {' | '.join(texts)} | {seeds} |".replace("\n", " "))
    return "\n".join(lines)


def circumstances(rows: Sequence[Mapping[str, Any]]) -> str:
    """Where, when and with which versions the rows were measured."""
    met = [row["circumstances"] for row in rows]
    dates = sorted({one["date"] for one in met})
    machines = [name for name, _ in Counter(one["machine"] for one in met).most_common()]
    versions: dict[str, set[str]] = {}
    for one in met:
        for name, number in one["versions"].items():
            versions.setdefault(name, set()).add(number)
    packages = ", ".join(f"{name} {' and '.join(sorted(numbers))}" for name, numbers in versions.items())
    when = dates[0] if len(dates) == 1 else f"{dates[0]} to {dates[-1]}"
    return f"Measured {when} on {'; '.join(machines)}; {packages}."


def write(
    name: str,
    rows: Sequence[Mapping[str, Any]],
    methods: Mapping[str, Method],
    out: Path,
    *,
    head: str,
    tables: Mapping[str, tuple[str, Sequence[str]]],
    figure: tuple[str, Sequence[str]],
    mark_best: bool = True,
) -> None:
    """Write ``<name>.csv``, ``<name>.md`` and ``<name>.png``.

    Parameters
    ----------
    name
        Name of the files.
    rows
        What `benchmarks._run.run` returns.
    methods
        All methods.
    out
        Folder.
    head
        Title and protocol, in markdown.
    tables
        For each table of the methods: a text to stand above it, and the measures to show.
    figure
        The table to draw, and two of its measures.
    mark_best
        Whether the highest of the peers is in bold: not where low is good, or nearness to a reference.
    """
    if not rows:
        print(f"{name}: nothing was measured, nothing is written")
        return
    frame = table(rows, methods)
    out.mkdir(parents=True, exist_ok=True)
    frame.to_csv(out / f"{name}.csv", index=False, float_format="%.4f")
    parts = [head.strip(), circumstances(rows), f"![{name}]({name}.png)"]
    for key, (text, measures) in tables.items():
        here = frame[frame["table"] == key]
        # a data set of which no method has a number says nothing
        here = here[here.groupby("data")[REASON].transform(lambda reasons: reasons.isna().any()).astype(bool)]
        if not here.empty:
            parts.append(text)
        for data, group in here.groupby("data", sort=False):
            parts += [f"### {data}", markdown(group if mark_best else group.assign(kind="reference"), measures)]
    (out / f"{name}.md").write_text("\n\n".join(parts) + "\n")
    dots(frame[frame["table"] == figure[0]], figure[1], out / f"{name}.png")


def dots(frame: pd.DataFrame, measures: Sequence[str], file: Path) -> None:
    """One panel for each data set, one line for each method, mean and spread of up to two measures.

    Parameters
    ----------
    frame
        Rows as of `table`.
    measures
        The first as a disk, the second as an empty diamond.
    file
        Where to write the figure.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    ordered = list(dict.fromkeys(frame["method"]))  # a method that the first set has no number of keeps its place
    frame = frame[frame[list(measures)].notna().any(axis=1)]
    names, sets = [name for name in ordered if name in set(frame["method"])], list(dict.fromkeys(frame["data"]))
    if not sets:
        return
    shown = {name: textwrap.fill(name, 32) for name in names}
    lines = [line for text in shown.values() for line in text.split("\n")]
    n_columns = min(3, len(sets))
    n_rows = -(-len(sets) // n_columns)
    width = 0.4 + 0.065 * max(map(len, lines)) + 2.8 * n_columns
    size = (max(width, 6.5), 0.7 + (0.6 + 0.12 * (len(names) + len(lines))) * n_rows)
    drawing, axes = plt.subplots(
        n_rows, n_columns, figsize=size, sharex=True, sharey=True, squeeze=False, layout="constrained"
    )
    for ax, data in zip(axes.flat, sets, strict=False):
        _panel(ax, frame[frame["data"] == data], shown, measures)
        ax.set_title(data, fontsize=9)
    for ax in axes.flat[len(sets) :]:
        ax.set_visible(False)
    handles, labels = _legend(measures, [kind for kind in KINDS if kind in set(frame["kind"])])
    drawing.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False, fontsize=8)
    drawing.savefig(file, dpi=130)
    plt.close(drawing)


def _panel(ax: Axes, frame: pd.DataFrame, names: Mapping[str, str], measures: Sequence[str]) -> None:
    # two measures of one method stand one above the other
    offsets = np.linspace(-0.16, 0.16, len(measures)) if len(measures) > 1 else [0.0]
    for position, name in enumerate(names):
        group = frame[frame["method"] == name]
        for number, (measure, offset) in enumerate(zip(measures, offsets, strict=True)):
            values = group[measure].dropna()
            if values.empty:
                continue
            color = COLORS[group["kind"].iloc[0]]
            ax.errorbar(
                values.mean(), position + offset, xerr=values.std() if len(values) > 1 else None,
                fmt="oD"[number], color=color, mfc=color if number == 0 else "white", ms=4.5, lw=1, capsize=2,
            )  # fmt: skip
    ax.set_yticks(range(len(names)), list(names.values()), fontsize=8)
    ax.tick_params(axis="x", labelsize=8, labelbottom=True)
    ax.set_ylim(len(names) - 0.5, -0.5)
    ax.grid(axis="both", color="0.92", lw=0.7)
    ax.set_axisbelow(True)


def _legend(measures: Sequence[str], kinds: Sequence[str]) -> tuple[list[Any], list[str]]:
    from matplotlib.lines import Line2D

    marks = [
        Line2D([], [], ls="", marker="oD"[number], color="black", mfc="black" if number == 0 else "white", ms=5)
        for number in range(len(measures))
    ]
    patches = [Line2D([], [], ls="", marker="s", color=COLORS[kind], ms=6) for kind in kinds]
    return [*marks, *patches], [*measures, *(KINDS[kind] for kind in kinds)]
