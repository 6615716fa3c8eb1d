"""HDTree: a learned tree of cells."""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from scvi import REGISTRY_KEYS
from scvi.model.base import BaseModelClass

from hdtree_sc._keys import UNKNOWN
from hdtree_sc.data import text_of
from hdtree_sc.growth import BUILDERS, TreeBuilder
from hdtree_sc.model._codebook_mixin import CodebookMixin
from hdtree_sc.model._diffusion_mixin import DiffusionMixin
from hdtree_sc.model._expression_mixin import ExpressionMixin
from hdtree_sc.model._file_mixin import FileMixin
from hdtree_sc.model._generative_mixin import GenerativeMixin
from hdtree_sc.model._query_mixin import QueryMixin
from hdtree_sc.model._setup_mixin import SetupMixin, input_shape
from hdtree_sc.model._time_mixin import TimeMixin
from hdtree_sc.model._training_mixin import TreeTrainingMixin
from hdtree_sc.model._unplaced_mixin import UnplacedMixin
from hdtree_sc.model._validation import check_likelihood, check_shape
from hdtree_sc.module import HDTreeModule
from hdtree_sc.train import with_own_settings

if TYPE_CHECKING:
    from anndata import AnnData

    from hdtree_sc.nn import Likelihood

MANY_CELLS = 16_000
"""From so many cells on they can feed a larger encoder."""


@with_own_settings
class HDTree(
    SetupMixin,
    QueryMixin,
    FileMixin,
    CodebookMixin,
    GenerativeMixin,
    DiffusionMixin,
    UnplacedMixin,
    TimeMixin,
    ExpressionMixin,
    TreeTrainingMixin,
    BaseModelClass,
):
    """Learn a tree of cells: one latent, one hierarchical codebook, one count decoder.

    The encoder is trained so that expression neighbours meet (soft contrastive loss), so that the decoder can tell
    their counts (likelihood), and so that they stay close to the codes of their tree path (commitment). The codes are
    the running means of the cells they hold. Number and depth of the branches follow the data: K is never given.

    Parameters
    ----------
    adata
        AnnData registered with :meth:`setup_anndata`.
    registry
        Registry of a data module, as in scvi-tools.
    n_latent
        Width of the latent.
    tree_depth
        Largest number of tree levels below the root.
    n_hidden
        Width of the hidden layers; by default 256, and 512 from 16,000 cells on.
    n_layers
        Number of hidden layers of the encoder; by default 2, and 3 from 16,000 cells on.
    dropout_rate
        Dropout rate of the encoder.
    gene_likelihood
        ``"nb"`` or ``"zinb"`` for raw counts, ``"normal"`` for continuous values (log expression, qPCR, protein),
        ``"bernoulli"`` for values in [0, 1].
    tree_builder
        How the final tree is put together, see :meth:`build_tree`.
    max_leaves
        Largest number of leaves.
    min_cells
        Smallest number of training cells of a leaf; by default 10, less for fewer than 200 cells.
    n_pcs
        Principal components of the normalised expression in which neighbours are searched.
    n_input_pcs
        Principal components that the encoder reads; by default 50, and 100 from 16,000 cells on. Few cells can not
        teach an encoder of thousands of genes what is noise; the components can.
    nu
        Degrees of freedom of the contrastive kernel; small is sharp.
    exaggeration
        Attraction of neighbours: 0.5 saturates, 2 drives groups apart.
    use_labels
        Whether the latent is trained to tell the labels of ``labels_key``, of the cells that have one. Off unless asked
        for: a tree that was told the labels can not be judged by them.

    Examples
    --------
    >>> import hdtree_sc as ht
    >>> adata = ht.datasets.celegans()
    >>> ht.HDTree.setup_anndata(adata, labels_key="cell_type")
    >>> model = ht.HDTree(adata)
    >>> model.train()
    >>> ht.tl.tree(adata, model)

    References
    ----------
    Zang et al., HDTree, arXiv 2506.23287. What differs from the published code, and why, is in the user guide.
    """

    _module_cls = HDTreeModule

    def __init__(
        self,
        adata: AnnData | None = None,
        registry: dict[str, Any] | None = None,
        n_latent: int = 24,
        tree_depth: int = 10,
        n_hidden: int | None = None,
        n_layers: int | None = None,
        dropout_rate: float = 0.0,
        gene_likelihood: Likelihood = "nb",
        tree_builder: TreeBuilder = "information",
        max_leaves: int = 64,
        min_cells: int | None = None,
        n_pcs: int = 30,
        n_input_pcs: int | None = None,
        nu: float = 0.2,
        exaggeration: float = 2.0,
        use_labels: bool = False,  # noqa: FBT001, FBT002
    ) -> None:
        super().__init__(adata, registry)
        if tree_builder not in BUILDERS:
            msg = f"tree_builder: {tree_builder!r} is none of {', '.join(BUILDERS)}."
            raise ValueError(msg)
        if adata is not None:
            check_shape(adata, n_latent=n_latent, tree_depth=tree_depth)
            check_likelihood(adata, self._setup("layer"), gene_likelihood, self._setup("obsm_key"))
        stats = self.summary_stats
        # resolved here, so that the file says which: a model may be loaded with other cells
        many = stats.n_cells >= MANY_CELLS
        n_hidden = n_hidden or (512 if many else 256)
        n_layers = n_layers or (3 if many else 2)
        n_input_pcs = n_input_pcs or (100 if many else 50)
        self.module = self._module_cls(
            **input_shape(self),
            n_latent=n_latent,
            n_hidden=n_hidden,
            n_layers=n_layers,
            dropout_rate=dropout_rate,
            tree_depth=tree_depth,
            gene_likelihood=gene_likelihood,
            n_pcs=n_pcs,
            n_input_pcs=n_input_pcs,
            labels_to_tell=self._labels_to_tell() if use_labels else (),
            has_time=self._setup("time_key") is not None,
            nu=nu,
            exaggeration=exaggeration,
        )
        self._model_summary_string = (
            f"HDTree with n_latent: {n_latent}, tree_depth: {tree_depth}, n_hidden: {n_hidden}, n_layers: {n_layers}, "
            f"gene_likelihood: {gene_likelihood}, tree_builder: {tree_builder}, max_leaves: {max_leaves}"
        )
        self.package_version_ = version("hdtree-sc")
        self.init_params_ = self._get_init_params(locals())

    def _labels_to_tell(self) -> tuple[bool, ...]:
        """Of each registered label, whether it is one to learn: the unknown one is not."""
        state = self.registry["field_registries"][REGISTRY_KEYS.LABELS_KEY]["state_registry"]
        told = tuple(text_of(label) != UNKNOWN for label in state["categorical_mapping"])
        if self._setup("labels_key") is None or sum(told) < 2:
            msg = "use_labels: setup_anndata needs a labels_key= with at least two known labels."
            raise ValueError(msg)
        return told
