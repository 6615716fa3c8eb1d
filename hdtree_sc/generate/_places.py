"""What the generator is conditioned on, by name: nodes of the tree and labels, and the probability of each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch

from hdtree_sc._errors import listing
from hdtree_sc._keys import UNKNOWN
from hdtree_sc.data import positions_of
from hdtree_sc.module import Condition

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from hdtree_sc.module import ClassHead, CovariatePool, TreeHead

Place: TypeAlias = tuple[int, int]
"""Number of a node and number of a label, 0 for none."""


class Places:
    """Nodes of a learned tree and labels beside it.

    Parameters
    ----------
    head
        The tree.
    labels
        Names of the labels, in the order in which the generator numbers them, from 1.
    registered
        Categories of the labels as minibatches number them. A query may hold some that training did not know: they come
        behind the others.
    """

    def __init__(self, head: TreeHead, labels: Sequence[str], registered: Iterable[object] = ()) -> None:
        self.head, self.tree, self.labels = head, head.nodes(), list(labels)
        self._label_positions = torch.from_numpy(positions_of(registered, self.labels) + 1)

    # ---------------------------------------------------------------- names

    @property
    def destinations(self) -> str:
        """What can be named, for messages."""
        return f"Labels: {listing(self.labels)}. Nodes: {listing(self.tree.nodes)}."

    def label_named(self, label: object) -> str | None:
        """Name of a label that is given in any type: 2, 2.0 and "2" are one. None: there is none of that name."""
        number = int(positions_of([label], self.labels)[0])
        return None if number < 0 else self.labels[number]

    def of(self, node: str | None, label: object | None) -> Place:
        """Numbers of a node and of a label.

        Raises
        ------
        ValueError
            If there is none of that name; the message lists those that are.
        """
        if node is not None and node not in self.tree:
            msg = f"node: the tree has no {node!r}. {self.destinations}"
            raise ValueError(msg)
        name = None if label is None else self.label_named(label)
        if label is not None and name is None:
            more = "" if self.labels else " The model was set up without labels_key=."
            msg = f"label: the model knows no {label!r}. {self.destinations}{more}"
            raise ValueError(msg)
        number = 0 if node is None else int(self.numbers[self.tree.index(node)])
        return number, 0 if name is None else self.labels.index(name) + 1

    def named(self, name: object, argument: str) -> tuple[str, Place]:
        """Name and numbers of what may be a label, or else a node.

        Parameters
        ----------
        name
            The name.
        argument
            What messages call it.

        Raises
        ------
        ValueError
            If it is neither; the message lists what there is.
        """
        label = self.label_named(name)
        if label is not None:
            return label, self.of(None, label)
        if isinstance(name, str) and name in self.tree:
            return name, self.of(name, None)
        msg = f"{argument}: {name!r} is neither a label nor a node of the model. {self.destinations}"
        raise ValueError(msg)

    def names_of(self, where: Condition, there: Place) -> tuple[NDArray[Any], bool]:
        """Names of the places of cells, labels if the target is one, and whether it is."""
        if there[1] > 0:
            return np.asarray([UNKNOWN, *self.labels])[where.label.cpu().numpy()], True
        return np.asarray(self.tree.nodes)[where.node.cpu().numpy()], False

    # ---------------------------------------------------------------- numbers

    @property
    def n_labels(self) -> int:
        """Number of labels that are a condition beside the path."""
        return len(self.labels)

    @property
    def numbers(self) -> torch.Tensor:
        """Number under which the generator knows each node, in tree order."""
        return torch.arange(len(self.tree))

    def leaves_of(self, z: torch.Tensor) -> torch.Tensor:
        """Number of each latent's leaf, int (n,)."""
        return self.numbers.to(z.device)[self.head.leaf(z)]

    def known_labels(self, registered: torch.Tensor) -> torch.Tensor:
        """Number of each cell's label, int (n,), 0 where it is not known, from the numbers in a minibatch."""
        positions = self._label_positions.to(registered.device)
        known = registered < len(positions)
        return torch.where(known, positions[registered.clamp_max(len(positions) - 1)], 0)

    def conditions_of(self, z: torch.Tensor, registered: torch.Tensor) -> Condition:
        """Leaf and label of each cell with latents (n, width) and the labels of a minibatch."""
        return Condition(self.head.leaf(z), self.known_labels(registered))

    def leaves_decoded(self, where: Condition, latent: torch.Tensor) -> torch.Tensor:
        """Number of the leaf whose cells each latent is decoded like: the one in which it lies."""
        return self.leaves_of(latent)

    # ---------------------------------------------------------------- probability

    def probability(self, nodes: NDArray[np.floating], place: Place, pool: CovariatePool) -> NDArray[np.floating]:
        """Probability of a node or a label.

        Parameters
        ----------
        nodes
            Probability of each node of the tree, (n, n_nodes).
        place
            The node or the label.
        pool
            Training cells, by whose labels those of a leaf are known.
        """
        node, label = place
        if not label:
            return nodes[:, node]
        is_leaf = self.tree.is_leaf_mask
        shares = pool.label_shares(len(self.tree), len(self.labels)).cpu().numpy()
        return (nodes[:, is_leaf] @ shares[is_leaf, label - 1]).astype(np.float32)


