"""Named settings of the simulator.

Calibrated with ``python -m benchmarks.simulator_difficulty`` (table in ``docs/benchmarks/simulator_difficulty.md``).
Mean ± sd of 5 seeds, beside the PROSSTT simulations that they are meant to be as hard as:

========================================  =========  ===========  ===========  =========  ===========
measured in 30 PCs                        e3         easy         medium       b5         hard
========================================  =========  ===========  ===========  =========  ===========
rho of distance from root, pseudotime     .730       .73 ± .10    .64 ± .18    .453       .36 ± .37
the same within branches                  .253       .42 ± .10    .41 ± .08    .323       .23 ± .05
NMI of branches, k-means                  .844       .79 ± .03    .80 ± .01    .729       .72 ± .03
NMI of branches, Ward                     .833       .81 ± .04    .82 ± .02    .746       .76 ± .04
R2 of progress along the branch, 10 NN    .679       .63 ± .02    .63 ± .03    .534       .51 ± .05
share of zeros                            .288       .30 ± .02    .32 ± .02    .480       .50 ± .04
median counts per cell                    6870       6832 ± 64    6864 ± 34    2180       2172 ± 11
========================================  =========  ===========  ===========  =========  ===========

``medium`` stands for PROSSTT's e6 (rho .825, Ward .856), of which no file is kept. Trees are random in shape and
length, so seeds differ much in rho: compare methods over several.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Difficulty:
    """How hard a simulated data set is.

    Parameters
    ----------
    n_tips
        Tips of the random tree; it has ``2 * n_tips - 1`` branches.
    n_genes
        Genes.
    n_modules
        Expression programmes.
    divergence
        Standard deviation, over genes, of the change of log expression along a branch of average length.
    persistence
        Correlation of the state that a branch tends to with the state at its start, from 0 to below 1; the higher, the
        longer the distance from the root keeps growing along the tree.
    alpha, beta
        Medians over genes of the noise: ``var = mu + alpha * mu + beta * mu**2``.
    library_size
        Median counts per cell.
    library_sd
        Standard deviation of the log library size.
    """

    n_tips: int
    n_genes: int
    n_modules: int
    divergence: float
    persistence: float
    alpha: float
    beta: float
    library_size: float
    library_sd: float


PRESETS = {
    "easy": Difficulty(
        n_tips=4,
        n_genes=1000,
        n_modules=25,
        divergence=0.45,
        persistence=0.8,
        alpha=1.0,
        beta=0.03,
        library_size=6900.0,
        library_sd=0.5,
    ),
    "medium": Difficulty(
        n_tips=7,
        n_genes=1000,
        n_modules=25,
        divergence=0.45,
        persistence=0.9,
        alpha=1.0,
        beta=0.03,
        library_size=6900.0,
        library_sd=0.5,
    ),
    "hard": Difficulty(
        n_tips=6,
        n_genes=500,
        n_modules=25,
        divergence=0.78,
        persistence=0.7,
        alpha=1.5,
        beta=0.2,
        library_size=2200.0,
        library_sd=0.85,
    ),
}
