"""From arrays to AnnData of generated cells, and what is said of where they come from."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy import sparse

from hdtree_sc._keys import SOURCE, Keys

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from hdtree_sc.data import Setup
    from hdtree_sc.generate._arrays import DecoderInputs, GeneratedArrays
    from hdtree_sc.generate._generator import EncodedCells
    from hdtree_sc.module import CovariateVector
    from hdtree_sc.tree import Tree


@dataclass(frozen=True)
class CellWriter:
    """Makes AnnData that the model can read.

    Parameters
    ----------
    setup
        What the model was set up with.
    covariates
        How covariates are laid out in a vector.
    tree
        The tree.
    key
        Key of the tree in an AnnData.
    model
        Name of the model's class.
    space
        Space in which diffusion runs.
    """

    setup: Setup
    covariates: CovariateVector
    tree: Tree
    key: str
    model: str
    space: str

    def cells(
        self,
        made: GeneratedArrays,
        inputs: DecoderInputs,
        leaf: NDArray[np.integer],
        names: Sequence[str] | pd.Index | None = None,
    ) -> AnnData:
        """AnnData of cells, with their leaves and the columns of what they were decoded with.

        Parameters
        ----------
        made
            The cells.
        inputs
            What they were decoded with.
        leaf
            Position of each one's leaf in the tree, (n,).
        names
            Their names; None: numbers.
        """
        names = range(len(made.latent)) if names is None else names
        obs = pd.DataFrame(index=pd.Index(names).astype(str))
        out = AnnData(made.values, obs=obs, var=pd.DataFrame(index=pd.Index(self.setup.features)))
        if made.mean is not None:
            out.layers["mean"] = made.mean
        out.obsm[Keys(self.key).latent] = made.latent
        out.obsm[Keys(self.key).map_2d] = made.map_2d
        # where the model reads them, in a copy: what is done to X must not reach them
        for held, key in ((out.layers, "layer"), (out.obsm, "obsm_key")):
            if self.setup.argument(key) is not None:
                held[self.setup.argument(key)] = made.values.copy()
        out.obs[Keys(self.key).leaf] = pd.Categorical(
            np.array(self.tree.nodes, dtype=object)[leaf], categories=list(self.tree.leaves)
        )
        for name, values in self._covariate_columns(inputs).items():
            out.obs[name] = values.to_numpy()
        return out

    def _covariate_columns(self, inputs: DecoderInputs) -> pd.DataFrame:
        """What cells were decoded with, as the ``obs`` columns that the model was set up with."""
        vector, n_batch = inputs.covariates, self.covariates.n_batch
        columns: dict[str, Any] = {}
        start = n_batch if n_batch > 1 else 0
        if self.setup.argument("batch_key") is not None:
            names = np.asarray(self.setup.state_of("batch")["categorical_mapping"])
            number = vector[:, :n_batch].argmax(1).cpu().numpy() if n_batch > 1 else np.zeros(len(vector), dtype=int)
            columns[self.setup.argument("batch_key")] = names[number]
        for key in self.setup.argument("categorical_covariate_keys") or []:
            names = np.asarray(self.setup.state_of("extra_categorical_covs")["mappings"][key])
            columns[key] = names[vector[:, start : start + len(names)].argmax(1).cpu().numpy()]
            start += len(names)
        for key in self.setup.argument("continuous_covariate_keys") or []:
            columns[key] = vector[:, start].cpu().numpy()
            start += 1
        if self.setup.argument("size_factor_key") is not None:
            columns[self.setup.argument("size_factor_key")] = inputs.library[:, 0].cpu().numpy()
        return pd.DataFrame(columns, index=pd.RangeIndex(len(vector)))

    def set_label(self, out: AnnData, names: Sequence[str]) -> None:
        """Write labels as the column of the training cells holds them."""
        out.obs[self.setup.argument("labels_key")] = pd.Categorical(self.setup.label_values(names))

    def take_origin(self, out: AnnData, obs: pd.DataFrame, *, with_label: bool) -> None:
        """Columns of the cells from which others were made.

        What the model was set up with says where a cell is from, and is kept. All else may describe the expression that
        the cell had (a clustering, a pseudotime, a quality): it is kept as that of the source.
        """
        setup = [self.setup.argument(name) for name in ("batch_key", "time_key", "size_factor_key")]
        for name in ("categorical_covariate_keys", "continuous_covariate_keys"):
            setup += self.setup.argument(name) or []
        if with_label:
            setup.append(self.setup.argument("labels_key"))
        kept = obs.loc[:, [not str(name).startswith("_scvi_") for name in obs.columns]]
        kept = kept.rename(
            columns=lambda name: name if name in setup or str(name).startswith(SOURCE) else f"{SOURCE}{name}"
        )
        kept = kept.loc[:, ~kept.columns.duplicated()].drop(columns=out.obs.columns, errors="ignore")
        out.obs = pd.concat([kept.set_axis(out.obs_names), out.obs], axis=1)

    def describe_transmuted(
        self,
        out: AnnData,
        cells: EncodedCells,
        *,
        own: NDArray[Any],
        target: str,
        is_label: bool,
        probability: NDArray[np.floating],
        levels: NDArray[np.floating],
        latent: NDArray[np.float32],
        draw: NDArray[np.integer],
    ) -> None:
        """Columns of cells that were transported elsewhere.

        Parameters
        ----------
        out
            The cells, all of the first draw, then all of the second.
        cells
            The source cells in the same order, as often as there are draws.
        own, target, is_label
            Names of the places of the source cells, that of the target, and whether it is a label.
        probability
            Probability of the target.
        levels
            Noise level up to which each source cell was carried.
        latent
            Latents before.
        draw
            Number of each one's draw.
        """
        self.take_origin(out, cells.obs, with_label=False)
        if is_label:
            self.set_label(out, [target] * out.n_obs)
        out.obs["source_label"] = pd.Categorical(own)
        out.obs["target_label"] = pd.Categorical([target] * out.n_obs)
        out.obs["target_probability"] = probability
        out.obs["source_cell"] = np.asarray(cells.names)
        out.obs["draw"] = draw
        out.obs["branch_noise"] = levels
        out.obsm[f"{Keys(self.key).latent}_source"] = latent

    def named(self, out: AnnData, **arguments: Any) -> AnnData:
        """Name new cells, which were collected at no time, and say in ``uns`` how they came to be.

        Their names hold a digest of them and of how they were made: no other set of cells has the same names.
        """
        if self.setup.argument("time_key") is not None:
            out.obs[self.setup.argument("time_key")] = np.nan
        values = out.X.data if sparse.issparse(out.X) else out.X
        made = repr(sorted(arguments.items())).encode() + out.obsm[Keys(self.key).latent].tobytes() + values.tobytes()
        digest = hashlib.blake2s(made, digest_size=4).hexdigest()
        out.obs_names = [f"generated_{digest}_{i}" for i in range(out.n_obs)]
        return self.with_provenance(out, **arguments)

    def with_provenance(self, out: AnnData, **arguments: Any) -> AnnData:
        """Say in ``uns`` how cells came to be."""
        given = {name: value for name, value in arguments.items() if value is not None}
        given["labels_key"] = self.setup.argument("labels_key") or ""
        out.uns[self.key] = given | {"model": self.model, "space": self.space}
        return out