class LatentTreePlaces(Places):
    """Nodes of a tree of latents: a cell is decoded like those of the leaf that was drawn for it."""

    def is_leaf(self, device: torch.device) -> torch.Tensor:
        """Which nodes of the tree are leaves, bool (n_nodes,)."""
        return torch.from_numpy(self.tree.is_leaf_mask.copy()).to(device)

    def leaves_decoded(self, where: Condition, latent: torch.Tensor) -> torch.Tensor:
        """The leaf that is the condition; where that is an inner node, the one in which the embedding lies."""
        return torch.where(self.is_leaf(latent.device)[where.node], where.node, self.leaves_of(latent))


class ClassPlaces(Places):
    """Classes at the leaves of a tree of classes, known by the numbers that these have there.

    Parameters
    ----------
    head
        The tree of classes.
    registered
        See :class:`Places`.
    """

    def __init__(self, head: ClassHead, registered: Iterable[object] = ()) -> None:
        self.classes = head.classes
        super().__init__(head, head.classes.classes, registered)
        self._numbers = head.numbers()

    @property
    def n_labels(self) -> int:
        """None: a class is the end of a path, and given as such."""
        return 0

    @property
    def numbers(self) -> torch.Tensor:
        """Number under which the generator knows each node, in tree order."""
        return self._numbers

    def named(self, name: object, argument: str) -> tuple[str, Place]:
        """See :meth:`Places.named`; the leaf of a class has the name of the class."""
        named, place = super().named(name, argument)
        return self.classes.labels[place[0]] or named, place

    def of(self, node: str | None, label: object | None) -> Place:
        """See :meth:`Places.of`; the place of a class is its leaf.

        Raises
        ------
        ValueError
            Also if the class is not below the node.
        """
        number, _ = super().of(node, label)
        if label is None:
            return number, 0
        own = self.classes.number_of(str(self.label_named(label)))
        if node is not None and not self.classes.below()[own, number]:
            msg = f"node={node!r}, label={label!r}: the class is not below the node. Give one of them."
            raise ValueError(msg)
        return own, 0

    def names_of(self, where: Condition, there: Place) -> tuple[NDArray[Any], bool]:
        """Names of the places of cells, those of classes where they are one, and whether the target is one."""
        tree = self.classes
        names = [label or name for label, name in zip(tree.labels, tree.names(), strict=True)]
        return np.asarray(names)[where.node.cpu().numpy()], bool(tree.labels[there[0]])

    def conditions_of(self, z: torch.Tensor, registered: torch.Tensor) -> Condition:
        """Node of the known label of each cell, else of the class that its latent is most likely of."""
        label = self.known_labels(registered)
        own = torch.tensor([0, *(self.classes.number_of(name) for name in self.labels)], device=z.device)
        return Condition(torch.where(label > 0, own[label], self.leaves_of(z)), torch.zeros_like(label))

    def leaves_decoded(self, where: Condition, latent: torch.Tensor) -> torch.Tensor:
        """The class that is the condition; where that is an inner node, the class in which the latent lies."""
        is_class = torch.tensor([bool(label) for label in self.classes.labels], device=latent.device)
        return torch.where(is_class[where.node], where.node, self.leaves_of(latent))

    def probability(self, nodes: NDArray[np.floating], place: Place, pool: CovariatePool) -> NDArray[np.floating]:
        """Probability of a node, which a class is as well."""
        return nodes[:, self.tree.index(self.classes.names()[place[0]])]
